//! Those who wait for an answer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use graft_services::RequestId;
pub use graft_services::api::{Caller, Sink};
use graft_services::error::Outcome;
use graft_services::numbered::Numbered;

use crate::infrastructure::metrics::Metrics;

/// Waits for one or many answers, numbered from 0, with a single wake-up when all are there.
#[derive(Debug)]
pub struct Waiting {
    answers: Mutex<(Vec<Option<Outcome>>, usize)>,
    all: Condvar,
}

impl Waiting {
    pub fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new((vec![None; count], count)), all: Condvar::new() })
    }

    /// Whether all answers are there, after waiting for them at most so long.
    pub fn wait(&self, timeout: Duration) -> bool {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.all.wait_timeout_while(answers, timeout, |(_, missing)| *missing > 0);
        waited.unwrap_or_else(PoisonError::into_inner).0.1 == 0
    }

    /// The answers; one that did not come is unknown.
    pub fn take(&self) -> Vec<Outcome> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = || Outcome::unknown("the node's engine did not answer in time");
        std::mem::take(&mut answers.0).into_iter().map(|answer| answer.unwrap_or_else(missing)).collect()
    }
}

impl Sink for Waiting {
    fn complete(&self, token: u64, outcome: Outcome) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (places, missing) = &mut *answers;
        let place = usize::try_from(token).ok().and_then(|token| places.get_mut(token));
        if let Some(place @ None) = place {
            *place = Some(outcome);
            *missing -= 1;
            if *missing == 0 {
                drop(answers);
                self.all.notify_all();
            }
        }
    }
}

/// The calls that the engine knows of, by the name it gave them.
#[derive(Debug, Default)]
pub(crate) struct Callers {
    by_request: Numbered<Caller>,
    next: u64,
    inflight: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

impl Callers {
    pub(crate) fn new(inflight: Arc<AtomicUsize>, metrics: Arc<Metrics>) -> Self {
        Self { by_request: Numbered::default(), next: 0, inflight, metrics }
    }

    pub(crate) fn admit(&mut self, caller: Caller) -> RequestId {
        self.next += 1;
        self.by_request.insert(self.next, caller);
        RequestId(self.next)
    }

    pub(crate) fn find(&self, request: RequestId) -> Option<Caller> {
        self.by_request.get(request.0).cloned()
    }

    /// It is answered, or will be by someone else.
    pub(crate) fn release(&mut self, request: RequestId) -> Option<Caller> {
        let caller = self.by_request.remove(request.0);
        if caller.is_some() {
            self.inflight.fetch_sub(1, Ordering::Relaxed);
        }
        caller
    }

    pub(crate) fn answer(&mut self, request: RequestId, outcome: Outcome) {
        if let Some(caller) = self.release(request) {
            self.metrics.ended(&outcome);
            caller.sink.complete(caller.token, outcome);
        }
    }

    /// Answers everybody.
    pub(crate) fn abandon(&mut self, outcome: &Outcome) {
        let all: Vec<RequestId> = self.by_request.iter().map(|(request, _)| RequestId(request)).collect();
        for request in all {
            self.answer(request, outcome.clone());
        }
    }
}

/// A deadline of the caller's clock.
pub fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
