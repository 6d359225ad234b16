//! What clients and operators ask of a node.

use std::time::Duration;

use bytes::Bytes;
use graft_domain::{Incarnation, Index, NodeId};

use super::history::What;
use super::world::{World, address, id};
use crate::change::{Ask, Change};
use crate::error::{Outcome, Refusal};
use crate::{Consistency, Event, RequestId};

impl World {
    /// Something is asked of a node; `event` says it with the request and its deadline.
    fn asked(
        &mut self,
        n: usize,
        timeout_ms: u64,
        what: What,
        event: impl FnOnce(RequestId, graft_domain::Instant) -> Event,
    ) -> RequestId {
        self.requests += 1;
        let (request, node) = (RequestId(self.requests), id(n));
        let deadline = self.now + Duration::from_millis(timeout_ms);
        let event = event(request, deadline);
        self.note(|| format!("{node} is asked {event:?} for {timeout_ms} ms"));
        self.history.asks(request, node, deadline, what);
        self.inbox(node, event);
        request
    }

    pub(crate) fn execute(&mut self, n: usize, body: &str, timeout_ms: u64) -> RequestId {
        let body = Bytes::from(body.to_owned());
        let what = What::Command(body.clone());
        self.asked(n, timeout_ms, what, |request, deadline| Event::Execute { request, body, deadline })
    }

    pub(crate) fn query(&mut self, n: usize, timeout_ms: u64) -> RequestId {
        let (consistency, body) = (Consistency::Linearizable, Bytes::from_static(b"?"));
        let what = What::Query { floor: Some(self.history.seen) };
        self.asked(n, timeout_ms, what, |request, deadline| Event::Query { request, body, consistency, deadline })
    }

    pub(crate) fn stale_query(&mut self, n: usize, timeout_ms: u64) -> RequestId {
        let (consistency, body) = (Consistency::Stale, Bytes::from_static(b"?"));
        let what = What::Query { floor: None };
        self.asked(n, timeout_ms, what, |request, deadline| Event::Query { request, body, consistency, deadline })
    }

    pub(crate) fn ask(&mut self, n: usize, ask: Ask, timeout_ms: u64) -> RequestId {
        self.asked(n, timeout_ms, What::Ask, |request, deadline| Event::Ask { request, ask, deadline })
    }

    pub(crate) fn change(&mut self, n: usize, change: Change, timeout_ms: u64) -> RequestId {
        self.ask(n, Ask::Change { change, guard: None }, timeout_ms)
    }

    pub(crate) fn guarded(&mut self, n: usize, change: Change, guard: Index, timeout_ms: u64) -> RequestId {
        self.ask(n, Ask::Change { change, guard: Some(guard) }, timeout_ms)
    }

    pub(crate) fn transfer(&mut self, n: usize, to: Option<usize>, timeout_ms: u64) -> RequestId {
        self.ask(n, Ask::Transfer { to: to.map(id) }, timeout_ms)
    }

    pub(crate) fn take_snapshot(&mut self, n: usize, timeout_ms: u64) -> RequestId {
        self.asked(n, timeout_ms, What::Ask, |request, deadline| Event::Snapshot { request, deadline })
    }

    pub(crate) fn answer(&self, request: RequestId) -> Option<&Outcome> {
        self.history.answer(request)
    }

    pub(crate) fn is_done(&self, request: RequestId) -> bool {
        matches!(self.answer(request), Some(Outcome::Done { .. }))
    }

    #[track_caller]
    pub(crate) fn assert_done(&self, request: RequestId) {
        assert!(self.is_done(request), "{:?}", self.answer(request));
    }

    /// In which words a change was refused.
    #[track_caller]
    pub(crate) fn refusal(&self, request: RequestId) -> &str {
        match self.answer(request) {
            Some(Outcome::Refused(Refusal::Membership(why) | Refusal::Snapshot(why))) => why,
            other => panic!("{request:?} is answered {other:?}"),
        }
    }
}

/// A change that adds this node as a voter.
pub(crate) fn add(n: usize) -> Change {
    Change::Add { id: id(n), address: address(n), voter: true, incarnation: Incarnation::UNKNOWN }
}

/// A change that adds this node as a learner.
pub(crate) fn add_learner(n: usize) -> Change {
    Change::Add { id: id(n), address: address(n), voter: false, incarnation: Incarnation::UNKNOWN }
}

pub(crate) fn remove(n: usize) -> Change {
    Change::Remove { id: id(n) }
}

pub(crate) fn promote(n: usize) -> Change {
    Change::Promote { id: id(n) }
}

pub(crate) fn demote(n: usize) -> Change {
    Change::Demote { id: id(n) }
}

pub(crate) fn replace(old: usize, new: usize) -> Change {
    Change::Replace { old: id(old), new: id(new), address: address(new) }
}

/// A change that makes these the only members.
pub(crate) fn apply(members: &[usize]) -> Change {
    let member = |n: &usize| -> (NodeId, String) { (id(*n), address(*n)) };
    Change::Apply { members: members.iter().map(member).collect() }
}
