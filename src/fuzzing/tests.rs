//! The corpus is what the samples say and more; all of it is tried, and what a seed makes of it.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use crate::mutate::Mutator;
use crate::{Sample, TARGETS, Target, run};

/// Inputs made of the corpus of each target, beside the corpus itself; `MUTATIONS=` says otherwise.
const MUTATIONS: u64 = 2000;
/// The same for targets whose inputs are long stories.
const STORIES: u64 = 400;
/// Of the first of them; `SEED=` says otherwise.
const SEED: u64 = 1;
/// Bytes of one file, and of all.
const FILE_BYTES_MAX: usize = 8 << 10;
const CORPUS_BYTES_MAX: usize = 300 << 10;

fn corpus(target: &Target) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target.name)
}

fn files(target: &Target) -> BTreeMap<String, Vec<u8>> {
    let directory = corpus(target);
    let listed = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let paths = listed.map(|item| item.unwrap().path());
    paths.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())).collect()
}

fn number(name: &str, default: u64) -> u64 {
    // What is empty is not set: make hands all of its own on.
    let said = env::var(name).ok().filter(|text| !text.is_empty());
    said.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// `UPDATE_CORPUS=1` writes the samples that are not there as they are said.
#[test]
fn the_corpus_begins_with_real_examples() {
    let update = env::var("UPDATE_CORPUS").is_ok_and(|value| value == "1");
    let mut total = 0;
    for target in TARGETS {
        if update {
            fs::create_dir_all(corpus(target)).unwrap();
            let is_kept = |sample: &Sample| sample.is_made_anew && corpus(target).join(&sample.name).exists();
            for sample in (target.samples)().into_iter().filter(|sample| !is_kept(sample)) {
                fs::write(corpus(target).join(&sample.name), &sample.bytes).unwrap();
            }
        }
        let files = files(target);
        for sample in (target.samples)() {
            let kept = files.get(&sample.name);
            let same = kept.is_some_and(|kept| sample.is_made_anew || *kept == sample.bytes);
            assert!(same, "{}/{} is another than the code makes: UPDATE_CORPUS=1", target.name, sample.name);
        }
        for (name, bytes) in files {
            assert!(bytes.len() <= FILE_BYTES_MAX, "{}/{name} has {} bytes", target.name, bytes.len());
            total += bytes.len();
        }
    }
    assert!(total <= CORPUS_BYTES_MAX, "the corpus has {total} bytes");
}

/// Tries one target's corpus and what is made of it. Of an input that fails the bytes are shown.
fn replay(name: &str, mutations: u64) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let corpus = files(target);
    for (file, bytes) in &corpus {
        attempt(target, bytes, &format!("corpus/{name}/{file}"));
    }
    let corpus: Vec<Vec<u8>> = corpus.into_values().collect();
    let first = number("SEED", SEED);
    for seed in first..first + number("MUTATIONS", mutations) {
        let bytes = Mutator::new(seed).next(&corpus);
        attempt(target, &bytes, &format!("{name}, SEED={seed} MUTATIONS=1"));
    }
}

fn attempt(target: &Target, bytes: &[u8], what: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(target.name, bytes))) {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
        panic!("{what}: {said}\nof {bytes:?}");
    }
}

macro_rules! replayed {
    ($($test:ident $name:literal $mutations:ident),*) => {$(
        #[test]
        fn $test() {
            replay($name, $mutations);
        }
    )*};
}
replayed!(
    what_is_said_again_is_the_same "calls" MUTATIONS,
    no_certificate_panics "certificates" MUTATIONS,
    messages_out_of_turn_break_no_core "cluster" STORIES,
    no_setting_panics "config" MUTATIONS,
    no_table_and_no_command_panics "formats" MUTATIONS,
    no_log_panics "log" MUTATIONS,
    no_batch_of_a_peer_panics "peer" STORIES,
    no_snapshot_panics "snapshot" MUTATIONS,
    no_call_is_answered_twice "use_cases" STORIES
);

#[test]
fn every_target_is_replayed_and_has_its_program() {
    let (source, fuzz) = (include_str!("tests.rs"), PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz"));
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for Target { name, .. } in TARGETS {
        assert!(source.contains(&format!(" \"{name}\"")), "{name} is not replayed");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} has no program");
        let program = fs::read_to_string(fuzz.join(format!("targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("run(\"{name}\"")), "the program of {name} runs another");
    }
}
