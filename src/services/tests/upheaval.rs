//! What operators and hard times do to the shape of a cluster under random misfortune, and how all of it ends well.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use graft_domain::{ClusterId, Incarnation, Index, Membership, NodeId};

use super::chaos::{Chaos, LOG_BYTES_MAX};
use super::disk::Disk;
use super::world::{Node, World, id};
use crate::Event;
use crate::change::{Ask, Change};
use crate::error::{Outcome, Refusal};

/// Nodes that there ever are.
const NODES_MAX: usize = 9;

/// Operators.
impl Chaos {
    /// Somebody asks something of some node that only the leader can do.
    pub(super) fn operate(&mut self) {
        let n = 1 + self.random.size(self.world.nodes.len());
        if !self.world.is_up(id(n)) {
            return;
        }
        let patience = self.random.below(self.luck.patience_ms.max(2_000));
        if self.random.chance(150) {
            self.world.take_snapshot(n, patience);
            return;
        }
        if self.random.chance(200) {
            let to = self.random.chance(600).then(|| 1 + self.random.size(self.world.nodes.len()));
            self.world.transfer(n, to, patience);
            return;
        }
        let change = self.change();
        let guard = self.random.chance(100).then(|| Index(self.random.below(60)));
        self.world.ask(n, Ask::Change { change, guard }, patience);
    }

    fn change(&mut self) -> Change {
        let of = self.any();
        match self.random.below(20) {
            0..=6 => {
                let id = self.joiner();
                let voter = self.random.chance(800);
                let node = &self.world.nodes[&id].config;
                let incarnation = if self.random.chance(500) { node.incarnation } else { Incarnation::UNKNOWN };
                Change::Add { id, address: node.address.clone(), voter, incarnation }
            }
            7..=9 => Change::Remove { id: of },
            10 | 11 => Change::Promote { id: of },
            12 => Change::Demote { id: of },
            13..=15 => {
                let new = self.joiner();
                Change::Replace { old: of, new, address: self.address(new) }
            }
            16..=18 => {
                let mut members = BTreeMap::new();
                for _ in 0..=self.random.size(5) {
                    let id = if self.random.chance(300) { self.joiner() } else { self.any() };
                    members.insert(id, self.address(id));
                }
                Change::Apply { members }
            }
            _ => Change::Cancel,
        }
    }

    fn address(&self, id: NodeId) -> String {
        self.world.nodes[&id].config.address.clone()
    }

    /// A node that may be new.
    fn joiner(&mut self) -> NodeId {
        let n = self.world.nodes.len() + 1;
        if n > NODES_MAX || self.random.chance(500) {
            return self.any();
        }
        let mut node = Node::new(n);
        let like = &self.world.nodes[&id(1)];
        node.config = crate::ReplicaConfig {
            address: node.config.address,
            incarnation: node.config.incarnation,
            ..like.config.clone()
        };
        node.core = graft_domain::Config {
            id: id(n),
            cluster: ClusterId(n as u128),
            seed: self.random.next(),
            ..like.core.clone()
        };
        node.machine.snapshot_bytes = like.machine.snapshot_bytes;
        self.world.nodes.insert(id(n), node);
        self.begin(id(n));
        id(n)
    }
}

/// Hard times.
impl Chaos {
    /// A node comes up, perhaps elsewhere.
    pub(super) fn begin(&mut self, id: NodeId) {
        if self.random.chance(100) {
            let port = self.random.below(1_000);
            self.world.node(id).config.address = format!("{id}.moved:{port}");
        }
        self.start(id);
        for other in self.world.ids() {
            self.world.connect(id, other);
            self.world.connect(other, id);
        }
    }

    pub(super) fn misfortune_of_snapshots(&mut self, id: NodeId) {
        let node = self.world.node(id);
        match self.random.below(10) {
            0 => node.machine.snapshot_fails = Some("told to".to_owned()),
            1 | 2 => node.machine.snapshot_fails = None,
            3 => node.disk.unreadable = node.disk.snapshot.is_some(),
            4 => node.machine.snapshot_bytes = self.random.below(3_000),
            _ => self.wipe(id),
        }
    }

    /// A directory is lost, if everyone else's would tell: it records which one it was.
    fn wipe(&mut self, id: NodeId) {
        let known = self.world.nodes[&id].config.incarnation;
        let tells = |node: &Node| {
            let recovered = node.disk.recover(Index::ZERO);
            let in_log = recovered.entries.iter().rev().find_map(|entry| match &entry.payload {
                graft_domain::Payload::Membership(membership) => Some(Arc::clone(membership)),
                _ => None,
            });
            let membership = in_log.unwrap_or(recovered.membership);
            let member = membership.members.get(&id);
            let waits = membership.members.is_empty();
            waits || membership.removed.contains(&id) || member.is_some_and(|member| member.incarnation == known)
        };
        // What it has is elsewhere too.
        let is_safe = self.membership().is_some_and(|membership| {
            !membership.is_joint() && membership.voters().count() - usize::from(membership.is_voter(&id)) >= 2
        });
        let others_tell = self.world.nodes.iter().all(|(other, node)| *other == id || tells(node));
        if !self.wiped.is_empty() || !others_tell || !is_safe {
            return;
        }
        if self.world.is_up(id) {
            self.world.crash(id, 0);
        }
        self.world.note(|| format!("{id} is wiped"));
        let node = self.world.node(id);
        node.disk = Disk { membership: Arc::clone(&node.disk.membership), ..Disk::default() };
        node.machine.wipe();
        node.config.incarnation = Incarnation(known.0 + 1_000_000);
        self.wiped.insert(id);
        self.begin(id);
    }
}

/// All is well.
impl Chaos {
    /// Everything works again.
    pub(super) fn heal(&mut self) {
        self.world.note(|| "everything heals".to_owned());
        self.world.mend();
        for id in self.world.ids() {
            let node = self.world.node(id);
            node.disk.full = false;
            node.disk.unreadable = false;
            node.machine.snapshot_fails = None;
            let broken = node.disk.failed || node.machine.halts;
            if broken && self.world.is_up(id) {
                self.world.crash(id, 0);
            }
        }
        // Those that are to stop do, at once or when they wake.
        for until_then in [1_100, 2_000] {
            self.world.run(until_then);
            for id in self.world.ids().into_iter().filter(|id| !self.world.is_up(*id)).collect::<Vec<_>>() {
                self.start(id);
            }
        }
        self.world.connect_all();
        self.world.run(7_000);
        self.remove_the_wiped();
        // Whoever is out tries to get in, and hears why it cannot.
        self.world.connect_all();
        self.world.run(10);
    }

    /// What the leader of the newest term goes by.
    fn membership(&self) -> Option<Arc<Membership>> {
        self.world.leader().map(|leader| Arc::clone(self.world.core(leader).membership()))
    }

    /// Somebody looks after those that will not come back.
    fn remove_the_wiped(&mut self) {
        let (Some(leader), Some(membership)) = (self.world.leader(), self.membership()) else { return };
        if let Some(gone) = self.wiped.iter().copied().find(|id| membership.contains(id)) {
            self.world.change(leader, Change::Remove { id: gone }, 2_000);
            self.world.run(2_500);
        }
    }

    /// Whether too many are wiped for anyone to lead.
    fn wiped_majority(&self) -> bool {
        let newest = self.world.ids().into_iter().filter(|id| self.world.is_up(*id) && !self.wiped.contains(id));
        let newest = newest.map(|id| &self.world.nodes[&id].replica.as_ref().expect("it is up").core);
        newest.into_iter().any(|core| {
            let membership = core.membership();
            let wiped =
                |ids: Vec<NodeId>| 2 * ids.iter().filter(|id| self.wiped.contains(id)).count() >= ids.len().max(1);
            wiped(membership.voters().collect()) || (membership.is_joint() && wiped(membership.outgoing().collect()))
        })
    }

    /// Nobody waits for an answer, and everybody gets new ones.
    pub(super) fn liveness(&mut self) -> Result<(), String> {
        let membership = self.membership();
        if self.wiped_majority() && membership.is_none() {
            self.is_lost = true;
            return Ok(());
        }
        let membership = membership.ok_or("nobody leads though all is well")?;
        if !membership.is_settled() {
            return Err(format!("a change does not come to its end: {membership:?}"));
        }
        self.nobody_waits(&membership)?;
        let size = self.world.nodes.len();
        let members: Vec<usize> = (1..=size).filter(|n| membership.contains(&id(*n))).collect();
        let calls: Vec<_> = members.iter().map(|n| self.world.execute(*n, &format!("fresh {n}"), 20_000)).collect();
        let queries: Vec<_> = members.iter().map(|n| self.world.query(*n, 20_000)).collect();
        self.world.run(2_000);
        for request in calls.into_iter().chain(queries) {
            let answer = self.world.answer(request);
            let too_large = matches!(answer, Some(Outcome::Refused(Refusal::TooLarge { .. } | Refusal::Busy(_))));
            if !too_large && !matches!(answer, Some(Outcome::Done { .. })) {
                return Err(format!("{request:?} is answered {answer:?} though all is well"));
            }
        }
        let applied: Vec<_> = members.iter().map(|n| self.world.applied_at(*n)).collect();
        if applied.iter().any(|index| *index != applied[0]) {
            return Err(format!("not all have applied the same: {members:?} {applied:?}"));
        }
        self.everyone_gets_his_answers(&members)?;
        self.everyone_is_told(&membership)
    }

    fn nobody_waits(&self, membership: &Membership) -> Result<(), String> {
        let members = self.world.ids().into_iter().filter(|id| membership.contains(id));
        let last =
            self.world.ids().iter().map(|id| self.world.nodes[id].machine.state.applied).max().unwrap_or_default();
        let open = members.flat_map(|id| self.world.history.open(id));
        let open: Vec<_> = open.filter(|(_, asked)| !asked.is_comparison() && !asked.is_ahead_of(last)).collect();
        // Whose refusal was lost, and what was lost without a connection that breaks, is told at its deadline.
        if self.luck.orderly && open.len() as u64 > self.world.refusals_lost {
            return Err(format!("these wait though all is well: {open:?}"));
        }
        let ask = open.iter().find(|(_, asked)| asked.is_ask());
        ask.map_or(Ok(()), |ask| Err(format!("this is not answered though all is well: {ask:?}")))
    }

    /// Who is no member knows it, who has moved is known, and no log is longer than it may be.
    fn everyone_is_told(&self, membership: &Membership) -> Result<(), String> {
        for n in 1..=self.world.nodes.len() {
            let (id, config) = (id(n), &self.world.nodes[&id(n)].config);
            let status = self.world.replica(n).status();
            if membership.removed.contains(&id) && status.role != "removed" {
                return Err(format!("{id} is removed and does not know: {status:?}"));
            }
            if let Some(member) = membership.members.get(&id)
                && (*member.address != *config.address || member.incarnation != config.incarnation)
                && !self.wiped.contains(&id)
            {
                return Err(format!("{id} is {} {}, recorded {member:?}", config.address, config.incarnation));
            }
            if self.luck.snapshots && status.log_bytes > LOG_BYTES_MAX + 2_000 {
                return Err(format!("the log of {id} has {} bytes", status.log_bytes));
            }
        }
        Ok(())
    }
}

impl World {
    /// Lets time pass until it is so, so many milliseconds at the most.
    #[track_caller]
    pub(crate) fn until(&mut self, milliseconds: u64, is_so: impl Fn(&Self) -> bool) {
        let end = self.now + Duration::from_millis(milliseconds);
        while !is_so(self) {
            assert!(self.now < end, "it does not come to be so in {milliseconds} ms");
            self.run(1);
        }
    }

    pub(crate) fn tell(&mut self, n: usize, event: Event) {
        self.inbox(id(n), event);
    }
}
