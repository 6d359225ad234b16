//! Becoming leader, and ceasing to be (thesis §3.4, §6.2, §9.6).

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use crate::entry::Payload;
use crate::ids::{ClusterId, EntryId, Index, NodeId, Term};
use crate::leader::Leader;
use crate::message::{AppendOutcome, AppendReply, Message, VoteReply, VoteRequest};
use crate::quorum::{self, Tally};
use crate::raft::{RaftCore, Role};
use crate::step::Transition;

impl RaftCore {
    /// Draws the next election deadline: one to two election timeouts from now.
    pub(crate) fn rest(&mut self) {
        self.election_deadline = self.now + self.random.once_to_twice(self.config.election_timeout);
    }

    /// Whether the leader of this term was heard less than an election timeout ago.
    pub(crate) fn hears_leader(&self) -> bool {
        match &self.role {
            Role::Leader(_) => true,
            Role::Follower { leader: Some(_) } => self.now.since(self.leader_contact) < self.config.election_timeout,
            _ => false,
        }
    }

    /// Follows `leader` in `term`, or waits in it for one.
    pub(crate) fn follow(&mut self, term: Term, leader: Option<NodeId>) {
        let same = self.term == term && self.role == Role::Follower { leader };
        if same {
            return;
        }
        if term > self.term {
            self.term = term;
            self.vote = None;
            self.durability.hard_state_changed();
        }
        self.fail_reads(leader);
        if !matches!(self.role, Role::Follower { .. }) {
            self.rest();
        }
        self.role = Role::Follower { leader };
        self.transitions.push(Transition::Follower { term, leader });
    }

    /// Whether this member may lead: it votes in the membership in force, or in the one before it while that is not committed
    /// (a member on its way out may have to finish its own removal, thesis §4.2.2).
    pub(crate) fn is_promotable(&self) -> bool {
        let id = &self.config.id;
        let is_voter = self.membership().is_voter(id)
            || (self.log.membership_index() > self.commit && self.log.membership_at(self.commit).is_voter(id));
        let is_able = !self.unfit && !self.is_disk_hanging() && !self.may_have_forgotten();
        is_voter && is_able && self.term < Term::LAST && self.log.last().index < Index::LAST
    }

    /// Asks whether an election could be won, before disturbing anyone with a new term.
    pub(crate) fn pre_campaign(&mut self) {
        self.rest();
        if !self.is_promotable() {
            return self.follow(self.term, None);
        }
        self.fail_reads(None);
        self.role = Role::PreCandidate { votes: BTreeMap::from([(self.config.id, true)]) };
        self.transitions.push(Transition::PreCandidate { term: self.term });
        for to in self.electorate() {
            let request = self.vote_request(self.term.next(), false);
            self.send(to, Message::PreVote(request));
        }
        self.count_pre_votes();
    }

    fn campaign(&mut self, transfer: bool) {
        self.rest();
        self.fail_reads(None);
        self.term = self.term.next();
        self.vote = Some(self.config.id);
        self.durability.hard_state_changed();
        // The own vote counts, and others are asked for theirs, once it is durable: a candidate that forgot it could lead the
        // same term twice.
        self.role = Role::Candidate { votes: BTreeMap::new() };
        self.transitions.push(Transition::Candidate { term: self.term });
        let seq = self.durability.seq_of_hard_state();
        for to in self.electorate() {
            let request = self.vote_request(self.term, transfer);
            self.promise(seq, to, Message::Vote(request));
        }
    }

    /// Everyone else whose vote counts.
    fn electorate(&self) -> Vec<NodeId> {
        let membership = self.membership();
        membership.members.keys().filter(|id| membership.is_voter(id) && **id != self.config.id).copied().collect()
    }

    fn vote_request(&self, term: Term, transfer: bool) -> VoteRequest {
        VoteRequest { term, last: self.log.last(), commit: self.commit, transfer }
    }

    /// Whether a candidate's log may lead this one (thesis §3.6.1).
    ///
    /// A node without memory of what it may have acknowledged helps to found a cluster, unless it is of no use to any, as one that
    /// was removed and then wiped; and to elect in one only after a leader has filled its log.
    fn is_up_to_date(&self, request: &VoteRequest) -> bool {
        let helps = |request| !self.unfit && self.helps_to_found(request);
        let forgetful = if self.is_blank() { !helps(request) } else { self.may_have_forgotten() };
        request.last >= self.log.last() && !forgetful
    }

    /// Whether a node that is blank, and may have been wiped, can vote for this candidate: what a majority holds another one than
    /// it must hold whom the candidate needs as well, or nobody holds anything.
    ///
    /// Quorums of an even number have two in common, so that one without memory may help whoever knows of no commitment. Of an
    /// odd number they may have just this one in common: it helps whoever has nothing either. That is enough: those who have
    /// something are a majority, or the others are.
    fn helps_to_found(&self, request: &VoteRequest) -> bool {
        let (base, voters) = (self.log.base().index, self.membership().voters().count());
        let is_even = voters > 0 && voters.is_multiple_of(2);
        request.last.index <= base || (is_even && request.commit <= base)
    }

    /// Whether it has nothing but what a cluster is founded with: an empty log, or a backup that it was restored from.
    pub fn is_blank(&self) -> bool {
        self.log.last() == EntryId::ZERO || self.membership().cluster == ClusterId::UNKNOWN
    }

    /// Whether the log was blank and is not refilled yet as far as it may have been: this node may have acknowledged what it
    /// lacks, and elects nobody.
    ///
    /// An entry of the term of the leader that fills it, in its place, has everything before it that was committed in earlier terms
    /// (leader completeness, thesis §3.6.3), of which a leader that has just come to lead may not know. Of that leader's own
    /// term it is what that leader knew to be committed.
    pub fn may_have_forgotten(&self) -> bool {
        let last = self.log.last();
        last.index < self.memory_from || last.term < self.memory_term
    }

    /// How far the log has to come before this node elects anybody, at least; 0 if it never was blank while others had something,
    /// [`Index::LAST`] if that is not known.
    pub fn memory_from(&self) -> Index {
        if self.log.last().term < self.memory_term { Index::LAST } else { self.memory_from }
    }

    /// A leader has entries where this log is blank: until it gives them, by entries or by a snapshot, nobody knows what this
    /// node may have acknowledged and lost.
    pub(crate) fn mind_the_gap(&mut self) {
        if self.is_blank() && self.memory_from != Index::LAST {
            self.memory_from = Index::LAST;
            self.durability.hard_state_changed();
        }
    }

    /// A leader, which knows so much to be committed, gives the first entries after that, or says that there are none behind
    /// the snapshot that it gave.
    pub(crate) fn mind_what_is_filled(&mut self, commit: Index) {
        if self.is_blank() || self.memory_from == Index::LAST {
            (self.memory_from, self.memory_term) = (commit, self.term);
            // A start has to know, whether there are entries to write or not.
            self.durability.hard_state_changed();
        }
    }

    /// Answers what is asked and changes nothing: no term, no vote, no timer.
    pub(crate) fn on_pre_vote(&mut self, from: NodeId, request: VoteRequest) {
        let granted = request.term > self.term && !self.is_loyal() && self.is_up_to_date(&request);
        self.send(from, Message::PreVoteReply(VoteReply { term: request.term, granted }));
    }

    /// Whoever hears a leader supports no other (thesis §4.2.3): it has promised not to.
    pub(crate) fn on_vote(&mut self, from: NodeId, request: VoteRequest) {
        let is_released = self.is_released_by(&request);
        if self.is_loyal() && !is_released && request.term > self.term {
            return;
        }
        if request.term > self.term {
            self.follow(request.term, None);
        }
        if is_released {
            self.release();
        }
        // A vote that was given before anything was promised may be given again.
        let is_free = self.vote.map_or(!self.is_loyal(), |vote| vote == from);
        let granted = request.term == self.term && is_free && self.is_up_to_date(&request);
        let reply = Message::VoteReply(VoteReply { term: request.term, granted });
        if granted && self.vote.is_none() {
            self.vote = Some(from);
            self.durability.hard_state_changed();
        }
        if granted {
            self.rest();
        }
        self.promise(self.durability.seq_of_hard_state(), from, reply);
    }

    pub(crate) fn on_pre_vote_reply(&mut self, from: NodeId, reply: VoteReply) {
        let current = reply.term == self.term.next();
        if let Role::PreCandidate { votes } = &mut self.role
            && current
        {
            votes.insert(from, reply.granted);
            self.count_pre_votes();
        }
    }

    pub(crate) fn on_vote_reply(&mut self, from: NodeId, reply: VoteReply) {
        let current = reply.term == self.term;
        if let Role::Candidate { votes } = &mut self.role
            && current
        {
            votes.insert(from, reply.granted);
            self.count_votes();
        }
    }

    fn count_pre_votes(&mut self) {
        let Role::PreCandidate { votes } = &self.role else { return };
        match quorum::tally(self.membership(), votes) {
            Tally::Won => self.campaign(false),
            Tally::Lost => self.follow(self.term, None),
            Tally::Open => {}
        }
    }

    /// Counts the own vote as soon as it is durable.
    pub(crate) fn count_own_vote(&mut self) {
        let durable = self.durability.seq_of_hard_state() == 0;
        if let Role::Candidate { votes } = &mut self.role
            && durable
            && !votes.contains_key(&self.config.id)
        {
            votes.insert(self.config.id, true);
            self.count_votes();
        }
    }

    fn count_votes(&mut self) {
        let Role::Candidate { votes } = &self.role else { return };
        let own = votes.contains_key(&self.config.id);
        match quorum::tally(self.membership(), votes) {
            Tally::Won if own => self.lead(),
            Tally::Lost => self.follow(self.term, None),
            _ => {}
        }
    }

    fn lead(&mut self) {
        let first = self.log.last().index.next();
        let inherited = self.log.bytes_after(self.commit);
        self.role = Role::Leader(Leader::new(first, self.now + self.config.heartbeat, inherited));
        self.track_members();
        self.transitions.push(Transition::Leader { term: self.term });
        let founding = self.membership().cluster == ClusterId::UNKNOWN;
        let payload = if founding { self.founding_entry() } else { Payload::Noop };
        self.append_own(payload);
    }

    /// The first leader's first entry names the cluster and puts its founding members into the log. Of the lives of their
    /// disks it knows its own.
    fn founding_entry(&self) -> Payload {
        let mut membership = (**self.membership()).clone();
        membership.cluster = self.config.cluster;
        if let Some(own) = membership.members.get_mut(&self.config.id) {
            own.incarnation = self.config.incarnation;
        }
        Payload::Membership(Arc::new(membership))
    }

    /// Told by the leader to campaign at once (thesis §3.10).
    pub(crate) fn on_timeout_now(&mut self, from: NodeId) {
        let from_leader = self.role == Role::Follower { leader: Some(from) };
        if from_leader && self.is_promotable() {
            self.release();
            self.campaign(true);
        }
    }

    /// Answers a message of a past term so that its sender learns of this one.
    pub(crate) fn answer_stale(&mut self, from: NodeId, message: &Message) {
        let missing = |session, round, prev| {
            let outcome = AppendOutcome::Missing { prev, hint: self.log.last() };
            Message::AppendReply(AppendReply { session, round, promise: Duration::ZERO, outcome })
        };
        let reply = match message {
            // A leader that is not followed any more would otherwise go on for ever: the term here may have risen while it could
            // not be heard.
            Message::Append(append) => missing(append.session, append.round, append.prev.index),
            Message::Snapshot(offer) => missing(offer.session, offer.round, offer.last.index),
            _ => return,
        };
        self.promise(self.durability.seq_of_hard_state(), from, reply);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Envelope, Incarnation, Index, Input, Instant, Membership, Recovered};

    fn ids() -> [NodeId; 2] {
        ["n1", "n2"].map(|id| NodeId::new(id).expect("a good id"))
    }

    fn core(members: &[NodeId], config: Config) -> RaftCore {
        let membership = Arc::new(Membership::founding(members.iter().map(|id| (*id, ""))));
        RaftCore::new(config, Recovered { membership, ..Recovered::default() }, Instant(0))
    }

    #[test]
    fn a_founder_says_which_life_of_its_disk_this_is() {
        let [own, _] = ids();
        let config = Config { incarnation: Incarnation(9), ..Config::new(own, ClusterId(7), 1) };
        let mut core = core(&[own], config);
        assert_eq!(core.step(core.deadline(), Input::Timeout), Ok(Index::ZERO));
        let vote = core.ready(Instant(0)).write.expect("a vote is written first");
        assert_eq!(core.step(Instant(0), Input::Persisted { seq: vote.seq }), Ok(Index::ZERO));
        assert!(core.is_leader(), "nobody else has a vote");
        let founded = core.membership();
        assert_eq!((founded.cluster, founded.members[&own].incarnation), (ClusterId(7), Incarnation(9)));
    }

    #[test]
    fn whose_disk_hangs_does_not_campaign_when_told_to() {
        let [own, leader] = ids();
        let config = Config::new(own, ClusterId(7), 1);
        for (late, campaigns) in [(Duration::ZERO, true), (config.storage_timeout, false)] {
            let mut core = core(&[own, leader], config.clone());
            let tell = |core: &mut RaftCore, now: Instant, message| {
                let told = core.step(now, Input::Receive(Envelope { from: leader, to: own, term: Term(3), message }));
                assert_eq!(told, Ok(Index::ZERO));
                core.ready(now)
            };
            let heartbeat =
                crate::Append { session: 1, round: 1, prev: EntryId::ZERO, entries: Vec::new(), commit: Index::ZERO };
            let written = tell(&mut core, Instant(5), Message::Append(heartbeat));
            assert!(written.write.is_some(), "the term is on its way to the disk, and stays so");
            tell(&mut core, Instant(5) + late, Message::TimeoutNow);
            assert_eq!(core.term() == Term(4), campaigns, "after {late:?}");
        }
    }
}
