//! What clients and operators ask of a node.

use std::time::Duration;

use bytes::Bytes;
use graft_domain::{Incarnation, Index, Instant, NodeId};

use super::history::What;
use super::world::{World, address, id};
use crate::change::{Ask, Change};
use crate::commands::Slot;
use crate::error::{Outcome, Refusal};
use crate::{Consistency, Event, Read, RequestId};

impl World {
    /// Something is asked of a node; `event` says it with the request and its deadline.
    fn asked(
        &mut self,
        n: usize,
        timeout_ms: u64,
        what: What,
        event: impl FnOnce(RequestId, Instant) -> Event,
    ) -> RequestId {
        self.requests += 1;
        let (request, node) = (RequestId(self.requests), id(n));
        let deadline = self.clock(node).now + Duration::from_millis(timeout_ms);
        let event = event(request, deadline);
        self.note(|| format!("{node} is asked {event:?} for {timeout_ms} ms"));
        self.history.asks(request, node, deadline, what);
        self.inbox(node, event);
        request
    }

    pub(crate) fn execute(&mut self, n: usize, body: &str, timeout_ms: u64) -> RequestId {
        let body = Bytes::from(body.to_owned());
        let what = What::Command(body.clone());
        self.asked(n, timeout_ms, what, |request, deadline| Event::Execute { request, slot: None, body, deadline })
    }

    /// A command under a place in a session.
    pub(crate) fn execute_in(&mut self, n: usize, slot: Slot, body: &str, timeout_ms: u64) -> RequestId {
        let (slot, body) = (Some(slot), Bytes::from(body.to_owned()));
        let what = What::Command(body.clone());
        self.asked(n, timeout_ms, what, |request, deadline| Event::Execute { request, slot, body, deadline })
    }

    pub(crate) fn open_session(&mut self, n: usize, ttl: Duration, timeout_ms: u64) -> RequestId {
        self.asked(n, timeout_ms, What::Session, |request, deadline| Event::OpenSession { request, ttl, deadline })
    }

    pub(crate) fn verify(&mut self, n: usize, timeout_ms: u64) -> RequestId {
        self.asked(n, timeout_ms, What::Compare, |request, deadline| Event::Verify { request, deadline })
    }

    /// Asks the machine of a node. What the answer has to show follows from what was asked.
    pub(crate) fn read(&mut self, n: usize, read: Read, timeout_ms: u64) -> RequestId {
        let seen = match read.consistency {
            Consistency::Linearizable | Consistency::Lease => self.history.seen,
            Consistency::Stale { max_age: None } => Index::ZERO,
            // By its own clock, which may be slow.
            Consistency::Stale { max_age: Some(max_age) } => {
                let before = u64::try_from((max_age * 20 / 19).as_nanos()).unwrap_or(u64::MAX);
                self.history.seen_at(Instant(self.now.0.saturating_sub(before)))
            }
        };
        let is_exact = !matches!(read.consistency, Consistency::Stale { .. });
        let (body, what) = (Bytes::from_static(b"?"), What::Query { floor: seen.max(read.at_least), is_exact });
        self.asked(n, timeout_ms, what, |request, deadline| Event::Query { request, body, read, deadline })
    }

    pub(crate) fn query(&mut self, n: usize, timeout_ms: u64) -> RequestId {
        self.read(n, Read::of(Consistency::Linearizable), timeout_ms)
    }

    pub(crate) fn lease_query(&mut self, n: usize, timeout_ms: u64) -> RequestId {
        self.read(n, Read::of(Consistency::Lease), timeout_ms)
    }

    pub(crate) fn stale_query(&mut self, n: usize, timeout_ms: u64) -> RequestId {
        self.read(n, Read::of(Consistency::Stale { max_age: None }), timeout_ms)
    }

    pub(crate) fn bounded_query(&mut self, n: usize, max_age_ms: u64, timeout_ms: u64) -> RequestId {
        let max_age = Some(Duration::from_millis(max_age_ms));
        self.read(n, Read::of(Consistency::Stale { max_age }), timeout_ms)
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
        self.asked(n, timeout_ms, What::Ask, |request, deadline| Event::Snapshot { request, current: false, deadline })
    }

    /// One that covers everything that had returned to anybody.
    pub(crate) fn take_current_snapshot(&mut self, n: usize, timeout_ms: u64) -> RequestId {
        self.asked(n, timeout_ms, What::Ask, |request, deadline| Event::Snapshot { request, current: true, deadline })
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
