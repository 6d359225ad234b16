//! The log in memory, with the memberships it holds.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::entry::{Entry, Payload};
use crate::ids::{EntryId, Index, Term};
use crate::membership::Membership;

/// Entries after `base`, contiguous, terms never going back.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Log {
    /// The last entry that was forgotten, which a snapshot covers; zero if none was.
    base: EntryId,
    entries: VecDeque<Entry>,
    /// Bytes of everything up to each entry: what lies between two is a difference, and a place is found by halving.
    sums: VecDeque<u64>,
    /// The same at the base.
    sum_at_base: u64,
    /// Every membership from the one in force at `base` on, with where it stands; never empty.
    memberships: Vec<(Index, Arc<Membership>)>,
}

impl Log {
    pub(crate) fn new(base: EntryId, membership: Arc<Membership>) -> Self {
        let (entries, sums) = (VecDeque::new(), VecDeque::new());
        Self { base, entries, sums, sum_at_base: 0, memberships: alloc::vec![(base.index, membership)] }
    }

    /// With what a store has kept behind `base`: as if each entry were appended, in the memory that they are in already.
    pub(crate) fn recovered(base: EntryId, membership: Arc<Membership>, entries: Vec<Entry>) -> Self {
        let mut log = Self::new(base, membership);
        log.sums.reserve_exact(entries.len());
        let (mut last, mut sum) = (base, 0);
        for entry in &entries {
            check_follows(last, entry);
            (last, sum) = (entry.id(), sum + entry.size() as u64);
            log.sums.push_back(sum);
            if let Payload::Membership(membership) = &entry.payload {
                log.memberships.push((entry.index, Arc::clone(membership)));
            }
        }
        log.entries = entries.into();
        log
    }

    pub(crate) const fn base(&self) -> EntryId {
        self.base
    }

    pub(crate) fn last(&self) -> EntryId {
        self.entries.back().map_or(self.base, Entry::id)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes_after(self.base.index)
    }

    /// Bytes of the entries behind `index`.
    pub(crate) fn bytes_after(&self, index: Index) -> usize {
        self.bytes_between(index, self.last().index)
    }

    /// Bytes of the entries behind `from`, up to `upto`.
    pub(crate) fn bytes_between(&self, from: Index, upto: Index) -> usize {
        usize::try_from(self.sum_at(upto).saturating_sub(self.sum_at(from))).unwrap_or(usize::MAX)
    }

    /// The lowest place from which no more than `bytes` of entries lead up to `upto`.
    pub(crate) fn reach_back(&self, upto: Index, bytes: usize) -> Index {
        let least = self.sum_at(upto).saturating_sub(bytes as u64);
        if self.sum_at_base >= least {
            return self.base.index;
        }
        let place = self.sums.partition_point(|sum| *sum < least);
        self.entries.get(place).map_or(self.last().index, |e| e.index)
    }

    fn sum_at(&self, index: Index) -> u64 {
        match self.place(index.min(self.last().index)) {
            Some(place) => self.sums.get(place).copied().unwrap_or(self.sum_at_base),
            None => self.sum_at_base,
        }
    }

    /// Where among the entries this index is, or would be; none up to the base.
    fn place(&self, index: Index) -> Option<usize> {
        let place = index.0.checked_sub(self.base.index.0)?.checked_sub(1)?;
        usize::try_from(place).ok()
    }

    pub(crate) fn entry(&self, index: Index) -> Option<&Entry> {
        self.entries.get(self.place(index)?)
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
        check_follows(self.last(), &entry);
        self.sums.push_back(self.sums.back().unwrap_or(&self.sum_at_base) + entry.size() as u64);
        if let Payload::Membership(membership) = &entry.payload {
            self.memberships.push((entry.index, Arc::clone(membership)));
        }
        self.entries.push_back(entry);
    }

    /// Drops everything from `index` on, and the memberships in it.
    pub(crate) fn truncate_from(&mut self, index: Index) {
        while self.last().index >= index && self.entries.pop_back().is_some() {
            self.sums.pop_back();
        }
        while self.memberships.len() > 1 && self.memberships.last().is_some_and(|(at, _)| *at >= index) {
            self.memberships.pop();
        }
    }

    /// Entries from `from` on, cut by bytes; at least one if there is one.
    pub(crate) fn slice(&self, from: Index, upto: Index, bytes_max: usize) -> Vec<Entry> {
        let (Some(first), Some(last)) = (self.place(from), self.place(upto)) else { return Vec::new() };
        let end = self.entries.len().min(last.saturating_add(1));
        if first >= end {
            return Vec::new();
        }
        let most = self.sum_at(from.prev()).saturating_add(bytes_max as u64);
        let all_fit = self.sums.get(end - 1).is_some_and(|sum| *sum <= most);
        let end = if all_fit { end } else { self.sums.partition_point(|sum| *sum <= most).clamp(first + 1, end) };
        self.entries.range(first..end).cloned().collect()
    }

    /// Where memberships stand behind `from`, up to `upto`, among the entries that are here.
    pub(crate) fn memberships_between(&self, from: Index, upto: Index) -> impl Iterator<Item = Index> + '_ {
        let from = from.max(self.base.index);
        self.memberships.iter().map(|(at, _)| *at).filter(move |at| *at > from && *at <= upto)
    }

    /// Forgets everything up to here, which a snapshot covers.
    pub(crate) fn compact(&mut self, last: EntryId) {
        if last.index <= self.base.index || last.index > self.last().index {
            return;
        }
        while self.base.index < last.index {
            let (Some(entry), Some(sum)) = (self.entries.pop_front(), self.sums.pop_front()) else { break };
            (self.base, self.sum_at_base) = (entry.id(), sum);
        }
        let in_force = self.memberships.partition_point(|(at, _)| *at <= self.base.index).saturating_sub(1);
        self.memberships.drain(..in_force);
    }

    /// Starts anew after a snapshot that this log does not lead up to.
    pub(crate) fn reset(&mut self, last: EntryId, membership: Arc<Membership>) {
        *self = Self::new(last, membership);
    }

    /// As if nothing had been forgotten: bytes are counted from the base.
    pub(crate) fn rebase(&mut self) {
        let before = core::mem::take(&mut self.sum_at_base);
        self.sums.iter_mut().for_each(|sum| *sum -= before);
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

fn check_follows(last: EntryId, entry: &Entry) {
    assert_eq!(entry.index, last.index.next(), "the log is contiguous");
    assert!(entry.term >= last.term, "terms never go back");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use bytes::Bytes;

    fn command(index: u64, bytes: usize) -> Entry {
        let payload = Payload::Command(Bytes::from(alloc::vec![0; bytes]));
        Entry { index: Index(index), term: Term(1), payload }
    }

    #[test]
    fn a_log_that_is_recovered_is_the_one_that_was_appended_to() {
        let base = EntryId { term: Term(2), index: Index(7) };
        let member = |n: u8| Arc::new(Membership { cluster: crate::ids::ClusterId(n.into()), ..Membership::default() });
        let mut entries: Vec<Entry> =
            (8..40u8).map(|n| Entry { term: Term(2), ..command(n.into(), n.into()) }).collect();
        entries[5].payload = Payload::Noop;
        entries[9].payload = Payload::Membership(member(1));
        let mut appended = Log::new(base, member(0));
        for entry in &entries {
            appended.append(entry.clone());
        }
        assert_eq!(Log::recovered(base, member(0), entries), appended);
    }

    #[test]
    fn bytes_are_the_sums_of_what_is_there() {
        let mut random = Random::new(3);
        let mut log = Log::new(EntryId::ZERO, Arc::default());
        for _ in 0..3_000 {
            let (base, last) = (log.base().index.0, log.last().index.0);
            let any = Index(base + random.next() % (last - base + 2));
            match random.next() % 8 {
                0 => log.truncate_from(any.next()),
                1 if random.next().is_multiple_of(4) => log.compact(EntryId { term: Term(1), index: any }),
                2 if random.next().is_multiple_of(100) => log.reset(EntryId::new(1, last + 5), Arc::default()),
                _ => log.append(command(last + 1, usize::try_from(random.next() % 50).expect("a small number"))),
            }
            let bytes = |from: Index, upto: Index| -> usize {
                log.entries.iter().filter(|e| e.index > from && e.index <= upto).map(Entry::size).sum()
            };
            assert_eq!(log.bytes(), bytes(Index::ZERO, Index::LAST));
            assert_eq!(log.bytes_after(any), bytes(any, Index::LAST));
            let (upto, limit) =
                (log.last().index.min(any.next()), usize::try_from(random.next() % 300).expect("small"));
            let reached = log.reach_back(upto, limit);
            assert!(bytes(reached, upto) <= limit, "too much");
            let one_more = reached == log.base().index || bytes(reached.prev(), upto) > limit;
            assert!(one_more, "there was room for one more");
        }
    }

    #[test]
    fn a_slice_is_what_fits_and_one_entry_at_the_least() {
        let mut random = Random::new(5);
        let mut log = Log::new(EntryId::ZERO, Arc::default());
        for _ in 0..3_000 {
            let (base, last) = (log.base().index.0, log.last().index.0);
            let mut any = || Index(base.saturating_sub(2) + random.next() % (last - base + 6));
            let (from, upto, cut) = (any(), any(), any());
            let limit = usize::try_from(random.next() % 400).expect("small");
            let mut bytes = 0;
            let expected: Vec<Entry> = log.entries.iter().skip_while(|e| e.index < from).cloned().collect();
            let expected = expected.into_iter().take_while(|e| {
                let is_first = bytes == 0;
                bytes += e.size();
                e.index <= upto && (is_first || bytes <= limit)
            });
            let expected: Vec<Entry> = if from.0 > base { expected.collect() } else { Vec::new() };
            assert_eq!(log.slice(from, upto, limit), expected, "{from} to {upto}, {limit} bytes");
            match random.next() % 40 {
                0 => log.truncate_from(cut.next()),
                1 => log.compact(EntryId { term: Term(1), index: cut }),
                _ => log.append(command(last + 1, usize::try_from(random.next() % 50).expect("small"))),
            }
        }
    }

    #[test]
    fn no_index_overflows() {
        let end = EntryId::new(u64::MAX, u64::MAX);
        let mut log = Log::new(end, Arc::default());
        assert!(log.entry(Index(u64::MAX)).is_none() && log.entry(Index::ZERO).is_none());
        assert_eq!(log.term_at(Index(u64::MAX)), Some(Term(u64::MAX)));
        assert_eq!(log.last_at_most(Index(u64::MAX), Term(u64::MAX)), end);
        assert_eq!((log.bytes_after(Index(u64::MAX)), log.reach_back(Index(u64::MAX), 0)), (0, Index(u64::MAX)));
        assert_eq!(log.slice(Index(u64::MAX), Index(u64::MAX), usize::MAX), []);
        log.compact(end);
        assert_eq!(log.last(), end);
    }
}
