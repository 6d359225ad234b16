//! How a call ends, and what is said of it.

use std::fmt::Write as _;

use super::calls::{Call, Stage};
use super::demand::{Answer, Demand, Repeat};
use super::link::LinkId;
use super::{Clerk, Effect};
use crate::error::{Outcome, Refusal};

impl Clerk {
    /// Tells the caller, and the session what it need not keep.
    pub(super) fn end(&mut self, id: u64, answer: Answer) {
        let Some(call) = self.calls.remove(id) else { return };
        if let Some(slot) = call.slot {
            let may_ask_again = match &answer {
                Answer::Outcome(Outcome::Unknown { slot, .. }) => slot.is_some(),
                // This attempt did nothing; of the caller's earlier one nothing is known.
                Answer::Outcome(Outcome::Refused(_)) => call.given,
                _ => false,
            };
            if may_ask_again { self.session.left_open(slot) } else { self.session.answered(slot) }
        }
        self.effects.push(Effect::Answer(call.request, answer));
    }

    /// Refused, if no earlier attempt may have done it.
    pub(super) fn end_refused(&mut self, id: u64, refusal: Refusal) {
        let risked = self.calls.find(id).is_some_and(|call| call.risked && !call.given);
        if risked {
            let why = format!("an attempt was not answered, and the next one was refused: {refusal}");
            return self.end_unknown(id, why);
        }
        self.end(id, Answer::Outcome(Outcome::Refused(refusal)));
    }

    pub(super) fn end_unknown(&mut self, id: u64, why: String) {
        let slot = self.calls.find(id).and_then(|call| call.slot);
        self.end(id, Answer::Outcome(Outcome::Unknown { why, slot }));
    }

    /// Nobody believes this client, or is believed: whoever waits for a connection need not wait any longer.
    pub(super) fn end_all_unsent(&mut self) {
        let refusal = self.endpoints.refusal();
        for id in self.calls.unsent() {
            self.end_refused(id, refusal.clone());
        }
    }

    /// Its deadline has come.
    pub(super) fn expire(&mut self, id: u64) {
        let Some(call) = self.calls.find(id).cloned() else { return };
        let mut at = None;
        if let Stage::Sent { number } = call.stage
            && let Some(sent) = self.sent.remove(number)
        {
            let link = self.link(sent.link).map(|link| {
                link.sent.remove(number);
                link.address.clone()
            });
            at = link.map(|address| (sent, address));
        }
        let is_open = at.is_some() || call.risked;
        // An opened session that nobody knows of does no harm, but it may be there.
        let may_be_done = call.demand.repeat() != Repeat::Free || matches!(call.demand, Demand::OpenSession { .. });
        if let Some((sent, _)) = &at
            && call.demand.is_of_the_cluster()
            && self.now.since(sent.at) >= self.config.quiet
        {
            self.blame(sent.link, "it did not answer in time");
        }
        if is_open && may_be_done {
            let asked = at.map(|(_, address)| format!("{address} did not answer in time"));
            let before = || call.trouble.as_ref().map(|trouble| format!("no answer in time; last: {trouble}"));
            let mut why = asked.or_else(before).unwrap_or_else(|| "no answer in time".to_owned());
            if self.usable().is_none() && self.endpoints.some_are_strange() {
                let _ = write!(why, "; {}", self.endpoints.refusal());
            }
            return self.end_unknown(id, why);
        }
        let refusal = self.why_late(&call, is_open);
        self.end(id, Answer::Outcome(Outcome::Refused(refusal)));
    }

    /// Why nothing was done in all that time.
    fn why_late(&self, call: &Call, was_heard: bool) -> Refusal {
        if self.usable().is_none() && !was_heard {
            return self.endpoints.refusal();
        }
        let unplaced = || self.session.trouble.clone().filter(|_| call.slot.is_none() && !self.session.is_open());
        call.trouble.clone().or_else(unplaced).unwrap_or(Refusal::Timeout)
    }

    /// Everybody is answered now, and every connection closed.
    pub(super) fn close(&mut self) {
        self.closed = true;
        while let Some(id) = self.calls.first() {
            let call = self.calls.find(id).cloned();
            let is_open = call.is_some_and(|call| {
                let is_sent = matches!(call.stage, Stage::Sent { .. });
                (is_sent || call.risked) && call.demand.repeat() != Repeat::Free
            });
            if is_open {
                self.end_unknown(id, "the client was closed before the answer came".to_owned());
            } else {
                self.end(id, Answer::Outcome(Outcome::Refused(Refusal::Stopped)));
            }
        }
        self.sent.clear();
        let links = self.current.take().into_iter().chain(self.next.take()).chain(self.old.drain(..));
        let links: Vec<LinkId> = links.map(|link| link.id).collect();
        self.effects.extend(links.into_iter().map(Effect::Close));
    }
}
