//! `exhaustive`: searches all scenarios, or one.
//!
//! Settings come from the environment, as `make exhaustive` passes them: `STATES` (how many different ones of each at most),
//! `MODEL` (that one only), `THREADS` (all cores unless said), `LYING=1` (disks lie, which
//! has to be found out).
#![expect(clippy::print_stdout, reason = "it is a program that tells")]

use std::process::ExitCode;

use graft_exhaustive::{Report, all, run};

fn number(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.parse().ok()
}

fn main() -> ExitCode {
    let states = number("STATES").unwrap_or(4_000_000);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = number("THREADS").unwrap_or(cores);
    let only = std::env::var("MODEL").unwrap_or_default();
    let chosen: Vec<_> = all().into_iter().filter(|scenario| only.is_empty() || scenario.name == only).collect();
    if chosen.is_empty() {
        println!("there is no model {only}: {}", all().iter().map(|s| s.name).collect::<Vec<_>>().join(", "));
        return ExitCode::from(2);
    }
    let lying = number("LYING") == Some(1);
    let mut holds = true;
    for scenario in chosen {
        let scenario = if lying { scenario.lying() } else { scenario };
        println!("{}: {}", scenario.name, scenario.about);
        let report =
            run(scenario, states, threads, |unique, depth| println!("    {unique} states, {depth} actions deep"));
        tell(&report);
        holds &= report.holds();
    }
    println!("{}", if holds { "all holds" } else { "NOT all holds" });
    ExitCode::from(u8::from(!holds))
}

#[expect(clippy::cast_precision_loss, reason = "nobody waits for so many")]
fn tell(report: &Report) {
    let seconds = report.took.as_secs_f64();
    println!(
        "    {} different states of {} come to, {} actions deep, in {seconds:.1} s ({:.0} a second){}",
        report.unique,
        report.generated,
        report.depth.saturating_sub(1),
        report.unique as f64 / seconds,
        if report.complete { ": all there are" } else { "" },
    );
    let (members, messages, pasts) = report.variety;
    println!("    of {members} different members, {messages} messages, {pasts} pasts; {}", memory());
    for (what, steps) in &report.reached {
        match steps {
            Some(steps) => println!("    {what}: after {steps} actions"),
            None => println!("    NEVER REACHED: {what}"),
        }
    }
    if let Some((rule, story)) = &report.broken {
        println!("    DOES NOT HOLD: {rule}");
        for line in story {
            println!("    {line}");
        }
    }
}

/// The most memory that was used so far, where the system tells.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.map_or_else(String::new, |peak| format!("at most {} of memory", peak.trim()))
}
