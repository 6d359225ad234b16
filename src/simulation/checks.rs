//! What must hold of a whole cluster, over its whole history, whatever happens to it. Asked after every turn.

use std::collections::BTreeMap;

use graft_domain::{
    AppendOutcome, Entry, EntryId, Envelope, Index, Instant, Membership, Message, NodeId, Payload, RaftCore, Term,
};

use crate::history::Verdict;
use crate::node::Node;
use crate::shadow::Shadow;

/// Everything that was ever true and must stay so.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    leaders: BTreeMap<Term, NodeId>,
    votes: BTreeMap<(Term, NodeId), NodeId>,
    /// Every entry that ever was, with the one before it: by induction, equal entries have equal logs before them.
    entries: BTreeMap<EntryId, (Entry, EntryId)>,
    /// Committed entries with the term in which they were first known to be.
    committed: BTreeMap<Index, (Entry, Term)>,
    seen: BTreeMap<NodeId, Seen>,
}

/// A node when it was last looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    term: Term,
    commit: Index,
    applied: Index,
    last: EntryId,
    membership: Index,
    led: bool,
}

fn must(holds: bool, rule: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(rule()) }
}

impl Checks {
    pub(crate) fn committed_last(&self) -> Index {
        self.committed.last_key_value().map_or(Index::ZERO, |(index, _)| *index)
    }

    /// What a restarted node knows comes from its disk; of its commit index that is only a hint.
    pub(crate) fn restarted(&mut self, core: &RaftCore) {
        let (last, term) = (core.base(), core.term());
        self.seen.insert(core.id(), Seen { term, commit: last.index, last, ..Seen::default() });
    }

    /// A disk is wiped: whom its node voted for it cannot know any more.
    pub(crate) fn forgets(&mut self, id: NodeId) {
        self.votes.retain(|(_, voter), _| *voter != id);
    }

    /// Whether a membership was cut off with its entry since it was looked at.
    pub(crate) fn lets_go(&self, core: &RaftCore) -> bool {
        self.seen.get(&core.id()).is_some_and(|seen| seen.membership > core.membership_index())
    }

    /// Looks at the node that has just moved. The others say what their stores have acknowledged.
    pub(crate) fn observe(&mut self, core: &RaftCore, nodes: &BTreeMap<NodeId, Node>) -> Verdict {
        let id = core.id();
        if let Some(rule) = core.broken_invariant() {
            return Err(format!("{id}: {rule}"));
        }
        let before = self.seen.get(&id).copied().unwrap_or_default();
        let (term, commit, applied) = (core.term(), core.commit(), core.applied());
        must(term >= before.term, || format!("{id} goes back from term {} to {term}", before.term))?;
        must(commit >= before.commit, || format!("{id} goes back from commit {} to {commit}", before.commit))?;
        must(applied >= before.applied, || format!("{id} goes back from applied {} to {applied}", before.applied))?;
        membership_in_force(core)?;
        // By counting, a leader commits entries of its own term only, and with them all before (thesis §3.6.2).
        let counts = before.led && core.is_leader() && before.term == term && commit > before.commit;
        let own = core.entry(commit).is_none_or(|entry| entry.term == term);
        must(!counts || own, || {
            format!("{id} commits upto {commit} in term {term} by counting an entry of a term before")
        })?;
        // First: what is appended in this turn may follow what is committed in it.
        self.commits(core, before, nodes)?;
        self.log_matching(core, before)?;
        self.leads(core)?;
        self.seen.insert(
            id,
            Seen {
                term,
                commit,
                applied,
                last: core.last(),
                membership: core.membership_index(),
                led: core.is_leader(),
            },
        );
        Ok(())
    }

    fn log_matching(&mut self, core: &RaftCore, seen: Seen) -> Verdict {
        let id_at = |index: Index| core.entry(index).map(Entry::id);
        // What has been looked at, and is still there, has not changed: its id says what is before it.
        let known = seen.last.index > core.base().index && id_at(seen.last.index) == Some(seen.last);
        let mut before = if known { seen.last } else { core.base() };
        for index in before.index.0 + 1..=core.last().index.0 {
            let Some(entry) = core.entry(Index(index)) else { return Err(format!("no entry at {index}")) };
            if core.is_leader() && entry.term == core.term() && !self.entries.contains_key(&entry.id()) {
                self.changes(core, entry)?;
            }
            let known = self.entries.entry(entry.id()).or_insert_with(|| (entry.clone(), before));
            must(known.0 == *entry && known.1 == before, || {
                format!("log matching: {} has {entry:?} after {before}, elsewhere {known:?}", core.id())
            })?;
            let is_newer = matches!(entry.payload, Payload::Membership(_)) && entry.index > core.membership_index();
            must(!is_newer, || format!("{} does not go by the membership at {index} of its log", core.id()))?;
            before = entry.id();
        }
        Ok(())
    }

    /// A leader appends a membership: the one before it is committed, and so is an entry of its own term unless it founds.
    fn changes(&self, core: &RaftCore, entry: &Entry) -> Verdict {
        let Payload::Membership(next) = &entry.payload else { return Ok(()) };
        let (id, index) = (core.id(), entry.index);
        let between = (self.committed_last().0 + 1..index.0).filter_map(|index| core.entry(Index(index)));
        let earlier = between.clone().find(|entry| matches!(entry.payload, Payload::Membership(_)));
        must(earlier.is_none(), || format!("{id} changes the membership at {index} before {earlier:?} is committed"))?;
        let before = core.membership_at(index.prev());
        let founds = before.cluster == graft_domain::ClusterId::UNKNOWN;
        let own = core.entry(core.commit()).map_or(core.snapshot().term, |committed| committed.term) == entry.term;
        must(founds || own, || format!("{id} changes the membership at {index} before it knows what is committed"))?;
        must(founds || quorums_meet(before, next), || {
            format!("{id} goes from {before:?} to {next:?}: their quorums need not meet")
        })?;
        let back = next.members.keys().find(|id| before.removed.contains(id));
        must(back.is_none(), || format!("{id} takes back {back:?}, which was removed"))
    }

    /// A snapshot ends with a committed entry and names the membership of that place.
    pub(crate) fn covers(&self, last: EntryId, membership: &Membership) -> Verdict {
        let known = self.committed.get(&last.index).map_or(last.term, |(entry, _)| entry.term);
        must(known == last.term, || format!("a snapshot upto {last}, committed is an entry of term {known}"))?;
        let in_force = self.committed.range(..=last.index).rev().find_map(|(_, (entry, _))| match &entry.payload {
            Payload::Membership(membership) => Some(membership),
            _ => None,
        });
        must(in_force.is_none_or(|m| **m == *membership), || {
            format!("a snapshot upto {last} has {membership:?}, in force is {in_force:?}")
        })
    }

    /// Committed entries never change, and a leader commits only what a quorum holds durably.
    fn commits(&mut self, core: &RaftCore, before: Seen, nodes: &BTreeMap<NodeId, Node>) -> Verdict {
        for index in (before.commit.0 + 1..=core.commit().0).map(Index) {
            let Some(entry) = core.entry(index) else { continue };
            if let Some((known, _)) = self.committed.get(&index) {
                must(known == entry, || format!("committed {known:?} changed to {entry:?} on {}", core.id()))?;
                continue;
            }
            // In one turn a leader may commit and then step down.
            must(core.is_leader() || before.led, || {
                format!("{} takes {index} for committed before any leader did", core.id())
            })?;
            // What a wiped member had acknowledged counts as long as it does not vote without it.
            let holds = |id: &NodeId| {
                let held = |node: &Node| node.forgotten.as_ref().is_some_and(|shadow| shadow.holds(entry.id()));
                nodes.get(id).is_some_and(|node| node.shadow.holds(entry.id()) || held(node))
            };
            // One that is appended is in force: the newest, or the one before what was appended in this very turn.
            let earlier = core.membership_at(before.last.index.max(index));
            must(is_quorum(core.membership(), holds) || is_quorum(earlier, holds), || {
                format!("{} commits {}, which is not durable on a quorum", core.id(), entry.id())
            })?;
            self.committed.insert(index, (entry.clone(), core.term()));
        }
        Ok(())
    }

    /// One leader a term, and it has everything that was committed in terms before (thesis §3.6.3).
    fn leads(&mut self, core: &RaftCore) -> Verdict {
        if !core.is_leader() {
            return Ok(());
        }
        let (id, term) = (core.id(), core.term());
        if let Some(other) = self.leaders.get(&term) {
            return must(*other == id, || format!("{other} and {id} both lead term {term}"));
        }
        self.leaders.insert(term, id);
        for (index, (entry, committed_in)) in &self.committed {
            let has = *index <= core.base().index || core.entry(*index) == Some(entry);
            must(has || *committed_in >= term, || format!("{id} leads term {term} without committed {}", entry.id()))?;
        }
        Ok(())
    }

    /// No leader holds a lease once there is another of a later term. `now` is by its own clock.
    pub(crate) fn leases(&self, core: &RaftCore, now: impl FnOnce() -> Instant) -> Verdict {
        let Some((later, other)) = self.leaders.last_key_value() else { return Ok(()) };
        must(!core.is_leader() || core.term() >= *later || !core.holds_lease(now()), || {
            format!("{} holds a lease in term {} though {other} leads term {later}", core.id(), core.term())
        })
    }

    /// A message leaves: whatever it promises is on its sender's disk.
    pub(crate) fn sends(&mut self, envelope: &Envelope, core: &RaftCore, disk: &mut Shadow) -> Verdict {
        let Envelope { from, to, term, message } = envelope;
        let says = |vote: &NodeId| disk.proven_term() > *term || (disk.term == *term && disk.vote == Some(*vote));
        match message {
            Message::VoteReply(reply) if reply.granted => {
                must(says(to), || format!("{from} grants {to} its vote of term {term} before that is durable"))?;
                let first = self.votes.entry((*term, *from)).or_insert(*to);
                must(first == to, || format!("{from} votes for {first} and for {to} in term {term}"))
            }
            Message::Vote(request) => {
                must(says(from), || format!("{from} asks for votes in term {term} before its own is durable"))?;
                let first = self.votes.entry((request.term, *from)).or_insert(*from);
                must(first == from, || format!("{from} voted for {first} and is a candidate in term {term}"))
            }
            Message::AppendReply(reply) => {
                must(disk.proven_term() >= *term, || format!("{from} answers in term {term} before that is durable"))?;
                let AppendOutcome::Matched(matched) = reply.outcome else { return Ok(()) };
                // One of a past term was true when it was said; the log may have moved on before it could leave.
                if core.term() != *term {
                    return Ok(());
                }
                must(disk.has_all_of(core, matched), || format!("{from} acknowledges {matched} before that is durable"))
            }
            _ => Ok(()),
        }
    }
}

/// A node goes by the membership that its log says last, committed or not, be it newly written or what a cut has left.
fn membership_in_force(core: &RaftCore) -> Verdict {
    let (id, index) = (core.id(), core.membership_index());
    let Some(entry) = core.entry(index) else { return Ok(()) };
    let is_it = matches!(&entry.payload, Payload::Membership(membership) if membership == core.membership());
    must(is_it, || format!("{id} goes by {:?}, as of {index}, where its log has {entry:?}", core.membership()))
}

/// Whether every quorum of one has a member in every quorum of the other, by trying them all.
fn quorums_meet(one: &Membership, other: &Membership) -> bool {
    let ids: std::collections::BTreeSet<&NodeId> = one.members.keys().chain(other.members.keys()).collect();
    let ids: Vec<&NodeId> = ids.into_iter().filter(|id| one.is_voter(id) || other.is_voter(id)).collect();
    (0..1_u32 << ids.len()).all(|set| {
        let within = |id: &NodeId| ids.iter().position(|other| *other == id).is_some_and(|n| set >> n & 1 == 1);
        !(is_quorum(one, within) && is_quorum(other, |id| !within(id)))
    })
}

/// By the definition, so that the code under test does not judge itself.
pub(crate) fn is_quorum(membership: &Membership, holds: impl Fn(&NodeId) -> bool) -> bool {
    let majority = |voters: Vec<NodeId>| voters.iter().filter(|id| holds(id)).count() * 2 > voters.len();
    majority(membership.voters().collect()) && (!membership.is_joint() || majority(membership.outgoing().collect()))
}
