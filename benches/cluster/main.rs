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
mod etcd;
mod graft_nodes;
mod limits;
mod load;
mod processes;

use std::time::Duration;

use load::{Kind, Load, Sample};
use processes::Usage;

/// Something that takes load.
trait Subject {
    fn name(&self) -> String;
    fn kinds(&self) -> &'static [Kind];
    fn run(&mut self, load: Load) -> Sample;
    /// The processes of its members.
    fn processes(&self) -> Vec<u32>;
}

struct Options {
    subjects: Vec<String>,
    depths: Vec<usize>,
    members: usize,
    bytes: usize,
    time: Duration,
    rounds: usize,
}

const USAGE: &str = "cluster [--subjects bare,graft,follower,remote,tls,tls-remote,etcd] [--depths 1,64,256,1024] [--members 3] \
                     [--bytes 128] [--seconds 2] [--rounds 1]";

fn options(mut arguments: impl Iterator<Item = String>) -> Options {
    let mut options = Options {
        subjects: ["bare", "graft", "follower", "remote", "tls", "tls-remote", "etcd"].map(str::to_owned).to_vec(),
        depths: vec![1, 64, 256, 1024],
        members: 3,
        bytes: 128,
        time: Duration::from_secs(2),
        rounds: 1,
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
            "--depths" => options.depths = list().map(|depth| depth.parse().expect(USAGE)).collect(),
            "--members" => options.members = value.parse().expect(USAGE),
            "--bytes" => options.bytes = value.parse().expect(USAGE),
            "--seconds" => options.time = Duration::from_secs_f64(value.parse().expect(USAGE)),
            "--rounds" => options.rounds = value.parse().expect(USAGE),
            _ => panic!("{flag} is unknown: {USAGE}"),
        }
    }
    options
}

fn subjects(options: &Options) -> Vec<Box<dyn Subject>> {
    let wanted = |name: &str| options.subjects.iter().any(|subject| subject == name);
    let mut subjects: Vec<Box<dyn Subject>> = Vec::new();
    if wanted("bare") {
        subjects.push(Box::new(bare::Bared::start(options.members)));
    }
    for (names, is_secured) in [(&["graft", "follower", "remote"][..], false), (&["tls", "tls-remote"][..], true)] {
        let graft: Vec<&str> = names.iter().copied().filter(|name| wanted(name)).collect();
        subjects.extend(graft_nodes::subjects(&graft, options.members, is_secured));
    }
    if wanted("etcd") {
        match etcd::Etcd::start(options.members) {
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
    let mut subjects = subjects(&options);
    for round in 0..options.rounds {
        limits::print(round, options.bytes);
        for depth in &options.depths {
            for subject in &mut subjects {
                for kind in subject.kinds() {
                    let load = Load { kind: *kind, depth: *depth, time: options.time, bytes: options.bytes };
                    measure(subject.as_mut(), load, round, options.members);
                }
            }
        }
    }
}

/// Runs one load and prints what it took.
fn measure(subject: &mut dyn Subject, load: Load, round: usize, members: usize) {
    // So that a queue that the run before left behind is not measured.
    subject.run(Load { time: load.time.min(Duration::from_millis(100)), ..load });
    let processes = subject.processes();
    let before = Usage::of_all(&processes);
    let sample = subject.run(load);
    let used = Usage::of_all(&processes).since(&before);
    let calls = (sample.calls.max(1)) as f64;
    println!(
        concat!(
            r#"{{"subject":"{}","kind":"{}","round":{},"members":{},"bytes":{},"depth":{},"calls":{},"rate":{:.1},"#,
            r#""p50_us":{:.1},"p99_us":{:.1},"p999_us":{:.1},"cpu_us":{:.2},"written_bytes":{:.1},"rss_mib":{:.1}}}"#
        ),
        subject.name(),
        load.kind.name(),
        round,
        members,
        load.bytes,
        load.depth,
        sample.calls,
        calls / sample.elapsed.as_secs_f64(),
        sample.p50.as_secs_f64() * 1e6,
        sample.p99.as_secs_f64() * 1e6,
        sample.p999.as_secs_f64() * 1e6,
        used.cpu.as_secs_f64() * 1e6 / calls,
        used.written_bytes as f64 / calls,
        used.resident_bytes as f64 / f64::from(1 << 20),
    );
}
