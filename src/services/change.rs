//! What users ask to be changed about the cluster, and what comes of it, as pure functions of memberships.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use graft_domain::{Incarnation, Index, Member, Membership, NodeId, Target};

/// Members that a cluster may have; every one of them costs the leader a stream and every vote a message.
pub const MEMBERS_MAX: usize = 64;

/// Something that only the leader can do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ask {
    /// Change the membership; with `guard` only if the last change stands at that index of the log.
    Change { change: Change, guard: Option<Index> },
    /// Hand leadership over, to this member or to the best one.
    Transfer { to: Option<NodeId> },
}

/// A change of the membership, in the words of users.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A new member: it gets the log first and votes, if `voter`, once it has caught up. The incarnation is unknown unless the
    /// joiner itself says it.
    Add {
        id: NodeId,
        address: String,
        voter: bool,
        incarnation: Incarnation,
    },
    Remove {
        id: NodeId,
    },
    /// A learner is to vote.
    Promote {
        id: NodeId,
    },
    /// A voter is to be a learner.
    Demote {
        id: NodeId,
    },
    /// `new` is added and caught up, then takes the place of `old` in one step.
    Replace {
        old: NodeId,
        new: NodeId,
        address: String,
    },
    /// These are to be the voters, and the only members.
    Apply {
        members: BTreeMap<NodeId, String>,
    },
    /// What is under way is given up. Newcomers stay as learners.
    Cancel,
}

/// Why a change is refused, in words. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangeRefused(pub String);

/// How far a change has come, judged by a committed membership.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    UnderWay,
    Done,
    /// Somebody wanted something else since.
    GivenUp,
}

type Planned = Result<Membership, ChangeRefused>;

fn refuse<T>(why: String) -> Result<T, ChangeRefused> {
    Err(ChangeRefused(why))
}

impl Change {
    /// `current` with the targets that this change gives its members; the same as `current` if there is nothing to do.
    pub fn plan(&self, current: &Membership) -> Planned {
        match self {
            Self::Cancel if current.is_joint() => refuse(
                "the change is past the point where it can be given up; it ends by itself as soon as a majority of both \
                 the old and the new voters is up"
                    .to_owned(),
            ),
            Self::Cancel => Ok(stand_still(current)),
            // To remove a newcomer is to give its addition up.
            Self::Remove { id } if !current.is_joint() && current.newcomers().any(|newcomer| newcomer == *id) => {
                Self::remove(&stand_still(current), *id)
            }
            _ if current.is_settled() => self.targets(current),
            // Whoever asks for it may be another node than the one that is being added.
            Self::Add { id, address, voter, incarnation } if current.members.contains_key(id) => {
                let planned = Self::add(current, *id, address, *voter, *incarnation)?;
                if planned == *current { Ok(planned) } else { Self::wait_for(current) }
            }
            Self::Remove { id } if !current.members.contains_key(id) => Self::remove(current, *id),
            // Asked for again, what is under way is not another change.
            _ if self.stage(current) != Stage::GivenUp => Ok(current.clone()),
            _ => Self::wait_for(current),
        }
    }

    fn wait_for(current: &Membership) -> Planned {
        refuse(format!("another change is under way ({}): wait for it, or cancel it", describe(current)))
    }

    fn targets(&self, settled: &Membership) -> Planned {
        match self {
            Self::Add { id, address, voter, incarnation } => Self::add(settled, *id, address, *voter, *incarnation),
            Self::Remove { id } => Self::remove(settled, *id),
            Self::Promote { id } => Self::retarget(settled, *id, Target::Voter),
            Self::Demote { id } => Self::retarget(settled, *id, Target::Learner),
            Self::Replace { old, new, address } => Self::replace(settled, *old, *new, address),
            Self::Apply { members } => Self::apply(settled, members),
            Self::Cancel => Ok(settled.clone()),
        }
    }

    fn add(settled: &Membership, id: NodeId, address: &str, voter: bool, incarnation: Incarnation) -> Planned {
        let target = if voter { Target::Voter } else { Target::Learner };
        let mut planned = settled.clone();
        let Some(member) = planned.members.get_mut(&id) else {
            return Self::admit(settled, id, address, target, incarnation);
        };
        let known = member.incarnation != Incarnation::UNKNOWN && incarnation != Incarnation::UNKNOWN;
        if known && member.incarnation != incarnation {
            return refuse(format!(
                "{id} is a member with another data directory ({} is recorded, {incarnation} came): it was wiped or is a \
                 copy, and may have forgotten what it promised. Bring the original directory back; if that is \
                 lost, start a node with a new id, an empty directory and --cluster, and then: graft member replace {id} \
                 NEW-ID ADDR",
                member.incarnation
            ));
        }
        if !known && *member.address != *address {
            return refuse(format!(
                "{id} is a member already, at {}; if it has moved, start it there: it announces itself",
                member.address
            ));
        }
        if incarnation != Incarnation::UNKNOWN {
            // The node itself asks, at each of its starts: it is in, and what it is to be was decided then.
            return Ok(settled.clone());
        }
        if member.voter && !voter {
            return refuse(format!("{id} is a voter already; demote it to make it a learner"));
        }
        member.target = target;
        Ok(planned)
    }

    /// A new member, which has no vote yet.
    fn admit(settled: &Membership, id: NodeId, address: &str, target: Target, incarnation: Incarnation) -> Planned {
        if settled.removed.contains(&id) {
            return refuse(format!(
                "the id {id} belonged to a member that was removed, and ids are not used again: whoever has it may have \
                 forgotten what it promised. Start the node with an empty data directory under a new id"
            ));
        }
        if let Some((other, _)) = settled.members.iter().find(|(_, member)| *member.address == *address) {
            return refuse(format!("{other} is the member at {address}; each member has an address of its own"));
        }
        if settled.members.len() >= MEMBERS_MAX {
            return refuse(format!("a cluster has at most {MEMBERS_MAX} members"));
        }
        let member = Member { address: address.into(), incarnation, voter: false, outgoing: false, target };
        let mut planned = settled.clone();
        planned.members.insert(id, member);
        Ok(planned)
    }

    fn remove(settled: &Membership, id: NodeId) -> Planned {
        if settled.removed.contains(&id) {
            return Ok(settled.clone());
        }
        Self::retarget(settled, id, Target::Gone)
    }

    fn retarget(settled: &Membership, id: NodeId, target: Target) -> Planned {
        let mut planned = settled.clone();
        let Some(member) = planned.members.get_mut(&id) else { return refuse(unknown(settled, id)) };
        member.target = target;
        if remaining(&planned) == 0 {
            return refuse(format!(
                "{id} is the last voter; without one there is no cluster. To end it, stop its nodes"
            ));
        }
        Ok(planned)
    }

    fn replace(settled: &Membership, old: NodeId, new: NodeId, address: &str) -> Planned {
        if old == new {
            return refuse(format!("{old} cannot replace itself: give the new node an id of its own"));
        }
        let newcomer = settled.members.get(&new);
        if settled.removed.contains(&old) && newcomer.is_some_and(|member| member.voter) {
            return Ok(settled.clone());
        }
        if !settled.members.contains_key(&old) {
            return refuse(unknown(settled, old));
        }
        if let Some(member) = newcomer.filter(|member| *member.address != *address) {
            return refuse(elsewhere(new, member, address));
        }
        let mut planned = match newcomer {
            // It has let itself in, and all that is left to do is the other half.
            Some(member) if member.voter => settled.clone(),
            Some(_) => Self::retarget(settled, new, Target::Voter)?,
            None => Self::admit(settled, new, address, Target::Voter, Incarnation::UNKNOWN)?,
        };
        if let Some(member) = planned.members.get_mut(&old) {
            member.target = Target::Gone;
        }
        Ok(planned)
    }

    fn apply(settled: &Membership, wanted: &BTreeMap<NodeId, String>) -> Planned {
        if wanted.is_empty() {
            return refuse("no members are given; without one there is no cluster".to_owned());
        }
        let addresses: BTreeSet<&String> = wanted.values().collect();
        if addresses.len() < wanted.len() {
            return refuse("two of the members have the same address".to_owned());
        }
        let mut planned = settled.clone();
        for (id, member) in &mut planned.members {
            member.target = if wanted.contains_key(id) { Target::Voter } else { Target::Gone };
        }
        for (id, address) in wanted {
            match settled.members.get(id) {
                Some(member) if *member.address != **address => return refuse(elsewhere(*id, member, address)),
                Some(_) => {}
                None => planned = Self::admit(&planned, *id, address, Target::Voter, Incarnation::UNKNOWN)?,
            }
        }
        Ok(planned)
    }

    /// Where it says that this newcomer is.
    pub(crate) fn address_of(&self, newcomer: NodeId) -> Option<&str> {
        match self {
            Self::Add { id, address, .. } | Self::Replace { new: id, address, .. } if *id == newcomer => Some(address),
            Self::Apply { members } => members.get(&newcomer).map(String::as_str),
            _ => None,
        }
    }

    /// Whether this member is gone when it is done.
    pub(crate) fn removes(&self, member: NodeId) -> bool {
        match self {
            Self::Remove { id } | Self::Replace { old: id, .. } => *id == member,
            Self::Apply { members } => !members.contains_key(&member),
            _ => false,
        }
    }

    /// How far it has come, once the leader has accepted it at an entry that `committed` includes.
    pub fn stage(&self, committed: &Membership) -> Stage {
        let member = |id: &NodeId| committed.members.get(id);
        let is = |id: &NodeId, target: Target| member(id).is_some_and(|m| m.target == target);
        let voter = |id: &NodeId| member(id).is_some_and(|m| m.voter);
        let gone = |id: &NodeId| member(id).is_none();
        let idle = !committed.is_joint();
        let (done, wanted) = match self {
            // A joiner is in as soon as it is a member, whatever it is to be.
            Self::Add { id, incarnation, .. } if *incarnation != Incarnation::UNKNOWN => (!gone(id), !gone(id)),
            Self::Add { id, voter: true, .. } | Self::Promote { id } => (idle && voter(id), is(id, Target::Voter)),
            Self::Add { id, .. } => (idle && !gone(id), !gone(id)),
            Self::Demote { id } => (idle && !gone(id) && !voter(id), is(id, Target::Learner)),
            Self::Remove { id } => (gone(id), is(id, Target::Gone)),
            Self::Replace { old, new, .. } => {
                (idle && voter(new) && gone(old), is(new, Target::Voter) && is(old, Target::Gone))
            }
            Self::Apply { members } => {
                let settled = idle && committed.members.keys().eq(members.keys()) && members.keys().all(voter);
                let target = |id: &NodeId| if members.contains_key(id) { Target::Voter } else { Target::Gone };
                let listed = members.keys().all(|id| !gone(id));
                (settled, listed && committed.members.iter().all(|(id, member)| member.target == target(id)))
            }
            Self::Cancel => (true, true),
        };
        match (done, wanted) {
            (true, _) => Stage::Done,
            (false, true) => Stage::UnderWay,
            (false, false) => Stage::GivenUp,
        }
    }
}

/// Everybody is to stay what he is.
fn stand_still(current: &Membership) -> Membership {
    let mut still = current.clone();
    for member in still.members.values_mut() {
        member.target = if member.voter { Target::Voter } else { Target::Learner };
    }
    still
}

/// Members that are to vote.
fn remaining(planned: &Membership) -> usize {
    planned.members.values().filter(|member| member.target == Target::Voter).count()
}

fn elsewhere(id: NodeId, member: &Member, address: &str) -> String {
    let known = &member.address;
    format!("{id} is a member at {known}, not at {address}; if it has moved, start it there: it announces itself")
}

fn unknown(membership: &Membership, id: NodeId) -> String {
    if membership.removed.contains(&id) {
        return format!("{id} was removed from the cluster");
    }
    let members: Vec<&str> = membership.members.keys().map(NodeId::as_str).collect();
    format!("there is no member {id}; there are {}", members.join(", "))
}

/// What a membership is on its way to, in words; empty if it is settled.
pub fn describe(membership: &Membership) -> String {
    let words = |(id, member): (&NodeId, &Member)| match (member.target, member.voter, member.outgoing) {
        (Target::Voter, false, _) => Some(format!("{id} catches up and is to vote")),
        (Target::Voter, true, false) if membership.is_joint() => Some(format!("{id} becomes a voter")),
        (Target::Learner, true, _) | (Target::Learner, _, true) => Some(format!("{id} becomes a learner")),
        (Target::Gone, ..) => Some(format!("{id} leaves")),
        _ => None,
    };
    let steps: Vec<String> = membership.members.iter().filter_map(words).collect();
    steps.join(", ")
}

impl fmt::Display for ChangeRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ChangeRefused {}
