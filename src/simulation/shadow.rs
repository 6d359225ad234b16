//! What a store has said to be durable, kept beside it, so that it can be held to its word.

use graft_domain::{Entry, EntryId, Index, NodeId, RaftCore, Term, Write};
use graft_services::ports::Opened;

use crate::history::Verdict;

/// The log as the store has acknowledged it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Shadow {
    pub(crate) term: Term,
    pub(crate) vote: Option<NodeId>,
    /// The log begins after this entry.
    pub(crate) base: EntryId,
    pub(crate) entries: Vec<Entry>,
    /// The newest snapshot.
    pub(crate) snapshot: EntryId,
    /// Up to here it was found to be what its node's log is; zero if nobody looked since it was cut.
    pub(crate) agreed: EntryId,
}

impl Shadow {
    pub(crate) fn of(opened: &Opened) -> Self {
        let recovered = &opened.recovered;
        Self {
            term: recovered.term,
            vote: recovered.vote,
            base: recovered.snapshot,
            entries: recovered.entries.clone(),
            snapshot: recovered.snapshot,
            agreed: EntryId::ZERO,
        }
    }

    pub(crate) fn write(&mut self, write: &Write) {
        (self.term, self.vote) = (write.term, write.vote);
        if let Some(first) = write.entries.first() {
            if first.index <= self.agreed.index {
                self.agreed = EntryId::ZERO;
            }
            self.cut_after(first.index.prev());
            self.entries.extend(write.entries.iter().cloned());
        }
    }

    fn cut_after(&mut self, last: Index) {
        let kept = self.entries.partition_point(|entry| entry.index <= last);
        self.entries.truncate(kept);
    }

    pub(crate) fn compact(&mut self, covered: EntryId) {
        if covered.index <= self.base.index {
            return;
        }
        if self.agreed.index <= covered.index {
            self.agreed = EntryId::ZERO;
        }
        if self.holds(covered) {
            let gone = self.entries.partition_point(|entry| entry.index <= covered.index);
            self.entries.drain(..gone);
        } else {
            self.entries.clear();
        }
        self.base = covered;
    }

    pub(crate) fn entry(&self, index: Index) -> Option<&Entry> {
        let first = self.entries.first()?.index.0;
        self.entries.get(usize::try_from(index.0.checked_sub(first)?).ok()?)
    }

    pub(crate) fn holds(&self, id: EntryId) -> bool {
        id.index < self.base.index || self.base == id || self.entry(id.index).is_some_and(|entry| entry.id() == id)
    }

    /// Whether all of a log up to there is here. What was compared is compared again only if this was cut there since: equal
    /// entries have equal logs before them, which is a check of its own.
    pub(crate) fn has_all_of(&mut self, core: &RaftCore, upto: Index) -> bool {
        let known = core.entry(self.agreed.index).is_some_and(|entry| entry.id() == self.agreed);
        let from = if known { self.agreed.index } else { core.base().index };
        for index in from.0 + 1..=upto.0 {
            let Some(id) = core.entry(Index(index)).map(Entry::id).filter(|id| self.holds(*id)) else { return false };
            self.agreed = id;
        }
        true
    }

    pub(crate) fn last(&self) -> EntryId {
        self.entries.last().map_or(self.base, Entry::id)
    }

    /// The latest term that anything here proves.
    pub(crate) fn proven_term(&self) -> Term {
        self.term.max(self.last().term)
    }

    /// What was opened is this, or this with `in_flight`, which was being written when the machine went down.
    pub(crate) fn is_found_again(&self, in_flight: &[Write], opened: &Opened) -> Result<bool, String> {
        let mut more = self.clone();
        for write in in_flight {
            more.write(write);
        }
        match self.is_in(opened) {
            Ok(()) => Ok(false),
            Err(_) if !in_flight.is_empty() && more.is_in(opened).is_ok() => Ok(true),
            Err(why) => Err(why),
        }
    }

    fn is_in(&self, opened: &Opened) -> Verdict {
        let recovered = &opened.recovered;
        if recovered.snapshot.index < self.snapshot.index {
            return Err(format!("the snapshot of {} is gone, {} is there", self.snapshot, recovered.snapshot));
        }
        let mut cut = self.clone();
        if recovered.snapshot.index > cut.base.index {
            cut.compact(recovered.snapshot);
        }
        if recovered.entries != cut.entries {
            let found = recovered.entries.last().map_or(recovered.snapshot, Entry::id);
            return Err(format!("the log ended with {} and ends with {found}, or differs before", cut.last()));
        }
        let later = recovered.snapshot.term > self.term && recovered.term == recovered.snapshot.term;
        if !later && (recovered.term, recovered.vote) != (self.term, self.vote) {
            let (term, vote) = (recovered.term, recovered.vote);
            return Err(format!("term {} with vote {:?} were durable, found {term} {vote:?}", self.term, self.vote));
        }
        Ok(())
    }
}
