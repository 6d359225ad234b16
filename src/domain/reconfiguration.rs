//! Changing who belongs to the cluster (thesis §4): what the next configuration is, when it may be appended, and how a joint one
//! is left.

use alloc::sync::Arc;

use crate::entry::Payload;
use crate::ids::{ClusterId, Incarnation, NodeId};
use crate::membership::{Member, Membership, Target};
use crate::progress::Progress;
use crate::quorum;
use crate::raft::{RaftCore, Role};
use crate::step::Rejected;

impl Membership {
    /// Whether every member is what it is to become.
    pub fn is_settled(&self) -> bool {
        let settled = |m: &Member| !m.outgoing && m.target != Target::Gone && m.voter == (m.target == Target::Voter);
        self.members.values().all(settled)
    }

    /// Those who are to vote and do not yet.
    pub fn newcomers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().filter(|(_, m)| m.target == Target::Voter && !m.voter).map(|(id, _)| *id)
    }

    /// The next configuration on the way to everybody's target: all votes change in one step, joint if there is more than one
    /// (thesis §4.3). None if there is no way to go: it is settled, it is joint, or nobody would vote.
    pub fn next(&self) -> Option<Self> {
        if self.is_joint() || self.is_settled() {
            return None;
        }
        let mut next = self.clone();
        for member in next.members.values_mut() {
            (member.outgoing, member.voter) = (member.voter, member.target == Target::Voter);
        }
        let changed = next.members.values().filter(|m| m.outgoing != m.voter).count();
        next.voters().next()?;
        Some(if changed > 1 { next } else { next.without_outgoing() })
    }

    /// The configuration after a joint one: its incoming half, without those who have no part in it any more.
    #[must_use]
    pub fn without_outgoing(&self) -> Self {
        let mut next = self.clone();
        for member in next.members.values_mut() {
            member.outgoing = false;
        }
        let gone = next.members.extract_if(.., |_, m| m.target == Target::Gone && !m.voter);
        next.removed.extend(gone.map(|(id, _)| id));
        next
    }

    /// Whether `next` may follow this one directly: at most one vote is given or taken, or it is joint and its outgoing half
    /// is this one. Somebody votes. Whoever leaves is remembered, nobody who was removed comes back, and nobody's disk becomes
    /// another one: an id stands for what its member has promised.
    fn may_become(&self, next: &Self) -> bool {
        let votes = |membership: &Self, id: &NodeId| membership.members.get(id).is_some_and(|m| m.voter);
        let everybody = self.members.keys().chain(next.members.keys().filter(|id| !self.contains(id)));
        let votes_changed = everybody.filter(|id| votes(self, id) != votes(next, id)).count();
        let one_step = if next.is_joint() { next.outgoing().eq(self.voters()) } else { votes_changed <= 1 };
        let remembered = self.members.keys().all(|id| next.contains(id) || next.removed.contains(id));
        let is_same_disk = |(id, member): (&NodeId, &Member)| {
            let before = self.members.get(id).map_or(Incarnation::UNKNOWN, |m| m.incarnation);
            before == Incarnation::UNKNOWN || before == member.incarnation
        };
        one_step
            && self.cluster == next.cluster
            && !self.is_joint()
            && next.voters().next().is_some()
            && remembered
            && self.removed.is_subset(&next.removed)
            && next.members.keys().all(|id| !next.removed.contains(id))
            && next.members.iter().all(is_same_disk)
            && next.members.values().all(|m| u16::try_from(m.address.len()).is_ok())
    }
}

impl RaftCore {
    /// Whether a membership may be appended now. The leader's own first entry comes first: without it two leaders could
    /// each change the same configuration with quorums that do not meet (the error in single-server changes of 2015).
    pub fn may_change_membership(&self) -> Result<(), Rejected> {
        let Role::Leader(leader) = &self.role else { return Err(Rejected::NotLeader { leader: self.leader() }) };
        if leader.transfer.is_some() {
            return Err(Rejected::Transferring);
        }
        let is_founded = self.membership().cluster != ClusterId::UNKNOWN;
        if !is_founded || !self.is_membership_certain() || self.membership().is_joint() {
            return Err(Rejected::ChangeInProgress);
        }
        Ok(())
    }

    /// Whether the membership in force is committed, as a leader knows it by an entry of its own term. One that was found in
    /// the log at a start, or inherited, may not be.
    fn is_membership_certain(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        self.commit >= leader.first && self.membership_index() <= self.commit
    }

    pub(crate) fn change_membership(&mut self, next: Arc<Membership>) -> Result<(), Rejected> {
        self.may_change_membership()?;
        if !self.membership().may_become(&next) {
            return Err(Rejected::BadMembership);
        }
        if !self.can_carry(&next) {
            return Err(Rejected::ChangeInProgress);
        }
        self.append_own(Payload::Membership(next));
        Ok(())
    }

    /// Whether a membership would have a quorum that can go on without this leader. Whoever is not filled may vote for nobody,
    /// so a member is filled first and then given a vote, and no vote that others depend on is taken away.
    fn can_carry(&self, next: &Membership) -> bool {
        let is_filled = |id: &NodeId| *id == self.config.id || self.is_filled(id);
        next.voters().all(|id| self.membership().is_voter(&id) || is_filled(&id)) && quorum::is_quorum(next, is_filled)
    }

    /// Whether a follower has everything that was committed when it came, or when this leader did: no vote of it is missing
    /// from then on.
    pub(crate) fn is_filled(&self, id: &NodeId) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        leader.progress.get(id).is_some_and(|progress| self.has_filled(progress))
    }

    pub(crate) fn has_filled(&self, progress: &Progress) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        progress.matched >= progress.memory_from.max(leader.first)
    }

    /// A joint configuration that is certain has served its purpose. While leadership is handed over nothing is appended: the
    /// next leader leaves it.
    pub(crate) fn leave_joint(&mut self) {
        if self.is_membership_certain() && self.membership().is_joint() && self.transfer_target().is_none() {
            let next = Arc::new(self.membership().without_outgoing());
            self.append_own(Payload::Membership(next));
        }
    }

    /// Whether this leader has no vote in a committed configuration: it has done its last service (thesis §4.2.2).
    pub(crate) fn is_retired(&self) -> bool {
        self.is_leader() && self.membership_index() <= self.commit && !self.membership().is_voter(&self.config.id)
    }

    /// A leader that has retired hands over, so that nobody has to wait for a timeout and what is on its way is still
    /// committed.
    pub(crate) fn retire(&mut self) {
        if self.is_retired() {
            self.abdicate();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::quorums_meet;
    use alloc::collections::BTreeSet;
    use alloc::format;

    const TARGETS: [Target; 3] = [Target::Voter, Target::Learner, Target::Gone];

    /// Four members that vote as two bit sets say, with targets as the digits of a number to the base of three.
    fn membership(incoming: u8, outgoing: u8, targets: usize) -> Membership {
        let ids = (0..4).map(|n| NodeId::new(&format!("n{n}")).expect("a good id"));
        let mut membership = Membership::founding(ids.map(|id| (id, "")));
        membership.cluster = ClusterId(1);
        for (n, member) in membership.members.values_mut().enumerate() {
            (member.voter, member.outgoing) = (incoming >> n & 1 == 1, outgoing >> n & 1 == 1);
            member.target = TARGETS[targets / 3usize.pow(u32::try_from(n).expect("a small number")) % 3];
        }
        membership
    }

    fn id(n: u8) -> NodeId {
        NodeId::new(&format!("n{n}")).expect("a good id")
    }

    #[test]
    fn every_way_to_the_targets_is_short_and_its_quorums_meet() {
        for (voters, targets) in (1..16).flat_map(|voters| (0..81).map(move |targets| (voters, targets))) {
            let first = membership(voters, 0, targets);
            let wanted: BTreeSet<NodeId> =
                first.members.iter().filter(|(_, m)| m.target == Target::Voter).map(|(id, _)| *id).collect();
            let mut at = first.clone();
            while let Some(next) = at.next() {
                assert!(at.may_become(&next), "{at:?} to {next:?}");
                assert!(quorums_meet(&at, &next), "{at:?} to {next:?}");
                at = if next.is_joint() { next.without_outgoing() } else { next.clone() };
                assert!(quorums_meet(&next, &at), "{next:?} to {at:?}");
                assert!(at.is_settled(), "one step is enough: {first:?} ends in {at:?}");
            }
            if wanted.is_empty() {
                assert_eq!(at, first, "nobody would vote");
                continue;
            }
            let gone = first.members.iter().filter(|(_, m)| m.target == Target::Gone).map(|(id, _)| *id);
            assert!(at.is_settled() && at.voters().collect::<BTreeSet<_>>() == wanted, "{first:?} ends in {at:?}");
            assert_eq!(at.removed, gone.collect::<BTreeSet<_>>(), "{first:?} ends in {at:?}");
        }
    }

    #[test]
    fn whatever_is_accepted_has_quorums_that_meet() {
        let mut accepted = 0;
        for (voters, incoming) in (1..16).flat_map(|voters| (0..16).map(move |incoming| (voters, incoming))) {
            let before = membership(voters, 0, 0);
            for outgoing in 0..16 {
                let next = membership(incoming, outgoing, 0);
                if before.may_become(&next) {
                    accepted += 1;
                    assert!(quorums_meet(&before, &next), "{before:?} to {next:?}");
                    assert!(quorums_meet(&next, &next.without_outgoing()), "{next:?}");
                }
            }
        }
        // To each of 15 one joint way to each of 15; without, 4 changes of one vote and none, but 4 times to nobody.
        assert_eq!(accepted, 15 * 15 + 15 * 5 - 4);
    }

    #[test]
    fn an_id_stands_for_what_its_member_has_promised() {
        let mut before = membership(0b0111, 0, 0);
        before.removed.insert(id(7));
        before.members.get_mut(&id(1)).expect("n1 is a member").incarnation = Incarnation(3);
        let change = |how: &dyn Fn(&mut Membership)| {
            let mut next = before.clone();
            how(&mut next);
            before.may_become(&next)
        };
        let incarnation = |n, life| {
            move |m: &mut Membership| {
                m.members.get_mut(&id(n)).expect("a member").incarnation = Incarnation(life);
            }
        };
        assert!(change(&|_| {}));
        assert!(change(&incarnation(0, 9)), "it was not known");
        assert!(!change(&incarnation(1, 9)), "another disk");
        assert!(!change(&incarnation(1, 0)), "forgotten");
        assert!(!change(&|m| m.removed.clear()), "who was removed is remembered");
        assert!(!change(&|m| drop(m.members.remove(&id(3)))), "who goes is remembered");
        assert!(change(&|m| drop((m.members.remove(&id(3)), m.removed.insert(id(3))))));
        let back = |m: &mut Membership| drop(m.members.insert(id(7), m.members[&id(0)].clone()));
        assert!(!change(&back), "who was removed does not come back");
        assert!(!change(&|m| m.cluster = ClusterId(2)), "another cluster");
        let long: Arc<str> = Arc::from("x".repeat(70_000));
        assert!(!change(&|m| m.members.get_mut(&id(0)).expect("a member").address = Arc::clone(&long)), "not writable");
    }
}
