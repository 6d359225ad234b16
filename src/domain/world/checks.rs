//! What must hold of a whole cluster, over its whole history, whatever happens to it. Asked after every step.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::cluster::Node;
use crate::message::{AppendOutcome, Envelope, Message};
use crate::{ClusterId, Entry, EntryId, Index, Instant, Membership, NodeId, Payload, RaftCore, ReadId, Term};

/// Everything that was ever true and must stay so.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checks {
    leaders: BTreeMap<Term, NodeId>,
    /// By term and voter.
    votes: BTreeMap<(Term, NodeId), NodeId>,
    /// Every entry that ever was, with the one before it: by induction, equal entries have equal logs before them.
    entries: BTreeMap<EntryId, (Entry, EntryId)>,
    /// Committed entries with the term of the leader that committed them.
    committed: BTreeMap<Index, (Entry, Term)>,
    /// The term and commit index of each node when last looked at.
    seen: BTreeMap<NodeId, (Term, Index)>,
    /// The base and end of each node's log, and how far it was durable, when last looked at.
    logs: BTreeMap<NodeId, (EntryId, EntryId, Index)>,
    /// Reads on their way, with what was committed when they were asked.
    asked: BTreeMap<(NodeId, ReadId), Index>,
}

type Verdict = Result<(), String>;

fn must(holds: bool, rule: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(rule()) }
}

impl Checks {
    pub(crate) fn committed_last(&self) -> Index {
        self.committed.last_key_value().map_or(Index::ZERO, |(index, _)| *index)
    }

    /// Takes what a node was set up with as history.
    pub(crate) fn adopt(&mut self, core: &RaftCore) {
        for index in core.base().index.0 + 1..=core.commit().0 {
            if let Some(entry) = core.entry(Index(index)) {
                self.committed.insert(Index(index), (entry.clone(), entry.term));
            }
        }
        self.seen.insert(core.id(), (core.term(), core.commit()));
    }

    /// What a restarted node knows comes from its disk; of its commit index that is only a hint.
    pub(crate) fn restarted(&mut self, core: &RaftCore) {
        self.seen.insert(core.id(), (core.term(), core.base().index));
    }

    /// A disk was wiped: nothing that is on it now has to do with what was.
    pub(crate) fn wiped(&mut self, id: &NodeId) {
        self.seen.remove(id);
        self.logs.remove(id);
    }

    /// Looks at the node that has just moved.
    pub(crate) fn observe(&mut self, id: &NodeId, nodes: &BTreeMap<NodeId, Node>) -> Verdict {
        let Some(node) = nodes.get(id) else { return Ok(()) };
        let Some(core) = &node.core else { return Ok(()) };
        if let Some(rule) = core.broken_invariant() {
            return Err(format!("{id}: {rule}"));
        }
        let (term, commit) = self.seen.insert(*id, (core.term(), core.commit())).unwrap_or_default();
        must(core.term() >= term, || format!("{id} goes back from term {term} to {}", core.term()))?;
        must(core.commit() >= commit, || format!("{id} goes back from commit {commit} to {}", core.commit()))?;
        let log = (core.base(), core.last(), core.durable());
        if self.logs.insert(*id, log) != Some(log) {
            self.log_matching(core)?;
            durable_is_on_disk(node, core)?;
        }
        self.commits(core, commit, nodes)?;
        self.leads(core)
    }

    fn log_matching(&mut self, core: &RaftCore) -> Verdict {
        let mut before = core.base();
        for index in before.index.0 + 1..=core.last().index.0 {
            let Some(entry) = core.entry(Index(index)) else { return Err(format!("no entry at {index}")) };
            if core.is_leader() && entry.term == core.term() && !self.entries.contains_key(&entry.id()) {
                self.changes(core, entry)?;
            }
            let known = self.entries.entry(entry.id()).or_insert_with(|| (entry.clone(), before));
            must(known.0 == *entry && known.1 == before, || {
                format!("log matching: {} has {:?} after {before}, elsewhere {known:?}", core.id(), entry)
            })?;
            before = entry.id();
        }
        Ok(())
    }

    /// A leader appends a membership: the one before it is committed, so is an entry of its own term unless it founds, and no
    /// two quorums of the two pass each other by.
    fn changes(&self, core: &RaftCore, entry: &Entry) -> Verdict {
        let Payload::Membership(next) = &entry.payload else { return Ok(()) };
        let (id, index) = (core.id(), entry.index);
        let uncommitted = (self.committed_last().0 + 1..index.0).filter_map(|index| core.entry(Index(index)));
        let earlier = uncommitted.clone().find(|e| matches!(e.payload, Payload::Membership(_)));
        must(earlier.is_none(), || {
            format!("{id} changes the membership at {index} before that at {earlier:?} is certain")
        })?;
        let own = self.committed.values().next_back().is_some_and(|(e, _)| e.term == entry.term);
        let founds = core.membership_at(index.prev()).cluster == ClusterId::UNKNOWN;
        must(founds || own, || format!("{id} changes the membership at {index} before it knows what is committed"))?;
        let before = core.membership_at(index.prev());
        must(quorums_meet(before, next), || {
            format!("{id} goes from {before:?} to {next:?}: their quorums need not meet")
        })?;
        let back = next.members.keys().find(|id| before.removed.contains(id));
        must(back.is_none(), || format!("{id} takes back {back:?}, which was removed"))
    }

    /// A snapshot ends with a committed entry and names the membership of that place (S43).
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
    fn commits(&mut self, core: &RaftCore, before: Index, nodes: &BTreeMap<NodeId, Node>) -> Verdict {
        for index in (before.0 + 1..=core.commit().0).map(Index) {
            let Some(entry) = core.entry(index) else { continue };
            if let Some((known, _)) = self.committed.get(&index) {
                must(known == entry, || format!("committed {known:?} changed to {entry:?} on {}", core.id()))?;
                continue;
            }
            must(core.is_leader(), || format!("{} takes {index} for committed before any leader did", core.id()))?;
            let holds = |id: &NodeId| nodes.get(id).is_some_and(|n| n.disk.holds(entry));
            must(is_quorum(core.membership(), holds), || {
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
    pub(crate) fn leases(&self, core: Option<&RaftCore>, now: Instant) -> Verdict {
        let Some((later, other)) = self.leaders.last_key_value() else { return Ok(()) };
        let Some(core) = core.filter(|core| core.is_leader() && core.term() < *later) else { return Ok(()) };
        must(!core.holds_lease(now), || {
            format!("{} holds a lease in term {} though {other} leads term {later}", core.id(), core.term())
        })
    }

    /// A message leaves: whatever it promises is on its sender's disk.
    pub(crate) fn sends(&mut self, envelope: &Envelope, node: &Node) -> Verdict {
        let Envelope { from, to, term, message } = envelope;
        let (disk, core) = (&node.disk, node.core.as_ref());
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
                let core = core.ok_or_else(|| format!("{from} speaks from the grave"))?;
                // One of a past term was true when it was said; the log may have moved on before it could leave.
                if core.term() != *term {
                    return Ok(());
                }
                let mut promised = (core.base().index.0 + 1..=matched.0).map(|index| core.entry(Index(index)));
                must(promised.all(|entry| entry.is_some_and(|e| disk.holds(e))), || {
                    format!("{from} acknowledges {matched} before that is durable")
                })
            }
            _ => Ok(()),
        }
    }

    /// An entry is applied: it is the next one, committed, and on this disk.
    pub(crate) fn applies(&self, id: &NodeId, handed: Index, entry: &Entry, node: &Node) -> Verdict {
        let at = entry.id();
        must(entry.index == handed.next(), || format!("{id} applies {at} after {handed}"))?;
        let committed = self.committed.get(&entry.index).map(|(e, _)| e);
        must(committed == Some(entry), || format!("{id} applies {at}, committed is {committed:?}"))?;
        must(node.disk.holds(entry), || format!("{id} applies {at}, which its disk does not hold"))
    }

    pub(crate) fn asks(&mut self, id: NodeId, read: ReadId) {
        self.asked.insert((id, read), self.committed_last());
    }

    /// A read is answered: at least what was committed when it was asked (thesis §6.4).
    pub(crate) fn answers(&mut self, id: NodeId, read: ReadId, index: Option<Index>) -> Verdict {
        let Some(floor) = self.asked.remove(&(id, read)) else {
            return Err(format!("{id} answers read {read}, which nobody asks"));
        };
        let stale = index.is_some_and(|index| index < floor);
        must(!stale, || format!("{id} answers read {read} at {index:?} though {floor} was committed when it was asked"))
    }

    /// Nothing is being asked on this node any more.
    pub(crate) fn forget_reads(&mut self, id: &NodeId) {
        self.asked.retain(|(node, _), _| node != id);
    }

    pub(crate) fn reads_open(&self) -> usize {
        self.asked.len()
    }
}

fn durable_is_on_disk(node: &Node, core: &RaftCore) -> Verdict {
    for index in core.base().index.0 + 1..=core.durable().0 {
        let held = core.entry(Index(index)).is_some_and(|e| node.disk.holds(e));
        must(held, || format!("{} takes entry {index} for durable, its disk does not hold it", core.id()))?;
    }
    Ok(())
}

/// Whether every quorum of one has a member in every quorum of the other, by trying them all.
pub(crate) fn quorums_meet(one: &Membership, other: &Membership) -> bool {
    let ids: BTreeSet<&NodeId> = one.members.keys().chain(other.members.keys()).collect();
    let ids: Vec<&NodeId> = ids.into_iter().filter(|id| one.is_voter(id) || other.is_voter(id)).collect();
    // A quorum of the other within what a quorum of one leaves over.
    (0..1u32 << ids.len()).all(|set| {
        let within = |id: &NodeId| ids.iter().position(|other| *other == id).is_some_and(|n| set >> n & 1 == 1);
        !(is_quorum(one, within) && is_quorum(other, |id| !within(id)))
    })
}

/// By the definition, so that the code under test does not judge itself.
fn is_quorum(membership: &Membership, holds: impl Fn(&NodeId) -> bool) -> bool {
    let majority = |voters: Vec<NodeId>| voters.iter().filter(|id| holds(id)).count() * 2 > voters.len();
    majority(membership.voters().collect()) && (!membership.is_joint() || majority(membership.outgoing().collect()))
}
