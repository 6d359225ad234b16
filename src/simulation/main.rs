//! `simulate`: plays seeds on all cores, or one seed and its story.
//!
//! Settings come from the environment, as `make simulate` passes them: `SEEDS` (how many), `FIRST` (from which on), `SEED`
//! (that one, told), `LYING=1` (syncs are lies), `QUICK=1` (a broken seed is named and not
//! shrunk).
#![expect(clippy::print_stdout, reason = "it is a program that tells")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use graft_simulation::{Coverage, Report, Twist, run, shrink};

/// From so many seeds on everything that can happen must have happened.
const SEEDS_THAT_MEET_ALL: u64 = 1_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn main() -> ExitCode {
    let twist = Twist { lying: number("LYING") == Some(1), horizon: number("HORIZON"), ..Twist::default() };
    if let Some(seed) = number("SEED") {
        return tell(&run(seed, &Twist { told: true, ..twist }));
    }
    play(number("FIRST").unwrap_or(0), number("SEEDS").unwrap_or(2_000), &twist)
}

#[expect(clippy::cast_precision_loss, reason = "nobody plays so many")]
fn per_minute(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds * 60.0
}

fn tell(report: &Report) -> ExitCode {
    println!("{:#?}", report.mix);
    report.story.iter().for_each(|line| println!("{line}"));
    println!("seed {}: transcript {:016x}, {} happenings", report.seed, report.hash, report.happenings);
    match &report.broken {
        Some(why) => println!("BROKEN: {why}"),
        None => println!("all holds"),
    }
    ExitCode::from(u8::from(report.broken.is_some()))
}

/// What all cores have found.
#[derive(Default)]
struct Found {
    coverage: Coverage,
    happenings: u64,
    seconds: f64,
    broken: Vec<(u64, String)>,
}

fn play(first: u64, count: u64, twist: &Twist) -> ExitCode {
    let (next, found, begun) = (AtomicU64::new(0), Mutex::new(Found::default()), Instant::now());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    if nth >= count {
                        return;
                    }
                    let report = run(first + nth, twist);
                    let Ok(mut found) = found.lock() else { return };
                    found.coverage.add(&report.coverage);
                    found.happenings += report.happenings;
                    found.seconds += report.lasted.as_secs_f64();
                    if let Some(why) = report.broken {
                        println!("seed {}: BROKEN: {why}", report.seed);
                        found.broken.push((report.seed, why));
                    }
                    if (nth + 1).is_multiple_of(500) {
                        let took = begun.elapsed().as_secs_f64();
                        println!("{} of {count} seeds, {:.0} a minute", nth + 1, per_minute(nth + 1, took));
                    }
                }
            });
        }
    });
    let Ok(found) = found.into_inner() else { return ExitCode::FAILURE };
    conclude(&found, count, begun.elapsed().as_secs_f64(), twist)
}

fn conclude(found: &Found, count: u64, took: f64, twist: &Twist) -> ExitCode {
    println!("\nwhat happened in {count} worlds:");
    found.coverage.all().for_each(|(what, times)| println!("{times:>12}  {what}"));
    println!(
        "\n{count} seeds in {took:.1} s ({:.0} a minute), {:.0} simulated seconds ({:.0} times as fast), {} happenings",
        per_minute(count, took),
        found.seconds,
        found.seconds / took,
        found.happenings,
    );
    let missing = found.coverage.missing();
    if count >= SEEDS_THAT_MEET_ALL && !missing.is_empty() {
        println!("never happened: {}", missing.join(", "));
    }
    let mut broken: Vec<_> = found.broken.iter().collect();
    broken.sort();
    if let Some((seed, why)) = broken.first() {
        println!("{} seeds are broken; the first: {why}", broken.len());
        if number("QUICK") == Some(1) {
            return ExitCode::FAILURE;
        }
        let smaller = shrink(*seed, twist);
        let report = run(*seed, &Twist { told: true, ..smaller.clone() });
        println!("the smallest world of seed {seed} in which something does not hold: {smaller:?}");
        tell(&report);
        println!("again: make simulate SEED={seed}");
        return ExitCode::FAILURE;
    }
    println!("all holds");
    ExitCode::from(u8::from(count >= SEEDS_THAT_MEET_ALL && !missing.is_empty()))
}
