//! Queries on their way: one read-index round for all that wait, then in line with the commands.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{Index, Instant, ReadId};

use crate::waiting::RequestId;

/// A question about the state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Question {
    pub(crate) request: RequestId,
    pub(crate) deadline: Instant,
    pub(crate) body: Bytes,
}

/// One that is not answered yet.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Open {
    deadline: Instant,
    body: Bytes,
    /// With the machine.
    serving: bool,
}

/// Every question that is not answered. The lists name the questions in the order they came; one that is gone is passed over.
#[derive(Debug)]
pub(crate) struct Reads {
    open: BTreeMap<RequestId, Open>,
    deadlines: BTreeSet<(Instant, RequestId)>,
    /// Not yet asked for an index.
    waiting: Vec<RequestId>,
    /// Rounds without an answer, and when each was asked.
    asked: BTreeMap<u64, (Instant, Vec<RequestId>)>,
    /// May be served once the index is handed to the machine.
    indexed: BTreeMap<Index, Vec<RequestId>>,
    bytes: usize,
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
            waiting: Vec::new(),
            asked: BTreeMap::new(),
            indexed: BTreeMap::new(),
            bytes: 0,
            rounds: 0,
            base: session,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// Bytes of questions that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Waits for an index.
    pub(crate) fn push(&mut self, question: Question) {
        self.waiting.push(question.request);
        self.put(question);
    }

    /// Wants the state as it is.
    pub(crate) fn push_stale(&mut self, question: Question) {
        self.indexed.entry(Index::ZERO).or_default().push(question.request);
        self.put(question);
    }

    fn put(&mut self, Question { request, deadline, body }: Question) {
        self.bytes += body.len();
        self.deadlines.insert((deadline, request));
        self.open.insert(request, Open { deadline, body, serving: false });
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// One name for all that wait, if any do.
    pub(crate) fn ask(&mut self, now: Instant) -> Option<ReadId> {
        if self.waiting.is_empty() {
            return None;
        }
        self.rounds += 1;
        self.asked.insert(self.rounds, (now, std::mem::take(&mut self.waiting)));
        Some(ReadId(self.base.wrapping_add(self.rounds)))
    }

    /// The questions of this round, if it has no answer yet: it has one now.
    fn take_round(&mut self, read: ReadId) -> Option<Vec<RequestId>> {
        self.asked.remove(&read.0.wrapping_sub(self.base)).map(|(_, requests)| requests)
    }

    /// These may be served once `index` is handed to the machine.
    pub(crate) fn index(&mut self, read: ReadId, index: Index) {
        if let Some(requests) = self.take_round(read) {
            self.indexed.entry(index).or_default().extend(requests);
        }
    }

    /// No index was given: they wait again. False if nobody asks.
    pub(crate) fn again(&mut self, read: ReadId) -> bool {
        let Some(requests) = self.take_round(read) else { return false };
        self.waiting.extend(requests);
        true
    }

    /// Those that have waited so long for an answer wait to be asked again: the question or the answer was lost.
    pub(crate) fn again_after(&mut self, now: Instant, patience: Duration) {
        while let Some(round) = self.asked.first_entry().filter(|round| round.get().0 + patience <= now) {
            let (_, requests) = round.remove();
            self.waiting.extend(requests);
        }
    }

    /// When the oldest round without an answer was asked; never if there is none.
    pub(crate) fn oldest_asked(&self) -> Instant {
        // Rounds are counted as time passes.
        self.asked.first_key_value().map_or(Instant::NEVER, |(_, (at, _))| *at)
    }

    /// Gives the machine those that it can answer once it has been handed everything up to `handed`.
    pub(crate) fn take_ready(&mut self, handed: Index) -> Vec<(RequestId, Bytes)> {
        let mut ready = Vec::new();
        while let Some(at) = self.indexed.first_entry().filter(|at| *at.key() <= handed) {
            for request in at.remove() {
                if let Some(open) = self.open.get_mut(&request) {
                    open.serving = true;
                    ready.push((request, open.body.clone()));
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
        self.bytes -= open.body.len();
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
        let Self { open, waiting, indexed, .. } = self;
        let listed = waiting.len() + indexed.values().map(Vec::len).sum::<usize>();
        if listed > 2 * open.len() {
            waiting.retain(|request| open.contains_key(request));
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

    #[test]
    fn what_is_gone_does_not_pile_up_in_the_lists() {
        let mut reads = Reads::new(7);
        for n in 0..1_000 {
            let question = |request| Question { request: RequestId(request), deadline: Instant(n), body: Bytes::new() };
            reads.push(question(3 * n));
            reads.push(question(3 * n + 1));
            let read = reads.ask(Instant(n)).expect("two wait");
            reads.index(read, Index(n + 1));
            reads.push(question(3 * n + 2));
            assert_eq!(reads.expired(Instant(n)).len(), 3);
            assert!(reads.waiting.len() + reads.indexed.len() < 10);
        }
        assert!(reads.take_ready(Index(1_000)).is_empty());
        assert_eq!((reads.len(), reads.deadline()), (0, Instant::NEVER));
    }
}
