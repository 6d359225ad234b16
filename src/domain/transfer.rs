//! Handing leadership over (thesis §3.10): stop taking commands, let the target catch up, tell it to campaign.

use crate::ids::{Instant, NodeId};
use crate::leader::Transfer;
use crate::message::Message;
use crate::progress::Mode;
use crate::raft::{RaftCore, Role};
use crate::step::Rejected;

impl RaftCore {
    /// Begins to hand over, to the best follower if none is named. It ends with another leader's term or, after an election
    /// timeout, with this one taking commands again.
    ///
    /// While one is under way another target takes the place of the first, within the time that the first was given:
    /// however often one changes one's mind, commands do not wait longer.
    pub(crate) fn transfer(&mut self, to: Option<NodeId>) -> Result<(), Rejected> {
        let Role::Leader(leader) = &self.role else { return Err(Rejected::NotLeader { leader: self.leader() }) };
        let under_way = leader.transfer.as_ref().map(|transfer| (transfer.to, transfer.deadline));
        let to = to.or(under_way.map(|(to, _)| to)).or_else(|| self.best_successor()).ok_or(Rejected::BadTransfer)?;
        if to == self.config.id || !self.membership().members.get(&to).is_some_and(|m| m.voter) {
            return Err(Rejected::BadTransfer);
        }
        if under_way.is_some_and(|(target, _)| target == to) {
            return Ok(());
        }
        let deadline = under_way.map_or(self.now + self.config.election_timeout, |(_, deadline)| deadline);
        if let Role::Leader(leader) = &mut self.role {
            leader.transfer = Some(Transfer { to, deadline, told: false });
        }
        self.hand_over();
        Ok(())
    }

    /// Whom leadership is being handed to.
    pub fn transfer_target(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(leader) => leader.transfer.as_ref().map(|transfer| transfer.to),
            _ => None,
        }
    }

    /// On a leader: the voter with the most of the log, and of those the one heard last; one that is to stay a voter, was
    /// heard within an election timeout and does not wait for a snapshot.
    pub fn best_successor(&self) -> Option<NodeId> {
        let Role::Leader(leader) = &self.role else { return None };
        let fit = leader.progress.iter().filter(|(id, progress)| {
            self.membership().members.get(*id).is_some_and(|m| m.voter && m.target == crate::Target::Voter)
                && self.now.since(progress.contact) < self.config.election_timeout
                && !matches!(progress.mode, Mode::Snapshot { .. })
        });
        fit.max_by_key(|(_, progress)| (progress.matched, progress.contact)).map(|(id, _)| *id)
    }

    /// Tells the target to campaign once it has everything. No entry is appended meanwhile, so it stays so.
    pub(crate) fn hand_over(&mut self) {
        let last = self.log.last().index;
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(transfer) = leader.transfer.as_mut().filter(|t| !t.told) else { return };
        let to = transfer.to;
        if leader.progress.get(&to).is_some_and(|p| p.matched == last && p.mode == Mode::Replicate) {
            transfer.told = true;
            leader.yielded = true;
            self.send(to, Message::TimeoutNow);
        }
    }

    /// Tells the target once more with every heartbeat: the first word may have been lost.
    pub(crate) fn remind_target(&mut self) {
        if let Role::Leader(leader) = &mut self.role
            && let Some(transfer) = &mut leader.transfer
            && self.now >= leader.heartbeat_due
        {
            transfer.told = false;
            self.hand_over();
        }
    }

    /// Gives up a transfer whose time is over. True if there was one.
    pub(crate) fn end_transfer(&mut self) -> bool {
        let Role::Leader(leader) = &mut self.role else { return false };
        leader.transfer.take_if(|transfer| self.now >= transfer.deadline).is_some()
    }
}

/// When a leader has to go.
impl RaftCore {
    /// The machine halted. Whoever can lead should; if nobody takes over in time, or there is nobody, the term ends without.
    pub(crate) fn on_unfit(&mut self) {
        self.unfit = true;
        self.abdicate();
    }

    /// Hands over, or steps down if there is nobody to hand over to.
    pub(crate) fn abdicate(&mut self) {
        if self.is_leader() && self.transfer(None).is_err() {
            self.follow(self.term, None);
        }
    }

    /// Whether this leader should not be one: its machine halted, its disk hangs, or it has no part in the cluster any more.
    /// A disk that hangs is no reason if nobody else could lead.
    pub(crate) fn must_abdicate(&self) -> bool {
        let alone = self.membership().members.keys().all(|id| *id == self.config.id || !self.membership().is_voter(id));
        self.unfit || self.is_retired() || (self.is_disk_hanging() && !alone)
    }

    /// Whether the disk has not finished a write for too long. Who has such a disk neither leads nor wants to: nothing that it
    /// says would ever count.
    pub(crate) fn is_disk_hanging(&self) -> bool {
        self.storage_stalled(self.now).is_some()
    }

    /// When the disk will have hung for too long; never if it does already, or is idle.
    pub(crate) fn storage_deadline(&self) -> Instant {
        let since = self.durability.busy_since().filter(|_| !self.is_disk_hanging());
        since.map_or(Instant::NEVER, |since| since + self.config.storage_timeout)
    }
}
