//! Queries on their way: one read-index round for all that wait, then in line with the commands.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{Index, Instant, ReadId};

use crate::replica::RequestId;

/// A question about the state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Question {
    pub(crate) request: RequestId,
    pub(crate) deadline: Instant,
    pub(crate) body: Bytes,
}

/// How far a question has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Place {
    /// Not yet asked for an index.
    Waiting,
    /// In this round.
    Asked(u64),
    /// May be served once this index is handed to the machine.
    Indexed(Index),
    /// With the machine.
    Serving,
}

/// Every question that is not answered, in the order they came.
#[derive(Debug)]
pub(crate) struct Reads {
    questions: BTreeMap<u64, (Question, Place)>,
    places: BTreeSet<(Place, u64)>,
    deadlines: BTreeSet<(Instant, u64)>,
    serving: BTreeMap<RequestId, u64>,
    /// Rounds without an answer, and when each was asked.
    asked: BTreeMap<u64, Instant>,
    bytes: usize,
    /// Questions and rounds so far.
    number: u64,
    rounds: u64,
    /// The name of the round before the first: no round of another run of this node may have the name of one of this run.
    base: u64,
}

impl Reads {
    pub(crate) fn new(session: u64) -> Self {
        Self {
            questions: BTreeMap::new(),
            places: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            serving: BTreeMap::new(),
            asked: BTreeMap::new(),
            bytes: 0,
            number: 0,
            rounds: 0,
            base: session,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.questions.len()
    }

    /// Bytes of questions that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Waits for an index.
    pub(crate) fn push(&mut self, question: Question) {
        self.put(question, Place::Waiting);
    }

    /// Wants the state as it is.
    pub(crate) fn push_stale(&mut self, question: Question) {
        self.put(question, Place::Indexed(Index::ZERO));
    }

    fn put(&mut self, question: Question, place: Place) {
        self.number += 1;
        self.bytes += question.body.len();
        self.places.insert((place, self.number));
        self.deadlines.insert((question.deadline, self.number));
        self.questions.insert(self.number, (question, place));
    }

    fn move_to(&mut self, number: u64, to: Place) {
        if let Some((_, place)) = self.questions.get_mut(&number) {
            self.places.remove(&(*place, number));
            self.places.insert((to, number));
            *place = to;
        }
    }

    fn at(&self, first: Place, last: Place) -> Vec<u64> {
        self.places.range((first, 0)..=(last, u64::MAX)).map(|(_, number)| *number).collect()
    }

    fn move_all(&mut self, from: Place, to: Place) {
        for number in self.at(from, from) {
            self.move_to(number, to);
        }
    }

    pub(crate) fn has_waiting(&self) -> bool {
        self.places.first().is_some_and(|(place, _)| *place == Place::Waiting)
    }

    /// One name for all that wait, if any do.
    pub(crate) fn ask(&mut self, now: Instant) -> Option<ReadId> {
        if !self.has_waiting() {
            return None;
        }
        self.rounds += 1;
        self.asked.insert(self.rounds, now);
        self.move_all(Place::Waiting, Place::Asked(self.rounds));
        Some(ReadId(self.base.wrapping_add(self.rounds)))
    }

    /// The round of this name, if it has no answer yet: it has one now.
    fn take_round(&mut self, read: ReadId) -> Option<u64> {
        let round = read.0.wrapping_sub(self.base);
        self.asked.remove(&round).map(|_| round)
    }

    /// These may be served once `index` is handed to the machine.
    pub(crate) fn index(&mut self, read: ReadId, index: Index) {
        if let Some(round) = self.take_round(read) {
            self.move_all(Place::Asked(round), Place::Indexed(index));
        }
    }

    /// No index was given: they wait again. False if nobody asks.
    pub(crate) fn again(&mut self, read: ReadId) -> bool {
        let round = self.take_round(read);
        if let Some(round) = round {
            self.move_all(Place::Asked(round), Place::Waiting);
        }
        round.is_some()
    }

    /// Those that have waited so long for an answer wait to be asked again: the question or the answer was lost.
    pub(crate) fn again_after(&mut self, now: Instant, patience: Duration) {
        while let Some(round) = self.asked.first_entry().filter(|round| *round.get() + patience <= now) {
            let (round, _) = round.remove_entry();
            self.move_all(Place::Asked(round), Place::Waiting);
        }
    }

    /// When the oldest round without an answer was asked; never if there is none.
    pub(crate) fn oldest_asked(&self) -> Instant {
        // Rounds are counted as time passes.
        self.asked.first_key_value().map_or(Instant::NEVER, |(_, at)| *at)
    }

    /// Gives the machine those that it can answer once it has been handed everything up to `handed`.
    pub(crate) fn take_ready(&mut self, handed: Index) -> Vec<(RequestId, Bytes)> {
        let ready = self.at(Place::Indexed(Index::ZERO), Place::Indexed(handed));
        let mut taken = Vec::with_capacity(ready.len());
        for number in ready {
            self.move_to(number, Place::Serving);
            if let Some((question, _)) = self.questions.get(&number) {
                self.serving.insert(question.request, number);
                taken.push((question.request, question.body.clone()));
            }
        }
        taken
    }

    /// The machine has answered it.
    pub(crate) fn served(&mut self, request: RequestId) {
        if let Some(number) = self.serving.remove(&request) {
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u64) -> Option<(RequestId, Place)> {
        let (question, place) = self.questions.remove(&number)?;
        self.places.remove(&(place, number));
        self.deadlines.remove(&(question.deadline, number));
        self.serving.remove(&question.request);
        self.bytes -= question.body.len();
        Some((question.request, place))
    }

    /// Takes out those whose deadline has come, with how far they were.
    pub(crate) fn expired(&mut self, now: Instant) -> Vec<(RequestId, Place)> {
        let mut expired = Vec::new();
        while let Some((_, number)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            expired.extend(self.remove(number));
        }
        expired
    }

    /// Takes out all of them.
    pub(crate) fn drain(&mut self) -> Vec<(RequestId, Place)> {
        self.expired(Instant::NEVER)
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadlines.first().map_or(Instant::NEVER, |(at, _)| *at)
    }
}
