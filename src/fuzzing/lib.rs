//! What is done with foreign bytes when they are tried, one body for each parser: `make fuzz` lets a fuzzer look for bytes
//! that break one, and the tests here try the corpus in `fuzz/corpus` and what a seed makes of it. `docs/fuzzing.md` says how.
//!
//! A body takes any bytes and panics if something that must hold does not. What bytes mean is up to it: where a checksum
//! would keep everything out, they say what is under it.
#![forbid(unsafe_code)]
#![expect(
    clippy::panic,
    reason = "a body that finds something wrong says so by a panic: that is what a fuzzer looks for"
)]

mod calls;
mod certificates;
mod cluster;
mod config;
mod echo;
mod formats;
mod input;
mod log;
mod memory;
mod node;
mod peer;
mod samples;
mod script;
mod snapshot;
mod use_cases;

#[cfg(test)]
mod mutate;
#[cfg(test)]
mod tests;

pub use samples::Sample;

/// One parser, or a few that go together.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Of the directory of its corpus, and of its program in `fuzz/targets`.
    pub name: &'static str,
    /// Tries one input.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub samples: fn() -> Vec<Sample>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "calls", run: calls::run, samples: calls::samples },
    Target { name: "certificates", run: certificates::run, samples: certificates::samples },
    Target { name: "cluster", run: cluster::run, samples: cluster::samples },
    Target { name: "config", run: config::run, samples: config::samples },
    Target { name: "formats", run: formats::run, samples: formats::samples },
    Target { name: "log", run: log::run, samples: log::samples },
    Target { name: "peer", run: peer::run, samples: peer::samples },
    Target { name: "snapshot", run: snapshot::run, samples: snapshot::samples },
    Target { name: "use_cases", run: use_cases::run, samples: use_cases::samples },
];

/// Tries one input of the target of this name.
///
/// # Panics
/// If something that must hold does not, or there is no such target.
pub fn run(target: &str, bytes: &[u8]) {
    let found = TARGETS.iter().find(|known| known.name == target);
    let found = found.unwrap_or_else(|| panic!("there is no target {target}"));
    (found.run)(bytes);
}
