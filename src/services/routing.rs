//! Calls find the leader, wherever they were made.

use std::time::Duration;

use bytes::Bytes;
use graft_domain::{Input, Instant, NodeId, Payload, Rejected, Term};

use crate::commands::{self, Act, Slot};
use crate::error::{Outcome, Refusal};
use crate::ports::{PeerMessage, Ticket};
use crate::reads::{Question, Ready};
use crate::replica::{Effect, Replica};
use crate::waiting::{Call, RequestId, Want};

/// Of the calls that may wait on a node, one in so many may be a query that waits for an entry of the future.
const AHEAD_SHARE: usize = 8;

/// With the run of a node: the key of sessions that it opens for clients. That of its own is another one.
const FOR_CLIENTS: u64 = 1;

/// A command that another member made and asks this one to propose.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Forwarded {
    pub(crate) from: NodeId,
    pub(crate) ticket: Ticket,
    pub(crate) act: Act,
}

/// At the door.
impl Replica {
    /// A command made here: it waits for the end of the turn, so that all of a turn are proposed together.
    pub(crate) fn on_execute(&mut self, request: RequestId, slot: Option<Slot>, body: Bytes, deadline: Instant) {
        match (self.door(body.len()), slot) {
            (Ok(()), _) => self.take_in(request, slot, body, deadline),
            (Err(refusal), Some(slot)) if self.is_unresolved(slot) => {
                let why = format!("it was not made again: {refusal}");
                self.answer(request, Outcome::Unknown { why, slot: Some(slot) });
            }
            (Err(refusal), _) => self.answer_refused(request, refusal),
        }
    }

    /// A session for a client.
    pub(crate) fn on_open_session(&mut self, request: RequestId, ttl: Duration, deadline: Instant) {
        match self.door(0) {
            Ok(()) => {
                let want = Want::OpenSession { ttl, key: commands::mix(self.config.session, FOR_CLIENTS) };
                self.calls.park(Call::new(Some(request), want, deadline));
            }
            Err(refusal) => self.answer_refused(request, refusal),
        }
    }

    pub(crate) fn on_query(&mut self, question: Question) {
        let is_ahead = question.read.at_least > self.core.commit();
        match self.door(question.wanted.bytes()) {
            // An index that does not come is waited for until the deadline: what waits so leaves room for all else.
            Ok(()) if is_ahead && self.reads.ahead() >= (self.config.inflight_max / AHEAD_SHARE).max(1) => {
                let why = format!("{} queries wait for entries that are not committed yet", self.reads.ahead());
                self.answer_refused(question.request, Refusal::Busy(why));
            }
            Ok(()) => self.reads.push(question, is_ahead),
            Err(refusal) => self.answer_refused(question.request, refusal),
        }
    }

    /// What is refused before anyone else hears of it.
    pub(crate) fn door(&self, bytes: usize) -> Result<(), Refusal> {
        let waiting = self.calls.len() + self.reads.len();
        let waiting_bytes = self.calls.bytes() + self.reads.bytes();
        if self.removed {
            Err(Refusal::Removed)
        } else if self.stopping.is_some() {
            Err(Refusal::Stopped)
        } else if let Some(why) = &self.failure {
            Err(Refusal::Halted(why.clone()))
        } else if bytes > self.config.command_bytes_max {
            Err(Refusal::TooLarge { bytes: bytes as u64, limit: self.config.command_bytes_max as u64 })
        } else if waiting >= self.config.inflight_max {
            Err(Refusal::Busy(format!("{waiting} calls are waiting on this node, the limit (inflight_max)")))
        } else if waiting_bytes >= self.config.inflight_bytes_max {
            Err(Refusal::Busy("the calls waiting on this node are at the limit of inflight_bytes_max".to_owned()))
        } else {
            Ok(())
        }
    }
}

/// On the way to the leader.
impl Replica {
    /// Hands what waits to the leader: proposes it here, or passes it on.
    pub(crate) fn route(&mut self) {
        self.give_places();
        self.calls.let_go_on(self.core.is_leader());
        if self.core.is_leader() {
            self.begin_to_lead();
            self.propose_turn();
        } else {
            self.turn_forwarded_down(&Refusal::NotLeader { leader: self.core.leader() });
            self.pass_on();
        }
    }

    /// The leader, if it can be handed anything from here. What is sent without a connection is lost for sure.
    pub(crate) fn leader_at_hand(&self) -> Option<NodeId> {
        self.core.leader().filter(|leader| *leader == self.core.id() || self.reachable.contains(leader))
    }

    fn pass_on(&mut self) {
        // What became of a call would not be seen here if a snapshot on its way has it.
        if self.is_installing() {
            return;
        }
        let Some(leader) = self.leader_at_hand().filter(|_| self.clock.now >= self.route_at) else { return };
        let term = self.core.term();
        while self.calls.may_forward()
            && let Some((sequence, want)) = self.calls.send_next(leader, term)
        {
            let want = want.clone();
            self.forward(leader, term, sequence, want);
        }
    }

    fn forward(&mut self, leader: NodeId, term: Term, sequence: u64, want: Want) {
        let ticket = Ticket { session: self.config.session, sequence };
        let from = self.core.id();
        let act = self.act(want);
        self.effects.push(Effect::Send(leader, PeerMessage::Forward { from, term, ticket, act }));
    }

    /// What the log is to say.
    fn act(&self, want: Want) -> Act {
        match want {
            Want::Command { body, place } => Act::Command { slot: self.own.slot(place), body },
            Want::OpenSession { ttl, key } => Act::OpenSession { ttl, key },
            Want::Verify => Act::Verify { origin: self.core.id() },
        }
    }

    /// What was handed to a leader over an earlier connection may be lost with it. It hears each ticket once, so it can be
    /// told again.
    pub(crate) fn on_connected(&mut self, peer: NodeId) {
        self.reachable.insert(peer);
        self.troubles.remove(&peer);
        self.ask_again();
        self.tell_link(peer, None);
        let term = self.core.term();
        let sent: Vec<(u64, Want)> = self.calls.sent_to(peer, term).collect();
        for (sequence, want) in sent {
            self.forward(peer, term, sequence, want);
        }
    }

    pub(crate) fn on_unreachable(&mut self, peer: NodeId) {
        self.reachable.remove(&peer);
        self.tell_link(peer, Some(self.troubles.get(&peer).cloned().unwrap_or_else(|| "the link broke".to_owned())));
        if self.core.leader() == Some(peer) {
            self.reads.again_after(self.clock.now, Duration::ZERO);
        }
        self.step(Input::Unreachable(peer));
    }

    /// A leader did not propose a call of this node, and never will.
    pub(crate) fn on_refused(&mut self, to: NodeId, ticket: Ticket, refusal: Refusal) {
        if to != self.core.id() || ticket.session != self.config.session {
            return;
        }
        match refusal {
            Refusal::NotLeader { .. } | Refusal::NoLeader | Refusal::Stopped | Refusal::Halted(_) => {
                if let Some(call) = self.calls.take_sent(ticket.sequence) {
                    self.park(call);
                    self.retry_later();
                }
            }
            final_refusal => {
                if let Some(call) = self.calls.take_sent(ticket.sequence) {
                    self.refuse_call(&call, final_refusal);
                }
            }
        }
    }

    pub(crate) fn retry_later(&mut self) {
        self.route_at = self.route_at.max(self.clock.now + self.config.retry);
    }

    /// When there is something to hand to the leader, or to ask it again.
    pub(crate) fn route_deadline(&self) -> Instant {
        let may_forward = || !self.is_installing() && self.calls.may_forward();
        let calls = if self.core.is_leader() { self.calls.has_parked() } else { may_forward() };
        let waits = (calls || self.reads.has_waiting()) && self.leader_at_hand().is_some();
        let route = if waits { self.route_at } else { Instant::NEVER };
        route.min(self.reads.oldest_asked() + self.config.read_retry)
    }
}

/// As the leader.
impl Replica {
    /// Another member asks this one to propose, in the term that it takes it to lead.
    pub(crate) fn on_forward(&mut self, term: Term, forwarded: Forwarded) {
        let (bytes, limit) = (forwarded.act.size(), self.config.command_bytes_max);
        let is_member = self.core.membership().contains(&forwarded.from);
        if !is_member || !self.heard.is_first(forwarded.from, term, forwarded.ticket) {
            return;
        }
        if bytes > limit {
            self.refuse(&forwarded, Refusal::TooLarge { bytes: bytes as u64, limit: limit as u64 });
        } else {
            self.forwarded.push(forwarded);
        }
    }

    fn refuse(&mut self, forwarded: &Forwarded, refusal: Refusal) {
        let (to, ticket) = (forwarded.from, forwarded.ticket);
        self.effects.push(Effect::Send(to, PeerMessage::Refused { to, ticket, refusal }));
    }

    fn turn_forwarded_down(&mut self, refusal: &Refusal) {
        for forwarded in std::mem::take(&mut self.forwarded) {
            self.refuse(&forwarded, refusal.clone());
        }
    }

    /// Whatever a term's leader has to know before its first command.
    fn begin_to_lead(&mut self) {
        let term = self.core.term();
        if self.heard.term() == term {
            return;
        }
        // Handed over in an earlier term, for that term only.
        self.turn_forwarded_down(&Refusal::NotLeader { leader: self.core.leader() });
        self.heard.begin(term);
        self.time = self.time.max(self.newest_time());
        self.route_at = self.clock.now;
    }

    /// The stamp of the last command in the log: stamps never go back along it.
    fn newest_time(&self) -> u64 {
        let mut index = self.core.last().index;
        while let Some(entry) = self.core.entry(index) {
            if let Payload::Command(command) = &entry.payload {
                return commands::decode(command).map_or(0, |logged| logged.time);
            }
            index = index.prev();
        }
        0
    }

    /// Proposes all of this turn as one batch: the calls made here, then those of other members.
    fn propose_turn(&mut self) {
        let own = self.calls.has_parked() && self.clock.now >= self.route_at;
        if !own && self.forwarded.is_empty() {
            return;
        }
        // Nothing is handed over, or even copied, unless the core takes commands now.
        let verdict = if self.storage_full {
            Err(Rejected::Busy)
        } else if !self.core.membership().is_voter(&self.core.id()) {
            // It leads for no longer than its own removal takes, and would not see what becomes of a command.
            Err(Rejected::Transferring)
        } else {
            self.core.step(self.clock.now, Input::Propose(Vec::new()))
        };
        match verdict {
            Ok(_) => self.propose(own),
            Err(rejected) => self.turn_down(own, &self.refusal(rejected)),
        }
    }

    fn propose(&mut self, own: bool) {
        self.time = self.time.max(self.clock.wall);
        let (leader, term, session) = (self.core.id(), self.core.term(), self.config.session);
        let mut batch = Vec::new();
        // Whoever passed a command on answers it when his own machine has applied it.
        let mut is_awaited = !self.forwarded.is_empty();
        while own && let Some((sequence, want)) = self.calls.send_next(leader, term) {
            let ticket = Ticket { session, sequence };
            batch.push(match want {
                Want::Command { body, place } => {
                    commands::encode_command(&mut self.arena, self.time, ticket, self.own.slot(*place), body)
                }
                Want::OpenSession { ttl, key } => {
                    let act = Act::OpenSession { ttl: *ttl, key: *key };
                    commands::encode(&mut self.arena, self.time, ticket, &act)
                }
                Want::Verify => {
                    is_awaited = true;
                    commands::encode(&mut self.arena, self.time, ticket, &Act::Verify { origin: leader })
                }
            });
        }
        for Forwarded { ticket, act, .. } in std::mem::take(&mut self.forwarded) {
            batch.push(commands::encode(&mut self.arena, self.time, ticket, &act));
        }
        self.step(Input::Propose(batch));
        if is_awaited {
            self.step(Input::Awaited);
        }
    }

    fn turn_down(&mut self, own: bool, refusal: &Refusal) {
        // Others than the busy may do better with the next leader.
        if own && matches!(refusal, Refusal::Busy(_)) {
            self.refuse_parked(refusal);
        }
        self.turn_forwarded_down(refusal);
        self.retry_later();
    }

    pub(crate) fn refusal(&self, rejected: Rejected) -> Refusal {
        match rejected {
            Rejected::Busy if self.storage_full => {
                Refusal::Busy("no space is left on the leader's disk; free some, it goes on by itself".to_owned())
            }
            Rejected::Busy if self.core.is_log_full() => Refusal::Busy(format!(
                "the leader's log has reached log_bytes_max, and no snapshot has shortened it: {}",
                self.snapshots.error.as_deref().unwrap_or("one is being taken, try again in a moment")
            )),
            Rejected::Busy => Refusal::Busy("the leader's log holds as much as it may; try again shortly".to_owned()),
            _ => Refusal::NotLeader { leader: self.core.leader() },
        }
    }
}

/// Reads.
impl Replica {
    /// Asks for one index for all queries that wait, and for one by lease for those that this is good enough for.
    pub(crate) fn ask_reads(&mut self) {
        let now = self.clock.now;
        self.reads.judge_ages(now, self.core.is_leader());
        self.reads.again_after(now, self.config.read_retry);
        if !self.reads.has_waiting() {
            return;
        }
        for lease in [true, false] {
            if self.leader_at_hand().is_none() || now < self.route_at {
                return;
            }
            let Some(read) = self.reads.ask(now, lease) else { continue };
            if self.core.step(now, Input::Read { read, lease }).is_err() {
                self.reads.again(read);
                self.retry_later();
            }
        }
    }

    /// Gives the machine the queries whose index it has been handed. Snapshots that waited for theirs are taken.
    pub(crate) fn serve_reads(&mut self) {
        let Ready { queries, snapshots } = self.reads.take_ready(self.handed);
        if !queries.is_empty() {
            self.effects.push(Effect::Query(queries));
        }
        for (request, deadline) in snapshots {
            self.on_snapshot(request, deadline);
        }
    }
}
