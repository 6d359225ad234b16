//! Queries on their way: one read-index round for all that wait, one question to the lease for those that it is good enough
//! for, then in line with the commands.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{Index, Instant, ReadId};

use crate::replica::{Consistency, Read};
use crate::waiting::RequestId;

/// A question about the state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Question {
    pub(crate) request: RequestId,
    pub(crate) deadline: Instant,
    pub(crate) wanted: Wanted,
    pub(crate) read: Read,
}

/// What is to be done with a state that is new enough.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Wanted {
    /// The machine is asked this.
    Reply(Bytes),
    Snapshot,
}

impl Wanted {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Reply(body) => body.len(),
            Self::Snapshot => 0,
        }
    }
}

/// What may be done now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ready {
    pub(crate) queries: Vec<(RequestId, Bytes)>,
    /// They are not among the reads any more.
    pub(crate) snapshots: Vec<(RequestId, Instant)>,
}

/// One that is not answered yet.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Open {
    deadline: Instant,
    wanted: Wanted,
    /// The state must have this.
    at_least: Index,
    /// Which was not committed when it came.
    is_ahead: bool,
    /// With the machine.
    serving: bool,
}

/// A round without an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Round {
    asked: Instant,
    lease: bool,
    requests: Vec<RequestId>,
}

/// Every question that is not answered. The lists name the questions in the order they came; one that is gone is passed over.
#[derive(Debug)]
pub(crate) struct Reads {
    open: BTreeMap<RequestId, Open>,
    deadlines: BTreeSet<(Instant, RequestId)>,
    /// Content with a state of at most this age; the time to judge it by is that of the end of the turn.
    bounded: Vec<(RequestId, Duration)>,
    /// Not yet asked for an index: those that a lease is good enough for, and all others.
    waiting_lease: Vec<RequestId>,
    waiting: Vec<RequestId>,
    asked: BTreeMap<u64, Round>,
    /// May be served once the index is handed to the machine.
    indexed: BTreeMap<Index, Vec<RequestId>>,
    /// When the newest of the rounds was asked whose index was handed to the machine: the state is as of then, or newer.
    fresh: Option<Instant>,
    /// The same of one whose index is still to be handed over. There is one at a time, lest a machine that is always a
    /// little behind never gets to any.
    next_fresh: Option<(Index, Instant)>,
    bytes: usize,
    ahead: usize,
    /// Rounds so far.
    rounds: u64,
    /// The name of the round before the first: no round of another run of this node may have the name of one of this run.
    base: u64,
}

impl Reads {
    pub(crate) fn new(session: u64) -> Self {
        Self {
            open: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            bounded: Vec::new(),
            waiting_lease: Vec::new(),
            waiting: Vec::new(),
            asked: BTreeMap::new(),
            indexed: BTreeMap::new(),
            fresh: None,
            next_fresh: None,
            bytes: 0,
            ahead: 0,
            rounds: 0,
            base: session,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// Those that came for an entry of the future.
    pub(crate) fn ahead(&self) -> usize {
        self.ahead
    }

    /// Bytes of questions that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// With `is_ahead` it wants an entry that is not committed yet.
    pub(crate) fn push(&mut self, Question { request, deadline, wanted, read }: Question, is_ahead: bool) {
        let Read { consistency, at_least } = read;
        match consistency {
            Consistency::Linearizable => self.waiting.push(request),
            Consistency::Lease => self.waiting_lease.push(request),
            Consistency::Stale { max_age: Some(max_age) } => self.bounded.push((request, max_age)),
            Consistency::Stale { max_age: None } => self.indexed.entry(at_least).or_default().push(request),
        }
        self.bytes += wanted.bytes();
        self.deadlines.insert((deadline, request));
        self.ahead += usize::from(is_ahead);
        self.open.insert(request, Open { deadline, wanted, at_least, is_ahead, serving: false });
    }

    /// Sorts out those that came with a bound on the age of the state: what is here will do, or they wait for a round. On the
    /// leader its lease tells that what is here is new.
    pub(crate) fn judge_ages(&mut self, now: Instant, leads: bool) {
        for (request, max_age) in std::mem::take(&mut self.bounded) {
            let Some(at_least) = self.open.get(&request).map(|open| open.at_least) else { continue };
            // A round that was asked before the age began proves nothing, one in that very moment either.
            if self.fresh.is_some_and(|asked| now.since(asked) < max_age) {
                self.indexed.entry(at_least).or_default().push(request);
            } else if leads {
                self.waiting_lease.push(request);
            } else {
                self.waiting.push(request);
            }
        }
    }

    fn list(&mut self, lease: bool) -> &mut Vec<RequestId> {
        if lease { &mut self.waiting_lease } else { &mut self.waiting }
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty() || !self.waiting_lease.is_empty()
    }

    /// One name for all that wait, by lease or not, if any do.
    pub(crate) fn ask(&mut self, asked: Instant, lease: bool) -> Option<ReadId> {
        let requests = std::mem::take(self.list(lease));
        if requests.is_empty() {
            return None;
        }
        self.rounds += 1;
        self.asked.insert(self.rounds, Round { asked, lease, requests });
        Some(ReadId(self.base.wrapping_add(self.rounds)))
    }

    /// This round, if it has no answer yet: it has one now.
    fn take_round(&mut self, read: ReadId) -> Option<Round> {
        self.asked.remove(&read.0.wrapping_sub(self.base))
    }

    /// The questions of this round may be served once `index` is handed to the machine.
    pub(crate) fn index(&mut self, read: ReadId, index: Index) {
        let Some(Round { asked, requests, .. }) = self.take_round(read) else { return };
        for request in requests {
            if let Some(open) = self.open.get(&request) {
                self.indexed.entry(index.max(open.at_least)).or_default().push(request);
            }
        }
        if self.next_fresh.is_none_or(|(next, at)| index <= next && asked > at) {
            self.next_fresh = Some((index, asked));
        }
    }

    /// No index was given: they wait again. False if nobody asks.
    pub(crate) fn again(&mut self, read: ReadId) -> bool {
        let Some(Round { lease, requests, .. }) = self.take_round(read) else { return false };
        self.list(lease).extend(requests);
        true
    }

    /// Those that have waited so long for an answer wait to be asked again: the question or the answer was lost.
    pub(crate) fn again_after(&mut self, now: Instant, patience: Duration) {
        while let Some(round) = self.asked.first_entry().filter(|round| round.get().asked + patience <= now) {
            let Round { lease, requests, .. } = round.remove();
            self.list(lease).extend(requests);
        }
    }

    /// When the oldest round without an answer was asked; never if there is none.
    pub(crate) fn oldest_asked(&self) -> Instant {
        // Rounds are counted as time passes.
        self.asked.first_key_value().map_or(Instant::NEVER, |(_, round)| round.asked)
    }

    /// Those that can be served once the machine has been handed everything up to `handed`.
    pub(crate) fn take_ready(&mut self, handed: Index) -> Ready {
        if let Some((_, asked)) = self.next_fresh.take_if(|(index, _)| *index <= handed) {
            self.fresh = self.fresh.max(Some(asked));
        }
        let mut ready = Ready::default();
        while let Some(at) = self.indexed.first_entry().filter(|at| *at.key() <= handed) {
            for request in at.remove() {
                let Some(open) = self.open.get_mut(&request) else { continue };
                match &open.wanted {
                    Wanted::Reply(body) => {
                        open.serving = true;
                        ready.queries.push((request, body.clone()));
                    }
                    Wanted::Snapshot => {
                        ready.snapshots.push((request, open.deadline));
                        self.remove(request);
                    }
                }
            }
        }
        ready
    }

    /// The machine has answered it.
    pub(crate) fn served(&mut self, request: RequestId) {
        self.remove(request);
    }

    fn remove(&mut self, request: RequestId) -> Option<Open> {
        let open = self.open.remove(&request)?;
        self.deadlines.remove(&(open.deadline, request));
        self.bytes -= open.wanted.bytes();
        self.ahead -= usize::from(open.is_ahead);
        Some(open)
    }

    /// Takes out those whose deadline has come, and whether each was with the machine.
    pub(crate) fn expired(&mut self, now: Instant) -> Vec<(RequestId, bool)> {
        let mut expired = Vec::new();
        while let Some((deadline, request)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            if self.open.get(&request).is_some_and(|open| open.serving) {
                // It goes on counting until the machine has come to it: a machine that is stuck must not gather them.
                self.deadlines.remove(&(deadline, request));
                expired.push((request, true));
            } else {
                expired.extend(self.remove(request).map(|_| (request, false)));
            }
        }
        if !expired.is_empty() {
            self.forget_gone();
        }
        expired
    }

    /// Keeps those that are gone from outnumbering those that are there, where both wait for a leader or for the machine.
    fn forget_gone(&mut self) {
        let Self { open, waiting, waiting_lease, indexed, .. } = self;
        let listed = waiting.len() + waiting_lease.len() + indexed.values().map(Vec::len).sum::<usize>();
        if listed > 2 * open.len() {
            waiting.retain(|request| open.contains_key(request));
            waiting_lease.retain(|request| open.contains_key(request));
            indexed.retain(|_, requests| {
                requests.retain(|request| open.contains_key(request));
                !requests.is_empty()
            });
        }
    }

    /// Takes out all of them.
    pub(crate) fn drain(&mut self) -> Vec<(RequestId, bool)> {
        self.expired(Instant::NEVER)
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadlines.first().map_or(Instant::NEVER, |(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(request: u64, deadline: u64, consistency: Consistency) -> Question {
        let (request, deadline) = (RequestId(request), Instant(deadline));
        Question { request, deadline, wanted: Wanted::Reply(Bytes::new()), read: Read::of(consistency) }
    }

    #[test]
    fn what_is_gone_does_not_pile_up_in_the_lists() {
        let mut reads = Reads::new(7);
        for n in 0..1_000 {
            reads.push(question(4 * n, n, Consistency::Linearizable), false);
            reads.push(question(4 * n + 1, n, Consistency::Linearizable), false);
            let read = reads.ask(Instant(n), false).expect("two wait");
            reads.index(read, Index(n + 1));
            reads.push(question(4 * n + 2, n, Consistency::Linearizable), false);
            reads.push(question(4 * n + 3, n, Consistency::Lease), false);
            assert_eq!(reads.expired(Instant(n)).len(), 4);
            assert!(reads.waiting.len() + reads.waiting_lease.len() + reads.indexed.len() < 10);
        }
        assert_eq!(reads.take_ready(Index(1_000)), Ready::default());
        assert_eq!((reads.len(), reads.deadline()), (0, Instant::NEVER));
    }

    /// Asks a round at a time, and answers it with an index.
    fn round(reads: &mut Reads, at: u64, index: u64) {
        reads.push(question(1_000 + at, u64::MAX, Consistency::Linearizable), false);
        let read = reads.ask(Instant(at), false).expect("one waits");
        reads.index(read, Index(index));
    }

    /// Whether a question with this bound is answered from what is here.
    fn is_local(reads: &mut Reads, now: u64, max_age: u64) -> bool {
        let max_age = Some(Duration::from_nanos(max_age));
        reads.push(question(1, u64::MAX, Consistency::Stale { max_age }), false);
        reads.judge_ages(Instant(now), false);
        let local = reads.take_ready(Index(10)).queries.iter().any(|(request, _)| *request == RequestId(1));
        reads.remove(RequestId(1));
        reads.waiting.clear();
        local
    }

    #[test]
    fn the_age_of_a_state_counts_from_when_its_round_was_asked() {
        let mut reads = Reads::new(7);
        assert!(!is_local(&mut reads, 0, u64::MAX), "nothing was asked yet");
        round(&mut reads, 100, 10);
        reads.take_ready(Index(10));
        assert!(is_local(&mut reads, 150, 51) && !is_local(&mut reads, 150, 50));
        assert!(!is_local(&mut reads, 100, 0), "in no time at all nothing is fresh");
        assert!(is_local(&mut reads, 100, 1));
    }

    #[test]
    fn a_round_makes_the_state_fresh_when_the_machine_has_its_index() {
        let mut reads = Reads::new(7);
        round(&mut reads, 100, 10);
        reads.take_ready(Index(10));
        round(&mut reads, 200, 11);
        round(&mut reads, 300, 12);
        reads.take_ready(Index(10));
        assert!(!is_local(&mut reads, 310, 200), "the machine has not come to 11");
        reads.take_ready(Index(11));
        assert!(is_local(&mut reads, 310, 111) && !is_local(&mut reads, 310, 110));
        // An answer that comes late, of a round that was asked early, makes nothing older.
        reads.push(question(7, u64::MAX, Consistency::Linearizable), false);
        let early = reads.ask(Instant(150), false).expect("one waits");
        reads.index(early, Index(1));
        reads.take_ready(Index(11));
        assert!(is_local(&mut reads, 310, 111));
    }
}
