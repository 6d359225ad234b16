//! One core with its real log and snapshots, and what waits for them. Nothing is durable before it is told to be.

use std::collections::VecDeque;
use std::sync::Arc;

use graft_domain::{
    ClusterId, Config, EntryId, Index, Input, Instant, Membership, NodeId, RaftCore, Ready, Rejected, SnapshotFetch,
    Term, Write,
};
use graft_services::ports::{LogStore, SnapshotFiles};
use graft_services::snapshot_meta::SnapshotMeta;
use graft_store::{Founding, Snapshots, Wal};

use crate::log::{founding, open_as};
use crate::memory::Memory;

/// What the store has to do, in order.
#[derive(Debug)]
enum Job {
    Write(Write),
    Compact(EntryId),
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) core: RaftCore,
    config: Config,
    founding: Founding,
    files: Memory,
    wal: Wal<Memory>,
    snapshots: Arc<Snapshots<Memory>>,
    jobs: VecDeque<Job>,
    /// Handed out to be applied.
    handed: Index,
    /// A snapshot that a leader has offered.
    pub(crate) fetch: Option<SnapshotFetch>,
    /// Term and commit index when last looked at.
    seen: (Term, Index),
}

impl Node {
    pub(crate) fn new(id: NodeId, seed: u64, now: Instant) -> Self {
        let founding = Founding { id, ..founding() };
        let small = Config {
            append_bytes_max: 200,
            inflight_messages_max: 4,
            inflight_bytes_max: 400,
            ..Config::new(id, ClusterId(77), seed)
        };
        let small = Config { apply_bytes_max: 300, log_bytes_max: 2000, tail_bytes: 100, held_bytes_max: 400, ..small };
        let config = Config { uncommitted_bytes_max: 1000, reads_max: 4, ..small };
        Self::start(config, founding, Memory::default(), now)
    }

    fn start(config: Config, founding: Founding, files: Memory, now: Instant) -> Self {
        let opened = open_as(&files, &founding);
        let (wal, snapshots, opened) = opened.unwrap_or_else(|error| panic!("its own directory: {error}"));
        let core = RaftCore::new(config.clone(), opened.recovered, now);
        let (handed, seen) = (core.applied(), (core.term(), core.commit()));
        let mut node =
            Self { core, config, founding, files, wal, snapshots, jobs: VecDeque::new(), handed, fetch: None, seen };
        node.look();
        node
    }

    /// The process is killed: what was not written is lost.
    pub(crate) fn restart(self, now: Instant) -> Self {
        let Self { config, founding, files, wal, snapshots, .. } = self;
        drop((wal, snapshots));
        Self::start(config, founding, files, now)
    }

    pub(crate) fn step(&mut self, now: Instant, input: Input) -> (Result<Index, Rejected>, Ready) {
        let answer = self.core.step(now, input);
        self.look();
        let mut ready = self.core.ready(now);
        self.look();
        self.jobs.extend(ready.compact.map(Job::Compact));
        self.jobs.extend(ready.write.take().map(Job::Write));
        for entry in &ready.apply {
            assert_eq!(entry.index, self.handed.next(), "{}: applied out of order", self.core.id());
            assert!(entry.index <= self.core.commit() && entry.index <= self.core.durable());
            self.handed = entry.index;
        }
        self.handed = self.handed.max(self.core.applied());
        self.fetch = ready.fetch.or(self.fetch);
        (answer, ready)
    }

    /// What must hold of it, whatever it was told.
    fn look(&mut self) {
        let core = &self.core;
        assert_eq!(core.broken_invariant(), None, "{} as {}", core.id(), core.role());
        let (term, commit) = std::mem::replace(&mut self.seen, (core.term(), core.commit()));
        assert!(core.term() >= term, "{}: back from term {term} to {}", core.id(), core.term());
        assert!(core.commit() >= commit, "{}: back from commit {commit} to {}", core.id(), core.commit());
        assert!(core.base().index <= core.applied() || core.applied() == Index::ZERO);
    }

    /// The store does all that waits, and answers the number of the last write.
    pub(crate) fn persist(&mut self) -> Option<u64> {
        let mut last = None;
        for job in self.jobs.drain(..) {
            let done = match &job {
                Job::Write(write) => self.wal.persist(std::slice::from_ref(write)),
                Job::Compact(last) => self.wal.compact(*last),
            };
            done.unwrap_or_else(|error| panic!("{}: the log cannot hold {job:?}: {error}", self.config.id));
            if let Job::Write(write) = job {
                last = Some(write.seq);
            }
        }
        last
    }

    pub(crate) fn handed(&self) -> Index {
        self.handed
    }

    /// Puts a snapshot of this entry in its place, if it may be there.
    pub(crate) fn keep_snapshot(&self, last: EntryId, membership: Arc<Membership>) -> bool {
        let meta = SnapshotMeta { last, command: Index::ZERO, time: 0, membership };
        self.snapshots.write(&meta, Box::new(|_| Ok(()))).is_ok()
    }
}
