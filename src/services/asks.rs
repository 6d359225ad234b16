//! What was asked of the leader from here: said again until it is answered, then followed in the log.

use std::collections::BTreeMap;

use bytes::Bytes;
use graft_domain::{Incarnation, Index, Instant, Membership, NodeId, Term};

use crate::change::{Ask, Change, Stage};
use crate::error::{Outcome, Refusal};
use crate::ports::{PeerMessage, Reply, Ticket};
use crate::replica::{Effect, Replica};
use crate::waiting::RequestId;

/// Asks that wait here; further ones are refused as busy. People ask, and a few joiners.
const ASKS_MAX: usize = 256;
/// Times that a leader begins to hand over for one ask: each time costs the cluster a moment.
const TRANSFERS_MAX: u32 = 3;

/// One that is not answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Open {
    pub(crate) request: RequestId,
    pub(crate) ask: Ask,
    deadline: Instant,
    /// The term in which it was last said to a leader, and when it is to be said again.
    said: Term,
    again_at: Instant,
    /// Whether another member was told, who may do it whatever is known here.
    told: bool,
    /// The leader it was first said to.
    first: Option<NodeId>,
    accepted: Option<Accepted>,
    /// Terms in which it was accepted.
    times: u32,
}

/// Under way in the log from this index on, as the leader of this term says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Accepted {
    term: Term,
    index: Index,
}

/// Every ask by the sequence number of its ticket.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    open: BTreeMap<u64, Open>,
    sequence: u64,
}

impl Asks {
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether somebody waits who would not ask another member instead, as one does that asks to be let in.
    pub(crate) fn someone_waits(&self) -> bool {
        self.open.values().any(|open| !open.is_joiners())
    }

    pub(crate) fn drain(&mut self) -> Vec<Open> {
        std::mem::take(&mut self.open).into_values().collect()
    }
}

impl Open {
    /// Whether any leader has heard of it.
    pub(crate) fn is_said(&self) -> bool {
        self.said > Term(0)
    }

    /// Whether to say it to the leader of `term`. What an earlier one accepted may not have come to be; the next one is told
    /// too, and knows if it did.
    fn is_due(&self, now: Instant, term: Term) -> bool {
        let stale = self.accepted.is_none_or(|accepted| accepted.term < term);
        stale && (now >= self.again_at || self.said < term)
    }

    /// Only who is to be added itself says which life of its directory this is.
    fn is_joiners(&self) -> bool {
        let Ask::Change { change: Change::Add { incarnation, .. }, .. } = &self.ask else { return false };
        *incarnation != Incarnation::UNKNOWN
    }

    fn is_transfer(&self) -> bool {
        matches!(self.ask, Ask::Transfer { .. })
    }
}

impl Replica {
    pub(crate) fn on_ask(&mut self, request: RequestId, ask: Ask, deadline: Instant) {
        if let Err(refusal) = self.door(0) {
            return self.answer_refused(request, refusal);
        }
        if self.asks.len() >= ASKS_MAX {
            let why = format!("{ASKS_MAX} changes of the cluster are waiting on this node");
            return self.answer_refused(request, Refusal::Busy(why));
        }
        self.asks.sequence += 1;
        let again_at = self.clock.now;
        let open = Open {
            request,
            ask,
            deadline,
            said: Term(0),
            again_at,
            told: false,
            first: None,
            accepted: None,
            times: 0,
        };
        self.asks.open.insert(self.asks.sequence, open);
    }

    /// Says what waits to the leader, or looks after it here.
    pub(crate) fn ask_leader(&mut self) {
        if self.asks.open.is_empty() {
            return;
        }
        let (now, term, again) = (self.clock.now, self.core.term(), self.config.election_timeout);
        self.expire_asks();
        // What another leader's coming has ended is not asked of it.
        self.follow_asks();
        let Some(leader) = self.leader_at_hand() else { return };
        let mut told = Vec::new();
        for (sequence, open) in &mut self.asks.open {
            if open.is_due(now, term) {
                (open.said, open.again_at) = (term, now + again);
                open.told |= leader != self.core.id();
                open.first.get_or_insert(leader);
                told.push((*sequence, open.ask.clone()));
            }
        }
        let from = self.core.id();
        for (sequence, ask) in told {
            let ticket = Ticket { session: self.config.session, sequence };
            if leader == from {
                self.on_asked(from, ticket, ask);
            } else {
                self.effects.push(Effect::Send(leader, PeerMessage::Ask { from, ticket, ask }));
            }
        }
    }

    /// A connection stands anew: what was said over the last one may be lost.
    pub(crate) fn ask_again(&mut self) {
        let now = self.clock.now;
        for open in self.asks.open.values_mut() {
            // Of a handing-over that came to nothing the log tells nothing.
            let accepted = open.accepted.filter(|_| !open.is_transfer());
            if accepted.is_none() {
                (open.accepted, open.again_at) = (None, now);
            }
        }
    }

    /// What the leader says to an ask of this node.
    pub(crate) fn on_answered(&mut self, ticket: Ticket, answer: Result<Index, Refusal>) {
        let (now, retry, term) = (self.clock.now, self.config.retry, self.core.term());
        if ticket.session != self.config.session {
            return;
        }
        let Some(open) = self.asks.open.get_mut(&ticket.sequence) else { return };
        match answer {
            Ok(index) => {
                open.times += u32::from(open.accepted.is_none_or(|accepted| accepted.term < term));
                open.accepted = Some(Accepted { term, index });
            }
            Err(Refusal::NotLeader { .. } | Refusal::NoLeader | Refusal::Stopped | Refusal::Halted(_)) => {
                open.again_at = now + retry;
            }
            Err(refusal) => {
                let request = open.request;
                self.asks.open.remove(&ticket.sequence);
                self.answer_refused(request, refusal);
            }
        }
        self.follow_asks();
    }

    /// Answers the asks whose end is committed.
    pub(crate) fn follow_asks(&mut self) {
        if self.asks.open.is_empty() {
            return;
        }
        let (core, commit) = (&self.core, self.core.commit());
        let committed = core.membership_at(commit);
        let end = |(sequence, open): (&u64, &Open)| {
            let end = match &open.ask {
                Ask::Change { change, .. } => {
                    open.accepted.filter(|accepted| accepted.index <= commit)?;
                    ended(change, committed)
                }
                Ask::Transfer { to } => open.transferred(*to, core.leader(), core.term()),
            };
            end.map(|end| (*sequence, end))
        };
        let ended: Vec<_> = self.asks.open.iter().filter_map(end).collect();
        let (term, index) = (core.term(), core.membership_index().min(commit));
        for (sequence, end) in ended {
            let Some(open) = self.asks.open.remove(&sequence) else { continue };
            let outcome = match end {
                Ok(()) => Outcome::Done { index, term, reply: Reply::Value(Bytes::new()) },
                Err(why) => Outcome::Refused(Refusal::Membership(why)),
            };
            self.effects.push(Effect::Answer(open.request, outcome));
        }
    }

    /// Changes that leave this node out take their last step when it goes, so that it is gone tells that they are done.
    pub(crate) fn end_own_removal(&mut self) {
        let (own, term, index) = (self.core.id(), self.core.term(), self.core.commit());
        let ends = |_: &u64, open: &mut Open| match &open.ask {
            Ask::Change { change, .. } => open.is_said() && change.removes(own),
            Ask::Transfer { .. } => false,
        };
        let ended: Vec<Open> = self.asks.open.extract_if(.., ends).map(|(_, open)| open).collect();
        for open in ended {
            let outcome = Outcome::Done { index, term, reply: Reply::Value(Bytes::new()) };
            self.effects.push(Effect::Answer(open.request, outcome));
        }
    }

    /// When there is something to say to the leader, or nothing to wait for any more.
    pub(crate) fn asks_deadline(&self) -> Instant {
        if self.asks.open.is_empty() {
            return Instant::NEVER;
        }
        let has_leader = self.leader_at_hand().is_some();
        let waits = |open: &Open| has_leader && open.accepted.is_none();
        let next = |open: &Open| if waits(open) { open.deadline.min(open.again_at) } else { open.deadline };
        self.asks.open.values().map(next).min().unwrap_or(Instant::NEVER)
    }

    fn expire_asks(&mut self) {
        let now = self.clock.now;
        let expired: Vec<_> = self.asks.open.extract_if(.., |_, open| open.deadline <= now).collect();
        for (sequence, open) in expired {
            // What this node was asked itself and has not begun is not begun any more.
            self.drop_pending(Ticket { session: self.config.session, sequence });
            let outcome = match (&open.ask, open.accepted) {
                (Ask::Change { .. }, Some(_)) => {
                    let change = crate::change::describe(self.core.membership());
                    Outcome::unknown(format!("the change goes on without this call ({change}); it can be cancelled"))
                }
                (Ask::Transfer { .. }, Some(_)) => {
                    Outcome::unknown("the leader began to hand over, and nobody else leads yet")
                }
                _ if open.told => Outcome::unknown("the leader was asked and has not answered"),
                _ => Outcome::Refused(self.why_waiting()),
            };
            self.effects.push(Effect::Answer(open.request, outcome));
        }
    }
}

impl Open {
    /// Whether leadership went where it was to go, or will not.
    fn transferred(&self, to: Option<NodeId>, leader: Option<NodeId>, term: Term) -> Option<Result<(), String>> {
        let leader = leader?;
        if to.is_some_and(|to| to == leader) || (to.is_none() && self.first.is_some_and(|first| first != leader)) {
            return Some(Ok(()));
        }
        let given_up = self.times >= TRANSFERS_MAX && self.accepted.is_none_or(|accepted| accepted.term < term);
        given_up.then(|| Err(format!("leadership was to be handed over {} times, and {leader} leads", self.times)))
    }
}

/// Whether an accepted change has come to its end, and which.
fn ended(change: &Change, committed: &Membership) -> Option<Result<(), String>> {
    match change.stage(committed) {
        Stage::Done => Some(Ok(())),
        Stage::UnderWay => None,
        Stage::GivenUp => Some(Err("the change was given up: it was cancelled, or another one was made".to_owned())),
    }
}
