//! The log since the last snapshot, in memory, with the memberships it holds.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::entry::{Entry, Payload};
use crate::ids::{EntryId, Index, Term};
use crate::membership::Membership;

/// Entries after `base`, contiguous, terms never going back.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Log {
    /// The last entry that the snapshot covers; zero without one.
    base: EntryId,
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Every membership from the one in force at `base` on, with where it stands; never empty.
    memberships: Vec<(Index, Arc<Membership>)>,
}

impl Log {
    pub(crate) fn new(base: EntryId, membership: Arc<Membership>) -> Self {
        Self { base, entries: VecDeque::new(), bytes: 0, memberships: alloc::vec![(base.index, membership)] }
    }

    pub(crate) const fn base(&self) -> EntryId {
        self.base
    }

    pub(crate) fn last(&self) -> EntryId {
        self.entries.back().map_or(self.base, Entry::id)
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the entries behind `index`.
    pub(crate) fn bytes_after(&self, index: Index) -> usize {
        self.entries.iter().rev().take_while(|e| e.index > index).map(Entry::size).sum()
    }

    pub(crate) fn entry(&self, index: Index) -> Option<&Entry> {
        let place = index.0.checked_sub(self.base.index.0 + 1)?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    /// The term at an index from `base` to the last; none outside.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index { Some(self.base.term) } else { self.entry(index).map(|e| e.term) }
    }

    /// Whether it holds this very entry, or has forgotten it under the snapshot.
    pub(crate) fn covers(&self, id: EntryId) -> bool {
        id.index < self.base.index || self.term_at(id.index) == Some(id.term)
    }

    /// The last entry at or before `index` whose term is at most `term`; the base if there is none.
    ///
    /// Everything after it differs from a log whose entry at `index` has `term`, so that one probe skips a whole term
    /// (thesis §3.5, the last paragraph).
    pub(crate) fn last_at_most(&self, index: Index, term: Term) -> EntryId {
        let within = usize::try_from(index.0.saturating_sub(self.base.index.0)).unwrap_or(usize::MAX);
        let older = self.entries.partition_point(|e| e.term <= term);
        match within.min(older).checked_sub(1).and_then(|place| self.entries.get(place)) {
            Some(entry) => entry.id(),
            None => self.base,
        }
    }

    pub(crate) fn append(&mut self, entry: Entry) {
        debug_assert_eq!(entry.index, self.last().index.next(), "the log is contiguous");
        debug_assert!(entry.term >= self.last().term, "terms never go back");
        self.bytes += entry.size();
        if let Payload::Membership(membership) = &entry.payload {
            self.memberships.push((entry.index, Arc::clone(membership)));
        }
        self.entries.push_back(entry);
    }

    /// Drops everything from `index` on, and the memberships in it.
    pub(crate) fn truncate_from(&mut self, index: Index) {
        while self.last().index >= index {
            let Some(entry) = self.entries.pop_back() else { break };
            self.bytes -= entry.size();
        }
        while self.memberships.len() > 1 && self.memberships.last().is_some_and(|(at, _)| *at >= index) {
            self.memberships.pop();
        }
    }

    /// Entries from `from` on, cut by bytes; at least one if there is one.
    pub(crate) fn slice(&self, from: Index, upto: Index, bytes_max: usize) -> Vec<Entry> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        let mut index = from;
        while let Some(entry) = (index <= upto).then(|| self.entry(index)).flatten() {
            bytes += entry.size();
            if bytes > bytes_max && !taken.is_empty() {
                break;
            }
            taken.push(entry.clone());
            index = index.next();
        }
        taken
    }

    /// Forgets what a snapshot covers.
    pub(crate) fn compact(&mut self, last: EntryId) {
        if last.index <= self.base.index || last.index > self.last().index {
            return;
        }
        while self.base.index < last.index {
            let Some(entry) = self.entries.pop_front() else { break };
            self.bytes -= entry.size();
            self.base = entry.id();
        }
        let in_force = self.memberships.partition_point(|(at, _)| *at <= self.base.index).saturating_sub(1);
        self.memberships.drain(..in_force);
    }

    /// Starts anew after a snapshot that this log does not lead up to.
    pub(crate) fn reset(&mut self, last: EntryId, membership: Arc<Membership>) {
        *self = Self::new(last, membership);
    }

    /// In force: the newest, committed or not (thesis §4.1).
    pub(crate) fn membership(&self) -> &Arc<Membership> {
        // Constructed with one, and neither truncation nor compaction removes the first that is in force.
        &self.memberships[self.memberships.len() - 1].1
    }

    /// Where the membership in force stands; not above the base if it came with the snapshot or the founding.
    pub(crate) fn membership_index(&self) -> Index {
        self.memberships[self.memberships.len() - 1].0
    }

    /// In force at `index`.
    pub(crate) fn membership_at(&self, index: Index) -> &Arc<Membership> {
        let place = self.memberships.partition_point(|(at, _)| *at <= index).saturating_sub(1);
        &self.memberships[place].1
    }
}
