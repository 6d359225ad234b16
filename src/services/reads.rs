//! Queries on their way: one read-index round for all that wait, then in line with the commands.

use std::collections::{BTreeMap, VecDeque};

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

/// Every question that is not with the machine yet.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Not yet asked for an index.
    waiting: Vec<Question>,
    /// Asked for; with when, to ask again if no answer comes.
    asked: BTreeMap<ReadId, (Instant, Vec<Question>)>,
    /// Their index is known; they wait for it to be handed to the machine.
    indexed: VecDeque<(Index, Question)>,
    /// With the machine.
    serving: BTreeMap<RequestId, Instant>,
    count: usize,
    next: u64,
}

impl Reads {
    pub(crate) fn len(&self) -> usize {
        self.count + self.serving.len()
    }

    /// Names reads from `first` on. It is drawn anew for each run of the node: an answer to an earlier run's read may still
    /// be on its way, and must not be taken for one's own.
    pub(crate) fn starting_at(first: u64) -> Self {
        Self { next: first, ..Self::default() }
    }

    pub(crate) fn push(&mut self, question: Question) {
        self.count += 1;
        self.waiting.push(question);
    }

    /// One name for all that wait, if any do.
    pub(crate) fn ask(&mut self, now: Instant) -> Option<ReadId> {
        if self.waiting.is_empty() {
            return None;
        }
        self.next = self.next.wrapping_add(1);
        let read = ReadId(self.next);
        self.asked.insert(read, (now, std::mem::take(&mut self.waiting)));
        Some(read)
    }

    /// These may be served once `index` is handed to the machine.
    pub(crate) fn index(&mut self, read: ReadId, index: Index) {
        if let Some((_, questions)) = self.asked.remove(&read) {
            self.indexed.extend(questions.into_iter().map(|question| (index, question)));
        }
    }

    /// No index was given: they wait again.
    pub(crate) fn again(&mut self, read: ReadId) {
        if let Some((_, questions)) = self.asked.remove(&read) {
            self.waiting.extend(questions);
        }
    }

    /// Those asked for before `before` wait again: the question or its answer was lost.
    pub(crate) fn again_if_older(&mut self, before: Instant) {
        let lost: Vec<ReadId> = self.asked.iter().filter(|(_, (at, _))| *at < before).map(|(read, _)| *read).collect();
        for read in lost {
            self.again(read);
        }
    }

    /// Takes out those that the machine can answer once it has been handed everything up to `handed`.
    pub(crate) fn take_ready(&mut self, handed: Index) -> Vec<Question> {
        // A later read-index never is below an earlier one by much, and the queue is short: one pass is cheap.
        let (ready, kept): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.indexed).into_iter().partition(|(index, _)| *index <= handed);
        self.indexed = kept;
        self.count -= ready.len();
        let ready: Vec<Question> = ready.into_iter().map(|(_, question)| question).collect();
        self.serving.extend(ready.iter().map(|question| (question.request, question.deadline)));
        ready
    }

    /// With the machine, without having waited for an index.
    pub(crate) fn serve(&mut self, question: &Question) {
        self.serving.insert(question.request, question.deadline);
    }

    /// The machine has answered it.
    pub(crate) fn served(&mut self, request: RequestId) {
        self.serving.remove(&request);
    }

    /// Takes out those that the machine has not answered by their deadline.
    pub(crate) fn overdue(&mut self, now: Instant) -> Vec<RequestId> {
        let overdue: Vec<RequestId> = self.serving.iter().filter(|(_, at)| **at <= now).map(|(r, _)| *r).collect();
        for request in &overdue {
            self.serving.remove(request);
        }
        overdue
    }

    /// Takes out those whose deadline has come.
    pub(crate) fn expired(&mut self, now: Instant) -> Vec<Question> {
        let mut expired = Vec::new();
        let mut keep = |question: &Question| {
            let late = question.deadline <= now;
            if late {
                expired.push(question.clone());
            }
            !late
        };
        self.waiting.retain(&mut keep);
        for (_, questions) in self.asked.values_mut() {
            questions.retain(&mut keep);
        }
        self.indexed.retain(|(_, question)| keep(question));
        self.asked.retain(|_, (_, questions)| !questions.is_empty());
        self.count -= expired.len();
        expired
    }

    pub(crate) fn deadline(&self) -> Instant {
        let serving = self.serving.values().copied().min().unwrap_or(Instant::NEVER);
        if self.count == 0 {
            return serving;
        }
        let asked = self.asked.values().flat_map(|(_, questions)| questions);
        let all = self.waiting.iter().chain(asked).chain(self.indexed.iter().map(|(_, question)| question));
        all.map(|question| question.deadline).min().unwrap_or(Instant::NEVER).min(serving)
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// When the oldest of those asked for was asked; never if none is.
    pub(crate) fn oldest_asked(&self) -> Instant {
        self.asked.values().map(|(at, _)| *at).min().unwrap_or(Instant::NEVER)
    }
}
