//! How calls end other than by the machine's answer: at their deadline, with the node's failure, with its stop.

use graft_domain::{Input, Instant, NodeId};

use crate::error::{Outcome, Refusal};
use crate::replica::{Effect, Replica};
use crate::waiting::{RequestId, Stage};

impl Replica {
    fn answer(&mut self, request: RequestId, outcome: Outcome) {
        self.effects.push(Effect::Answer(request, outcome));
    }

    pub(crate) fn answer_refused(&mut self, request: RequestId, refusal: Refusal) {
        self.answer(request, Outcome::Refused(refusal));
    }

    /// Answers every call whose deadline has come with what is known of it.
    pub(crate) fn expire(&mut self) {
        let now = self.clock.now;
        for call in self.calls.expired(now) {
            let outcome = match call.stage {
                Stage::Parked => Outcome::Refused(self.why_waiting()),
                Stage::Sent { leader, term } => Outcome::Unknown(format!(
                    "it was handed to leader {leader} of term {term} and is not known to be committed"
                )),
                Stage::Applying { index } => {
                    Outcome::Unknown(format!("it is committed at index {index} and still being applied here"))
                }
            };
            self.answer(call.request, outcome);
        }
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

    /// Answers everyone who waits: what was not handed to a leader is refused, of the rest nothing is known.
    pub(crate) fn dismiss(&mut self, refusal: &Refusal, unknown: &str) {
        for call in self.calls.drain() {
            let outcome = match call.stage {
                Stage::Parked => Outcome::Refused(refusal.clone()),
                Stage::Sent { .. } | Stage::Applying { .. } => Outcome::Unknown(unknown.to_owned()),
            };
            self.answer(call.request, outcome);
        }
        for (request, _) in self.reads.drain() {
            self.answer_refused(request, refusal.clone());
        }
        self.dismiss_asks(refusal, unknown);
        self.dismiss_snapshots(refusal);
    }

    pub(crate) fn dismiss_asks(&mut self, refusal: &Refusal, unknown: &str) {
        for open in self.asks.drain() {
            let unknown = || Outcome::Unknown(unknown.to_owned());
            let outcome = if open.is_said() { unknown() } else { Outcome::Refused(refusal.clone()) };
            self.answer(open.request, outcome);
        }
    }

    /// Of calls that were handed to a leader and not seen since nothing will be known here.
    pub(crate) fn forget_sent(&mut self, why: &str) {
        for call in self.calls.take_all_sent() {
            self.answer(call.request, Outcome::Unknown(why.to_owned()));
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
        let served =
            (alone || !self.core.is_leader()) && self.calls.len() == 0 && self.reads.len() == 0 && self.asks.len() == 0;
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
