//! What always holds of one core, whatever it was fed. Tests and simulations ask after every step.

use crate::ids::{Index, NodeId};
use crate::progress::Mode;
use crate::raft::{RaftCore, Role};

impl RaftCore {
    /// The first invariant that does not hold, in words.
    pub fn broken_invariant(&self) -> Option<&'static str> {
        let last = self.log.last();
        let ordered = [self.log.base().index, self.snapshot.index, self.applied, self.handed];
        let rules = [
            (ordered.is_sorted(), "forgotten ≤ snapshot ≤ applied ≤ handed out"),
            // A machine with a disk of its own may have kept what the log has lost.
            (self.handed <= self.commit || self.handed == self.applied, "handed out ≤ committed"),
            (self.commit <= last.index, "committed ≤ last"),
            (self.snapshot.index <= self.commit, "snapshot ≤ committed"),
            (self.durability.index() <= last.index, "durable ≤ last"),
            (last.term <= self.term, "no entry is of a later term"),
            (self.log.membership_index() <= last.index, "the membership in force is in the log or before it"),
            (
                !matches!(self.role, Role::PreCandidate { .. } | Role::Candidate { .. }) || !self.is_loyal(),
                "who campaigns owes its vote to nobody",
            ),
            (self.is_leader_sound(), "a leader voted for itself, durably, and tracks its followers"),
            (
                self.are_followers_sound(),
                "matched < next ≤ last + 1 for every follower, who gets entries or a snapshot",
            ),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map(|(_, rule)| rule)
    }

    fn is_leader_sound(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return true };
        let followers = self.membership().members.keys().filter(|id| **id != self.config.id);
        let committed = self.membership_at(self.commit);
        let is_leaving = |id: &NodeId| committed.contains(id) || self.membership_index() <= self.commit;
        self.vote == Some(self.config.id)
            && self.durability.seq_of_hard_state() == 0
            && followers.clone().all(|id| leader.progress.contains_key(id))
            && leader.progress.keys().all(|id| self.membership().contains(id) || is_leaving(id))
            && leader.first > Index::ZERO
    }

    fn are_followers_sound(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return true };
        let end = self.log.last().index.next();
        leader.progress.values().all(|p| {
            let sending = matches!(p.mode, Mode::Snapshot { .. }) || p.matched < p.next;
            sending && p.next <= end && p.round <= leader.round
        })
    }
}
