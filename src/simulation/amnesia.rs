//! A member whose disk is wiped, and that comes back under its id with the line that it was started with: that of a
//! founder, or of one that joins. It has forgotten what it voted and acknowledged.
//!
//! What is done to a cluster is what it is made to survive (decision 6): one member at a time, refilled or replaced before
//! the next, and none as long as those who are left are not a majority that has something. A member whose directory is
//! recorded is turned away for good; before that only what it does itself keeps what was acknowledged.

use std::sync::Arc;
use std::time::Duration;

use graft_domain::{ClusterId, EntryId, Incarnation, Index, NodeId};
use graft_services::Event;
use graft_services::ports::PeerMessage;

use crate::disk::{Disk, Stop};
use crate::kept::Kept;
use crate::world::{Happening, World};

/// How long somebody waits for the first moments of a cluster, and how often he looks.
const FIRST_MOMENTS_MS: u64 = 5_000;
const LOOKS_EVERY_MS: u64 = 10;

impl World {
    /// Somebody wipes a disk in the first moments of the cluster, before the log says whose is which.
    pub(crate) fn forgets_early(&mut self) {
        let unrecorded = self.membership().and_then(|membership| {
            let mut members = membership.members.iter();
            members.find(|(_, member)| member.incarnation == Incarnation::UNKNOWN).map(|(id, _)| *id)
        });
        let lasts = self.dice.micros(10_000, 1_500_000);
        let done = unrecorded.is_some_and(|id| self.forgets(id, lasts));
        if !done && !self.healed && self.now.0 < FIRST_MOMENTS_MS * 1_000_000 {
            self.later(Duration::from_millis(LOOKS_EVERY_MS), Happening::ForgetsEarly);
        } else if let Some(id) = unrecorded.filter(|_| done) {
            self.coverage.saw("a disk is wiped before it is recorded");
            self.note(|| format!("the disk of {id} is wiped before the log says which it is"));
        }
    }

    /// Its disk is wiped, and it comes back. Whether that could be.
    pub(crate) fn forgets(&mut self, id: NodeId, lasts: Duration) -> bool {
        if !self.may_forget(id) {
            return false;
        }
        self.crash(id, Stop::Torn);
        let (mint, cluster) = (Incarnation(self.dice.draw().max(1)), ClusterId(u128::from(self.dice.draw()) << 64 | 1));
        let (joins, lying) = (self.dice.chance(300), self.mix.lying);
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        node.disk = Disk::default();
        node.disk.faults(|faults| faults.lies = lying);
        (node.founding.mint, node.config.incarnation, node.core.cluster) = (mint, mint, cluster);
        // Who founds alone would found a second cluster: of that the log knows nothing, and `runtime/doubt.rs` keeps nodes from it.
        if joins || node.founding.membership.members.len() == 1 {
            node.founding.membership = Arc::default();
        }
        node.kept = node.kept.is_some().then(|| Kept::new(&mut self.dice));
        node.forgotten = Some(std::mem::take(&mut node.shadow));
        node.in_flight.clear();
        node.unreported = 0;
        node.stopped_at = None;
        self.checks.forgets(id);
        self.is_not_heard_any_more(id);
        self.note(|| format!("the disk of {id} is wiped, and it comes back as {mint}"));
        self.later(lasts, Happening::Start(id));
        true
    }

    fn may_forget(&self, id: NodeId) -> bool {
        let Some(membership) = self.membership() else { return false };
        let has = |id: &NodeId| self.nodes.get(id).is_some_and(|node| node.shadow.last() != EntryId::ZERO);
        let others = membership.voters().filter(|voter| *voter != id && has(voter)).count();
        let founded = self.checks.committed_last() > Index::ZERO;
        founded && 2 * others > membership.voters().count() && self.may_lose(id)
    }

    /// Whether nobody is a member who forgot something and is neither refilled nor replaced yet.
    pub(crate) fn remembers_all(&self) -> bool {
        let membership = self.membership();
        let is_member = |id: &NodeId| membership.as_ref().is_none_or(|membership| membership.contains(id));
        !self.nodes.values().any(|node| node.forgotten.is_some() && is_member(&node.id))
    }

    /// The connections of a machine end with it: what it said arrives before it is set up anew, or never, and what was said to
    /// it never reaches who comes in its place.
    fn is_not_heard_any_more(&mut self, id: NodeId) {
        self.nothing_comes_from_or_to(id);
        for running in self.nodes.values_mut().filter_map(|node| node.running.as_mut()) {
            let is_from = |event: &Event| matches!(event, Event::Peer(PeerMessage::Raft(said)) if said.from == id);
            running.inbox.retain(|event| !is_from(event));
        }
    }

    /// Looks whether a node that forgot has got the log again.
    pub(crate) fn mind_memory(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let (Some(running), Some(_)) = (&node.running, &node.forgotten) else { return };
        let core = running.replica.core();
        let is_founded = core.last() != EntryId::ZERO && core.membership().cluster != ClusterId::UNKNOWN;
        if is_founded && !core.may_have_forgotten() {
            node.forgotten = None;
            self.coverage.saw("a wiped member is refilled");
            self.note(|| format!("{id} has got the log again that it lost"));
        }
    }

    /// Whether others know it by another directory: it will not be let in again.
    pub(crate) fn is_outcast(&self, id: NodeId) -> bool {
        let own = self.nodes.get(&id).map(|node| node.config.incarnation);
        let mut cores = self.nodes.values().filter_map(|node| Some(node.running.as_ref()?.replica.core()));
        cores.any(|core| {
            let recorded = core.membership().members.get(&id).map(|member| member.incarnation);
            recorded.is_some_and(|recorded| recorded != Incarnation::UNKNOWN && Some(recorded) != own)
        })
    }
}
