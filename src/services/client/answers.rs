//! What an answer of a member means: for the call, for the member, and for where the client goes.

use std::time::Duration;

use graft_domain::{ClusterId, Instant};

use super::calls::Stage;
use super::demand::{Again, Answer, Demand, Repeat};
use super::link::{Hint, LinkId};
use super::pin::Standing;
use super::session::State;
use super::{Clerk, Effect, Purpose};
use crate::api::View;
use crate::error::{Outcome, Refusal};

/// A member that ends says of all calls that it does not know, and another one may. If it is said so often in a row, the answer
/// is not kept any more, and asking again does not help.
const FORGOTTEN_MAX: u32 = 3;

impl Clerk {
    pub(super) fn heard(&mut self, id: LinkId, answers: Vec<(u64, Answer)>, hint: Option<Hint>) {
        let now = self.now;
        let Some(link) = self.link(id) else { return };
        link.heard = now;
        if let Some(hint) = hint
            && link.hears(hint, now)
        {
            // The membership may be another one, too.
            (link.in_trouble, link.refresh, link.unnamed) = (false, now, 0);
        }
        for (number, answer) in answers {
            self.answered(id, number, answer);
        }
    }

    fn answered(&mut self, id: LinkId, number: u64, answer: Answer) {
        let is_its = |link: &mut super::Link| link.sent.remove(number).is_some();
        if !self.link(id).is_some_and(is_its) {
            return;
        }
        let Some(sent) = self.sent.remove(number) else { return };
        match sent.purpose {
            Purpose::View => {
                if let Some(link) = self.link(id) {
                    link.asked = link.asked.filter(|(asked, _)| *asked != number);
                }
                match answer {
                    Answer::View(view) => drop(self.learn(id, &view)),
                    other => self.said_something_else(id, &other),
                }
            }
            Purpose::Session => self.session_answered(id, number, &answer),
            Purpose::Call(call) => self.call_answered(id, call, answer),
        }
    }

    /// A member says who it is, who else there is, and how things are. False if it is of another cluster.
    fn learn(&mut self, id: LinkId, view: &View) -> bool {
        let status = &view.status;
        let standing = self.recognize(id, status.cluster);
        if standing == Standing::Strange {
            return false;
        }
        // Who has not named the cluster is believed as long as nobody has.
        if standing == Standing::Ours || self.cluster == ClusterId::UNKNOWN {
            self.endpoints.learn(&status.members);
        }
        let hint = match status.leader {
            None => Some(Hint::Nobody),
            Some(leader) => {
                self.endpoints.address_of(leader).map(|address| Hint::Leads { id: leader, address: address.to_owned() })
            }
        };
        let (now, is_broken) = (self.now, status.error_code.is_some());
        let Some(link) = self.link(id) else { return true };
        link.member = Some(status.id);
        let has_news = hint.is_some_and(|hint| link.hears(hint, now));
        if is_broken {
            let why = status.error.as_deref().unwrap_or("it does not work").to_owned();
            self.blame(id, &why);
        }
        match standing {
            Standing::Unnamed => self.leave_unnamed(id, has_news),
            _ => self.take_up(id),
        }
        true
    }

    fn session_answered(&mut self, id: LinkId, number: u64, answer: &Answer) {
        if !matches!(self.session.state, State::Opening { number: opening, .. } if opening == number) {
            return;
        }
        let trouble = match answer {
            Answer::Outcome(Outcome::Done { index, .. }) => {
                self.praise(id);
                self.session.opened(index.0);
                return;
            }
            Answer::Outcome(Outcome::Refused(refusal)) => {
                self.judge(id, refusal);
                if Again::after(refusal) == Again::Never {
                    self.refuse_unplaced(refusal);
                }
                Some(refusal.clone())
            }
            // The member ran out of time a moment before this client did.
            Answer::Outcome(Outcome::Unknown { .. }) => {
                self.session.was_late();
                None
            }
            _ => None,
        };
        let rests_until = self.now + self.pause(self.session.failures);
        self.session.failed(trouble, rests_until);
    }

    /// There is no session for those who wait for one, and asking again would not change that. Whoever asks later tries anew.
    fn refuse_unplaced(&mut self, refusal: &Refusal) {
        while let Some(call) = self.calls.first_unplaced() {
            self.end(call, Answer::Outcome(Outcome::Refused(refusal.clone())));
        }
    }

    fn call_answered(&mut self, link: LinkId, id: u64, answer: Answer) {
        let Some(call) = self.calls.find(id) else { return };
        if !call.demand.fits(&answer) {
            self.effects.push(Effect::Close(link));
            // What it was asked it may have done.
            self.forfeit_liar(link, id);
            return;
        }
        let proves = call.demand.is_of_the_cluster();
        let repeat = call.demand.repeat();
        match answer {
            Answer::Outcome(Outcome::Done { index, .. }) => {
                let is_of_the_log = matches!(call.demand, Demand::Execute { .. } | Demand::Query { .. });
                if is_of_the_log && index <= graft_domain::Index::LAST {
                    self.seen = self.seen.max(index);
                }
                if proves {
                    self.praise(link);
                }
                self.end(id, answer);
            }
            Answer::View(ref view) => {
                if self.learn(link, view) {
                    // What it knows of the cluster is from before: others know better.
                    return match view.status.role {
                        "removed" => self.call_refused(link, id, Refusal::Removed),
                        _ => self.end(id, answer),
                    };
                }
                if let Some(call) = self.calls.find(id) {
                    call.trouble = Some(self.endpoints.refusal());
                    self.calls.restage(id, Stage::Ready);
                }
            }
            Answer::WhatIf(_) | Answer::SnapshotPart(_) | Answer::Outcome(Outcome::Compared { .. }) => {
                self.end(id, answer);
            }
            Answer::Outcome(Outcome::Refused(refusal)) => self.call_refused(link, id, refusal),
            Answer::Outcome(Outcome::Unknown { why, slot }) => match repeat {
                Repeat::InSlot => {
                    call.risked = true;
                    call.refused = call.refused.saturating_add(1);
                    call.forgotten = if slot.is_none() { call.forgotten + 1 } else { 0 };
                    if call.forgotten >= FORGOTTEN_MAX {
                        return self.end(id, Answer::Outcome(Outcome::unknown(why)));
                    }
                    self.rest(id);
                }
                Repeat::Free => self.rest(id),
                Repeat::Never => self.end_unknown(id, why),
            },
            Answer::Unclear(why) => match repeat {
                Repeat::Never => self.end_unknown(id, why),
                Repeat::InSlot | Repeat::Free => {
                    call.risked |= repeat == Repeat::InSlot;
                    call.refused = call.refused.saturating_add(1);
                    call.trouble = Some(Refusal::Unreachable(why));
                    self.rest(id);
                }
            },
        }
    }

    fn forfeit_liar(&mut self, link: LinkId, id: u64) {
        let why = "it answered something else than it was asked: is it a member of a Graft cluster?";
        let address = self.link(link).map_or_else(String::new, |link| link.address.clone());
        self.forfeit_call(id, &address, why);
        self.lost(link, &why.to_owned().into());
    }

    fn call_refused(&mut self, link: LinkId, id: u64, refusal: Refusal) {
        let Some(call) = self.calls.find(id) else { return };
        if refusal == Refusal::SessionExpired
            && let Some(slot) = call.slot
        {
            self.session.expired(slot.session);
            if call.given || call.risked {
                return self.end_refused(id, refusal);
            }
            // It was certainly not applied. Once is no more than a long sleep; again and again is a member that lies.
            (call.slot, call.refused) = (None, call.refused.saturating_add(1));
            return if call.refused == 1 { self.calls.restage(id, Stage::Unplaced) } else { self.rest(id) };
        }
        let again = Again::after(&refusal);
        call.refused = call.refused.saturating_add(1);
        call.trouble = Some(refusal.clone());
        match again {
            Again::Never => self.end_refused(id, refusal),
            Again::Later => self.rest(id),
            Again::Elsewhere => {
                self.judge(link, &refusal);
                self.rest(id);
            }
        }
    }

    /// What a refusal says of the member.
    fn judge(&mut self, id: LinkId, refusal: &Refusal) {
        let now = self.now;
        let leader = match refusal {
            Refusal::NotLeader { leader: Some(leader) } => {
                let address = self.endpoints.address_of(*leader);
                Some((*leader, address.map(ToOwned::to_owned)))
            }
            _ => None,
        };
        let Some(link) = self.link(id) else { return };
        match (refusal, leader) {
            // It does not lead, and names itself: it does not know what it says.
            (_, Some((leader, Some(address)))) if link.member != Some(leader) && address != link.address => {
                link.hears(Hint::Leads { id: leader, address }, now);
            }
            (_, Some((leader, None))) if link.member != Some(leader) => link.refresh = now,
            (Refusal::NotLeader { leader: None } | Refusal::NoLeader, _) => {
                link.hears(Hint::Nobody, now);
            }
            _ if Again::after(refusal) == Again::Elsewhere => self.blame(id, &refusal.to_string()),
            _ => {}
        }
    }

    /// It cannot do what is asked: it is told of once, however many calls it was.
    pub(super) fn blame(&mut self, id: LinkId, why: &str) {
        let Some(link) = self.link(id) else { return };
        if !std::mem::replace(&mut link.in_trouble, true) {
            let address = link.address.clone();
            self.endpoints.strike(&address, why, self.now, &mut self.random);
        }
    }

    /// It does what is asked.
    fn praise(&mut self, id: LinkId) {
        let Some(link) = self.link(id) else { return };
        (link.in_trouble, link.leaderless) = (false, None);
        let address = link.address.clone();
        self.endpoints.good(&address);
    }

    /// A pause before the same is tried again: full jitter.
    pub(super) fn pause(&mut self, failures: u32) -> Duration {
        let most = self.config.backoff_first.saturating_mul(1 << failures.min(16)).min(self.config.backoff_max);
        self.random.up_to(most).max(Duration::from_millis(1))
    }

    /// The call is made again after a pause, if there is time to hear of it.
    fn rest(&mut self, id: u64) {
        let Some(refused) = self.calls.find(id).map(|call| call.refused) else { return };
        let until = self.now + self.pause(refused);
        let Some(call) = self.calls.find(id) else { return };
        let is_late = |at: Instant| !call.risked && at >= call.answer_by;
        // Sent so late, it could end unknown where it is known not to be done.
        let until = if is_late(until) { call.deadline } else { until };
        self.calls.restage(id, Stage::Resting { until });
    }
}
