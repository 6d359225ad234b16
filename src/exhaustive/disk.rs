//! A disk with one ordered stream of operations. Those that were not completed are gone after a crash.

use std::collections::VecDeque;
use std::sync::Arc;

use graft_domain::{Entry, EntryId, Index, Membership, NodeId, Recovered, Term, Write};

/// Something for the disk to do.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Operation {
    Write(Write),
    Compact(EntryId),
}

/// A snapshot: where it ends, and the membership there.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) last: EntryId,
    pub(crate) membership: Arc<Membership>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) term: Term,
    pub(crate) vote: Option<NodeId>,
    pub(crate) commit: Index,
    /// The newest one, or what the cluster is founded with.
    pub(crate) snapshot: Snapshot,
    /// The stored log begins after this entry.
    pub(crate) base: EntryId,
    pub(crate) entries: Vec<Entry>,
    /// Handed over, and not durable.
    pub(crate) pending: VecDeque<Operation>,
}

impl Disk {
    pub(crate) fn entry(&self, index: Index) -> Option<&Entry> {
        let place = index.0.checked_sub(self.base.index.0 + 1)?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    /// Whether the stored log goes on from this very entry.
    fn leads_past(&self, last: EntryId) -> bool {
        self.base == last || self.entry(last.index).is_some_and(|entry| entry.term == last.term)
    }

    /// What a start finds behind the snapshot: of a stored log that does not lead up to it, nothing.
    fn recovered_entries(&self) -> &[Entry] {
        let last = self.snapshot.last;
        if !self.leads_past(last) {
            return &[];
        }
        let covered = last.index.0.saturating_sub(self.base.index.0);
        self.entries.get(usize::try_from(covered).unwrap_or(usize::MAX)..).unwrap_or_default()
    }

    /// The term that a member which starts from here is in: an entry or a snapshot of a term is proof of it.
    pub(crate) fn proven_term(&self) -> Term {
        self.term.max(self.recovered_entries().last().map_or(self.snapshot.last, Entry::id).term)
    }

    /// Whether a member which starts from here has this entry, or a snapshot in its place.
    pub(crate) fn holds(&self, entry: &Entry) -> bool {
        let last = self.snapshot.last;
        entry.index <= last.index || (self.leads_past(last) && self.entry(entry.index) == Some(entry))
    }

    /// Completes the oldest operation; the number of the write if it was one.
    pub(crate) fn complete(&mut self) -> Result<Option<u64>, &'static str> {
        match self.pending.pop_front() {
            None => Ok(None),
            Some(Operation::Compact(last)) => {
                self.compact(last);
                Ok(None)
            }
            Some(Operation::Write(write)) => {
                let seq = write.seq;
                self.write(write)?;
                Ok(Some(seq))
            }
        }
    }

    /// The number of the oldest write, which is not done.
    pub(crate) fn pretend(&mut self) -> Option<u64> {
        match self.pending.pop_front()? {
            Operation::Write(write) => Some(write.seq),
            Operation::Compact(_) => None,
        }
    }

    fn write(&mut self, write: Write) -> Result<(), &'static str> {
        if write.term < self.term {
            return Err("a write takes the term back");
        }
        if write.term == self.term && self.vote.is_some() && write.vote != self.vote {
            return Err("a write changes the vote within its term");
        }
        (self.term, self.vote, self.commit) = (write.term, write.vote, write.commit);
        let Some(first) = write.entries.first().map(|entry| entry.index) else { return Ok(()) };
        if first <= self.base.index {
            return Err("a write begins before the stored log does");
        }
        self.entries.retain(|entry| entry.index < first);
        self.entries.extend(write.entries);
        let mut expected = self.base.index;
        for entry in &self.entries {
            expected = expected.next();
            if entry.index != expected {
                return Err("a write leaves a gap in the stored log");
            }
        }
        Ok(())
    }

    /// Of a log that does not hold this very entry nothing may be kept.
    fn compact(&mut self, last: EntryId) {
        if last.index < self.base.index {
            return;
        }
        let leads_past = self.leads_past(last);
        self.entries.retain(|entry| leads_past && entry.index > last.index);
        self.base = last;
    }

    /// A snapshot, the own machine's or a leader's, is durable.
    pub(crate) fn keep(&mut self, snapshot: &Snapshot) {
        if snapshot.last.index > self.snapshot.last.index {
            self.snapshot = snapshot.clone();
        }
    }

    /// The power goes.
    pub(crate) fn crash(&mut self) -> Result<(), &'static str> {
        self.pending.clear();
        if self.base.index > self.snapshot.last.index {
            return Err("the stored log begins after the newest snapshot");
        }
        Ok(())
    }

    /// Of the writes that wait the oldest is the first again.
    pub(crate) fn rebase(&mut self, done: u64) {
        for operation in &mut self.pending {
            if let Operation::Write(write) = operation {
                write.seq -= done;
            }
        }
    }

    pub(crate) fn recover(&self) -> Recovered {
        Recovered {
            term: self.term,
            vote: self.vote,
            snapshot: self.snapshot.last,
            membership: Arc::clone(&self.snapshot.membership),
            entries: self.recovered_entries().to_vec(),
            commit: self.commit,
            // The machine is in memory: a start restores it from the snapshot.
            applied: self.snapshot.last.index,
            promised: std::time::Duration::ZERO,
        }
    }
}
