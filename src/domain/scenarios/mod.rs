//! Golden transcripts: each `*.txt` here is a story in commands (`> deliver all`) with what happens under each.
//!
//! The test plays every story, checks the whole cluster after every step, and compares. After a wanted change of behaviour
//! `UPDATE_SCENARIOS=1 cargo test -p graft-domain scenarios` writes the transcripts anew; read the diff before believing it.
//! `SCENARIO=election` plays that one alone.

mod change;
mod command;
mod script;
mod stage;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use std::path::{Path, PathBuf};
use std::{env, eprintln, fs, println, thread};

use script::Script;
use stage::Stage;

fn stories() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let entries = fs::read_dir(directory).expect("the stories are beside this file");
    let paths = entries.map(|entry| entry.expect("a directory that can be read").path());
    let mut stories: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|e| e == "txt")).collect();
    stories.sort();
    stories
}

/// Says where a story was when something panicked.
struct Place(String);

impl Drop for Place {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("at {}", self.0);
        }
    }
}

/// Plays a script from an empty stage and writes down what happens.
fn play(name: &str, script: &Script) -> Script {
    let mut stage = Stage::new();
    let mut played = script.clone();
    for step in played.steps_mut() {
        let place = Place(format!("{name}:{} > {}", step.line, step.command));
        stage.world.name.clone_from(&place.0);
        step.output = stage.perform(&step.command);
    }
    played
}

#[test]
fn every_transcript_is_what_happens() {
    let update = env::var("UPDATE_SCENARIOS").is_ok();
    let mut wrong = String::new();
    let stories = stories();
    assert!(stories.len() > 50, "the stories are not where they should be");
    for path in stories {
        let wanted = env::var("SCENARIO").ok();
        if wanted.is_some_and(|wanted| path.file_stem().is_none_or(|stem| stem.to_string_lossy() != *wanted)) {
            continue;
        }
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let text = fs::read_to_string(&path).expect("a story that can be read");
        let script = Script::parse(&text);
        let played = play(&name, &script);
        if update && played.text() != text {
            println!("{name} is written anew");
            fs::write(&path, played.text()).expect("a story that can be written");
        } else if !update {
            wrong.push_str(&script.difference(&played, &name));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}\n(- as written, + as it happens; UPDATE_SCENARIOS=1 writes it anew)");
}

#[test]
fn a_difference_is_shown_where_it_is() {
    let written = Script::parse("# Title\n> status\none\ntwo\nthree\n\n> heal\n");
    let mut happened = written.clone();
    assert_eq!(written.difference(&happened, "x.txt"), "");
    for step in happened.steps_mut() {
        step.output = step.output.iter().map(|line| line.replace("two", "2")).collect();
    }
    assert_eq!(written.difference(&happened, "x.txt"), "x.txt:2 > status\n  one\n- two\n+ 2\n  three\n");
    assert_eq!(happened.text(), "# Title\n> status\none\n2\nthree\n\n> heal\n");
}
