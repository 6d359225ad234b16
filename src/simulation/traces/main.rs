//! `traces`: writes what happens in simulated worlds as behaviours, for `make tla` to hold them against the specification.
//!
//! Settings come from the environment: `TRACES` (how many), `FIRST` (from which seed on), `LINES` (at most, of each). The
//! argument is the directory to write to: `T7.tla` and `T7.cfg` for seed 7.
#![expect(clippy::print_stdout, reason = "it is a program that tells")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{env, fs, io};

use graft_simulation::behaviour;

/// What every trace is checked with.
const CONFIGURATION: &str = "\
CONSTANTS
  Nobody = \"\"
  Command = {}
  Server <- TheServers
  Founding <- TheFounding
  Trace <- TheTrace
  IsStep <- Anything
INIT TraceInit
NEXT TraceNext
INVARIANTS ElectionSafety LeaderCompleteness CommittedIsDurable
CHECK_DEADLOCK TRUE
";

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

fn main() -> io::Result<()> {
    let directory = env::args().nth(1).map_or_else(|| PathBuf::from("target/traces"), PathBuf::from);
    let (count, lines_max) = (number("TRACES").unwrap_or(24), number("LINES").unwrap_or(400));
    let lines_max = usize::try_from(lines_max).unwrap_or(usize::MAX);
    fs::create_dir_all(&directory)?;
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    let (mut seed, mut written, mut lines) = (number("FIRST").unwrap_or(0), 0, 0);
    while written < count {
        let name = format!("T{seed}");
        if let Some(behaviour) = behaviour(seed, &name, lines_max) {
            fs::write(directory.join(format!("{name}.tla")), behaviour.module)?;
            fs::write(directory.join(format!("{name}.cfg")), CONFIGURATION)?;
            if let Some(why) = behaviour.broken {
                println!("seed {seed}: BROKEN: {why}");
            }
            written += 1;
            lines += behaviour.lines;
            for (event, times) in behaviour.events {
                *told.entry(event).or_default() += times;
            }
        }
        seed += 1;
    }
    let told: Vec<String> = told.into_iter().map(|(event, times)| format!("{times} {event}")).collect();
    println!("{written} traces, {lines} lines: {}", told.join(", "));
    Ok(())
}
