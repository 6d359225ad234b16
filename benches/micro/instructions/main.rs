//! Instructions and allocations for each command, as callgrind counts them, held against `expected.txt`.
//!
//! `make instructions` runs it; `UPDATE=1` writes the file anew, `CASES="wal way"` counts those that begin so.
#![allow(clippy::print_stdout, reason = "it is a program that tells")]

mod callgrind;
mod cases;
mod table;

use std::env;
use std::error::Error;
use std::process::ExitCode;

use table::{Counted, Expected};

/// Says which case a process is to run, under callgrind.
const RUN: &str = "--run";

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    if let Some(RUN) = arguments.next().as_deref() {
        let name = arguments.next().unwrap_or_default();
        cases::run(&name).ok_or_else(|| format!("no case is called {name:?}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !callgrind::is_there() {
        println!("skipped: valgrind is not installed, which counts the instructions");
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = env::var("CASES").unwrap_or_default();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.split_whitespace().any(|start| name.starts_with(start));
    let mut counted = Vec::new();
    for (name, commands) in cases::all().into_iter().filter(|(name, _)| is_wanted(name)) {
        counted.push(Counted::new(name, commands, &callgrind::count(name)?));
    }
    let expected = Expected::read()?;
    println!("{}", expected.compare(&counted));
    if env::var("UPDATE").is_ok_and(|update| !update.is_empty()) {
        expected.write(&counted)?;
        return Ok(ExitCode::SUCCESS);
    }
    let problems = expected.problems(&counted);
    for problem in &problems {
        println!("{problem}");
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
