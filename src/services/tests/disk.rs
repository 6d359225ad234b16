//! A disk that keeps one ordered stream of writes: in a crash it loses the end of the stream, never its middle.

use std::collections::VecDeque;
use std::sync::Arc;

use graft_domain::{Entry, EntryId, Index, Membership, NodeId, Recovered, Term, Write};

#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) term: Term,
    pub(crate) vote: Option<NodeId>,
    pub(crate) commit: Index,
    /// What the cluster is founded with.
    pub(crate) membership: Arc<Membership>,
    pub(crate) entries: Vec<Entry>,
    /// Handed over and not yet durable.
    pub(crate) pending: VecDeque<Write>,
    /// Nothing becomes durable until told.
    pub(crate) held: bool,
    /// Nothing becomes durable until there is space; it is told at every attempt.
    pub(crate) full: bool,
    pub(crate) failed: bool,
}

impl Disk {
    pub(crate) fn last(&self) -> Index {
        self.entries.last().map_or(Index::ZERO, |entry| entry.index)
    }

    /// Makes up to `count` writes durable and gives the number of the last.
    pub(crate) fn sync(&mut self, count: usize) -> Option<u64> {
        let count = count.min(self.pending.len());
        let writes: Vec<Write> = self.pending.drain(..count).collect();
        writes.into_iter().map(|write| self.write(write)).last()
    }

    fn write(&mut self, write: Write) -> u64 {
        (self.term, self.vote, self.commit) = (write.term, write.vote, write.commit);
        if let Some(first) = write.entries.first().map(|entry| entry.index) {
            self.entries.retain(|entry| entry.index < first);
            assert_eq!(self.last().next(), first, "a write leaves a gap");
            self.entries.extend(write.entries);
        }
        write.seq
    }

    /// The power goes: the first `kept` pending writes had reached the disk unreported, the others are gone.
    pub(crate) fn crash(&mut self, kept: usize) {
        self.sync(kept);
        self.pending.clear();
        (self.held, self.full, self.failed) = (false, false, false);
    }

    pub(crate) fn recover(&self, applied: Index) -> Recovered {
        Recovered {
            term: self.term,
            vote: self.vote,
            snapshot: EntryId::ZERO,
            membership: Arc::clone(&self.membership),
            entries: self.entries.clone(),
            commit: self.commit,
            applied,
        }
    }
}
