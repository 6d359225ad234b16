//! What callers ask of the engine, and how it takes that in.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use graft_domain::Instant;
use graft_services::api::{Call, Caller};
use graft_services::change::Ask;
use graft_services::error::{Outcome, Refusal};
use graft_services::{Clock, Event, Read};

use super::engine::Engine;

/// One thing that was asked, with the time by which it is answered.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) what: What,
    pub(crate) deadline: Instant,
}

#[derive(Debug)]
pub(crate) enum What {
    Execute(Vec<Call>),
    Query(Vec<(Bytes, Caller)>, Read),
    OpenSession(Duration, Caller),
    Ask(Ask, Caller),
    Snapshot { current: bool, caller: Caller },
    Verify(Caller),
}

impl What {
    /// How many wait for an answer.
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::Execute(calls) => calls.len(),
            Self::Query(queries, _) => queries.len(),
            Self::OpenSession(..) | Self::Ask(..) | Self::Snapshot { .. } | Self::Verify(_) => 1,
        }
    }

    /// Bytes of what it carries.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Execute(calls) => calls.iter().map(|call| call.body.len()).sum(),
            Self::Query(queries, _) => queries.iter().map(|(body, _)| body.len()).sum(),
            Self::OpenSession(..) | Self::Ask(..) | Self::Snapshot { .. } | Self::Verify(_) => 0,
        }
    }

    /// Nothing of it was done, and will not be.
    pub(crate) fn refuse(self, refusal: &Refusal) {
        let refuse = |caller: Caller| caller.sink.complete(caller.token, Outcome::Refused(refusal.clone()));
        match self {
            Self::Execute(calls) => calls.into_iter().for_each(|call| refuse(call.caller)),
            Self::Query(queries, _) => queries.into_iter().for_each(|(_, caller)| refuse(caller)),
            Self::OpenSession(_, caller)
            | Self::Ask(_, caller)
            | Self::Snapshot { caller, .. }
            | Self::Verify(caller) => {
                refuse(caller);
            }
        }
    }
}

/// Requests on their way to the engine: it takes them together, in this order.
///
/// Whoever lets go of them without handling them refuses them thereby: none is lost between a caller and an engine that ends.
#[derive(Debug)]
pub(crate) struct Requests(Vec<Request>);

impl Requests {
    pub(crate) fn new(requests: Vec<Request>) -> Self {
        Self(requests)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.iter().map(|request| request.what.count()).sum()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(|request| request.what.bytes()).sum()
    }

    pub(crate) fn take(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn refuse(mut self, refusal: &Refusal) {
        self.take().into_iter().for_each(|request| request.what.refuse(refusal));
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.take().into_iter().for_each(|request| request.what.refuse(&Refusal::Stopped));
    }
}

impl Engine {
    /// Makes events of what was asked: the answer to each finds its caller by the name that it gets here.
    pub(crate) fn take_requests(&mut self, clock: Clock, mut requests: Requests) {
        self.request_bytes.fetch_sub(requests.bytes(), Ordering::Relaxed);
        for Request { what, deadline } in requests.take() {
            self.take_request(clock, what, deadline);
        }
    }

    fn take_request(&mut self, clock: Clock, what: What, deadline: Instant) {
        let event = match what {
            What::Execute(calls) => {
                for Call { body, slot, caller } in calls {
                    let request = self.callers.admit(caller);
                    self.replica.handle(clock, Event::Execute { request, slot, body, deadline });
                }
                return;
            }
            What::Query(queries, read) => {
                for (body, caller) in queries {
                    let request = self.callers.admit(caller);
                    self.replica.handle(clock, Event::Query { request, body, read, deadline });
                }
                return;
            }
            What::OpenSession(ttl, caller) => Event::OpenSession { request: self.callers.admit(caller), ttl, deadline },
            What::Ask(ask, caller) => Event::Ask { request: self.callers.admit(caller), ask, deadline },
            What::Snapshot { current, caller } => {
                Event::Snapshot { request: self.callers.admit(caller), current, deadline }
            }
            What::Verify(caller) => Event::Verify { request: self.callers.admit(caller), deadline },
        };
        self.replica.handle(clock, event);
    }
}
