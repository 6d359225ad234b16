//! What a node's surroundings do about each of its effects.

use graft_domain::{NodeId, Transition};

use super::disk::Op;
use super::machine::Job;
use super::world::{Fetch, Packet, Probe, World};
use crate::{Effect, Event, RequestId};

impl World {
    pub(crate) fn perform(&mut self, id: NodeId, effect: Effect) {
        match effect {
            Effect::Send(to, message) => self.send(Packet { from: id, to, message }),
            Effect::Persist(write) => self.store(id, Op::Write(write)),
            Effect::Compact(covered) => self.store(id, Op::Compact(covered)),
            Effect::Apply(mut batch) => {
                self.note(|| format!("{id} applies {batch:?}"));
                batch.callers.retain(|(_, request)| self.history.answer(*request).is_none());
                self.node(id).machine.apply(batch);
            }
            Effect::Query(queries) => self.query_machine(id, queries.into_iter().map(|(request, _)| request).collect()),
            Effect::Answer(request, outcome) => {
                self.note(|| format!("{id} answers {request:?} {outcome:?}"));
                let verdict = self.history.tells(request, &outcome);
                self.must(verdict);
            }
            Effect::Transition(transition) => self.on_transition(id, &transition),
            Effect::TakeSnapshot(meta) => {
                self.note(|| format!("{id} takes {meta:?}"));
                self.node(id).machine.jobs.push_back(Job::Snapshot(meta));
            }
            Effect::Restore(meta) => {
                self.note(|| format!("{id} restores {meta:?}"));
                self.node(id).machine.jobs.push_back(Job::Restore(meta));
            }
            Effect::Fetch { leader, last } => self.fetches.push_back(Fetch { to: id, from: leader, last }),
            Effect::Probe { id: newcomer, address } => {
                self.probes.push_back(Probe { by: id, id: newcomer, address });
            }
            Effect::Notice(notice) => self.notices.push((id, notice)),
            Effect::Stopped => {
                let verdict = self.answers_in_time(id, true);
                self.must(verdict);
                self.crash(id, usize::MAX);
                self.stops += 1;
            }
        }
    }

    fn send(&mut self, packet: Packet) {
        if !self.nodes[&packet.from].links.contains(&packet.to) {
            return self.lost(&packet);
        }
        if self.trace.is_some() {
            // Heartbeats would bury what matters.
            let beat = format!("{packet:?}");
            if !beat.contains("entries: []") && !beat.contains("AppendReply") {
                self.note(|| beat);
            }
        }
        self.wire.push_back(packet);
    }

    fn store(&mut self, id: NodeId, op: Op) {
        let disk = &mut self.node(id).disk;
        if !disk.failed {
            disk.pending.push_back(op);
        }
    }

    fn query_machine(&mut self, id: NodeId, requests: Vec<RequestId>) {
        let open = requests.iter().all(|request| self.history.answer(*request).is_none());
        self.must(if open { Ok(()) } else { Err(format!("{id} gives the machine what is answered")) });
        let replica = self.nodes[&id].replica.as_ref().expect("it is up");
        let (handed, term) = (replica.handed(), replica.core().term());
        self.node(id).machine.query(handed, term, requests);
    }

    fn on_transition(&mut self, id: NodeId, transition: &Transition) {
        self.note(|| format!("{id} {transition:?}"));
        if let Transition::MembershipCommitted { index } = transition {
            let replica = self.nodes[&id].replica.as_ref().expect("it is up");
            let membership = std::sync::Arc::clone(replica.core().membership_at(*index));
            let verdict = self.history.commits(id, *index, &membership);
            self.must(verdict);
            self.turn_away(id);
        }
    }

    /// Lets the thread that writes a node's snapshot finish. False if there is none.
    pub(crate) fn write_snapshot(&mut self, id: NodeId) -> bool {
        let node = self.node(id);
        let Some(stored) = node.machine.writing.take() else { return false };
        let last = stored.meta.last;
        let event = if let Some(why) = node.machine.snapshot_fails.clone() {
            Event::SnapshotFailed { last, why }
        } else {
            let bytes = stored.bytes;
            node.disk.keep(stored);
            Event::SnapshotWritten { last, bytes }
        };
        self.inbox(id, event);
        true
    }
}
