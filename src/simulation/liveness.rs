//! Everything heals: within a bounded time there is one leader and one settled membership, all have converged, nobody waits,
//! and everybody is served.

use std::sync::Arc;
use std::time::Duration;

use graft_domain::{EntryId, Membership, NodeId};
use graft_services::change::Change;
use graft_services::error::Outcome;

use crate::history::Verdict;
use crate::turn::words;
use crate::world::World;

/// Within this time, in milliseconds, after everything healed.
const WITHIN_MS: u64 = 30_000;
/// Changes of members that may come to their end after everything healed: those that were asked for before.
const CHANGES_MAX: usize = 8;

impl World {
    pub(crate) fn lives(&mut self) -> Verdict {
        self.heal();
        self.pass(3_000);
        // A change that was asked for before may begin only now, and a leader notes who has moved: then all is looked at anew.
        for _ in 0..CHANGES_MAX {
            let Some(membership) = self.comes_to_rest()? else { return Ok(()) };
            if self.membership().is_some_and(|now| now == membership) {
                return self.one_leader(&membership);
            }
        }
        Err(format!("the membership goes on changing though nobody asks: {:?}", self.membership()))
    }

    /// By which membership all is well. None if that can never be, or something else is broken.
    fn comes_to_rest(&mut self) -> Result<Option<Arc<Membership>>, String> {
        let is_settled = |world: &Self| world.membership().is_some_and(|m| m.is_settled());
        let leads = self.ask_until(|world| world.waits_for_the_lost().then_some(Change::Cancel), is_settled);
        if self.broken.is_some() {
            return Ok(None);
        }
        if !leads && self.has_lost_a_majority() {
            self.coverage.saw("too many disks are lost");
            return Ok(None);
        }
        if !leads {
            let membership = self.membership().ok_or("nobody leads though all is well")?;
            return Err(format!("a change does not come to its end though all is well: {membership:?}"));
        }
        self.replace_the_lost()?;
        let Some(membership) = self.membership() else { return Err("nobody leads any more".to_owned()) };
        let members: Vec<NodeId> = membership.members.keys().copied().collect();
        self.serves(&members)?;
        if self.broken.is_some() {
            return Ok(None);
        }
        let applied = |world: &Self, id: &NodeId| Some(world.nodes.get(id)?.running.as_ref()?.work.applied);
        let converged = self.until(WITHIN_MS, |world| {
            let first = applied(world, &members[0]);
            first.is_some() && members.iter().all(|id| applied(world, id) == first)
        });
        let all: Vec<_> = members.iter().map(|id| (*id, applied(self, id))).collect();
        if !converged && self.broken.is_none() && self.membership().is_some_and(|now| now == membership) {
            return Err(format!("not all have applied the same though all is well: {all:?}"));
        }
        Ok(Some(membership))
    }

    fn one_leader(&self, membership: &Membership) -> Verdict {
        let leader = self.leader();
        for id in membership.members.keys() {
            let Some(running) = self.nodes.get(id).and_then(|node| node.running.as_ref()) else { continue };
            let core = running.replica.core();
            if core.leader() != leader || **core.membership() != *membership {
                return Err(format!("{id} follows {:?} by {:?}, {leader:?} leads", core.leader(), core.membership()));
            }
        }
        Ok(())
    }

    pub(crate) fn pass(&mut self, milliseconds: u64) {
        let end = self.now + Duration::from_millis(milliseconds);
        self.run_until(end);
    }

    fn until(&mut self, milliseconds: u64, is_so: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + Duration::from_millis(milliseconds);
        while self.now < end && self.broken.is_none() {
            if is_so(self) {
                return true;
            }
            self.pass(50);
        }
        is_so(self)
    }

    /// Whether the disks of a majority of some half are gone: nobody can help.
    fn has_lost_a_majority(&self) -> bool {
        let cores = self.nodes.values().filter_map(|node| Some(node.running.as_ref()?.replica.core()));
        cores.into_iter().any(|core| {
            let membership = core.membership();
            let gone = |ids: Vec<NodeId>| 2 * ids.iter().filter(|id| self.is_no_help(**id)).count() >= ids.len().max(1);
            gone(membership.voters().collect()) || (membership.is_joint() && gone(membership.outgoing().collect()))
        })
    }

    /// A disk that is gone, or that never held anything, or not yet what it may have held: who cannot tell whether it forgot
    /// what it promised helps nobody to lead once something is committed.
    fn is_no_help(&self, id: NodeId) -> bool {
        let core = self.nodes.get(&id).and_then(|node| node.running.as_ref()).map(|running| running.replica.core());
        let forgot = core.is_some_and(|core| core.last() == EntryId::ZERO || core.may_have_forgotten());
        self.is_gone(id) || forgot
    }

    /// Its disk is gone, or the one that it was known by.
    fn is_gone(&self, id: NodeId) -> bool {
        self.lost.contains(&id) || self.is_outcast(id)
    }

    /// Whether a change waits for a disk that is gone: somebody gives it up.
    fn waits_for_the_lost(&self) -> bool {
        self.membership().is_some_and(|m| !m.is_settled() && m.members.keys().any(|id| self.is_gone(*id)))
    }

    /// An operator asks the leader, and again if that came to nothing: a leader that was just paused knows nobody yet.
    fn ask_until(&mut self, wants: impl Fn(&Self) -> Option<Change>, is_so: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + Duration::from_millis(WITHIN_MS);
        while self.now < end && self.broken.is_none() && !is_so(self) {
            if let (Some(leader), Some(change)) = (self.leader(), wants(self)) {
                let asked = self.change(leader, change, 5_000);
                self.until(5_000, |world| is_so(world) || world.history.answer(asked).is_some());
            }
            self.until(500, &is_so);
        }
        is_so(self)
    }

    /// Somebody looks after members whose disks are gone.
    fn replace_the_lost(&mut self) -> Verdict {
        for id in self.ids().into_iter().filter(|id| self.is_gone(*id)).collect::<Vec<_>>() {
            let gone = self.ask_until(
                |world| world.membership().filter(|m| m.contains(&id)).map(|_| Change::Remove { id }),
                |world| world.membership().is_some_and(|m| m.is_settled() && !m.contains(&id)),
            );
            if !gone && self.broken.is_none() {
                return Err(format!("{id} lost its disk and cannot be removed: {:?}", self.membership()));
            }
        }
        Ok(())
    }

    /// Ends the story with what each node has come to.
    pub(crate) fn look_around(&mut self) {
        for id in self.ids() {
            let lost = if self.lost.contains(&id) { ", its disk is gone" } else { "" };
            let Some(node) = self.nodes.get(&id) else { continue };
            let line = node.running.as_ref().map_or_else(|| format!("{id} is down{lost}"), |running| {
                let (core, status) = (running.replica.core(), running.replica.status());
                let (term, end, commit) = (core.term(), core.last(), core.commit());
                let links: Vec<&str> = node.links.iter().map(NodeId::as_str).collect();
                format!(
                    "{id} is {} of term {term}, log upto {end}, committed upto {commit}, applied {}, by {} (at {}), \
                     linked to {links:?}, {:?}{lost}",
                    status.role, running.work.applied, words(core.membership()), core.membership_index(), status.error
                )
            });
            self.note(|| line);
        }
    }

    /// Counts how calls ended.
    pub(crate) fn count_answers(&mut self) {
        for asked in self.history.asked.values() {
            let what = match (&asked.answer, asked.is_command()) {
                (Some(Outcome::Done { reply: graft_services::ports::Reply::Raised(_), .. }), true) => {
                    "a command raises"
                }
                (Some(Outcome::Done { .. }), true) => "a command is done",
                (Some(Outcome::Done { .. }), false) if asked.is_current_snapshot() => "a current snapshot",
                (Some(Outcome::Done { .. }), false) => match asked.is_exact() {
                    Some(true) => "a linearizable read",
                    Some(false) => "a stale read",
                    None => continue,
                },
                (Some(Outcome::Refused(_)), true) => "a command is refused",
                (Some(Outcome::Unknown { .. }), true) => "a command is unknown",
                (Some(Outcome::Compared { .. }), _) => "replicas are compared",
                _ => continue,
            };
            self.coverage.saw(what);
        }
    }
}
