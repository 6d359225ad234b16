//! The core: one member's part in the protocol, as a value that steps.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use crate::config::Config;
use crate::durability::Durability;
use crate::entry::{Entry, Payload};
use crate::ids::{ClusterId, EntryId, Index, Instant, NodeId, ReadId, Term};
use crate::leader::Leader;
use crate::lease::Loyalty;
use crate::log::Log;
use crate::membership::Membership;
use crate::message::{Envelope, Message};
use crate::progress::Mode;
use crate::random::Random;
use crate::reading::ForwardedRead;
use crate::step::{Breach, Input, ReadOutcome, Ready, Recovered, Rejected, SnapshotFetch, Transition, Write};

/// One member of one cluster. Give it inputs with [`RaftCore::step`], then carry out [`RaftCore::ready`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RaftCore {
    pub(crate) config: Config,
    pub(crate) now: Instant,
    pub(crate) term: Term,
    pub(crate) vote: Option<NodeId>,
    pub(crate) role: Role,
    pub(crate) log: Log,
    pub(crate) commit: Index,
    /// Handed out to be applied, and reported applied.
    pub(crate) handed: Index,
    pub(crate) applied: Index,
    /// Bytes between the two.
    pub(crate) applying_bytes: usize,
    pub(crate) durability: Durability,
    pub(crate) random: Random,
    pub(crate) election_deadline: Instant,
    /// When the leader was last heard.
    pub(crate) leader_contact: Instant,
    /// What was promised to the leader that was heard last.
    pub(crate) loyalty: Loyalty,
    /// Reads passed to the leader, by what was asked here.
    pub(crate) forwarded_reads: BTreeMap<ReadId, ForwardedRead>,
    /// No read passed to the leader has waited too long before then.
    pub(crate) reads_expire: Instant,
    /// Votes are given only when the log, which was empty when a leader was first heard, has come this far;
    /// [`Index::LAST`] if it is not known how far.
    pub(crate) memory_from: Index,
    /// And has an entry of this term or a later one: that of the leader that began to fill it.
    pub(crate) memory_term: Term,
    /// Never to lead again.
    pub(crate) unfit: bool,
    /// Nothing is done or said any more.
    pub(crate) silenced: bool,
    pub(crate) outbox: Vec<Envelope>,
    pub(crate) reads: Vec<ReadOutcome>,
    pub(crate) fetch: Option<SnapshotFetch>,
    pub(crate) compact: Option<EntryId>,
    /// The last entry that the newest snapshot covers; the log may begin before it, never after.
    pub(crate) snapshot: EntryId,
    pub(crate) transitions: Vec<Transition>,
}

/// What a leader knows of one follower.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FollowerView {
    pub id: NodeId,
    /// Its log is the same as the leader's up to here, durably.
    pub matched: Index,
    /// When it was last heard; when it was first tracked, if never.
    pub contact: Instant,
    /// It lacks what the log does not have any more, and was offered a snapshot.
    pub is_installing: bool,
    /// It has everything that was committed when it came, or when this leader did. Before, it cannot be given a vote.
    pub is_filled: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Role {
    Follower { leader: Option<NodeId> },
    PreCandidate { votes: BTreeMap<NodeId, bool> },
    Candidate { votes: BTreeMap<NodeId, bool> },
    Leader(Leader),
}

impl RaftCore {
    /// A member as its disk remembers it: a follower of nobody.
    pub fn new(config: Config, recovered: Recovered, now: Instant) -> Self {
        let log = Log::recovered(recovered.snapshot, recovered.membership, recovered.entries);
        let last = log.last().index;
        // As [`RaftCore::issue_write`] says it.
        let memory_from = if recovered.commit > last { recovered.commit } else { Index::ZERO };
        let term = recovered.term.max(log.last().term);
        // Of entries whose end is not known, nor is it known whether they are committed.
        let known = if recovered.commit == Index::LAST { Index::ZERO } else { recovered.commit };
        let commit = known.min(last).max(log.base().index);
        let applied = recovered.applied.max(log.base().index);
        let mut core = Self {
            random: Random::new(config.seed),
            term,
            vote: if recovered.term < log.last().term { None } else { recovered.vote },
            role: Role::Follower { leader: None },
            commit: commit.max(applied.min(last)),
            handed: applied,
            applied,
            applying_bytes: 0,
            durability: Durability::new(last),
            election_deadline: now,
            leader_contact: now,
            loyalty: Loyalty::at_start(term, now, config.election_timeout.max(recovered.promised)),
            forwarded_reads: BTreeMap::new(),
            reads_expire: Instant::NEVER,
            memory_from,
            memory_term: Term::ZERO,
            unfit: false,
            silenced: false,
            outbox: Vec::new(),
            reads: Vec::new(),
            fetch: None,
            // Of a stored log that does not lead up to the snapshot nothing was recovered, and nothing may be left.
            compact: (recovered.snapshot > EntryId::ZERO).then_some(recovered.snapshot),
            snapshot: recovered.snapshot,
            transitions: Vec::new(),
            log,
            config,
            now,
        };
        core.rest();
        core
    }

    /// Takes in one input. What is to be done about it gathers until [`RaftCore::ready`].
    ///
    /// The answer to [`Input::Propose`] is the index of the first command; to all others it is 0.
    pub fn step(&mut self, now: Instant, input: Input) -> Result<Index, Rejected> {
        self.now = self.now.max(now);
        if self.silenced {
            return Err(Rejected::Silenced);
        }
        match input {
            Input::Timeout => self.on_timeout(),
            Input::Receive(envelope) => self.on_message(envelope),
            Input::Propose(commands) => return self.propose(commands),
            Input::Read { read, lease } => self.read(read, lease)?,
            Input::ChangeMembership(next) => self.change_membership(next)?,
            Input::TransferLeadership(to) => self.transfer(to)?,
            Input::Persisted { seq } => self.on_persisted(seq),
            Input::StorageFailed => self.fall_silent(),
            Input::Unfit => self.on_unfit(),
            Input::Awaited => self.on_awaited(),
            Input::Applied { index } => self.on_applied(index),
            Input::SnapshotTaken { last } => self.on_snapshot_taken(last),
            Input::SnapshotInstalled { last, membership } => self.on_snapshot_installed(last, membership),
            Input::SnapshotFailed(to) => self.on_snapshot_failed(to),
            Input::Unreachable(to) => self.on_unreachable(to),
        }
        Ok(Index::ZERO)
    }

    /// Everything that the steps since the last call want done.
    ///
    /// `now` is read after the last of them had come in: what rests on time (a lease, a promise to a leader) must not be
    /// judged by a time before that.
    pub fn ready(&mut self, now: Instant) -> Ready {
        self.now = self.now.max(now);
        self.renew_loyalty();
        self.leave_joint();
        self.judge_lease_reads();
        let snapshots = self.replicate();
        self.dismiss_leavers();
        self.retire();
        self.release_reads();
        let write = self.issue_write();
        Ready {
            write,
            compact: self.compact.take(),
            send: core::mem::take(&mut self.outbox),
            apply: self.hand_out(),
            reads: core::mem::take(&mut self.reads),
            snapshots,
            fetch: self.fetch.take(),
            transitions: core::mem::take(&mut self.transitions),
        }
    }

    /// When to step [`Input::Timeout`] next.
    pub fn deadline(&self) -> Instant {
        match &self.role {
            _ if self.silenced => Instant::NEVER,
            Role::Leader(leader) => leader.deadline().min(self.storage_deadline()),
            _ => self.election_deadline,
        }
    }

    fn on_timeout(&mut self) {
        if self.is_leader() {
            return self.on_heartbeat_due();
        }
        // A leader that was heard in this turn has been heard, however long ago the turn began.
        if self.now >= self.election_deadline && !self.is_loyal() {
            self.pre_campaign();
        }
    }

    fn on_message(&mut self, envelope: Envelope) {
        let Envelope { from, term, message, .. } = envelope;
        if from == self.config.id {
            return;
        }
        match message {
            Message::PreVote(request) => return self.on_pre_vote(from, request),
            Message::Vote(request) => return self.on_vote(from, request),
            // A granted pre-vote binds nobody to a term; one rejected for a higher term tells of that term.
            Message::PreVoteReply(reply) if reply.granted || term <= self.term => {
                return self.on_pre_vote_reply(from, reply);
            }
            Message::Read { .. } | Message::ReadReply { .. } if term != self.term => return,
            _ => {}
        }
        if term > self.term {
            self.follow(term, None);
        } else if term < self.term {
            return self.answer_stale(from, &message);
        }
        match message {
            Message::PreVote(_) | Message::Vote(_) | Message::PreVoteReply(_) => {}
            Message::VoteReply(reply) => self.on_vote_reply(from, reply),
            Message::Append(append) => self.on_append(from, append),
            Message::AppendReply(reply) => self.on_append_reply(from, reply),
            Message::Snapshot(offer) => self.on_snapshot_offer(from, offer),
            Message::TimeoutNow => self.on_timeout_now(from),
            Message::Read { read, lease } => self.on_read(from, read, lease),
            Message::ReadReply { read, index } => self.on_read_reply(from, read, index),
        }
    }

    /// Appends commands to the leader's log. They leave for the disk and for the followers in the same [`Ready`].
    fn propose(&mut self, commands: Vec<bytes::Bytes>) -> Result<Index, Rejected> {
        if self.is_leader() && self.is_log_full() {
            self.shorten();
        }
        let Role::Leader(leader) = &self.role else { return Err(Rejected::NotLeader { leader: self.leader() }) };
        if leader.transfer.is_some() {
            return Err(Rejected::Transferring);
        }
        if leader.uncommitted_bytes >= self.config.uncommitted_bytes_max || self.is_log_full() {
            return Err(Rejected::Busy);
        }
        let first = self.log.last().index.next();
        for command in commands {
            self.append_own(Payload::Command(command));
        }
        Ok(first)
    }

    fn on_awaited(&mut self) {
        let last = self.log.last().index;
        if let Role::Leader(leader) = &mut self.role {
            leader.awaited = last;
        }
    }

    /// Appends to the log as its leader, in its term.
    pub(crate) fn append_own(&mut self, payload: Payload) {
        let entry = Entry { index: self.log.last().index.next(), term: self.term, payload };
        if let Role::Leader(leader) = &mut self.role {
            leader.uncommitted_bytes += entry.size();
        }
        self.append(entry);
    }

    /// Appends to the log; a membership is in force at once (thesis §4.1).
    pub(crate) fn append(&mut self, entry: Entry) {
        self.durability.appended(entry.index);
        let Payload::Membership(membership) = &entry.payload else { return self.log.append(entry) };
        let membership = Arc::clone(membership);
        self.transitions.push(Transition::Membership { index: entry.index, membership });
        self.log.append(entry);
        self.track_members();
    }

    fn issue_write(&mut self) -> Option<Write> {
        let last = self.log.last().index;
        let (seq, first) = self.durability.issue(last, self.now)?;
        let entries = first.map_or_else(Vec::new, |first| self.log.slice(first, last, usize::MAX));
        // A start must know how far the log has to come before this node votes.
        let commit = if self.may_have_forgotten() { self.memory_from() } else { self.commit };
        Some(Write { seq, term: self.term, vote: self.vote, entries, commit })
    }

    fn on_persisted(&mut self, seq: u64) {
        let promises = self.durability.persisted(seq, self.term);
        self.outbox.extend(promises);
        self.count_own_vote();
        self.advance_commit();
    }

    /// Entries that are committed and durable here; an entry is never applied before this disk holds it, so that a machine
    /// with a disk of its own cannot be ahead of its log after a crash.
    fn hand_out(&mut self) -> Vec<Entry> {
        let upto = self.commit.min(self.durability.index());
        let room = self.config.apply_bytes_max.saturating_sub(self.applying_bytes);
        let idle = self.handed == self.applied;
        let fits = |entry: &Entry| entry.index <= upto && (idle || entry.size() <= room);
        if !self.log.entry(self.handed.next()).is_some_and(fits) {
            return Vec::new();
        }
        let entries = self.log.slice(self.handed.next(), upto, room);
        let last = entries.last().map_or(self.handed, |e| e.index);
        self.applying_bytes += self.log.bytes_between(self.handed, last);
        self.handed = last;
        entries
    }

    pub(crate) fn on_applied(&mut self, index: Index) {
        let upto = index.min(self.handed);
        if upto > self.applied {
            self.applying_bytes -= self.log.bytes_between(self.applied, upto);
            self.applied = upto;
        }
    }

    /// Raises the commit index.
    pub(crate) fn commit_to(&mut self, index: Index) {
        if index <= self.commit {
            return;
        }
        let before = core::mem::replace(&mut self.commit, index);
        let transitions = self.transitions.len();
        let committed = self.log.memberships_between(before, index);
        self.transitions.extend(committed.map(|index| Transition::MembershipCommitted { index }));
        if let Role::Leader(leader) = &mut self.role {
            let is_urgent = before < leader.awaited || self.transitions.len() > transitions;
            let delay = if is_urgent { Duration::ZERO } else { self.config.commit_delay };
            leader.notice_due = leader.notice_due.min(self.now + delay);
            let bytes = self.log.bytes_between(before, index);
            leader.uncommitted_bytes = leader.uncommitted_bytes.saturating_sub(bytes);
        }
    }

    /// The store failed: what was promised cannot be kept for sure any more, so nothing is promised again.
    pub(crate) fn fall_silent(&mut self) {
        self.follow(self.term, None);
        self.durability.silence();
        self.outbox.clear();
        self.fail_reads(None);
        self.silenced = true;
    }

    /// Something that cannot be was seen: fall silent rather than guess.
    pub(crate) fn breach(&mut self, breach: Breach) {
        self.fall_silent();
        self.transitions.push(Transition::Breach(breach));
    }

    pub(crate) fn send(&mut self, to: NodeId, message: Message) {
        self.outbox.push(Envelope { from: self.config.id, to, term: self.term, message });
    }

    /// Sends once write `seq` is durable, which is at once for those that are.
    pub(crate) fn promise(&mut self, seq: u64, to: NodeId, message: Message) {
        let envelope = Envelope { from: self.config.id, to, term: self.term, message };
        if self.durability.is_durable(seq) {
            self.outbox.push(envelope);
        } else {
            self.durability.withhold(seq, envelope);
        }
    }
}

/// What can be seen of it.
impl RaftCore {
    pub const fn id(&self) -> NodeId {
        self.config.id
    }

    pub const fn term(&self) -> Term {
        self.term
    }

    pub const fn vote(&self) -> Option<NodeId> {
        self.vote
    }

    /// When the leader that is known was last heard; none on itself, and without one.
    pub fn leader_contact(&self) -> Option<Instant> {
        matches!(self.role, Role::Follower { leader: Some(_) }).then_some(self.leader_contact)
    }

    /// The leader of this term, if it is known.
    pub const fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(_) => Some(self.config.id),
            Role::Follower { leader } => *leader,
            _ => None,
        }
    }

    pub const fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// One word: `leader`, `follower`, `learner`, `pre-candidate`, `candidate` or `silenced`.
    pub fn role(&self) -> &'static str {
        match &self.role {
            _ if self.silenced => "silenced",
            Role::Leader(_) => "leader",
            Role::PreCandidate { .. } => "pre-candidate",
            Role::Candidate { .. } => "candidate",
            Role::Follower { .. } if self.membership().is_voter(&self.config.id) => "follower",
            Role::Follower { .. } => "learner",
        }
    }

    pub const fn commit(&self) -> Index {
        self.commit
    }

    pub const fn applied(&self) -> Index {
        self.applied
    }

    pub fn last(&self) -> EntryId {
        self.log.last()
    }

    /// The last entry that the log has forgotten: it begins after it. Never beyond the snapshot.
    pub const fn base(&self) -> EntryId {
        self.log.base()
    }

    /// The last entry that the newest snapshot covers.
    pub const fn snapshot(&self) -> EntryId {
        self.snapshot
    }

    /// The log is durable here up to this index.
    pub const fn durable(&self) -> Index {
        self.durability.index()
    }

    /// Whether the log in memory has reached its limit: no command is taken until a snapshot shortens it.
    pub fn is_log_full(&self) -> bool {
        self.log.bytes() >= self.config.log_bytes_max
    }

    /// Bytes of log in memory.
    pub fn log_bytes(&self) -> usize {
        self.log.bytes()
    }

    /// The entry at `index`, if the log has it.
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        self.log.entry(index)
    }

    /// In force, committed or not.
    pub fn membership(&self) -> &Arc<Membership> {
        self.log.membership()
    }

    /// For how long the disk has owed an answer, if that is longer than [`Config::storage_timeout`].
    pub fn storage_stalled(&self, now: Instant) -> Option<Duration> {
        let owed = self.durability.busy_since().map(|since| now.since(since));
        owed.filter(|owed| *owed >= self.config.storage_timeout)
    }

    pub fn membership_index(&self) -> Index {
        self.log.membership_index()
    }

    /// In force at a committed `index`, so that a snapshot of that index can name it.
    pub fn membership_at(&self, index: Index) -> &Arc<Membership> {
        self.log.membership_at(index)
    }

    /// The cluster's name, once it is committed.
    pub fn cluster(&self) -> ClusterId {
        self.log.membership_at(self.commit).cluster
    }

    /// On a leader: what it knows of each follower.
    pub fn followers(&self) -> impl Iterator<Item = FollowerView> + '_ {
        let progress = match &self.role {
            Role::Leader(leader) => Some(&leader.progress),
            _ => None,
        };
        progress.into_iter().flatten().map(|(id, p)| FollowerView {
            id: *id,
            matched: p.matched,
            contact: p.contact,
            is_installing: matches!(p.mode, Mode::Snapshot { .. }),
            is_filled: self.has_filled(p),
        })
    }

    /// Whether the leader was heard, or as leader a quorum was, within an election timeout.
    pub fn has_quorum(&self) -> bool {
        match &self.role {
            Role::Leader(_) => self.hears_quorum(),
            _ => self.hears_leader(),
        }
    }
}
