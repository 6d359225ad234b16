//! Calls find the leader, wherever they were made, and learn of it when they do not.

use bytes::Bytes;
use graft_domain::{Input, Instant, NodeId, Rejected, Term};

use crate::error::{Outcome, Refusal};
use crate::ports::{PeerMessage, Ticket};
use crate::reads::Question;
use crate::replica::{Consistency, Effect, Replica, RequestId};
use crate::status::{MemberStatus, Status};
use crate::waiting::Stage;

impl Replica {
    /// A command made here: it waits for the end of the turn, so that all of a turn are proposed together.
    pub(crate) fn on_execute(&mut self, request: RequestId, body: Bytes, deadline: Instant) {
        match self.door(body.len()) {
            Ok(()) => self.calls.park(request, body, deadline),
            Err(refusal) => self.effects.push(Effect::Answer(request, Outcome::Refused(refusal))),
        }
    }

    pub(crate) fn on_query(&mut self, consistency: Consistency, question: Question) {
        match (self.door(question.body.len()), consistency) {
            (Err(refusal), _) => self.effects.push(Effect::Answer(question.request, Outcome::Refused(refusal))),
            (Ok(()), Consistency::Stale) => self.stale.push(question),
            (Ok(()), Consistency::Linearizable) => self.reads.push(question),
        }
    }

    /// What is refused before anyone else hears of it.
    fn door(&self, bytes: usize) -> Result<(), Refusal> {
        let waiting = self.calls.len() + self.reads.len();
        if self.stopping.is_some() {
            Err(Refusal::Stopped)
        } else if let Some(why) = &self.failure {
            Err(Refusal::Halted(why.clone()))
        } else if bytes > self.config.command_bytes_max {
            Err(Refusal::TooLarge { bytes: bytes as u64, limit: self.config.command_bytes_max as u64 })
        } else if waiting >= self.config.inflight_max {
            Err(Refusal::Busy(format!("{waiting} calls are waiting on this node, the limit (inflight_max)")))
        } else if self.calls.bytes() >= self.config.inflight_bytes_max {
            Err(Refusal::Busy("the commands waiting on this node are at the limit of inflight_bytes_max".to_owned()))
        } else {
            Ok(())
        }
    }

    /// Another member asks this one to propose, in the term that it takes it to lead.
    pub(crate) fn on_forward(&mut self, from: NodeId, term: Term, ticket: Ticket, body: Bytes) {
        let limit = self.config.command_bytes_max;
        if !self.core.is_leader() || term != self.core.term() {
            let refusal = Refusal::NotLeader { leader: self.core.leader() };
            self.refuse(from, ticket, refusal);
        } else if body.len() > limit {
            self.refuse(from, ticket, Refusal::TooLarge { bytes: body.len() as u64, limit: limit as u64 });
        } else {
            self.forwarded.push((from, ticket, body));
        }
    }

    fn refuse(&mut self, to: NodeId, ticket: Ticket, refusal: Refusal) {
        self.effects.push(Effect::Send(to, PeerMessage::Refused { to, ticket, refusal }));
    }

    /// A leader did not propose a call of this node, and never will.
    pub(crate) fn on_refused(&mut self, to: NodeId, ticket: Ticket, refusal: Refusal) {
        if to != self.core.id() || ticket.session != self.config.session {
            return;
        }
        match refusal {
            Refusal::NotLeader { .. } | Refusal::NoLeader | Refusal::Stopped | Refusal::Halted(_) => {
                self.calls.park_again(ticket.sequence);
                self.retry_later();
            }
            final_refusal => self.answer_refused(ticket.sequence, final_refusal),
        }
    }

    fn answer_refused(&mut self, sequence: u64, refusal: Refusal) {
        if let Some(call) = self.calls.remove(sequence) {
            self.effects.push(Effect::Answer(call.request, Outcome::Refused(refusal)));
        }
    }

    pub(crate) fn retry_later(&mut self) {
        self.route_at = self.route_at.max(self.clock.now + self.config.retry);
    }

    /// Hands what waits to the leader: proposes it here, or passes it on.
    pub(crate) fn route(&mut self) {
        if self.core.is_leader() {
            self.propose_turn();
        } else {
            for (from, ticket, _) in std::mem::take(&mut self.forwarded) {
                let leader = self.core.leader();
                self.refuse(from, ticket, Refusal::NotLeader { leader });
            }
            self.pass_on();
        }
    }

    /// Proposes all of this turn as one batch: the calls made here, then those of other members.
    fn propose_turn(&mut self) {
        let session = self.config.session;
        let own = if self.clock.now >= self.route_at {
            self.calls.send_parked(self.core.id(), self.core.term())
        } else {
            Vec::new()
        };
        let others = std::mem::take(&mut self.forwarded);
        if own.is_empty() && others.is_empty() {
            return;
        }
        let of_own = own.iter().map(|(sequence, body)| (Ticket { session, sequence: *sequence }, body.clone()));
        let of_others = others.iter().map(|(_, ticket, body)| (*ticket, body.clone()));
        let all: Vec<(Ticket, Bytes)> = of_own.chain(of_others).collect();
        let answer = if self.storage_full { Err(Rejected::Busy) } else { self.propose(&all) };
        let Err(rejected) = answer else { return };
        let refusal = self.refusal(rejected);
        for (sequence, _) in own {
            match refusal {
                Refusal::Busy(_) => self.answer_refused(sequence, refusal.clone()),
                _ => self.calls.park_again(sequence),
            }
        }
        for (from, ticket, _) in others {
            self.refuse(from, ticket, refusal.clone());
        }
        self.retry_later();
    }

    fn refusal(&self, rejected: Rejected) -> Refusal {
        match rejected {
            Rejected::Busy if self.storage_full => {
                Refusal::Busy("no space is left on the leader's disk; free some, it goes on by itself".to_owned())
            }
            Rejected::Busy => Refusal::Busy("the leader's log holds as much as it may; try again shortly".to_owned()),
            _ => Refusal::NotLeader { leader: self.core.leader() },
        }
    }

    fn pass_on(&mut self) {
        let Some(leader) = self.core.leader() else { return };
        if self.clock.now < self.route_at || !self.calls.has_parked() {
            return;
        }
        let (from, term, session) = (self.core.id(), self.core.term(), self.config.session);
        for (sequence, body) in self.calls.send_parked(leader, term) {
            let ticket = Ticket { session, sequence };
            self.effects.push(Effect::Send(leader, PeerMessage::Forward { from, term, ticket, body }));
        }
    }

    /// Asks for one index for all queries that wait.
    pub(crate) fn ask_reads(&mut self) {
        let now = self.clock.now;
        if self.reads.oldest_asked() + self.config.read_retry <= now {
            self.reads.again_if_older(now);
        }
        if self.core.leader().is_none() || now < self.route_at {
            return;
        }
        let Some(read) = self.reads.ask(now) else { return };
        if self.core.step(now, Input::Read(read)).is_err() {
            self.reads.again(read);
            self.retry_later();
        }
    }

    /// Gives the machine the queries whose index it has been handed.
    pub(crate) fn serve_reads(&mut self) {
        let mut questions = std::mem::take(&mut self.stale);
        for question in &questions {
            self.reads.serve(question);
        }
        questions.extend(self.reads.take_ready(self.handed));
        if !questions.is_empty() {
            self.effects.push(Effect::Query(questions.into_iter().map(|q| (q.request, q.body)).collect()));
        }
    }

    /// Answers every call whose deadline has come with what is known of it.
    pub(crate) fn expire(&mut self) {
        let now = self.clock.now;
        if self.calls.deadline() <= now {
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
                self.effects.push(Effect::Answer(call.request, outcome));
            }
        }
        if self.reads.deadline() <= now {
            for request in self.reads.overdue(now) {
                self.effects.push(Effect::Answer(request, Outcome::Refused(Refusal::Timeout)));
            }
            for question in self.reads.expired(now) {
                let refusal = self.why_waiting();
                self.effects.push(Effect::Answer(question.request, Outcome::Refused(refusal)));
            }
        }
    }

    /// Why a call did not get to a leader.
    fn why_waiting(&self) -> Refusal {
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

    pub fn status(&self) -> Status {
        let core = &self.core;
        let progress = |id: NodeId| core.followers().find(|(member, _, _)| *member == id);
        let member = |(id, member): (&NodeId, &graft_domain::Member)| MemberStatus {
            id: *id,
            address: member.address.to_string(),
            voter: member.voter || member.outgoing,
            matched: if *id == core.id() { Some(core.durable()) } else { progress(*id).map(|(_, matched, _)| matched) },
            last_contact: progress(*id).map(|(_, _, contact)| self.clock.now.since(contact)),
            reachable: (*id != core.id()).then(|| self.reachable.contains(id)),
        };
        Status {
            id: core.id(),
            role: if self.failure.is_some() { "failed" } else { core.role() },
            term: core.term(),
            leader: core.leader(),
            last: core.last().index,
            commit: core.commit(),
            applied: core.applied(),
            snapshot: core.snapshot().index,
            cluster: core.cluster(),
            members: core.membership().members.iter().map(member).collect(),
            has_quorum: core.has_quorum(),
            error: self.failure.clone(),
        }
    }
}
