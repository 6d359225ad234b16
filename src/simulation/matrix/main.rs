//! `matrix`: tries the storage matrix on all cores, and tells what came of it by kind of case. With `EVERY=n` in the
//! environment it tries one case of n.
#![expect(clippy::print_stdout, reason = "it is a program that tells")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use graft_simulation::matrix::{Matrix, Share, Tally, VERDICTS};

/// Each piece of work is done in so many shares.
const SHARES: usize = 16;
/// Characters of a failure that are told.
const TOLD_MAX: usize = 1_500;

fn main() -> ExitCode {
    let begun = Instant::now();
    let matrix = match Matrix::prepare() {
        Ok(matrix) => matrix,
        Err(what) => {
            println!("BROKEN: without any misfortune: {what}");
            return ExitCode::FAILURE;
        }
    };
    let every: u64 = std::env::var("EVERY").ok().and_then(|every| every.parse().ok()).unwrap_or(1);
    let (next, all) = (AtomicUsize::new(0), Mutex::new(Tally::default()));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    if nth >= matrix.jobs() * SHARES {
                        return;
                    }
                    let share = Share { first: (nth % SHARES) as u64, every: every.max(1) * SHARES as u64 };
                    let tally = matrix.run(nth / SHARES, share);
                    let Ok(mut all) = all.lock() else { return };
                    all.add(tally);
                }
            });
        }
    });
    let Ok(all) = all.into_inner() else { return ExitCode::FAILURE };
    conclude(&all, begun.elapsed().as_secs_f64())
}

fn conclude(all: &Tally, took: f64) -> ExitCode {
    let heads = VERDICTS.map(|(_, name)| format!("{name:>10}")).join(" ");
    println!("{:<22} {:<28} {:>9} {heads}", "", "", "cases");
    for (part, kind, counts) in all.rows() {
        let verdicts = counts.map(|count| format!("{count:>10}")).join(" ");
        println!("{part:<22} {kind:<28} {:>9} {verdicts}", counts.iter().sum::<u64>());
    }
    let sums = VERDICTS.map(|(verdict, _)| format!("{:>10}", all.of(verdict))).join(" ");
    println!("{:<22} {:<28} {:>9} {sums}", "all", "", all.cases());
    println!("{} cases in {took:.1} s", all.cases());
    for failure in all.failures() {
        println!("BROKEN: {}", failure.chars().take(TOLD_MAX).collect::<String>());
    }
    println!("{}", if all.broken() == 0 { "all holds".to_owned() } else { format!("{} are broken", all.broken()) });
    ExitCode::from(u8::from(all.broken() > 0))
}
