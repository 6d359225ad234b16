//! What is durable, and the promises that wait for it: nothing that binds this node leaves before the write that it rests on.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::ids::{Index, Instant, Term};
use crate::message::Envelope;

/// Promises that wait for one disk.
const WITHHELD_MAX: usize = 4096;

/// Numbers the writes and keeps what waits for them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Durability {
    /// The number of the newest write that was handed out.
    issued: u64,
    /// Every write up to this one is durable.
    durable: u64,
    /// The log is durable up to here.
    index: Index,
    /// The write that holds the newest term and vote.
    hard: u64,
    /// The first entry that no write holds yet.
    unwritten: Option<Index>,
    /// Whether term or vote changed since the last write.
    hard_changed: bool,
    /// Writes on their way.
    flights: VecDeque<Flight>,
    withheld: VecDeque<(u64, Envelope)>,
}

/// A write on its way to the disk.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Flight {
    seq: u64,
    /// The end of the log as it leaves it.
    last: Index,
    since: Instant,
}

impl Durability {
    pub(crate) const fn new(last: Index) -> Self {
        Self {
            issued: 0,
            durable: 0,
            index: last,
            hard: 0,
            unwritten: None,
            hard_changed: false,
            flights: VecDeque::new(),
            withheld: VecDeque::new(),
        }
    }

    pub(crate) const fn index(&self) -> Index {
        self.index
    }

    /// Term or vote changed.
    pub(crate) fn hard_state_changed(&mut self) {
        self.hard_changed = true;
        self.hard = self.issued + 1;
    }

    /// Entries from `first` on are new in the log.
    pub(crate) fn appended(&mut self, first: Index) {
        self.unwritten = Some(self.unwritten.map_or(first, |index| index.min(first)));
    }

    /// Entries from `first` on are gone. A write on its way that holds them makes durable only what is before them:
    /// the same index and term may stand there again later, from another write (the ABA of asynchronous appends).
    pub(crate) fn truncated(&mut self, first: Index) {
        self.index = self.index.min(first.prev());
        for flight in &mut self.flights {
            flight.last = flight.last.min(first.prev());
        }
        if self.unwritten.is_some_and(|index| index >= first) {
            self.unwritten = None;
        }
    }

    /// The log begins anew after a durable snapshot: of what is on its way to the disk nothing belongs to it.
    pub(crate) fn reset(&mut self, last: Index) {
        self.truncated(Index::ZERO.next());
        self.index = last;
    }

    /// A durable snapshot covers everything up to `last`, which is in the log: no write need hold it any more.
    pub(crate) fn covered(&mut self, last: Index) {
        self.index = self.index.max(last);
        self.unwritten = self.unwritten.map(|first| first.max(last.next()));
    }

    /// The number of the write that the log up to `index` rests on; 0 if it is durable already.
    pub(crate) fn seq_of_log(&self, index: Index) -> u64 {
        if index <= self.index {
            0
        } else if self.unwritten.is_some() {
            self.issued + 1
        } else {
            self.issued
        }
    }

    /// The number of the write that the present term and vote rest on; 0 if they are durable already.
    pub(crate) const fn seq_of_hard_state(&self) -> u64 {
        if self.hard <= self.durable { 0 } else { self.hard }
    }

    pub(crate) const fn is_durable(&self, seq: u64) -> bool {
        seq <= self.durable
    }

    /// Keeps `envelope` until write `seq` is durable.
    ///
    /// A disk that hangs must not fill the memory: beyond [`WITHHELD_MAX`] the oldest promise is dropped, which is as if the
    /// network had lost it.
    pub(crate) fn withhold(&mut self, seq: u64, envelope: Envelope) {
        if self.withheld.len() >= WITHHELD_MAX {
            self.withheld.pop_front();
        }
        self.withheld.push_back((seq, envelope));
    }

    /// The next write if there is anything to write: its number and the first entry to put in it.
    pub(crate) fn issue(&mut self, last: Index, now: Instant) -> Option<(u64, Option<Index>)> {
        let first = self.unwritten.take();
        if first.is_none() && !core::mem::take(&mut self.hard_changed) {
            return None;
        }
        self.hard_changed = false;
        self.issued += 1;
        self.flights.push_back(Flight { seq: self.issued, last, since: now });
        Some((self.issued, first))
    }

    /// Since when the disk has been at its oldest write; none if it has nothing to do.
    pub(crate) fn busy_since(&self) -> Option<Instant> {
        self.flights.front().map(|flight| flight.since)
    }

    /// Every write up to `seq` is durable. Gives the promises that may leave now; those of a past term are void.
    pub(crate) fn persisted(&mut self, seq: u64, term: Term) -> Vec<Envelope> {
        let seq = seq.min(self.issued);
        self.durable = self.durable.max(seq);
        while let Some(flight) = self.flights.pop_front_if(|flight| flight.seq <= seq) {
            self.index = self.index.max(flight.last);
        }
        let due = |(rests_on, _): &(u64, Envelope)| *rests_on <= self.durable;
        let (due, kept): (VecDeque<_>, VecDeque<_>) = core::mem::take(&mut self.withheld).into_iter().partition(due);
        self.withheld = kept;
        due.into_iter().map(|(_, envelope)| envelope).filter(|envelope| envelope.term == term).collect()
    }

    /// As if the writes that are durable had not been counted, on another clock; and what waits to be said twice is said once.
    pub(crate) fn rebase(&mut self, now: Instant, to: Instant) {
        let done = core::mem::take(&mut self.durable);
        self.issued -= done;
        self.hard = self.hard.saturating_sub(done);
        for flight in &mut self.flights {
            flight.seq -= done;
            flight.since = flight.since.moved(now, to);
        }
        let mut withheld = VecDeque::new();
        for (rests_on, envelope) in core::mem::take(&mut self.withheld) {
            let promise = (rests_on - done, envelope);
            if !withheld.contains(&promise) {
                withheld.push_back(promise);
            }
        }
        self.withheld = withheld;
    }

    /// Nothing more will become durable: every promise is void.
    pub(crate) fn silence(&mut self) {
        self.withheld.clear();
        self.unwritten = None;
        self.hard_changed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{NodeId, ReadId};
    use crate::message::Message;

    #[test]
    fn a_disk_that_hangs_does_not_fill_the_memory() {
        let id = NodeId::new("n1").expect("a good id");
        let promise = |n: usize| {
            let message = Message::Read { read: ReadId(n as u64), lease: false };
            Envelope { from: id, to: id, term: Term(1), message }
        };
        let mut durability = Durability::new(Index::ZERO);
        durability.hard_state_changed();
        assert_eq!(durability.issue(Index::ZERO, Instant(0)), Some((1, None)));
        (0..WITHHELD_MAX + 10).for_each(|n| durability.withhold(1, promise(n)));
        let kept = durability.persisted(1, Term(1));
        assert_eq!(kept.len(), WITHHELD_MAX);
        assert_eq!((kept.first(), kept.last()), (Some(&promise(10)), Some(&promise(WITHHELD_MAX + 9))));
    }
}
