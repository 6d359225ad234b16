//! The use-cases around the core, on a leader of three: from the call to the machine, and all the way with log and applier.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{EntryId, Incarnation, Instant, Write};
use graft_services::applier::{Applied, Applier};
use graft_services::ports::{LogStore, PeerMessage};
use graft_services::{Batch, Clock, Effect, Event, Replica, ReplicaConfig, RequestId};
use graft_store::Wal;

use crate::commands::Nothing;
use crate::core::{TICK, agree, founded, node};
use crate::{Memory, SNAPSHOT_EVERY, Work, bodies, log};

/// Until a call's deadline.
const PATIENCE: Duration = Duration::from_secs(10);

fn config() -> ReplicaConfig {
    ReplicaConfig {
        session: 77,
        command_bytes_max: 1 << 20,
        inflight_max: 65_536,
        inflight_bytes_max: 256 << 20,
        retry: Duration::from_millis(15),
        read_retry: Duration::from_millis(300),
        election_timeout: Duration::from_millis(300),
        address: "127.0.0.1:7001".to_owned(),
        incarnation: Incarnation(1),
        session_ttl: Duration::from_hours(1),
        // A snapshot is said to be there as soon as it is wanted.
        snapshot_every_bytes: 64 << 20,
        snapshot_every_entries: SNAPSHOT_EVERY,
    }
}

/// What takes the writes and the commands.
trait Below {
    fn persist(&mut self, write: &Write);
    fn compact(&mut self, covered: EntryId);
    fn apply(&mut self, batch: &Batch);
}

/// A replica that leads, and what is below it.
struct Node<B> {
    replica: Replica,
    below: B,
    now: Instant,
    requests: u64,
}

impl<B: Below> Node<B> {
    fn new(below: B) -> Self {
        let now = founded(3).deadline();
        let replica = Replica::new(config(), founded(3), Clock { now: Instant(0), wall: 0 }, None);
        let mut node = Self { replica, below, now, requests: 0 };
        for n in [2, 3] {
            node.handle(Event::Connected(self::node(n)));
        }
        node.handle(Event::Timeout);
        node.settle();
        assert!(node.replica.core().is_leader(), "everybody agreed");
        // Opens the session of the node.
        node.turn(bodies(1));
        node
    }

    fn clock(&self) -> Clock {
        Clock { now: self.now, wall: self.now.0 }
    }

    fn handle(&mut self, event: Event) {
        let clock = self.clock();
        self.replica.handle(clock, event);
    }

    fn turn(&mut self, bodies: Vec<Bytes>) {
        self.now = self.now + TICK;
        let deadline = self.now + PATIENCE;
        for body in bodies {
            self.requests += 1;
            self.handle(Event::Execute { request: RequestId(self.requests), slot: None, body, deadline });
        }
        self.settle();
    }

    /// As the engine does: all effects are carried out, until there are none.
    fn settle(&mut self) {
        loop {
            let clock = self.clock();
            let effects = self.replica.effects(clock);
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                match effect {
                    Effect::Persist(write) => {
                        self.below.persist(&write);
                        self.handle(Event::Persisted { seq: write.seq });
                    }
                    Effect::Send(_, PeerMessage::Raft(envelope)) => {
                        if let Some(answer) = agree(&envelope, PROMISE) {
                            self.handle(Event::Peer(PeerMessage::Raft(answer)));
                        }
                    }
                    Effect::Compact(covered) => self.below.compact(covered),
                    Effect::Apply(batch) => {
                        self.below.apply(&batch);
                        self.handle(Event::Applied { index: batch.upto, expired: Vec::new() });
                    }
                    Effect::TakeSnapshot(meta) => self.handle(Event::SnapshotWritten { last: meta.last, bytes: 1 }),
                    _ => {}
                }
            }
        }
    }
}

/// The followers' election timeout.
const PROMISE: Duration = Duration::from_millis(300);

/// Neither log nor machine.
struct Void;

impl Below for Void {
    fn persist(&mut self, _write: &Write) {}
    fn compact(&mut self, _covered: EntryId) {}
    fn apply(&mut self, _batch: &Batch) {}
}

/// From the call to the machine, without what the log and the machine do.
pub struct Leading {
    node: Node<Void>,
    batch: usize,
}

impl fmt::Debug for Leading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leading").field("batch", &self.batch).finish_non_exhaustive()
    }
}

impl Leading {
    pub fn new(batch: usize) -> Self {
        Self { node: Node::new(Void), batch }
    }
}

impl Work for Leading {
    type Input = Vec<Bytes>;

    fn prepare(&mut self) -> Vec<Bytes> {
        bodies(self.batch)
    }

    fn turn(&mut self, bodies: Vec<Bytes>) {
        self.node.turn(bodies);
    }
}

/// The log in memory, and the applier with a machine that does nothing.
struct Both {
    wal: Wal<Memory>,
    applier: Applier,
}

impl Below for Both {
    fn persist(&mut self, write: &Write) {
        self.wal.persist(std::slice::from_ref(write)).expect("the disk is good");
    }

    fn compact(&mut self, covered: EntryId) {
        self.wal.compact(covered).expect("the disk is good");
    }

    fn apply(&mut self, batch: &Batch) {
        let mut applied = Applied::default();
        self.applier.apply(&batch.commands, &mut applied).expect("it goes on");
        assert_eq!(applied.answers.len(), batch.commands.len());
    }
}

/// All of it: replica, log in memory, applier.
pub struct Way {
    node: Node<Both>,
    batch: usize,
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Way").field("batch", &self.batch).finish_non_exhaustive()
    }
}

impl Way {
    pub fn new(batch: usize) -> Self {
        let (wal, _) = log::open(Memory::default(), Path::new("data"));
        Self { node: Node::new(Both { wal, applier: Applier::new(Box::new(Nothing)) }), batch }
    }
}

impl Work for Way {
    type Input = Vec<Bytes>;

    fn prepare(&mut self) -> Vec<Bytes> {
        bodies(self.batch)
    }

    fn turn(&mut self, bodies: Vec<Bytes>) {
        self.node.turn(bodies);
    }
}
