//! The leader's part in changes of the membership: judging what is asked, finding out who answers, letting newcomers catch up,
//! and taking each step when its time has come. All that has to outlive the leader stands in the membership itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use graft_domain::{
    ClusterId, FollowerView, Incarnation, Index, Input, Instant, Membership, NodeId, Rejected, Target, Term,
};

use crate::change::{Ask, Change, describe};
use crate::error::Refusal;
use crate::notice::Notice;
use crate::ports::{PeerMessage, Ticket};
use crate::replica::{Effect, Replica};

/// Changes that wait for their newcomers to be found, or for the last one to be committed.
const PENDING_MAX: usize = 16;
/// Election timeouts after which a change that could not begin is refused.
const PATIENCE: u32 = 16;
/// Election timeouts without a word after which a member does not count as alive.
const ALIVE: u32 = 2;
/// Entries between two notices of how a newcomer catches up are a hundredth of the log.
const NOTICES: u64 = 100;

/// What a leader does about the membership, in this term.
#[derive(Debug, Default)]
pub(crate) struct Reform {
    term: Term,
    pending: Vec<Pending>,
    handings: Vec<Handing>,
    newcomers: BTreeMap<NodeId, CatchUp>,
    /// Since when this node leads the term.
    began: Instant,
    /// Followers that were seen to have something of the log, and what was committed then. Until it has come that far a
    /// follower may refuse its vote to everyone: it cannot tell whether it has forgotten something.
    marks: BTreeMap<NodeId, Index>,
}

/// A change that was asked for and is not in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Pending {
    from: NodeId,
    ticket: Ticket,
    change: Change,
    guard: Option<Index>,
    deadline: Instant,
    /// Newcomers that were not found yet.
    missing: BTreeSet<NodeId>,
    found: BTreeMap<NodeId, Incarnation>,
}

/// Leadership is being handed over, because somebody asked for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Handing {
    from: NodeId,
    ticket: Ticket,
    to: Option<NodeId>,
    /// The core goes on leading then.
    deadline: Instant,
}

/// How a newcomer gets the log: in rounds, each up to where the log ended when the round began. One that took less than an
/// election timeout shows that the next would hold nobody up (thesis §4.2.1).
#[derive(Clone, PartialEq, Eq, Debug)]
struct CatchUp {
    round_ends: Index,
    round_began: Instant,
    told: Index,
    done: bool,
}

/// Asked.
impl Replica {
    /// A member asks this one, which it takes for the leader.
    pub(crate) fn on_asked(&mut self, from: NodeId, ticket: Ticket, ask: Ask) {
        if from != self.core.id() && !self.core.membership().contains(&from) {
            return;
        }
        let answer = match ask {
            _ if !self.core.is_leader() => Err(Refusal::NotLeader { leader: self.core.leader() }),
            Ask::Transfer { to } => {
                self.begin_term();
                self.begin_transfer(from, ticket, to)
            }
            Ask::Change { change, guard } => {
                self.begin_term();
                match self.begin_change(from, ticket, change, guard) {
                    Some(answer) => answer,
                    None => return,
                }
            }
        };
        self.answer_ask(from, ticket, answer);
    }

    fn answer_ask(&mut self, from: NodeId, ticket: Ticket, answer: Result<Index, Refusal>) {
        if from == self.core.id() {
            self.on_answered(ticket, answer);
        } else {
            self.effects.push(Effect::Send(from, PeerMessage::Answered { to: from, ticket, answer }));
        }
    }

    /// A handing-over that is under way is neither begun again nor given another end: commands wait for it.
    fn begin_transfer(&mut self, from: NodeId, ticket: Ticket, to: Option<NodeId>) -> Result<Index, Refusal> {
        let index = self.core.commit();
        let is_same = |handing: &Handing| handing.from == from && handing.ticket == ticket;
        if to == Some(self.core.id()) || self.reform.handings.iter().any(is_same) {
            return Ok(index);
        }
        if self.reform.handings.iter().any(|handing| handing.to != to) || self.reform.handings.len() >= PENDING_MAX {
            return Err(Refusal::NotLeader { leader: self.core.leader() });
        }
        let mut deadline = self.clock.now + self.config.election_timeout;
        match self.reform.handings.first() {
            Some(under_way) => deadline = under_way.deadline,
            None => match self.core.step(self.clock.now, Input::TransferLeadership(to)) {
                Ok(_) => {}
                Err(Rejected::BadTransfer) => return Err(Refusal::Membership(self.why_no_successor(to))),
                Err(rejected) => return Err(self.refusal(rejected)),
            },
        }
        self.reform.handings.push(Handing { from, ticket, to, deadline });
        Ok(index)
    }

    /// Whoever was to take over has not done so in time.
    fn end_transfers(&mut self) {
        let now = self.clock.now;
        for Handing { from, ticket, to, .. } in
            self.reform.handings.extract_if(.., |h| h.deadline <= now).collect::<Vec<_>>()
        {
            let successor = to.map_or_else(|| "another voter".to_owned(), |to| to.to_string());
            let why = format!(
                "{successor} has not taken over within {} ms, and {} leads on: see whether it can be reached and has the log",
                self.config.election_timeout.as_millis(),
                self.core.id()
            );
            self.answer_ask(from, ticket, Err(Refusal::Membership(why)));
        }
    }

    fn why_no_successor(&self, to: Option<NodeId>) -> String {
        let Some(to) = to else { return "there is no other voter to hand over to".to_owned() };
        match self.core.membership().members.get(&to) {
            None => format!("there is no member {to} to hand over to"),
            Some(member) if !member.voter => format!("{to} is a learner, and only a voter can lead: promote it first"),
            Some(_) => format!("{to} is on its way out of the cluster and cannot lead it"),
        }
    }

    /// The answer, unless it has to wait.
    fn begin_change(
        &mut self,
        from: NodeId,
        ticket: Ticket,
        change: Change,
        guard: Option<Index>,
    ) -> Option<Result<Index, Refusal>> {
        let is_said_again = |p: &Pending| p.from == from && p.ticket == ticket;
        if self.reform.pending.iter().any(is_said_again) {
            return None;
        }
        if self.reform.pending.len() >= PENDING_MAX {
            return Some(Err(Refusal::Busy(format!("{PENDING_MAX} changes of the membership wait to begin"))));
        }
        let planned = match self.judge(&change, guard) {
            Ok(Some(planned)) => planned,
            Ok(None) => return Some(Ok(self.core.membership_index())),
            Err(refusal) => return Some(Err(refusal)),
        };
        let current = self.core.membership();
        let missing: BTreeSet<NodeId> = planned.members.keys().filter(|id| !current.contains(id)).copied().collect();
        for id in &missing {
            let address = planned.members[id].address.to_string();
            self.effects.push(Effect::Probe { id: *id, address });
        }
        let deadline = self.clock.now + self.config.election_timeout * PATIENCE;
        let found = BTreeMap::new();
        self.reform.pending.push(Pending { from, ticket, change, guard, deadline, missing, found });
        None
    }

    /// What the membership would be; none if it is that already.
    fn judge(&self, change: &Change, guard: Option<Index>) -> Result<Option<Membership>, Refusal> {
        let (current, index) = (self.core.membership(), self.core.membership_index());
        let planned = change.plan(current).map_err(|refused| Refusal::Membership(refused.0))?;
        if planned == **current {
            return Ok(None);
        }
        if guard.is_some_and(|guard| guard != index) {
            return Err(Refusal::Membership(format!(
                "the membership has changed since: its version is {index} now; look at it again and decide anew"
            )));
        }
        Ok(Some(planned))
    }

    /// A majority of those who are to vote has to live. Newcomers are found before anything is changed.
    pub(crate) fn refuse_a_dead_majority(&self, planned: &Membership) -> Result<(), Refusal> {
        let current = self.core.membership();
        let is_voter = |id: &NodeId| planned.members.get(id).is_some_and(|member| member.target == Target::Voter);
        let voters: Vec<NodeId> = planned.members.keys().filter(|id| is_voter(id)).copied().collect();
        if voters.iter().copied().eq(current.voters()) {
            return Ok(());
        }
        let needed = voters.len() / 2 + 1;
        let dead: Vec<&str> =
            voters.iter().filter(|id| current.contains(id) && !self.seems_alive(**id)).map(NodeId::as_str).collect();
        let alive = voters.len() - dead.len();
        if alive >= needed {
            return Ok(());
        }
        let names: Vec<&str> = voters.iter().map(NodeId::as_str).collect();
        Err(Refusal::Membership(format!(
            "{} would vote, {needed} of them {} to be up, and {alive} {}: {} cannot be reached, or has not got the log \
             yet. Bring it up, or remove it, first",
            names.join(", "),
            if needed == 1 { "has" } else { "have" },
            if alive == 1 { "is" } else { "are" },
            dead.join(", ")
        )))
    }

    /// As far as can be told from here: only the leader hears everyone.
    pub(crate) fn seems_alive(&self, id: NodeId) -> bool {
        if self.core.is_leader() { self.is_alive(id) } else { id == self.core.id() || self.reachable.contains(&id) }
    }

    /// Whether the leader has heard the member lately, and it would vote.
    pub(crate) fn is_alive(&self, id: NodeId) -> bool {
        let (now, limit) = (self.clock.now, self.config.election_timeout * ALIVE);
        let heard = |contact: Instant| now.since(contact) < limit;
        let votes = |f: &FollowerView| self.reform.marks.get(&f.id).is_some_and(|mark| f.matched >= *mark);
        let is_so = |f: FollowerView| f.id == id && heard(f.contact) && votes(&f) && self.reachable.contains(&id);
        id == self.core.id() || self.core.followers().any(is_so)
    }

    fn mark_followers(&mut self) {
        let commit = self.core.commit();
        for follower in self.core.followers().filter(|follower| follower.matched > Index::ZERO) {
            self.reform.marks.entry(follower.id).or_insert(commit);
        }
    }

    /// Who answers at a newcomer's address.
    pub(crate) fn on_probed(&mut self, id: NodeId, address: &str, found: &Result<Incarnation, String>) {
        let mut failed = Vec::new();
        for pending in &mut self.reform.pending {
            let asked =
                pending.missing.contains(&id) && pending.change.address_of(id).is_none_or(|known| known == address);
            match found {
                _ if !asked => {}
                Ok(incarnation) => {
                    pending.missing.remove(&id);
                    pending.found.insert(id, *incarnation);
                }
                Err(why) => failed.push((pending.from, pending.ticket, why.clone())),
            }
        }
        for (from, ticket, why) in failed {
            self.reform.pending.retain(|pending| (pending.from, pending.ticket) != (from, ticket));
            let why = format!("{id} cannot be added: {why}");
            self.answer_ask(from, ticket, Err(Refusal::Membership(why)));
        }
    }
}

/// Every turn.
impl Replica {
    /// What was begun in another term is the log's to tell.
    fn begin_term(&mut self) {
        let term = self.core.term();
        if self.reform.term != term {
            self.reform = Reform { term, began: self.clock.now, ..Reform::default() };
        }
    }

    /// Takes the steps whose time has come.
    pub(crate) fn reform(&mut self) {
        if !self.core.is_leader() {
            if !self.reform.pending.is_empty() {
                self.turn_pending_down();
            }
            self.reform.handings.clear();
            return;
        }
        self.begin_term();
        self.mark_followers();
        self.end_transfers();
        self.begin_pending();
        self.note_identities();
        self.let_catch_up();
        self.advance_membership();
    }

    /// Nobody here waits any more for a change that was asked for here.
    pub(crate) fn drop_pending(&mut self, ticket: Ticket) {
        let own = self.core.id();
        self.reform.pending.retain(|pending| (pending.from, pending.ticket) != (own, ticket));
    }

    fn turn_pending_down(&mut self) {
        for pending in std::mem::take(&mut self.reform.pending) {
            let refusal = Refusal::NotLeader { leader: self.core.leader() };
            self.answer_ask(pending.from, pending.ticket, Err(refusal));
        }
    }

    /// Puts the changes into the log that have all they need, one at a time.
    fn begin_pending(&mut self) {
        let now = self.clock.now;
        for pending in std::mem::take(&mut self.reform.pending) {
            match self.begin_one(&pending) {
                Some(answer) => self.answer_ask(pending.from, pending.ticket, answer),
                None if now >= pending.deadline => {
                    let why = Refusal::Membership(why_not_begun(&pending));
                    self.answer_ask(pending.from, pending.ticket, Err(why));
                }
                None => self.reform.pending.push(pending),
            }
        }
    }

    fn begin_one(&mut self, pending: &Pending) -> Option<Result<Index, Refusal>> {
        // Judged anew: others may have been faster.
        let mut planned = match self.judge(&pending.change, pending.guard) {
            Ok(Some(planned)) => planned,
            Ok(None) => return Some(Ok(self.core.membership_index())),
            Err(refusal) => return Some(Err(refusal)),
        };
        if let Err(refusal) = self.refuse_a_dead_majority(&planned) {
            // A new leader has not heard everyone yet.
            let is_new = self.clock.now.since(self.reform.began) < self.config.election_timeout * ALIVE;
            return if is_new { None } else { Some(Err(refusal)) };
        }
        if !pending.missing.is_empty() || self.core.may_change_membership().is_err() {
            return None;
        }
        for (id, found) in &pending.found {
            if let Some(member) = planned.members.get_mut(id)
                && let Err(refusal) = identify(*id, member, *found)
            {
                return Some(Err(refusal));
            }
        }
        self.append_membership(planned)
    }

    fn append_membership(&mut self, planned: Membership) -> Option<Result<Index, Refusal>> {
        // What needs no newcomer, to remove somebody for one, takes its first step at once.
        let next = if planned.newcomers().next().is_none() { planned.next().unwrap_or(planned) } else { planned };
        match self.core.step(self.clock.now, Input::ChangeMembership(Arc::new(next))) {
            Ok(_) => Some(Ok(self.core.membership_index())),
            Err(Rejected::BadMembership) => Some(Err(Refusal::Membership(
                "this change cannot be made in one step: ask for less at once".to_owned(),
            ))),
            Err(_) => None,
        }
    }

    /// Members are recorded as they introduce themselves: by which life of their directory, and where they are now.
    fn note_identities(&mut self) {
        let core = &self.core;
        if core.membership().cluster == ClusterId::UNKNOWN || core.may_change_membership().is_err() {
            return;
        }
        // Asked in every turn, and hardly ever there is any.
        let may_be_news = core.membership().members.iter().any(|(id, member)| {
            let known = self.identities.get(id);
            known.is_some_and(|(address, _)| *member.address != **address || member.incarnation == Incarnation::UNKNOWN)
        });
        if !may_be_news {
            return;
        }
        let mut noted = (**core.membership()).clone();
        for (id, member) in &mut noted.members {
            let Some((address, incarnation)) = self.identities.get(id) else { continue };
            if member.incarnation == Incarnation::UNKNOWN {
                member.incarnation = *incarnation;
            }
            if *member.address != **address && (member.incarnation == *incarnation) {
                member.address = address.as_str().into();
            }
        }
        if noted != **core.membership() {
            self.step(Input::ChangeMembership(Arc::new(noted)));
        }
    }

    fn let_catch_up(&mut self) {
        if self.reform.newcomers.is_empty() && self.core.membership().newcomers().next().is_none() {
            return;
        }
        let newcomers: BTreeSet<NodeId> = self.core.membership().newcomers().collect();
        self.reform.newcomers.retain(|id, _| newcomers.contains(id));
        if newcomers.is_empty() {
            return;
        }
        let (now, limit, last) = (self.clock.now, self.config.election_timeout, self.core.last().index);
        let matched: BTreeMap<NodeId, Index> = self.core.followers().map(|f| (f.id, f.matched)).collect();
        for id in newcomers {
            let matched = matched.get(&id).copied().unwrap_or_default();
            let begin = || CatchUp { round_ends: last, round_began: now, told: Index::ZERO, done: false };
            let catch_up = self.reform.newcomers.entry(id).or_insert_with(begin);
            catch_up.round(matched, last, now, limit);
            if catch_up.is_news(matched, last) {
                catch_up.told = matched;
                self.effects.push(Effect::Notice(Notice::CatchUp { member: id, matched, last }));
            }
        }
    }

    /// The next configuration, when every newcomer has caught up and a majority of it lives.
    fn advance_membership(&mut self) {
        let membership = self.core.membership();
        if membership.is_settled() || self.core.may_change_membership().is_err() {
            return;
        }
        let ready = membership.newcomers().all(|id| self.has_caught_up(id) && self.is_alive(id));
        let Some(next) = membership.next().filter(|_| ready) else { return };
        let voters: Vec<NodeId> = next.voters().collect();
        let alive = voters.iter().filter(|id| self.is_alive(**id)).count();
        if alive > voters.len() / 2 {
            self.step(Input::ChangeMembership(Arc::new(next)));
        }
    }

    fn has_caught_up(&self, id: NodeId) -> bool {
        self.reform.newcomers.get(&id).is_some_and(|catch_up| catch_up.done)
    }

    /// When there is something to do about the membership that no event tells of.
    pub(crate) fn reform_deadline(&self) -> Instant {
        if !self.core.is_leader() {
            return Instant::NEVER;
        }
        let pending = self.reform.pending.iter().map(|pending| pending.deadline);
        pending.chain(self.reform.handings.iter().map(|handing| handing.deadline)).min().unwrap_or(Instant::NEVER)
    }

    /// What is under way, in words.
    pub(crate) fn change_under_way(&self) -> Option<String> {
        let membership = self.core.membership();
        if membership.is_settled() {
            return None;
        }
        let last = self.core.last().index;
        let behind = |f: &FollowerView| {
            let is_newcomer = membership.newcomers().any(|id| id == f.id);
            is_newcomer.then(|| format!("{} has {} of {last} entries", f.id, f.matched))
        };
        let mut words = vec![describe(membership)];
        words.extend(self.core.followers().filter_map(|f| behind(&f)));
        Some(words.join("; "))
    }
}

impl CatchUp {
    fn round(&mut self, matched: Index, last: Index, now: Instant, limit: Duration) {
        if matched < self.round_ends {
            return;
        }
        self.done = self.done || now.since(self.round_began) < limit;
        (self.round_ends, self.round_began) = (last, now);
    }

    fn is_news(&self, matched: Index, last: Index) -> bool {
        matched > self.told && (matched == last || matched.0 - self.told.0 > last.0 / NOTICES)
    }
}

/// The joiner that was probed is the one that is to be added.
fn identify(id: NodeId, member: &mut graft_domain::Member, found: Incarnation) -> Result<(), Refusal> {
    let known = member.incarnation != Incarnation::UNKNOWN;
    if known && member.incarnation != found {
        return Err(Refusal::Membership(format!(
            "{id} cannot be added: another node answers at {} under this id; stop one of them",
            member.address
        )));
    }
    member.incarnation = found;
    Ok(())
}

fn why_not_begun(pending: &Pending) -> String {
    if let Some(id) = pending.missing.first() {
        return format!("{id} cannot be added: nothing was heard from its address in time");
    }
    "the last change of the membership is not committed yet: a majority of the voters must be up".to_owned()
}
