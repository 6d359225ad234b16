//! What a node counts of its work, and how that is read: [`OpenMetrics`](https://openmetrics.io), one registry for each node.
//!
//! - [`Metrics`] is counted into where the work is done, a batch at a time: nothing here waits for anybody.
//! - [`Seen`] is what is looked at when somebody asks, rather than counted all the time.
//! - `http` serves the text on a connection.
//!
//! No label tells of users' data: members, and words out of a few. `docs/metrics.md` says what each metric means.

mod http;
mod seen;

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use graft_services::Notice;
use graft_services::error::{Outcome, Refusal};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub use http::{CONTENT_TYPE, serve};
use seen::Gauges;
pub use seen::Seen;

/// One label with a word out of a few.
type Words = [(&'static str, &'static str); 1];
type Counters = Family<Words, Counter>;

/// Why calls are refused by a node.
const REFUSALS: [&str; 14] = [
    "BUSY",
    "HALTED",
    "INVALID_CALL",
    "MEMBERSHIP_REFUSED",
    "NOT_LEADER",
    "NO_LEADER",
    "NO_QUORUM",
    "REMOVED",
    "SESSION_EXPIRED",
    "STOPPED",
    "STORAGE",
    "TIMEOUT",
    "TLS",
    "TOO_LARGE",
];
const SNAPSHOTS: [&str; 3] = ["written", "failed", "installed"];
const RELOADS: [&str; 2] = ["renewed", "refused"];

/// Everything that a node counts.
pub struct Metrics {
    registry: Registry,
    calls: Counter,
    refused_calls: Counters,
    unknown_calls: Counter,
    syncs: Histogram,
    written: Counter,
    applies: Histogram,
    applied: Counter,
    queried: Counter,
    leaders: Counter,
    elections: Counter,
    snapshots: Counters,
    lost_links: Counter,
    reloads: Counters,
    strangers: Counters,
    gauges: Mutex<Gauges>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut all = Registry::with_prefix("graft");
        let registry = &mut all;
        registry.register("build", "The program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        // From 8 µs, a cache, to 8 s, a disk that hangs; from 1 µs, a batch of one, to 4 s, a machine that hangs.
        let syncs = Histogram::new(exponential_buckets(8e-6, 2.0, 21));
        registry.register_with_unit(
            "log_sync",
            "Writes of the log, until they are durable",
            Unit::Seconds,
            syncs.clone(),
        );
        let applies = Histogram::new(exponential_buckets(1e-6, 4.0, 12));
        registry.register_with_unit("apply", "Batches of commands in the machine", Unit::Seconds, applies.clone());
        let written = Counter::default();
        registry.register_with_unit("log_written", "Entries made durable", Unit::Bytes, written.clone());
        Self {
            calls: counter(registry, "calls", "Calls made on this node"),
            refused_calls: counters(
                registry,
                "refused_calls",
                "Calls that were not done, by error code",
                "code",
                &REFUSALS,
            ),
            unknown_calls: counter(registry, "unknown_calls", "Calls of which it is not known whether they were done"),
            syncs,
            written,
            applies,
            applied: counter(registry, "applied_commands", "Commands that the machine applied"),
            queried: counter(registry, "queries", "Queries that the machine was asked"),
            leaders: counter(registry, "leader_changes", "Leaders that this node has followed, or been"),
            elections: counter(registry, "elections", "Elections in which this node was a candidate"),
            snapshots: counters(
                registry,
                "snapshots",
                "Snapshots of this node, by what became of them",
                "result",
                &SNAPSHOTS,
            ),
            lost_links: counter(registry, "lost_links", "Links to members that broke"),
            reloads: counters(
                registry,
                "certificate_reloads",
                "New certificates that were found, by what became of them",
                "result",
                &RELOADS,
            ),
            strangers: counters(
                registry,
                "refused",
                "Connections and calls refused for who makes them, by what they were",
                "what",
                // Told with their zeros by whoever counts them.
                &[],
            ),
            gauges: Mutex::new(Gauges::register(registry)),
            registry: all,
        }
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

/// One for each of these words, from 0: of a series that begins with its first count, a rate never sees that one.
fn counters(registry: &mut Registry, name: &str, help: &str, label: &'static str, words: &[&'static str]) -> Counters {
    let counters = Counters::default();
    for word in words {
        drop(counters.get_or_create(&[(label, *word)]));
    }
    registry.register(name, help, counters.clone());
    counters
}

impl Metrics {
    /// A write and its sync took so long, for entries of so many bytes.
    pub fn synced(&self, took: Duration, bytes: u64) {
        self.syncs.observe(took.as_secs_f64());
        self.written.inc_by(bytes);
    }

    /// The machine took so long for a batch of so many commands.
    pub fn applied(&self, took: Duration, commands: usize) {
        self.applies.observe(took.as_secs_f64());
        self.applied.inc_by(commands as u64);
    }

    pub fn queried(&self, queries: usize) {
        self.queried.inc_by(queries as u64);
    }

    /// So many calls were made.
    pub fn called(&self, calls: usize) {
        self.calls.inc_by(calls as u64);
    }

    /// A call was answered without the machine.
    pub fn ended(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Refused(refusal) => self.refused(refusal, 1),
            Outcome::Unknown { .. } => {
                self.unknown_calls.inc();
            }
            Outcome::Done { .. } | Outcome::Compared { .. } => {}
        }
    }

    pub fn refused(&self, refusal: &Refusal, calls: usize) {
        self.refused_calls.get_or_create(&[("code", refusal.code())]).inc_by(calls as u64);
    }

    /// Something happened that watchers are told of.
    pub fn noticed(&self, notice: &Notice) {
        match notice {
            Notice::Leader { leader: Some(_), .. } => {
                self.leaders.inc();
            }
            Notice::Role { role: "candidate", .. } => {
                self.elections.inc();
            }
            Notice::Link { connected: false, .. } => {
                self.lost_links.inc();
            }
            Notice::Snapshot { phase: phase @ ("written" | "failed" | "installed"), .. } => {
                self.snapshots.get_or_create(&[("result", phase)]).inc();
            }
            Notice::Certificate { phase: phase @ ("renewed" | "refused"), .. } => {
                self.reloads.get_or_create(&[("result", phase)]).inc();
            }
            _ => {}
        }
    }

    /// All of it as text, together with what is `seen` now.
    pub fn text(&self, seen: &Seen<'_>) -> String {
        // Nothing panics while it holds the lock, and whoever else asks is shown a picture of one moment too.
        let gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        gauges.show(seen);
        for (what, count) in &seen.refused {
            self.strangers.get_or_create(&[("what", *what)]).inner().store(*count, Ordering::Relaxed);
        }
        let mut text = String::with_capacity(8 << 10);
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
