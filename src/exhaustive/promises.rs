//! What a member may say: nothing that its disk does not hold, or that is not so.

use graft_domain::{AppendOutcome, Envelope, Index, Membership, Message, NodeId, Payload, Transition};

use crate::checks::{Broken, Rule, must};
use crate::member::Member;

/// A message leaves: whatever it promises is on its sender's disk.
pub(crate) fn may_leave(envelope: &Envelope, member: &Member) -> Result<(), Broken> {
    let (Envelope { from, to, term, message }, Member { core, disk, .. }) = (envelope, member);
    let says = |vote: &NodeId| disk.proven_term() > *term || (disk.term == *term && disk.vote == Some(*vote));
    match message {
        Message::VoteReply(reply) if reply.granted => must(says(to), Rule::Promises, || {
            format!("{from} grants {to} its vote of term {term} before that is durable")
        }),
        Message::Vote(_) => must(says(from), Rule::Promises, || {
            format!("{from} asks for votes in term {term} before its own is durable")
        }),
        Message::AppendReply(reply) => {
            must(disk.proven_term() >= *term, Rule::Promises, || {
                format!("{from} answers in term {term} before that is durable")
            })?;
            let AppendOutcome::Matched(matched) = reply.outcome else { return Ok(()) };
            // One of a past term was true when it was said.
            if core.term() != *term {
                return Ok(());
            }
            let mut promised = (core.base().index.0 + 1..=matched.0).map(|index| core.entry(Index(index)));
            let held = promised.all(|entry| entry.is_some_and(|entry| disk.holds(entry)));
            must(held, Rule::Promises, || format!("{from} acknowledges {matched} before that is durable"))
        }
        _ => Ok(()),
    }
}

/// What holds of a member by itself, and between what it was and what it is.
pub(crate) fn is_sound(before: &Member, member: &Member, restarted: bool) -> Result<(), Broken> {
    let core = &member.core;
    let id = core.id();
    if let Some(rule) = core.broken_invariant() {
        return Err(Broken::new(Rule::Invariants, format!("{id}: {rule}")));
    }
    let was = &before.core;
    let forward = core.term() >= was.term() && core.commit() >= was.commit() && core.applied() >= was.applied();
    must(restarted || forward, Rule::Invariants, || format!("{id} goes back in term, commit or what is applied"))?;
    must(member.disk.proven_term() >= before.disk.proven_term(), Rule::Invariants, || {
        format!("the disk of {id} goes back from term {}", before.disk.proven_term())
    })?;
    let newest =
        member.log().filter_map(|entry| if let Payload::Membership(m) = &entry.payload { Some(m) } else { None });
    let newest = newest.last();
    let in_force = newest.map_or(core.membership_index() <= core.base().index, |newest| newest == core.membership());
    must(in_force, Rule::Memberships, || {
        format!("{id} goes by {:?}, and the newest in its log is {newest:?}", core.membership())
    })?;
    let durable = (core.base().index.0 + 1..=core.durable().0).map(|index| core.entry(Index(index)));
    let lacks = durable.flatten().find(|entry| !member.disk.holds(entry));
    must(lacks.is_none(), Rule::Promises, || {
        format!("{id} takes {:?} for durable, and its disk does not hold it", lacks.map(graft_domain::Entry::id))
    })
}

/// Every member keeps to the protocol, so none may see another break it.
pub(crate) fn is_no_breach(id: NodeId, transition: &Transition) -> Result<(), Broken> {
    let Transition::Breach(breach) = transition else { return Ok(()) };
    Err(Broken::new(Rule::Invariants, format!("{id} falls silent: {breach:?}")))
}

/// A leader appends a membership: it knows what is committed, and no two quorums pass each other by.
pub(crate) fn may_follow(before: &Membership, next: &Membership) -> Result<(), Broken> {
    must(quorums_meet(before, next), Rule::Memberships, || {
        format!("from {before:?} to {next:?}: their quorums need not meet")
    })?;
    let back = next.members.keys().find(|id| before.removed.contains(id));
    must(back.is_none(), Rule::Memberships, || format!("{back:?} was removed, and is taken back"))
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
