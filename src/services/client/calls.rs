//! The calls that a client owes an answer.

use std::collections::BTreeSet;
use std::time::Duration;

use graft_domain::Instant;

use super::demand::Demand;
use crate::commands::Slot;
use crate::deadlines::Deadlines;
use crate::error::Refusal;
use crate::numbered::Numbered;
use crate::waiting::RequestId;

/// A refusal must come before the deadline to be told at it: this part of a call's time, and no more than this much, is not
/// given to members.
const MARGIN_SHARE: u32 = 8;
const MARGIN_MAX: Duration = Duration::from_millis(250);

#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) request: RequestId,
    pub(super) demand: Demand,
    /// The command's place in a session, once it has one.
    pub(super) slot: Option<Slot>,
    /// The slot is the caller's own.
    pub(super) given: bool,
    pub(super) deadline: Instant,
    /// Members are to answer by then.
    pub(super) answer_by: Instant,
    pub(super) stage: Stage,
    /// The fate of an earlier attempt is not clear.
    pub(super) risked: bool,
    /// Attempts that were refused, one after the other.
    pub(super) refused: u32,
    /// How often in a row a member said that it does not know, and not that asking again helps.
    pub(super) forgotten: u32,
    /// Why it is not done yet.
    pub(super) trouble: Option<Refusal>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// It has no slot, because there is no session or its window is full.
    Unplaced,
    Ready,
    Resting {
        until: Instant,
    },
    /// Said to a member, under this number.
    Sent {
        number: u64,
    },
}

/// All of them, by the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Calls {
    by_id: Numbered<Call>,
    deadlines: Deadlines,
    unplaced: Numbered<()>,
    ready: Numbered<()>,
    /// Of those that are ready, the ones that any member may hear, of whatever cluster.
    harmless: Numbered<()>,
    resting: BTreeSet<(Instant, u64)>,
    bytes: usize,
    last: u64,
}

impl Calls {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn admit(&mut self, request: RequestId, demand: Demand, now: Instant, deadline: Instant) {
        self.last += 1;
        let (slot, stage) = match demand {
            Demand::Execute { slot: None, .. } => (None, Stage::Unplaced),
            Demand::Execute { slot, .. } => (slot, Stage::Ready),
            _ => (None, Stage::Ready),
        };
        let time = deadline.since(now);
        let answer_by = now + time.saturating_sub((time / MARGIN_SHARE).min(MARGIN_MAX));
        self.bytes += demand.bytes();
        self.deadlines.insert(deadline, self.last);
        let given = slot.is_some();
        let call = Call {
            request,
            demand,
            slot,
            given,
            deadline,
            answer_by,
            stage,
            risked: false,
            refused: 0,
            forgotten: 0,
            trouble: None,
        };
        self.by_id.insert(self.last, call);
        self.file(self.last, stage);
    }

    pub(super) fn find(&mut self, id: u64) -> Option<&mut Call> {
        self.by_id.get_mut(id)
    }

    pub(super) fn restage(&mut self, id: u64, stage: Stage) {
        if let Some(call) = self.by_id.get_mut(id) {
            let former = std::mem::replace(&mut call.stage, stage);
            self.unfile(id, former);
            self.file(id, stage);
        }
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Call> {
        let call = self.by_id.remove(id)?;
        self.unfile(id, call.stage);
        self.deadlines.remove(call.deadline, id);
        self.bytes -= call.demand.bytes();
        Some(call)
    }

    fn file(&mut self, id: u64, stage: Stage) {
        match stage {
            Stage::Unplaced => self.unplaced.insert(id, ()),
            Stage::Ready => {
                let is_harmless = self.by_id.get(id).is_some_and(|call| call.demand.is_of_the_member());
                let ready = if is_harmless { &mut self.harmless } else { &mut self.ready };
                ready.insert(id, ());
            }
            Stage::Resting { until } => drop(self.resting.insert((until, id))),
            Stage::Sent { .. } => {}
        }
    }

    fn unfile(&mut self, id: u64, stage: Stage) {
        match stage {
            Stage::Unplaced => drop(self.unplaced.remove(id)),
            Stage::Ready => {
                self.ready.remove(id);
                self.harmless.remove(id);
            }
            Stage::Resting { until } => drop(self.resting.remove(&(until, id))),
            Stage::Sent { .. } => {}
        }
    }

    /// The first that has no slot yet.
    pub(super) fn first_unplaced(&self) -> Option<u64> {
        self.unplaced.first().map(|(id, ())| id)
    }

    /// The first that may be sent, to a member of the cluster or to one that has named none.
    pub(super) fn first_ready(&self, is_named: bool) -> Option<u64> {
        let ready = self.ready.first().filter(|_| is_named);
        ready.into_iter().chain(self.harmless.first()).map(|(id, ())| id).min()
    }

    /// Those whose rest is over may be sent again.
    pub(super) fn wake(&mut self, now: Instant) {
        while let Some((_, id)) = self.resting.first().copied().filter(|(until, _)| *until <= now) {
            let placed = self
                .by_id
                .get(id)
                .is_some_and(|call| call.slot.is_some() || !matches!(call.demand, Demand::Execute { .. }));
            self.restage(id, if placed { Stage::Ready } else { Stage::Unplaced });
        }
    }

    /// One whose deadline has come.
    pub(super) fn expired(&self, now: Instant) -> Option<u64> {
        self.deadlines.first().filter(|(at, _)| *at <= now).map(|(_, id)| id)
    }

    /// Those that no member has now.
    pub(super) fn unsent(&self) -> Vec<u64> {
        let unsent = self.by_id.iter().filter(|(_, call)| !matches!(call.stage, Stage::Sent { .. }));
        unsent.map(|(id, _)| id).collect()
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.by_id.first().map(|(id, _)| id)
    }

    /// When there is something to do next.
    pub(super) fn deadline(&self) -> Instant {
        let deadline = self.deadlines.first().map_or(Instant::NEVER, |(at, _)| at);
        self.resting.first().map_or(deadline, |(until, _)| deadline.min(*until))
    }
}
