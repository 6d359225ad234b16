//! A disk that keeps one ordered stream of writes and one snapshot: in a crash it loses the end of the stream, never its
//! middle, and a snapshot is there whole or not at all.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use graft_domain::{Entry, EntryId, Index, Membership, NodeId, Recovered, Term, Write};

use super::history::Verdict;
use crate::snapshot_meta::SnapshotMeta;

/// What the store is told, in order.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Write(Write),
    Compact(EntryId),
}

/// A snapshot: what it says of itself, what the applier wrote, and how long the file is said to be.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) meta: SnapshotMeta,
    pub(crate) file: Vec<u8>,
    pub(crate) bytes: u64,
}

#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are what a test says of it, each for itself")]
pub(crate) struct Disk {
    pub(crate) term: Term,
    pub(crate) vote: Option<NodeId>,
    pub(crate) commit: Index,
    /// What the cluster is founded with.
    pub(crate) membership: Arc<Membership>,
    /// The log begins after this entry.
    pub(crate) base: EntryId,
    pub(crate) entries: Vec<Entry>,
    /// Handed over and not yet durable.
    pub(crate) pending: VecDeque<Op>,
    pub(crate) snapshot: Option<Stored>,
    /// The bytes of the snapshot have changed: nobody can read it.
    pub(crate) unreadable: bool,
    /// Nothing becomes durable until told.
    pub(crate) held: bool,
    /// Nothing becomes durable until there is space; it is told at every attempt.
    pub(crate) full: bool,
    pub(crate) failed: bool,
}

impl Disk {
    pub(crate) fn last(&self) -> Index {
        self.entries.last().map_or(self.base.index, |entry| entry.index)
    }

    /// Does up to `count` operations and gives the number of the last write among them.
    pub(crate) fn sync(&mut self, count: usize) -> Result<Option<u64>, String> {
        let mut last = None;
        for _ in 0..count {
            match self.pending.pop_front() {
                Some(Op::Write(write)) => last = Some(self.write(write)?),
                Some(Op::Compact(covered)) => self.compact(covered)?,
                None => break,
            }
        }
        Ok(last)
    }

    fn write(&mut self, write: Write) -> Result<u64, String> {
        (self.term, self.vote, self.commit) = (write.term, write.vote, write.commit);
        if let Some(first) = write.entries.first().map(|entry| entry.index) {
            if first <= self.base.index || first > self.last().next() {
                return Err(format!("a write from {first} on comes to a log from {} to {}", self.base, self.last()));
            }
            self.entries.retain(|entry| entry.index < first);
            self.entries.extend(write.entries);
        }
        Ok(write.seq)
    }

    fn compact(&mut self, covered: EntryId) -> Verdict {
        let durable = self.snapshot.as_ref().map_or(EntryId::ZERO, |stored| stored.meta.last);
        if covered.index > durable.index {
            return Err(format!("{covered} is forgotten, and the snapshot goes to {durable}"));
        }
        if covered.index < self.base.index {
            return Ok(());
        }
        if self.holds(covered) {
            self.entries.retain(|entry| entry.index > covered.index);
        } else {
            self.entries.clear();
        }
        self.base = covered;
        Ok(())
    }

    fn holds(&self, id: EntryId) -> bool {
        self.base == id || self.entries.iter().any(|entry| entry.id() == id)
    }

    /// Keeps a snapshot, unless a newer one is there.
    pub(crate) fn keep(&mut self, stored: Stored) {
        if self.snapshot.as_ref().is_none_or(|there| there.meta.last.index <= stored.meta.last.index) {
            self.snapshot = Some(stored);
            self.unreadable = false;
        }
    }

    /// The power goes: the first `kept` pending operations had reached the disk unreported, the others are gone.
    pub(crate) fn crash(&mut self, kept: usize) -> Verdict {
        let verdict = self.sync(kept).map(|_| ());
        self.pending.clear();
        (self.held, self.full, self.failed) = (false, false, false);
        verdict
    }

    /// Opens what a crash has left. A log that does not hold the last entry of the snapshot is of no use beside it.
    pub(crate) fn open(&mut self) {
        let snapshot = self.snapshot.as_ref().map_or(EntryId::ZERO, |stored| stored.meta.last);
        if !self.holds(snapshot) {
            self.entries.clear();
            self.base = snapshot;
        }
    }

    pub(crate) fn recover(&self, applied: Index) -> Recovered {
        let stored = self.snapshot.as_ref();
        let snapshot = stored.map_or(EntryId::ZERO, |stored| stored.meta.last);
        assert!(
            self.base.index <= snapshot.index,
            "the log begins after {}, the snapshot ends at {snapshot}",
            self.base
        );
        let follows = |entry: &&Entry| self.holds(snapshot) && entry.index > snapshot.index;
        Recovered {
            term: self.term,
            vote: self.vote,
            snapshot,
            membership: stored
                .map_or_else(|| Arc::clone(&self.membership), |stored| Arc::clone(&stored.meta.membership)),
            entries: self.entries.iter().filter(follows).cloned().collect(),
            commit: self.commit,
            applied,
            promised: Duration::ZERO,
        }
    }
}
