//! Members come and go, as the services have them do it: targets are set, then each step is taken when the last is certain.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::chaos::Chaos;
use super::disk::{Disk, Operation};
use crate::message::Message;
use crate::{Entry, Incarnation, Index, Input, Member, Membership, NodeId, Payload, RaftCore, Rejected, Target};

/// Nodes that there ever are in one run.
const NODES_MAX: usize = 9;

impl Chaos {
    pub(super) fn churn(&mut self) {
        if !self.chance(self.luck.churn) {
            return;
        }
        if self.chance(60) {
            self.wipe_a_learner();
        }
        let Some(leader) = self.world.leader() else { return };
        let Some(core) = self.world.node(&leader).core.as_ref() else { return };
        let membership = (**core.membership()).clone();
        let (certain, settled) = (core.may_change_membership().is_ok(), membership.is_settled());
        let last = core.last().index;
        let matched = |id: &NodeId| core.followers().find(|f| f.id == *id).map_or(Index::ZERO, |f| f.matched);
        let caught_up = membership.newcomers().all(|id| matched(&id).0 + 3 >= last.0);
        if !certain {
            // Refused, whatever it is.
            let refused = self.world.step(&leader, Input::ChangeMembership(Arc::new(membership)));
            self.world.must(if refused.is_err() { Ok(()) } else { Err("two changes at once") });
        } else if settled || self.chance(100) {
            let next = self.other_targets(membership, &leader);
            self.change(&leader, next);
        } else if caught_up || self.chance(100) {
            self.one_step(&leader);
        }
    }

    fn change(&mut self, leader: &NodeId, next: Membership) {
        let changed = self.world.step(leader, Input::ChangeMembership(Arc::new(next)));
        self.seen.changes += u64::from(changed.is_ok());
        let sound = changed.is_ok() || changed == Err(Rejected::ChangeInProgress);
        self.world.must(if sound {
            Ok(())
        } else {
            Err(format!("{leader} will not change the membership: {changed:?}"))
        });
    }

    fn one_step(&mut self, leader: &NodeId) {
        let next = self.world.node(leader).core.as_ref().and_then(|core| core.membership().next());
        let Some(next) = next else { return };
        let Some(core) = self.world.node(leader).core.as_ref() else { return };
        let empty =
            core.followers().find(|f| next.members.get(&f.id).is_some_and(|m| m.voter) && f.matched == Index::ZERO);
        let retires = !next.is_voter(leader);
        let (is_joint, empty) = (next.is_joint(), empty.filter(|f| !core.membership().is_voter(&f.id)));
        let changed = self.world.step(leader, Input::ChangeMembership(Arc::new(next)));
        let sound = changed.is_ok() || changed == Err(Rejected::ChangeInProgress);
        self.world.must(if sound { Ok(()) } else { Err(format!("no step towards the targets: {changed:?}")) });
        self.world.must(if changed.is_ok() && empty.is_some() { Err("an empty log gets a vote") } else { Ok(()) });
        self.seen.joint += u64::from(is_joint && changed.is_ok());
        self.seen.retired += u64::from(retires && changed.is_ok());
    }

    fn other_targets(&mut self, mut next: Membership, leader: &NodeId) -> Membership {
        let ids: Vec<NodeId> = next.members.keys().copied().collect();
        let one = ids[self.some(ids.len())];
        let one = if self.chance(200) { *leader } else { one };
        match self.below(7) {
            0 => drop(self.newcomer(&mut next, Target::Learner)),
            1 => drop(self.newcomer(&mut next, Target::Voter)),
            2 => self.aim(&mut next, one, Target::Voter),
            3 => self.aim(&mut next, one, Target::Learner),
            4 => self.aim(&mut next, one, Target::Gone),
            5 => {
                if self.newcomer(&mut next, Target::Voter) {
                    self.aim(&mut next, one, Target::Gone);
                }
            }
            _ => {
                for id in ids {
                    let target = [Target::Voter, Target::Voter, Target::Learner, Target::Gone][self.some(4)];
                    self.aim(&mut next, id, target);
                }
                while self.chance(500) && self.newcomer(&mut next, Target::Voter) {}
            }
        }
        // Somebody is to vote who can.
        if !next.members.values().any(|m| m.target == Target::Voter) {
            let voters: Vec<NodeId> = next.voters().collect();
            self.aim(&mut next, voters[0], Target::Voter);
        }
        next
    }

    fn aim(&mut self, next: &mut Membership, id: NodeId, target: Target) {
        let target = if self.wiped.contains(&id) { Target::Gone } else { target };
        if let Some(member) = next.members.get_mut(&id) {
            member.target = target;
        }
    }

    /// A node that has never run joins; some are started late, or only when everything heals.
    fn newcomer(&mut self, next: &mut Membership, target: Target) -> bool {
        let count = self.world.nodes.len();
        if count >= NODES_MAX {
            return false;
        }
        let id = NodeId::new(&format!("n{}", count + 1)).expect("a good id");
        self.add(id, Disk::default());
        let member = Member {
            address: Arc::from(""),
            incarnation: Incarnation(count as u64),
            voter: false,
            outgoing: false,
            target,
        };
        next.members.insert(id, member);
        if self.chance(700) {
            self.world.start(&id, true);
        }
        true
    }

    /// Empties the disk of one that has no vote in anybody's eyes and is not to get one.
    fn wipe_a_learner(&mut self) {
        let ids = self.world.ids();
        let id = ids[self.some(ids.len())];
        if self
            .memberships()
            .iter()
            .any(|m| m.members.get(&id).is_some_and(|m| m.outgoing || m.target == Target::Voter))
        {
            return;
        }
        if self.memberships().iter().any(|m| m.is_voter(&id)) || self.world.node(&id).core.is_none() {
            return;
        }
        self.world.crash(&id, 0);
        let node = self.world.node_mut(&id);
        (node.disk, node.machine) = (Disk::default(), super::cluster::Machine::default());
        self.world.checks.wiped(&id);
        self.world.start(&id, false);
        self.wiped.insert(id);
        self.seen.wiped += 1;
    }

    /// Every membership that anybody has, on disk or in memory, or that is on its way to them.
    fn memberships(&self) -> Vec<Arc<Membership>> {
        fn of(entry: &Entry) -> Option<Arc<Membership>> {
            match &entry.payload {
                Payload::Membership(membership) => Some(Arc::clone(membership)),
                _ => None,
            }
        }
        let mut found = Vec::new();
        for node in self.world.nodes.values() {
            found.push(Arc::clone(&node.disk.membership));
            found.extend(node.fetched.iter().map(|(_, membership)| Arc::clone(membership)));
            found.extend(node.disk.entries.iter().filter_map(of));
            let writes = node.disk.pending.iter().filter_map(|operation| match operation {
                Operation::Write(write) => Some(&write.entries),
                Operation::Compact(_) => None,
            });
            found.extend(writes.flatten().filter_map(of));
            if let Some(core) = &node.core {
                found.push(Arc::clone(core.membership_at(core.base().index)));
                let entries = (core.base().index.0 + 1..=core.last().index.0).filter_map(|i| core.entry(Index(i)));
                found.extend(entries.filter_map(of));
            }
        }
        for envelope in &self.world.wire {
            if let Message::Append(append) = &envelope.message {
                found.extend(append.entries.iter().filter_map(of));
            }
        }
        found
    }

    /// What was begun is brought to an end. Gives the leader.
    pub(super) fn settle(&mut self) -> NodeId {
        for _ in 0..20 {
            let leader = self.world.leader().ok_or("nobody leads though everything has healed");
            let leader = self.world.must(leader);
            // A log that is full takes no command.
            self.world.snapshot(&leader, Index(u64::MAX));
            let Some(core) = self.world.node(&leader).core.as_ref() else { continue };
            let mut membership = (**core.membership()).clone();
            let wiped: Vec<NodeId> = self.wiped.iter().filter(|id| membership.contains(id)).copied().collect();
            if membership.is_settled() && wiped.is_empty() && core.may_change_membership().is_ok() {
                return leader;
            }
            if core.may_change_membership().is_ok() {
                let aimed = wiped.iter().all(|id| membership.members.get(id).is_some_and(|m| m.target == Target::Gone));
                if aimed {
                    self.one_step(&leader);
                } else {
                    for id in &wiped {
                        self.aim(&mut membership, *id, Target::Gone);
                    }
                    self.change(&leader, membership);
                }
            }
            self.world.run(Duration::from_secs(2));
        }
        let stuck = self.world.cores().filter(|core| core.is_leader()).map(RaftCore::membership_index).max();
        self.world.must(Err(format!("the membership does not settle, it stays that of {stuck:?}")))
    }
}
