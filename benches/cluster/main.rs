//! What a replicated command costs, beside what it cannot do without and beside etcd, in one run: clusters of three real
//! processes on loopback, each on this machine's disk.
//!
//! `make bench` builds and runs it and makes a table of what it prints: a line of JSON for each subject, depth and round.
//! Rounds are interleaved, so that the mood of the machine meets all subjects alike. Ratios within a round are what counts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a program for people, which may fail loudly"
)]

mod bare;
mod disk;
mod etcd;
mod graft_nodes;
mod limits;
mod load;
mod processes;
mod times;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use load::{Counts, Kind, Load, Sample};
use processes::{Usage, device_bytes};

/// Something that takes load.
trait Subject {
    fn name(&self) -> String;
    fn kinds(&self) -> &'static [Kind];

    /// Whether all others are held against it, whatever kinds are wanted.
    fn is_limit(&self) -> bool {
        false
    }

    fn run(&mut self, load: Load) -> Sample;

    /// The processes of its members.
    fn processes(&self) -> Vec<u32>;

    /// What its members count, together.
    fn counts(&mut self) -> Option<Counts> {
        None
    }
}

struct Options {
    subjects: Vec<String>,
    kinds: Vec<Kind>,
    depths: Vec<usize>,
    members: usize,
    bytes: Vec<usize>,
    time: Duration,
    rounds: usize,
    directory: PathBuf,
}

const SUBJECTS: &str = "sync,syncs,echo,call,bare,graft,follower,remote,tls,tls-remote,etcd";
const USAGE: &str = "cluster [--subjects sync,syncs,echo,call,bare,graft,follower,remote,tls,tls-remote,etcd] \
                     [--kinds command,linearizable,lease,stale,mixed] [--depths 1,64,256,1024] [--members 3] [--bytes 128] \
                     [--seconds 2] [--rounds 1] [--directory target]";

fn options(mut arguments: impl Iterator<Item = String>) -> Options {
    let mut options = Options {
        subjects: SUBJECTS.split(',').map(str::to_owned).collect(),
        kinds: Kind::ALL.to_vec(),
        depths: vec![1, 64, 256, 1024],
        members: 3,
        bytes: vec![128],
        time: Duration::from_secs(2),
        rounds: 1,
        directory: "target".into(),
    };
    while let Some(flag) = arguments.next() {
        // cargo adds it.
        if flag == "--bench" {
            continue;
        }
        let value = arguments.next().unwrap_or_else(|| panic!("{flag} needs a value: {USAGE}"));
        let list = || value.split(',').map(str::to_owned);
        match flag.as_str() {
            "--subjects" => options.subjects = list().collect(),
            "--kinds" => options.kinds = list().map(|kind| Kind::of(&kind).expect(USAGE)).collect(),
            "--directory" => options.directory = value.into(),
            "--depths" => options.depths = list().map(|depth| depth.parse().expect(USAGE)).collect(),
            "--members" => options.members = value.parse().expect(USAGE),
            "--bytes" => options.bytes = list().map(|bytes| bytes.parse().expect(USAGE)).collect(),
            "--seconds" => options.time = Duration::from_secs_f64(value.parse().expect(USAGE)),
            "--rounds" => options.rounds = value.parse().expect(USAGE),
            _ => panic!("{flag} is unknown: {USAGE}"),
        }
    }
    options
}

fn subjects(options: &Options, directory: &Path) -> Vec<Box<dyn Subject>> {
    let wanted = |name: &str| options.subjects.iter().any(|subject| subject == name);
    let mut subjects: Vec<Box<dyn Subject>> = Vec::new();
    if wanted("sync") {
        subjects.push(Box::new(limits::Wal::new(directory, 1)));
    }
    if wanted("syncs") {
        subjects.push(Box::new(limits::Wal::new(directory, options.members)));
    }
    if wanted("echo") {
        subjects.push(Box::new(limits::Echo::start()));
    }
    if wanted("call") {
        subjects.push(Box::new(limits::Unary::start()));
    }
    if wanted("bare") {
        subjects.push(Box::new(bare::Bared::start(options.members, directory)));
    }
    for (names, is_secured) in [(&["graft", "follower", "remote"][..], false), (&["tls", "tls-remote"][..], true)] {
        let graft: Vec<&str> = names.iter().copied().filter(|name| wanted(name)).collect();
        subjects.extend(graft_nodes::subjects(&graft, options.members, is_secured, directory));
    }
    if wanted("etcd") {
        match etcd::Etcd::start(options.members, directory) {
            Ok(etcd) => subjects.push(Box::new(etcd)),
            Err(why) => eprintln!("etcd is left out: {why}"),
        }
    }
    subjects
}

fn main() {
    let mut arguments = std::env::args().skip(1).peekable();
    match arguments.peek().map(String::as_str) {
        Some("graft-node") => return graft_nodes::member(arguments.skip(1)),
        Some("bare-leader") => return bare::leader(arguments.skip(1)),
        Some("bare-follower") => return bare::follower(arguments.skip(1)),
        _ => {}
    }
    let options = options(arguments);
    let directory = tempfile::tempdir_in(&options.directory).unwrap();
    let mut subjects = subjects(&options, directory.path());
    let depths = |bytes| options.depths.iter().map(move |depth| (bytes, *depth));
    let places: Vec<(usize, usize)> = options.bytes.iter().flat_map(|bytes| depths(*bytes)).collect();
    for round in 0..options.rounds {
        for (bytes, depth) in &places {
            for subject in &mut subjects {
                let wanted = |kind: &&Kind| subject.is_limit() || options.kinds.contains(kind);
                for kind in subject.kinds().iter().filter(wanted).copied().collect::<Vec<_>>() {
                    let load = Load { kind, depth: *depth, time: options.time, bytes: *bytes };
                    measure(subject.as_mut(), load, round, &options);
                }
            }
        }
    }
}

/// Runs one load and prints what it took.
fn measure(subject: &mut dyn Subject, load: Load, round: usize, options: &Options) {
    // So that a queue that the run before left behind is not measured.
    subject.run(Load { time: load.time.min(Duration::from_millis(100)), ..load });
    let processes = subject.processes();
    let (counted, before) = (subject.counts(), Usage::of_all(&processes));
    let (own, written) = (Usage::of_all(&[std::process::id()]), device_bytes(&options.directory));
    let sample = subject.run(load);
    let used = Usage::of_all(&processes).since(&before);
    let own = Usage::of_all(&[std::process::id()]).since(&own);
    let calls = (sample.calls.max(1)) as f64;
    // What is not counted is not made up.
    let mut counts = String::new();
    if let (Some(before), Some(after)) = (written, device_bytes(&options.directory)) {
        write!(counts, r#","written_bytes":{:.1}"#, (after - before) as f64 / calls).unwrap();
    }
    if let (Some(before), Some(after)) = (counted, subject.counts()) {
        write!(counts, r#","syncs":{:.5}"#, (after.syncs - before.syncs) as f64 / calls).unwrap();
        write!(counts, r#","counted_bytes":{:.1}"#, (after.bytes - before.bytes) as f64 / calls).unwrap();
    }
    println!(
        concat!(
            r#"{{"subject":"{}","kind":"{}","round":{},"members":{},"bytes":{},"depth":{},"calls":{},"rate":{:.1},"#,
            r#""p50_us":{:.1},"p99_us":{:.1},"p999_us":{:.1},"cpu_us":{:.2},"bench_cpu_us":{:.2},"rss_mib":{:.1}{}}}"#
        ),
        subject.name(),
        load.kind.name(),
        round,
        options.members,
        load.bytes,
        load.depth,
        sample.calls,
        calls / sample.elapsed.as_secs_f64(),
        sample.p50.as_secs_f64() * 1e6,
        sample.p99.as_secs_f64() * 1e6,
        sample.p999.as_secs_f64() * 1e6,
        used.cpu.as_secs_f64() * 1e6 / calls,
        own.cpu.as_secs_f64() * 1e6 / calls,
        used.resident_bytes as f64 / f64::from(1 << 20),
        counts,
    );
}
