//! A disk that keeps one ordered stream of writes: in a crash it loses the end of the stream, never its middle.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::{Entry, EntryId, Index, Input, Membership, NodeId, Recovered, Term, Write};

#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) term: Term,
    pub(crate) vote: Option<NodeId>,
    pub(crate) commit: Index,
    pub(crate) snapshot: EntryId,
    /// In force at the snapshot, or the one to found a cluster with.
    pub(crate) membership: Arc<Membership>,
    /// After the snapshot.
    pub(crate) entries: Vec<Entry>,
    /// Handed over and not yet durable.
    pub(crate) pending: VecDeque<Operation>,
    /// Nothing becomes durable until told.
    pub(crate) held: bool,
    pub(crate) failed: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Write(Write),
    /// A snapshot from a leader takes the place of what it covers.
    Install {
        last: EntryId,
        membership: Arc<Membership>,
    },
}

impl Disk {
    pub(crate) fn last(&self) -> EntryId {
        self.entries.last().map_or(self.snapshot, Entry::id)
    }

    /// The term that a node which starts from here is in: an entry or a snapshot of a term is proof of that term.
    pub(crate) fn proven_term(&self) -> Term {
        self.term.max(self.last().term)
    }

    pub(crate) fn entry(&self, index: Index) -> Option<&Entry> {
        let place = index.0.checked_sub(self.snapshot.index.0 + 1)?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    /// Whether it holds this entry, or has a snapshot in its place.
    pub(crate) fn holds(&self, entry: &Entry) -> bool {
        entry.index <= self.snapshot.index || self.entry(entry.index) == Some(entry)
    }

    /// Makes the oldest pending operation durable and gives what to tell the core of it.
    pub(crate) fn sync(&mut self) -> Option<Result<Input, &'static str>> {
        let operation = self.pending.pop_front()?;
        Some(match operation {
            Operation::Write(write) => {
                let seq = write.seq;
                self.write(write).map(|()| Input::Persisted { seq })
            }
            Operation::Install { last, membership } => {
                self.install(last, Arc::clone(&membership));
                Ok(Input::SnapshotInstalled { last, membership })
            }
        })
    }

    fn write(&mut self, write: Write) -> Result<(), &'static str> {
        if write.term < self.term {
            return Err("a write takes the term back");
        }
        (self.term, self.vote, self.commit) = (write.term, write.vote, write.commit);
        let Some(first) = write.entries.first().map(|e| e.index) else { return Ok(()) };
        self.entries.retain(|e| e.index < first);
        let base = self.snapshot.index;
        self.entries.extend(write.entries.into_iter().filter(|e| e.index > base));
        let expected = (base.0 + 1)..;
        if self.entries.iter().zip(expected).any(|(entry, index)| entry.index.0 != index) {
            return Err("a write leaves a gap in the log on disk");
        }
        Ok(())
    }

    fn install(&mut self, last: EntryId, membership: Arc<Membership>) {
        if last.index <= self.snapshot.index {
            return;
        }
        let leads_past = self.entry(last.index).is_some_and(|e| e.term == last.term);
        self.entries.retain(|e| leads_past && e.index > last.index);
        (self.snapshot, self.membership) = (last, membership);
    }

    /// Forgets what a snapshot of the own machine covers.
    pub(crate) fn compact(&mut self, last: EntryId, membership: Arc<Membership>) {
        if last.index > self.snapshot.index {
            self.entries.retain(|e| e.index > last.index);
            (self.snapshot, self.membership) = (last, membership);
        }
    }

    /// The power goes: the first `kept` pending operations had reached the disk unreported, the others are gone.
    pub(crate) fn crash(&mut self, kept: usize) -> Result<(), &'static str> {
        for _ in 0..kept {
            self.sync().transpose()?;
        }
        self.pending.clear();
        Ok(())
    }

    pub(crate) fn recover(&self, applied: Index) -> Recovered {
        Recovered {
            term: self.term,
            vote: self.vote,
            snapshot: self.snapshot,
            membership: Arc::clone(&self.membership),
            entries: self.entries.clone(),
            commit: self.commit,
            applied,
        }
    }
}
