//! What the node lets its watchers know, and what it learns of its own standing.

use std::sync::Arc;

use graft_domain::{Incarnation, Index, Input, Membership, NodeId, Target};

use crate::change::MEMBERS_MAX;
use crate::error::Refusal;
use crate::notice::Notice;
use crate::replica::{Effect, Replica};

/// Nodes whose introductions are remembered, members or not.
pub(crate) const IDENTITIES_MAX: usize = 4 * MEMBERS_MAX;

impl Replica {
    /// Somebody introduced himself: from where, and with which life of his directory. He may become a member later, while the
    /// connection over which he said it stands.
    pub(crate) fn on_heard(&mut self, id: NodeId, address: String, incarnation: Incarnation) {
        if id == self.core.id() {
            return;
        }
        // Strangers can call themselves anything, and as many as they like.
        if self.identities.len() >= IDENTITIES_MAX && !self.identities.contains_key(&id) {
            let (own, membership) = (self.core.id(), self.core.membership());
            self.identities.retain(|known, _| *known == own || membership.contains(known));
        }
        self.identities.insert(id, (address, incarnation));
    }

    /// Tells of another leader, and of another role.
    pub(crate) fn tell(&mut self) {
        let (role, leader, term) = (self.role(), self.core.leader(), self.core.term());
        let (told_role, told_leader, told_term) = self.told;
        if role != told_role {
            self.effects.push(Effect::Notice(Notice::Role { role, term }));
        }
        if leader != told_leader || (leader.is_some() && term != told_term) {
            self.effects.push(Effect::Notice(Notice::Leader { term, leader }));
        }
        self.told = (role, leader, term);
    }

    /// Tells of a connection, or why there is none any more.
    pub(crate) fn tell_link(&mut self, member: NodeId, why: Option<String>) {
        let connected = why.is_none();
        self.effects.push(Effect::Notice(Notice::Link { member, connected, why }));
    }

    /// Tells each step of a change: when it is in the log, and when it is certain.
    pub(crate) fn tell_membership(&mut self, index: Index, membership: &Arc<Membership>, committed: bool) {
        let before = self.core.membership_at(index.prev());
        let mut steps: Vec<(&'static str, Option<NodeId>)> = Vec::new();
        for (id, member) in &membership.members {
            let old = before.members.get(id);
            let step = match old {
                None if member.voter => "voter",
                None => "learner",
                Some(old) if !old.voter && member.voter => "voter",
                Some(old) if old.voter && !member.voter && member.target != Target::Gone => "demoted",
                Some(old) if old.address != member.address => "address",
                Some(old) if old.target != member.target && member.target == Target::Learner && !old.voter => {
                    "cancelled"
                }
                Some(_) => continue,
            };
            steps.push((step, Some(*id)));
        }
        let gone = before.members.keys().filter(|id| !membership.contains(id));
        steps.extend(gone.map(|id| ("removed", Some(*id))));
        if membership.is_joint() {
            steps.push(("joint", None));
        }
        if membership.is_settled() && !before.is_settled() {
            steps.push(("settled", None));
        }
        let notice = |(step, member)| Effect::Notice(Notice::Membership { index, step, member, committed });
        self.effects.extend(steps.into_iter().map(notice));
    }

    /// A committed membership that names this node among the former members is final.
    pub(crate) fn learn_of_removal(&mut self) {
        let committed = self.core.membership_at(self.core.commit());
        if committed.removed.contains(&self.core.id()) {
            self.on_removed();
        }
    }

    /// It takes no part any more: it neither campaigns nor serves.
    pub(crate) fn on_removed(&mut self) {
        if self.removed {
            return;
        }
        self.removed = true;
        tracing::warn!("this node was removed from the cluster");
        // A leader that removes itself goes on until that is committed, and has then stepped down by itself.
        self.step(Input::Unfit);
        self.follow_asks();
        // What is with the machine is answered by it; of what others hold nothing will be heard here.
        self.refuse_parked(&Refusal::Removed);
        self.forget_sent("this node was removed from the cluster before the answer came");
        for (request, _) in self.reads.drain() {
            self.answer_refused(request, Refusal::Removed);
        }
        self.end_own_removal();
        self.dismiss_verifies("this node was removed from the cluster before all had answered");
        self.dismiss_asks(&Refusal::Removed, "this node was removed from the cluster before the answer came");
        self.dismiss_snapshots(&Refusal::Removed);
    }
}
