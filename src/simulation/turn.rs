//! One turn of a node: some of what waits, then the timer, then all effects, as in the runtime's engine.

use std::sync::Arc;
use std::time::Duration;

use graft_domain::{ClusterId, Index, Instant, Membership, NodeId, Transition};
use graft_services::ports::PeerMessage;
use graft_services::{Clock, Effect, Event};

use crate::disk::Stop;
use crate::machine::MachineJob;
use crate::storage::StoreJob;
use crate::trace::handle;
use crate::world::{Happening, Probe, World};

impl World {
    pub(crate) fn wake(&mut self, id: NodeId) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let shows = node.pace.shows(now);
        let Some(running) = &mut node.running else { return };
        // An alarm that was brought forward is not heard a second time: else each would set another one.
        if running.wake_at != now {
            return;
        }
        running.wake_at = Instant::NEVER;
        if running.turn_is_due || node.pause.is_some() {
            return;
        }
        if running.replica.deadline() <= shows { self.turn(id) } else { self.set_alarm(id) }
    }

    pub(crate) fn set_alarm(&mut self, id: NodeId) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(running) = &mut node.running else { return };
        let at = node.pace.when(running.replica.deadline()).max(now + Duration::from_micros(1));
        if at < running.wake_at && at != Instant::NEVER {
            (running.wake_at, node.runs) = (at, node.runs);
            let run = running.run;
            self.at(at, Happening::Wake(id, run));
        }
    }

    /// One turn of a node's loop.
    pub(crate) fn turn(&mut self, id: NodeId) {
        let now = self.now;
        self.history.now = now;
        let count = if self.dice.chance(900) { usize::MAX } else { 1 + self.dice.size(4) };
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let clock = node.clock(now);
        let begun = match node.pause {
            Some((_, until)) if now < until => return,
            Some((read, _)) => Clock { now: read, ..clock },
            None => clock,
        };
        node.pause = None;
        let Some(running) = &mut node.running else { return };
        running.turn_is_due = false;
        let mut traced = self.trace.as_mut().and_then(|trace| Some((trace.turn(id, running.replica.core())?, trace)));
        for event in running.inbox.drain(..count.min(running.inbox.len())) {
            running.heard_halt |= matches!(event, Event::Halted(_));
            handle(&mut running.replica, begun, event, &mut traced);
        }
        if running.replica.deadline() <= begun.now {
            handle(&mut running.replica, begun, Event::Timeout, &mut traced);
        }
        let effects = running.replica.effects(clock);
        if let Some((turn, trace)) = traced {
            turn.ends(&effects, running.replica.core(), trace);
        }
        if !running.inbox.is_empty() {
            running.turn_is_due = true;
            let run = running.run;
            self.at(now + Duration::from_micros(5), Happening::Turn(id, run));
        }
        // First: one of the effects may be the end of the node.
        self.look_at(id);
        let verdict = self.gives_up(id, (begun.now == clock.now).then_some(begun.now));
        self.must(verdict);
        for effect in effects {
            if self.ends_amid(id) {
                return;
            }
            self.perform(id, effect);
        }
        self.set_alarm(id);
    }

    /// Whether a process ends here, between two effects of one turn.
    fn ends_amid(&mut self, id: NodeId) -> bool {
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        let Some(left) = &mut node.ends_after else { return false };
        if let Some(fewer) = left.checked_sub(1) {
            *left = fewer;
            return false;
        }
        self.coverage.saw("a turn crashed half way");
        let stop = self.dice.one_of(&[Stop::Kill, Stop::Clean, Stop::Torn]);
        self.goes_down(id, stop);
        true
    }

    fn look_at(&mut self, id: NodeId) {
        let Some(running) = self.nodes.get(&id).and_then(|node| node.running.as_ref()) else { return };
        let core = running.replica.core();
        let marks = [core.term().0, core.commit().0, core.last().index.0, core.applied().0];
        if self.checks.lets_go(core) {
            self.coverage.saw("a membership is let go");
        }
        let verdict = self.checks.observe(core, &self.nodes).and_then(|()| self.leases_end());
        self.mind_memory(id);
        for word in marks {
            self.mark(word);
        }
        self.must(verdict);
    }

    fn leases_end(&self) -> Result<(), String> {
        for node in self.nodes.values() {
            if let Some(running) = node.running.as_ref().filter(|running| running.replica.core().is_leader()) {
                self.checks.leases(running.replica.core(), || node.pace.shows(self.now))?;
            }
        }
        Ok(())
    }

    fn perform(&mut self, id: NodeId, effect: Effect) {
        match effect {
            Effect::Send(to, message) => {
                if let PeerMessage::Raft(envelope) = &message {
                    let Some(node) = self.nodes.get_mut(&id) else { return };
                    let Some(running) = &node.running else { return };
                    let verdict = self.checks.sends(envelope, running.replica.core(), &mut node.shadow);
                    self.must(verdict);
                }
                self.send(id, to, Box::new(message));
            }
            Effect::Persist(write) => self.store(id, StoreJob::Persist(write)),
            Effect::Compact(covered) => self.store(id, StoreJob::Compact(covered)),
            Effect::Apply(batch) => self.machine_job(id, MachineJob::Apply(batch)),
            Effect::Query(queries) => {
                let Some(running) = self.nodes.get(&id).and_then(|node| node.running.as_ref()) else { return };
                let (handed, term) = (running.replica.handed(), running.replica.core().term());
                self.machine_job(id, MachineJob::Query { queries, handed, term });
            }
            Effect::Answer(request, outcome) => {
                self.note(|| format!("{id} answers {} {outcome:?}", request.0));
                let verdict = self.history.tells(request, &outcome);
                self.must(verdict);
            }
            Effect::Transition(transition) => self.on_transition(id, &transition),
            Effect::TakeSnapshot(meta) => self.machine_job(id, MachineJob::Snapshot(meta)),
            Effect::Restore(meta) => self.machine_job(id, MachineJob::Restore(meta)),
            Effect::Fetch { leader, last } => self.fetch(id, leader, last),
            Effect::Probe { id: newcomer, address } => {
                let Some(run) = self.nodes.get(&id).map(|node| node.runs) else { return };
                let after = self.dice.micros(500, 5_000);
                self.later(after, Happening::Probe(Box::new(Probe { by: id, run, id: newcomer, address })));
            }
            Effect::Notice(_) => {}
            Effect::Stopped => {
                self.coverage.saw("a node stops in order");
                self.crash(id, Stop::Kill);
                let after = self.dice.micros(100_000, 2_000_000);
                self.later(after, Happening::Start(id));
            }
        }
    }

    fn on_transition(&mut self, id: NodeId, transition: &Transition) {
        match transition {
            Transition::Leader { term } => {
                self.coverage.saw("a leader is elected");
                self.note(|| format!("{id} is the leader of term {term}"));
            }
            Transition::Candidate { term } => {
                self.coverage.saw("a campaign");
                self.note(|| format!("{id} is a candidate in term {term}"));
            }
            Transition::Truncated { from } => {
                self.coverage.saw("entries are overwritten");
                self.note(|| format!("{id} lets go of its entries from {from} on for the leader's"));
            }
            Transition::Membership { index, membership } => {
                if membership.is_joint() {
                    self.coverage.saw("a joint membership");
                }
                if membership
                    .voters()
                    .any(|voter| self.nodes.get(&voter).is_some_and(|n| n.founding.membership.members.is_empty()))
                {
                    self.coverage.saw("a newcomer votes");
                }
                self.note(|| format!("{id} goes by the membership at {index}: {}", words(membership)));
            }
            Transition::MembershipCommitted { index } => self.membership_committed(id, *index),
            Transition::Breach(breach) => {
                self.must(Err(format!("{id} sees that an invariant does not hold: {breach:?}")));
            }
            Transition::Follower { .. } | Transition::PreCandidate { .. } => {}
        }
    }

    fn membership_committed(&mut self, id: NodeId, index: Index) {
        self.coverage.saw("a membership is committed");
        let Some(running) = self.nodes.get(&id).and_then(|node| node.running.as_ref()) else { return };
        let core = running.replica.core();
        let (membership, cluster) = (Arc::clone(core.membership_at(index)), core.cluster());
        if !membership.removed.is_empty() {
            self.coverage.saw("a member is removed");
        }
        let verdict = self.history.commits(id, index, &membership);
        self.must(verdict);
        if cluster != ClusterId::UNKNOWN {
            self.store(id, StoreJob::Cluster(cluster));
        }
        self.turn_away(id);
    }
}

/// A membership, in the words of the paper.
pub(crate) fn words(membership: &Membership) -> String {
    let member = |(id, member): (&NodeId, &graft_domain::Member)| {
        let role = match (member.outgoing, member.voter) {
            (true, false) => " (old half only)",
            (false, true) if membership.is_joint() => " (new half only)",
            (_, true) => "",
            (false, false) => " (learner)",
        };
        format!("{id}{role}")
    };
    let members: Vec<String> = membership.members.iter().map(member).collect();
    let joint = if membership.is_joint() { "joint: " } else { "" };
    format!("{joint}{}", members.join(", "))
}
