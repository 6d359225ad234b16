//! How calls end other than by the machine's answer: at their deadline, with the node's failure, with its stop.

use graft_domain::{Input, Instant, NodeId};

use crate::error::{Outcome, Refusal};
use crate::replica::{Effect, Replica};
use crate::waiting::{RequestId, Stage};

impl Replica {
    pub(crate) fn answer(&mut self, request: RequestId, outcome: Outcome) {
        self.effects.push(Effect::Answer(request, outcome));
    }

    pub(crate) fn answer_refused(&mut self, request: RequestId, refusal: Refusal) {
        self.answer(request, Outcome::Refused(refusal));
    }

    /// Answers every call whose deadline has come with what is known of it.
    pub(crate) fn expire(&mut self) {
        let now = self.clock.now;
        for call in self.calls.expired(now) {
            match call.stage {
                _ if call.request.is_none() => self.expire_opening(),
                Stage::Parked => self.refuse_call(&call, self.why_waiting()),
                Stage::Sent { leader, term } => {
                    let why =
                        format!("it was handed to leader {leader} of term {term} and is not known to be committed");
                    self.leave_unknown(&call, &why);
                }
                Stage::Applying { index } => {
                    let why = format!("it is committed at index {index} and still being applied here");
                    self.leave_unknown(&call, &why);
                }
            }
        }
        self.end_verifies();
        for (request, serving) in self.reads.expired(now) {
            let refusal = if serving { Refusal::Timeout } else { self.why_waiting() };
            self.answer_refused(request, refusal);
        }
    }

    /// Why a call did not get to a leader.
    pub(crate) fn why_waiting(&self) -> Refusal {
        let membership = self.core.membership();
        let voters: Vec<NodeId> = membership.voters().collect();
        let needed = voters.len() / 2 + 1;
        let reachable = voters.iter().filter(|id| **id == self.core.id() || self.reachable.contains(id)).count();
        match self.core.leader() {
            Some(_) if self.core.has_quorum() => Refusal::Timeout,
            _ if reachable < needed => Refusal::NoQuorum { reachable, needed },
            Some(_) => Refusal::Timeout,
            None => Refusal::NoLeader,
        }
    }

    /// The replica gives up: it answers everyone who waits, and says why from now on.
    pub(crate) fn fail(&mut self, why: String, input: Input) {
        self.step(input);
        self.dismiss(&Refusal::Halted(why.clone()), &format!("this node failed before the answer came: {why}"));
        self.failure.get_or_insert(why);
    }

    /// This node serves nobody any more: its cluster should not be.
    pub(crate) fn on_contradicted(&mut self, why: String) {
        self.contradicted.get_or_insert_with(|| why.clone());
        self.fail(why, Input::Unfit);
    }

    /// Answers everyone who waits: what was not handed to a leader is refused, of the rest nothing is known.
    pub(crate) fn dismiss(&mut self, refusal: &Refusal, unknown: &str) {
        for call in self.calls.drain() {
            match call.stage {
                Stage::Parked => self.refuse_call(&call, refusal.clone()),
                Stage::Sent { .. } | Stage::Applying { .. } => self.leave_unknown(&call, unknown),
            }
        }
        self.dismiss_verifies(unknown);
        for (request, _) in self.reads.drain() {
            self.answer_refused(request, refusal.clone());
        }
        self.dismiss_asks(refusal, unknown);
        self.dismiss_snapshots(refusal);
    }

    pub(crate) fn dismiss_asks(&mut self, refusal: &Refusal, unknown: &str) {
        for open in self.asks.drain() {
            let unknown = || Outcome::unknown(unknown);
            let outcome = if open.is_said() { unknown() } else { Outcome::Refused(refusal.clone()) };
            self.answer(open.request, outcome);
        }
    }

    /// Nothing that waits here is handed to anyone.
    pub(crate) fn refuse_parked(&mut self, refusal: &Refusal) {
        let mut parked = self.calls.take_parked();
        parked.extend(self.calls.take_unplaced());
        for call in parked {
            self.refuse_call(&call, refusal.clone());
        }
    }

    /// Of calls that were handed to a leader and not seen since nothing will be known here.
    pub(crate) fn forget_sent(&mut self, why: &str) {
        for call in self.calls.take_all_sent() {
            self.leave_unknown(&call, why);
        }
    }

    /// No space is left here; another member may have some. Without a successor this node stays what it is.
    pub(crate) fn on_storage_full(&mut self) {
        if !self.storage_full {
            self.storage_full = true;
            self.step(Input::TransferLeadership(None));
        }
    }

    /// From now on nobody is let in, and leadership is handed over, so that the others need not notice.
    pub(crate) fn on_stop(&mut self, deadline: Instant) {
        self.stopping = Some(deadline);
        self.hand_over_at = self.clock.now;
    }

    /// A leader that is to stop asks the best successor of the moment, again and again: the last one may have gone itself.
    pub(crate) fn hand_over(&mut self) {
        let now = self.clock.now;
        if self.stopping.is_some() && self.core.is_leader() && now >= self.hand_over_at {
            self.step(Input::TransferLeadership(None));
            self.hand_over_at = now + self.config.read_retry;
        }
    }

    pub(crate) fn finish_stop(&mut self) {
        let Some(deadline) = self.stopping else { return };
        let alone = self.core.membership().voters().all(|id| id == self.core.id());
        let waiting = self.calls.len() + self.reads.len() + self.verifies.len();
        let idle = waiting == 0 && !self.asks.someone_waits();
        let served = (alone || !self.core.is_leader()) && idle;
        // Without a majority there is nobody to hand over to and nothing to wait for.
        let hopeless = !self.core.is_leader() && matches!(self.why_waiting(), Refusal::NoQuorum { .. });
        if served || hopeless || self.failure.is_some() || self.clock.now >= deadline {
            self.dismiss(&Refusal::Stopped, "the node was stopped before the answer came");
            self.stopping = None;
            self.failure.get_or_insert_with(|| "the node is stopped".to_owned());
            self.effects.push(Effect::Stopped);
        }
    }

    /// When a node that is to stop has something to do about it.
    pub(crate) fn stop_deadline(&self) -> Instant {
        match self.stopping {
            Some(deadline) if self.core.is_leader() => deadline.min(self.hand_over_at),
            Some(deadline) => deadline,
            None => Instant::NEVER,
        }
    }
}
