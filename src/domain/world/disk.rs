//! A disk that keeps one ordered stream of writes, and snapshots beside it: in a crash it loses the end of the stream, never
//! its middle, and a snapshot is there whole or not at all.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use crate::{Entry, EntryId, Index, Input, Membership, NodeId, Recovered, Term, Write};

#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) term: Term,
    pub(crate) vote: Option<NodeId>,
    pub(crate) commit: Index,
    /// The newest snapshot.
    pub(crate) snapshot: EntryId,
    /// In force at the snapshot, or the one to found a cluster with.
    pub(crate) membership: Arc<Membership>,
    /// The stored log begins after this entry.
    pub(crate) base: EntryId,
    pub(crate) entries: Vec<Entry>,
    /// Handed over and not yet durable.
    pub(crate) pending: VecDeque<Operation>,
    /// Nothing becomes durable until told.
    pub(crate) held: bool,
    pub(crate) failed: bool,
    /// For how long an earlier run promised its vote, if that is longer than this one does.
    pub(crate) promised: Duration,
}

#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Write(Write),
    Compact(EntryId),
}

impl Disk {
    /// The last entry that a node which starts from here has.
    pub(crate) fn last(&self) -> EntryId {
        self.recovered_entries().last().map_or(self.snapshot, Entry::id)
    }

    /// The term that a node which starts from here is in: an entry or a snapshot of a term is proof of that term.
    pub(crate) fn proven_term(&self) -> Term {
        self.term.max(self.last().term)
    }

    fn entry(&self, index: Index) -> Option<&Entry> {
        let place = index.0.checked_sub(self.base.index.0 + 1)?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    /// Whether the stored log goes on from this very entry.
    fn leads_past(&self, last: EntryId) -> bool {
        self.base == last || self.entry(last.index).is_some_and(|e| e.term == last.term)
    }

    /// What recovery gives beside the snapshot: what the stored log has after it, and of one that does not lead up to it,
    /// nothing.
    fn recovered_entries(&self) -> &[Entry] {
        if !self.leads_past(self.snapshot) {
            return &[];
        }
        let covered = self.snapshot.index.0 - self.base.index.0;
        &self.entries[usize::try_from(covered).expect("a small number")..]
    }

    /// Whether a node which starts from here has this entry, or a snapshot in its place.
    pub(crate) fn holds(&self, entry: &Entry) -> bool {
        entry.index <= self.snapshot.index || (self.leads_past(self.snapshot) && self.entry(entry.index) == Some(entry))
    }

    /// Makes the oldest pending write durable, with what comes before it, and gives what to tell the core of it.
    pub(crate) fn sync(&mut self) -> Option<Result<Input, &'static str>> {
        loop {
            match self.pending.pop_front()? {
                Operation::Compact(last) => self.compact(last),
                Operation::Write(write) => {
                    let seq = write.seq;
                    return Some(self.write(write).map(|()| Input::Persisted { seq }));
                }
            }
        }
    }

    fn write(&mut self, write: Write) -> Result<(), &'static str> {
        if write.term < self.term {
            return Err("a write takes the term back");
        }
        (self.term, self.vote, self.commit) = (write.term, write.vote, write.commit);
        let Some(first) = write.entries.first().map(|e| e.index) else { return Ok(()) };
        if first <= self.base.index {
            return Err("a write begins before the log on disk does");
        }
        self.entries.retain(|e| e.index < first);
        self.entries.extend(write.entries);
        let expected = (self.base.index.0 + 1)..;
        if self.entries.iter().zip(expected).any(|(entry, index)| entry.index.0 != index) {
            return Err("a write leaves a gap in the log on disk");
        }
        Ok(())
    }

    /// Of a log that does not hold this very entry nothing may be kept.
    fn compact(&mut self, last: EntryId) {
        if last.index < self.base.index {
            return;
        }
        let leads_past = self.leads_past(last);
        self.entries.retain(|e| leads_past && e.index > last.index);
        self.base = last;
    }

    /// A snapshot, the own machine's or a leader's, is durable now.
    pub(crate) fn keep(&mut self, last: EntryId, membership: Arc<Membership>) {
        if last.index > self.snapshot.index {
            (self.snapshot, self.membership) = (last, membership);
        }
    }

    /// The power goes: the first `kept` pending writes had reached the disk unreported, the others are gone.
    pub(crate) fn crash(&mut self, kept: usize) -> Result<(), &'static str> {
        for _ in 0..kept {
            self.sync().transpose()?;
        }
        self.pending.clear();
        if self.base.index > self.snapshot.index {
            return Err("the log on disk begins after the newest snapshot");
        }
        Ok(())
    }

    pub(crate) fn recover(&self, applied: Index) -> Recovered {
        Recovered {
            term: self.term,
            vote: self.vote,
            snapshot: self.snapshot,
            membership: Arc::clone(&self.membership),
            entries: self.recovered_entries().to_vec(),
            commit: self.commit,
            applied,
            promised: self.promised,
        }
    }
}
