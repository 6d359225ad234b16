//! Handing leadership over (thesis §3.10): stop taking commands, let the target catch up, tell it to campaign.

use crate::ids::NodeId;
use crate::leader::Transfer;
use crate::message::Message;
use crate::progress::Mode;
use crate::raft::{RaftCore, Role};
use crate::step::Rejected;

impl RaftCore {
    /// Begins to hand over, to the best follower if none is named. It ends with another leader's term or, after an election
    /// timeout, with this one taking commands again.
    pub(crate) fn transfer(&mut self, to: Option<NodeId>) -> Result<(), Rejected> {
        let hint = self.leader();
        let Some(best) = self.best_successor() else {
            let is_leader = self.is_leader();
            return Err(if is_leader { Rejected::BadTransfer } else { Rejected::NotLeader { leader: hint } });
        };
        let to = to.unwrap_or(best);
        if to == self.config.id || !self.membership().members.get(&to).is_some_and(|m| m.voter) {
            return Err(Rejected::BadTransfer);
        }
        let deadline = self.now + self.config.election_timeout;
        let Role::Leader(leader) = &mut self.role else { return Err(Rejected::NotLeader { leader: hint }) };
        leader.transfer = Some(Transfer { to, deadline, told: false });
        self.hand_over();
        Ok(())
    }

    /// The machine halted. Whoever can lead should; if nobody takes over in time, or there is nobody, the term ends without.
    pub(crate) fn on_unfit(&mut self) {
        self.unfit = true;
        if self.is_leader() && self.transfer(None).is_err() {
            self.follow(self.term, None);
        }
    }

    /// The voter with the most of the log, and of those the one heard last.
    fn best_successor(&self) -> Option<NodeId> {
        let Role::Leader(leader) = &self.role else { return None };
        let voters =
            leader.progress.iter().filter(|(id, _)| self.membership().members.get(*id).is_some_and(|m| m.voter));
        voters.max_by_key(|(_, p)| (p.matched, p.contact)).map(|(id, _)| *id)
    }

    /// Tells the target to campaign once it has everything. No command is taken meanwhile, so it stays so.
    pub(crate) fn hand_over(&mut self) {
        let last = self.log.last().index;
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(transfer) = leader.transfer.as_mut().filter(|t| !t.told) else { return };
        let to = transfer.to;
        if leader.progress.get(&to).is_some_and(|p| p.matched == last && p.mode == Mode::Replicate) {
            transfer.told = true;
            self.send(to, Message::TimeoutNow);
        }
    }
}
