//! One act on one member: the core steps, and what it wants done is done. It depends on nothing else.

use bytes::Bytes;
use graft_domain::{Entry, Envelope, Index, Input, Instant, Message, Payload, RaftCore, Ready, Rejected, VoteReply};

use crate::checks::{Broken, Rule, must};
use crate::disk::{Operation, Snapshot};
use crate::kept::Kept;
use crate::member::{Act, Changed, Commit, LATER, Member, NOW};
use crate::promises;
use crate::scenario::Rules;

/// What gathers while a member acts.
pub(crate) struct Turn {
    pub(crate) member: Member,
    pub(crate) now: Instant,
    restarted: bool,
    /// The write that became durable; 0 if none did.
    done: u64,
    pub(crate) sends: Vec<Envelope>,
    pub(crate) commits: Vec<Commit>,
    pub(crate) applies: Vec<Entry>,
    pub(crate) changes: Vec<Changed>,
    pub(crate) leads: Option<graft_domain::Term>,
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) refused: bool,
    /// In the words of a story.
    pub(crate) told: Vec<graft_domain::Transition>,
}

impl Turn {
    /// The act, all of it, and the member counted from there.
    pub(crate) fn play(before: &Member, act: &Act, rules: Rules) -> (Self, Result<(), Broken>) {
        // A leader's clock runs on only when it is to find out that nobody listens.
        let runs_on = before.core.is_leader() && matches!(act, Act::Timeout | Act::Expire(_));
        let now = if runs_on { LATER } else { NOW };
        let (mut turn, verdict) = Self::play_at(before, act, rules, now);
        turn.rebase();
        (turn, verdict)
    }

    /// The act at a time of the member's clock.
    pub(crate) fn play_at(before: &Member, act: &Act, rules: Rules, now: Instant) -> (Self, Result<(), Broken>) {
        let mut turn = Self::new(before.clone(), now);
        let verdict = turn.perform(act, rules).and_then(|()| turn.conclude(before, rules));
        (turn, verdict)
    }

    /// A member that has just been started, with what it wants done at first.
    pub(crate) fn begin(member: &Member, rules: Rules) -> Member {
        let mut turn = Self::new(member.clone(), NOW);
        let verdict = turn.conclude(member, rules);
        debug_assert_eq!(verdict, Ok(()), "a search begins with what is sound");
        turn.rebase();
        turn.member
    }

    fn new(member: Member, now: Instant) -> Self {
        Self {
            member,
            now,
            restarted: false,
            done: 0,
            sends: Vec::new(),
            commits: Vec::new(),
            applies: Vec::new(),
            changes: Vec::new(),
            leads: None,
            snapshot: None,
            refused: false,
            told: Vec::new(),
        }
    }

    fn perform(&mut self, act: &Act, rules: Rules) -> Result<(), Broken> {
        match act {
            Act::Deliver(envelope) => drop(self.step(Input::Receive((**envelope).clone()))),
            Act::Timeout => {
                let _ = self.step(Input::Timeout);
                if !rules.pre_votes {
                    self.everybody_says_yes();
                }
            }
            Act::Beat => drop(self.step(Input::Timeout)),
            Act::Persist => {
                let id = self.member.core.id();
                let disk = &mut self.member.disk;
                let done = if rules.lying { Ok(disk.pretend()) } else { disk.complete() };
                let done = done.map_err(|why| Broken::new(Rule::Promises, format!("the disk of {id}: {why}")))?;
                if let Some(seq) = done {
                    self.done = seq;
                    let _ = self.step(Input::Persisted { seq });
                }
            }
            Act::Crash => self.crash(rules)?,
            Act::Propose(number) => {
                let command = Bytes::from(format!("c{number}"));
                self.refused = self.step(Input::Propose(vec![command])).is_err();
            }
            Act::Change(next) => {
                let next = std::sync::Arc::new((**next).clone());
                self.refused = self.step(Input::ChangeMembership(next)).is_err();
            }
            Act::Transfer(to) => self.refused = self.step(Input::TransferLeadership(Some(*to))).is_err(),
            Act::Expire(envelope) => {
                let _ = self.step(Input::Receive((**envelope).clone()));
                let _ = self.step(Input::Timeout);
            }
            Act::Snapshot(index) => self.take_snapshot(*index),
            Act::Install(snapshot) => self.install(*snapshot),
        }
        Ok(())
    }

    /// Steps the core, and sees what it takes for committed and whether it leads by it.
    fn step(&mut self, input: Input) -> Result<Index, Rejected> {
        let (before, led) = (self.member.core.commit(), led_term(&self.member.core));
        let answer = self.member.core.step(self.now, input);
        let core = &self.member.core;
        let by = led_term(core);
        self.leads = by.filter(|_| by != led).or(self.leads);
        self.commits.extend(commits(core, before, by));
        answer
    }

    /// As if every pre-vote had been answered, by all, with yes. That is more than can happen.
    fn everybody_says_yes(&mut self) {
        let core = &self.member.core;
        let (id, term) = (core.id(), core.term());
        let message = Message::PreVoteReply(VoteReply { term: term.next(), granted: true });
        let others: Vec<_> = core.membership().members.keys().copied().filter(|other| *other != id).collect();
        for from in others {
            if self.member.core.role() == "pre-candidate" {
                let _ = self.step(Input::Receive(Envelope { from, to: id, term, message: message.clone() }));
            }
        }
    }

    fn crash(&mut self, rules: Rules) -> Result<(), Broken> {
        let id = self.member.core.id();
        let done = self.member.disk.crash();
        done.map_err(|why| Broken::new(Rule::Invariants, format!("the disk of {id}: {why}")))?;
        self.member = Member::new(id, self.member.disk.clone(), rules, self.now);
        self.restarted = true;
        self.commits = commits(&self.member.core, self.member.core.base().index, None).collect();
        Ok(())
    }

    fn take_snapshot(&mut self, index: Index) {
        let core = &self.member.core;
        let Some(last) = core.entry(index).map(Entry::id) else { return };
        let snapshot = Snapshot { last, membership: core.membership_at(index).clone() };
        self.member.disk.keep(&snapshot);
        self.snapshot = Some(snapshot);
        let _ = self.step(Input::SnapshotTaken { last });
    }

    fn install(&mut self, snapshot: Kept<Snapshot>) {
        self.member.fetch = None;
        self.member.disk.keep(&snapshot);
        self.snapshot = Some((*snapshot).clone());
        let (last, membership) = (snapshot.last, snapshot.membership.clone());
        let _ = self.step(Input::SnapshotInstalled { last, membership });
    }

    /// Does what the core wants done until it wants nothing more.
    fn conclude(&mut self, before: &Member, rules: Rules) -> Result<(), Broken> {
        let known = if self.restarted { self.member.core.last().index } else { before.core.last().index };
        loop {
            let ready = self.member.core.ready(self.now);
            if ready == Ready::default() {
                break;
            }
            self.carry_out(ready, rules)?;
        }
        self.changed(known)?;
        promises::is_sound(before, &self.member, self.restarted)?;
        self.pass_time();
        Ok(())
    }

    /// More than an election timeout passes for whoever does not lead. Nothing comes of it but that it owes its vote to nobody.
    fn pass_time(&mut self) {
        let core = &mut self.member.core;
        if !core.is_leader() {
            self.now = self.now + LATER.since(NOW) * 2;
            let idle = core.ready(self.now);
            debug_assert_eq!(idle, Ready::default(), "time alone changes nothing");
        }
    }

    /// What was before this moment is all alike from here on.
    pub(crate) fn rebase(&mut self) {
        self.member.core.rebase(NOW);
        self.member.disk.rebase(self.done);
    }

    fn carry_out(&mut self, ready: Ready, rules: Rules) -> Result<(), Broken> {
        let pending = &mut self.member.disk.pending;
        pending.extend(ready.compact.map(Operation::Compact));
        pending.extend(ready.write.map(Operation::Write));
        for transition in ready.transitions {
            promises::is_no_breach(self.member.core.id(), &transition)?;
            self.told.push(transition);
        }
        for envelope in ready.send {
            promises::may_leave(&envelope, &self.member)?;
            if rules.pre_votes || !matches!(envelope.message, Message::PreVote(_)) {
                self.sends.push(envelope);
            }
        }
        self.member.fetch = ready.fetch.or(self.member.fetch);
        if let Some(last) = ready.apply.last() {
            let index = last.index;
            self.applies.extend(ready.apply);
            let _ = self.step(Input::Applied { index });
        }
        Ok(())
    }

    /// The memberships that it has appended as leader.
    fn changed(&mut self, known: Index) -> Result<(), Broken> {
        let core = &self.member.core;
        let own = |entry: &&Entry| core.is_leader() && entry.term == core.term();
        for entry in (known.0 + 1..=core.last().index.0).filter_map(|index| core.entry(Index(index))).filter(own) {
            let Payload::Membership(next) = &entry.payload else { continue };
            let before = core.membership_at(entry.index.prev());
            if before.cluster != graft_domain::ClusterId::UNKNOWN {
                promises::may_follow(before, next)?;
                let is_certain = self.member.term_at(core.commit()) == Some(entry.term);
                must(is_certain, Rule::Memberships, || {
                    format!("{} changes the membership before it knows what is committed", core.id())
                })?;
            }
            let earlier = (core.base().index.0 + 1..entry.index.0).rev().map(Index);
            let is_membership =
                |index: &Index| core.entry(*index).is_some_and(|e| matches!(e.payload, Payload::Membership(_)));
            let former = earlier.into_iter().find(is_membership).unwrap_or(core.base().index);
            self.changes.push(Changed { index: entry.index, before: former });
        }
        Ok(())
    }
}

fn led_term(core: &RaftCore) -> Option<graft_domain::Term> {
    core.is_leader().then(|| core.term())
}

fn commits(core: &RaftCore, before: Index, by: Option<graft_domain::Term>) -> impl Iterator<Item = Commit> + '_ {
    let news = (before.0 + 1..=core.commit().0).filter_map(|index| core.entry(Index(index)));
    news.map(move |entry| Commit { entry: entry.clone(), by, membership: core.membership().clone() })
}
