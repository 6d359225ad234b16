//! What a node says of itself.

use std::time::Duration;

use graft_domain::{ClusterId, Incarnation, Index, NodeId, Target, Term};

use crate::replica::Replica;

/// How long the machine may keep commands waiting, with one batch of them or with queries or a snapshot before it, until that
/// is told as a trouble.
const MACHINE_PATIENCE: Duration = Duration::from_secs(3);

/// What people call a member: its id, and where it is, which many take for its id.
pub fn named(id: NodeId, address: &str) -> String {
    let id = id.to_string();
    if id == address { id } else { format!("{id} at {address}") }
}

#[derive(Clone, PartialEq, Debug)]
pub struct Status {
    pub id: NodeId,
    /// `leader`, `follower`, `learner`, `pre-candidate`, `candidate`, `removed`, or `failed` if the store or the machine gave up.
    pub role: &'static str,
    pub term: Term,
    pub leader: Option<NodeId>,
    pub last: Index,
    pub commit: Index,
    pub applied: Index,
    pub snapshot: Index,
    pub cluster: ClusterId,
    pub members: Vec<MemberStatus>,
    /// Whether a quorum hears the leader, as far as can be told from here.
    pub has_quorum: bool,
    /// Why the node does not work, if so.
    pub error: Option<String>,
    /// The name of that kind of error.
    pub error_code: Option<&'static str>,
    /// What keeps it from its work for now, if something does: it goes on by itself when that ends.
    pub trouble: Option<String>,
    /// Where the last change of the membership stands in the log: what a guarded change compares.
    pub membership_index: Index,
    /// Those who were members once.
    pub former: Vec<NodeId>,
    /// The change of the membership that is under way, in words.
    pub change: Option<String>,
    /// Bytes of log in memory.
    pub log_bytes: usize,
    pub snapshot_bytes: Option<u64>,
    /// `writing`, `fetching` or `applying`, and how much of it is done, from 0 to 1, if that is known.
    pub snapshot_phase: Option<(&'static str, Option<f64>)>,
    /// Why the last snapshot failed.
    pub snapshot_error: Option<String>,
    /// Of the certificate that the node shows; none if its connections are not secured.
    pub certificate: Option<CertificateLife>,
}

/// How long a certificate is good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CertificateLife {
    /// In seconds since the Unix epoch.
    pub expires: i64,
    /// Less than a third of its life is left.
    pub is_expiring: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberStatus {
    pub id: NodeId,
    pub address: String,
    pub voter: bool,
    /// What it is to become; the same as what it is unless a change is under way.
    pub target: Target,
    /// Which life of its data directory is recorded.
    pub incarnation: Incarnation,
    /// It is being given a snapshot; only the leader tells.
    pub installing: bool,
    /// Bytes of the snapshot that it has got, and their total; only who sends it tells.
    pub sent: Option<(u64, u64)>,
    /// What the leader knows it to have; only the leader tells.
    pub matched: Option<Index>,
    /// How long ago it was heard: the leader tells of the others, and they of the leader.
    pub last_contact: Option<Duration>,
    /// Whether there is a connection to it; none for the node itself.
    pub reachable: Option<bool>,
    /// Why there is no connection to it, in words, if so; or, though there is one, why it does not work: that the leader tells.
    pub trouble: Option<String>,
    /// How its state differs from those of the others, if the last comparison that was asked for here found so.
    pub difference: Option<String>,
}

impl MemberStatus {
    /// What is wrong with it, in words; the first thing, if there is more.
    pub fn ill(&self) -> Option<&str> {
        self.trouble.as_deref().or(self.difference.as_deref())
    }
}

impl Replica {
    pub fn status(&self) -> Status {
        let core = &self.core;
        let progress = |id: NodeId| core.followers().find(|follower| follower.id == id);
        let heard = |id: NodeId| core.leader_contact().filter(|_| core.leader() == Some(id));
        let since = |contact| self.clock.now.since(contact);
        let member = |(id, member): (&NodeId, &graft_domain::Member)| MemberStatus {
            id: *id,
            address: member.address.to_string(),
            voter: member.voter || member.outgoing,
            target: member.target,
            incarnation: member.incarnation,
            installing: progress(*id).is_some_and(|follower| follower.is_installing),
            sent: self.sent_to(*id).filter(|_| progress(*id).is_some_and(|follower| follower.is_installing)),
            matched: if *id == core.id() {
                Some(core.durable())
            } else {
                progress(*id).map(|follower| follower.matched)
            },
            last_contact: progress(*id).map(|follower| follower.contact).or_else(|| heard(*id)).map(since),
            reachable: (*id != core.id()).then(|| self.reachable.contains(id)),
            trouble: self.troubles.get(id).cloned().or_else(|| self.failure_of(*id).map(str::to_owned)),
            difference: self.difference_of(*id).map(str::to_owned),
        };
        Status {
            id: core.id(),
            role: self.role(),
            term: core.term(),
            leader: core.leader(),
            last: core.last().index,
            commit: core.commit(),
            applied: core.applied(),
            snapshot: core.snapshot().index,
            cluster: core.cluster(),
            members: core.membership().members.iter().map(member).collect(),
            has_quorum: core.has_quorum(),
            error: self.error().map(|(_, why)| why),
            error_code: self.error().map(|(code, _)| code),
            trouble: self.trouble().map(str::to_owned),
            membership_index: core.membership_index(),
            former: core.membership().removed.iter().copied().collect(),
            change: self.change_under_way(),
            log_bytes: core.log_bytes(),
            snapshot_bytes: self.snapshot_bytes(),
            snapshot_phase: self.snapshot_phase(),
            snapshot_error: self.snapshots.error.clone(),
            certificate: None,
        }
    }

    /// What this node is, in one word.
    pub fn role(&self) -> &'static str {
        match () {
            () if self.removed => "removed",
            () if self.failure.is_some() => "failed",
            () => self.core.role(),
        }
    }

    /// What keeps this node from its work for now. Without numbers that change: it is also told to the leader.
    pub(crate) fn trouble(&self) -> Option<&'static str> {
        let now = self.clock.now;
        match () {
            () if self.failure.is_some() || self.removed => None,
            () if self.storage_full => Some("no space is left on its disk"),
            () if self.core.storage_stalled(now).is_some() => Some("its disk does not finish a write"),
            () if self.machine_stuck().is_some() => {
                Some("its machine does not get done with what it is at, and all commands that come later wait for it")
            }
            () if self.core.is_log_full() => {
                Some("its log has reached log_bytes_max, and commands are refused until a snapshot shortens it")
            }
            () => None,
        }
    }

    /// For how long the machine has had something to apply and got no further, if that is longer than it should be.
    pub(crate) fn machine_stuck(&self) -> Option<Duration> {
        let since = (self.handed > self.core.applied()).then(|| self.clock.now.since(self.got_on));
        since.filter(|since| *since >= MACHINE_PATIENCE)
    }

    /// Why the node does not work, and the name of that kind of trouble.
    fn error(&self) -> Option<(&'static str, String)> {
        let failed = || self.failure.clone().map(|why| ("HALTED", why));
        let removed = || self.removed.then(|| ("REMOVED", format!("{} was removed from the cluster", self.core.id())));
        let contradicted = || self.contradicted.clone().map(|why| ("CLUSTER_MISMATCH", why));
        removed().or_else(contradicted).or_else(failed).or_else(|| self.outcast.clone())
    }
}
