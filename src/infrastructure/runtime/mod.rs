//! The composition root: makes a node of its parts, starts their threads and takes them down again.
//!
//! Threads of control with no lock shared with user code: the event loop, the store, the machine, and whoever writes
//! snapshots. The transport runs beside them on tokio. A stuck machine delays neither a heartbeat nor a vote nor a sync.

mod backup;
mod beginning;
mod calls;
mod client;
mod clock;
mod door;
mod door_queue;
mod doubt;
mod engine;
mod events;
mod faults;
mod fitness;
mod front;
mod hub;
mod inbox;
mod machine_worker;
mod metering;
pub mod offline;
mod parts;
mod peers;
mod renewal;
mod requests;
mod ring;
mod security;
mod snapshot_worker;
mod start;
mod store_worker;
mod threads;
mod wakes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{EntryId, Index, Term};
use graft_services::api::{Api, Call, News, Reader, SnapshotPart, Then, View, Wake, Watch};
use graft_services::change::{Ask, Change};
use graft_services::ports::{Halt, StoreError};
use graft_services::{Read, Replica, Status, WhatIf};

pub use backup::backup;
pub use calls::{Caller, Sink, Waiting, until};
pub use client::{Client, ClientConfig};
pub use events::{Happening, Happenings};
pub use faults::{Faults, LinkFault};
#[cfg(feature = "python")]
pub(crate) use machine_worker::panic_words;

pub use crate::infrastructure::config::{BadConfig, NodeConfig, cluster_id};
pub use crate::infrastructure::grpc::BindError;
pub use crate::infrastructure::tls::{Authority, Pem, Source, TlsError};

/// Certificates in files, for whoever makes and tries them.
pub mod certificates {
    pub use crate::infrastructure::tls::{
        Certificate, Depot, Endpoint, Files, Names, SecuredStream, certificates, date,
    };
}

use door::Doorkeeper;
use front::Front;
use metering::Metering;
use parts::Ending;

/// A running node. It is asked through [`Api`]; what is here besides is for those who wait for an answer in place.
#[derive(Debug)]
pub struct Node {
    address: String,
    front: Arc<Front>,
    doorkeeper: Arc<Doorkeeper>,
    ending: Arc<Ending>,
    faults: Arc<Faults>,
    metering: Arc<Metering>,
    metrics_address: Option<SocketAddr>,
}

/// Why a node did not start. Nothing of it is left running.
#[derive(Debug)]
pub enum StartError {
    Config(BadConfig),
    Bind(BindError),
    /// The certificates cannot be used.
    Tls(TlsError),
    /// There are none, what is said would leave this machine, and nobody said that this is meant.
    Insecure(String),
    /// An earlier start was shown that this node should not have founded its cluster.
    Contradicted(String),
    Store(StoreError),
    /// The machine could not open its own state.
    Machine(Halt),
    Io {
        doing: &'static str,
        error: std::io::Error,
    },
}

impl Node {
    /// What other members dial, with the port that was really taken.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What the network gets of this node: the same, behind its machine's door.
    pub fn doorkeeper(&self) -> Arc<dyn Api> {
        Arc::<Doorkeeper>::clone(&self.doorkeeper)
    }

    /// What the node says of itself: after every event that reached it before, or, should the engine be busy for longer than
    /// a moment, what it said last.
    pub fn status(&self) -> Status {
        self.front.status()
    }

    /// What stands in the way of work, in sentences; nothing if all is well. None if the engine is gone or busy.
    pub fn why(&self) -> Option<Vec<String>> {
        self.front.look_now(Replica::why)
    }

    /// What the cluster would be after a change. None if the engine is gone or busy.
    pub fn outlook(&self, change: Change) -> Option<WhatIf> {
        self.front.look_now(move |replica| replica.what_if(&change))
    }

    /// The terms of the newest entries in the log, at most `count` of them, oldest first; where an entry is missing, they begin
    /// behind it. None if the engine is gone or busy.
    pub fn newest_terms(&self, count: u64) -> Option<Vec<(Index, Term)>> {
        self.front.look_now(move |replica| {
            let core = replica.core();
            let last = core.last().index.0;
            let entries = (last.saturating_sub(count) + 1..=last).filter_map(|index| core.entry(Index(index)));
            entries.map(|entry| (entry.index, entry.term)).collect()
        })
    }

    /// What happened after the event of number `since`, after waiting for one at most so long.
    pub fn happenings(&self, since: u64, timeout: Duration) -> Happenings {
        self.front.events.after(since, timeout)
    }

    /// What it counts of its work, as `OpenMetrics` wants it.
    pub fn metrics(&self) -> String {
        self.metering.text()
    }

    /// Where that is served, with the port that was really taken; none if it is not.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// What may be done to this node on purpose, to see how its cluster bears it. The network cannot ask for it.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Hands leadership over, answers everyone, and takes the node down. False if something, the user's code most likely, did
    /// not end within the timeout and was left behind. Stopping again does nothing; stopping what [`Api::shutdown`] takes down
    /// waits for that.
    pub fn stop(&self, timeout: Duration) -> bool {
        self.ending.stop(timeout)
    }

    /// As if the process were killed: nothing is handed over, and no write that waits is done.
    pub fn kill(&self, timeout: Duration) -> bool {
        self.ending.kill(timeout)
    }
}

impl Api for Node {
    fn execute(&self, calls: Vec<Call>, timeout: Duration) {
        self.front.execute(calls, timeout);
    }

    fn query(&self, queries: Vec<(Bytes, Caller)>, read: Read, timeout: Duration) {
        self.front.query(queries, read, timeout);
    }

    fn open_session(&self, ttl: Option<Duration>, caller: Caller, timeout: Duration) {
        self.front.open_session(ttl, caller, timeout);
    }

    fn ask(&self, ask: Ask, caller: Caller, timeout: Duration) {
        self.front.ask(ask, caller, timeout);
    }

    fn snapshot(&self, current: bool, caller: Caller, timeout: Duration) {
        self.front.snapshot(current, caller, timeout);
    }

    fn read_snapshot(&self, from: Option<(EntryId, u64)>, then: Then<SnapshotPart>) {
        self.front.read_snapshot(from, then);
    }

    fn verify(&self, caller: Caller, timeout: Duration) {
        self.front.verify(caller, timeout);
    }

    fn view(&self, then: Then<View>) {
        self.front.view(then);
    }

    fn what_if(&self, change: Change, then: Then<WhatIf>) {
        self.front.what_if(change, then);
    }

    fn watch(&self, watch: Watch, wake: Wake) -> Box<dyn Reader<News>> {
        self.front.watch(watch, wake)
    }

    fn events(&self, since: Option<u64>, wake: Wake) -> Box<dyn Reader<Happening>> {
        Api::events(&*self.front, since, wake)
    }

    fn shutdown(&self, timeout: Duration) {
        self.front.shutdown(timeout);
    }
}

impl Drop for Node {
    /// Tells the engine to end without waiting for it: whoever wants to wait calls [`Node::stop`].
    fn drop(&mut self) {
        self.ending.let_go();
    }
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Bind(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
            Self::Insecure(why) | Self::Contradicted(why) => f.write_str(why),
            Self::Store(error) => error.fmt(f),
            Self::Machine(halt) => f.write_str(&halt.why),
            Self::Io { doing, error } => write!(f, "{doing}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}
