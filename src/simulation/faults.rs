//! What goes wrong.

use std::time::Duration;

use graft_domain::{Instant, NodeId};
use graft_services::Event;

use crate::disk::Stop;
use crate::mix::Fault;
use crate::world::{Happening, World};

impl World {
    /// Something goes wrong, and the next thing will.
    pub(crate) fn fault(&mut self) {
        if self.healed {
            return;
        }
        if !self.mix.faults.is_empty() {
            let fault = self.dice.one_of(&self.mix.faults.clone());
            // Whoever leads is worth more.
            let leader = self.leader().filter(|_| self.dice.chance(400));
            let id = leader.unwrap_or_else(|| self.any());
            self.note(|| format!("{fault:?} befalls {id}"));
            if self.befalls(fault, id) {
                self.coverage.saw(&format!("fault: {fault:?}"));
            }
        }
        let next = self.dice.below(2 * self.mix.fault_every);
        self.later(Duration::from_millis(next), Happening::Fault);
    }

    /// Whether it could happen.
    fn befalls(&mut self, fault: Fault, id: NodeId) -> bool {
        let lasts = self.dice.micros(50_000, 4_000_000);
        match fault {
            Fault::Kill => self.goes_down(id, Stop::Kill),
            Fault::PowerCut => {
                let stop = self.dice.one_of(&[Stop::Clean, Stop::Torn]);
                self.goes_down(id, stop)
            }
            Fault::TotalPowerCut => {
                for id in self.ids() {
                    self.goes_down(id, Stop::Torn);
                }
                true
            }
            Fault::Cut | Fault::OneWay | Fault::Isolate | Fault::Split | Fault::Clog | Fault::Disconnect => {
                self.network_fault(fault, id, lasts)
            }
            Fault::DiskFull | Fault::DiskError | Fault::SyncError | Fault::Hang => self.disk_fault(fault, id, lasts),
            Fault::Rot | Fault::Misdirected | Fault::Wipe => self.disk_loss(fault, id, lasts),
            Fault::Amnesia => self.forgets(id, lasts),
            Fault::Release => self.release(id, lasts),
            Fault::Lull | Fault::Cornered | Fault::Nap => self.leader_fault(fault, self.leader().unwrap_or(id), lasts),
            _ => self.process_fault(fault, id, lasts),
        }
    }

    /// What is only met by luck if nobody helps it along.
    fn leader_fault(&mut self, fault: Fault, id: NodeId, lasts: Duration) -> bool {
        if !self.is_up(id) {
            return false;
        }
        match fault {
            Fault::Lull => {
                let patience = u64::try_from(self.mix.election_timeout.as_micros()).unwrap_or(0);
                let until = self.now + self.dice.micros(patience * 4 / 5, patience * 5 / 2);
                for other in self.ids() {
                    self.network.clogs.insert((id, other), until);
                }
            }
            Fault::Nap => {
                let until = self.now + lasts;
                for other in self.ids() {
                    self.network.clogs.insert((other, id), Instant(until.0.saturating_sub(1_000_000)));
                }
                return self.process_fault(Fault::Pause, id, lasts);
            }
            _ => {
                self.network_fault(Fault::Isolate, id, lasts);
                let (count, patience) = (self.dice.below(30), self.dice.within(50, 4_000));
                if self.dice.chance(600)
                    && let Some(change) = self.wanted_change()
                {
                    self.change(id, change, patience);
                }
                for _ in 0..count {
                    let body = self.body();
                    self.execute(id, None, body, patience);
                }
            }
        }
        true
    }

    pub(crate) fn goes_down(&mut self, id: NodeId, stop: Stop) -> bool {
        let was_up = self.is_up(id);
        self.crash(id, stop);
        let after = self.dice.micros(1_000, 3_000_000);
        self.later(after, Happening::Start(id));
        was_up
    }

    fn network_fault(&mut self, fault: Fault, id: NodeId, lasts: Duration) -> bool {
        let (other, ids) = (self.any(), self.ids());
        match fault {
            Fault::Cut => {
                self.cut(id, other, lasts);
                self.cut(other, id, lasts);
            }
            Fault::OneWay => self.cut(id, other, lasts),
            Fault::Isolate => {
                for other in ids {
                    self.cut(id, other, lasts);
                    self.cut(other, id, lasts);
                }
                return true;
            }
            Fault::Split => {
                let (one, two): (Vec<NodeId>, Vec<NodeId>) = ids.into_iter().partition(|_| self.dice.chance(500));
                for (from, to) in one.iter().flat_map(|from| two.iter().map(move |to| (*from, *to))) {
                    self.cut(from, to, lasts);
                    self.cut(to, from, lasts);
                }
                return true;
            }
            Fault::Clog => {
                let until = self.now + lasts;
                self.network.clogs.insert((id, other), until);
            }
            _ => {
                self.disconnect(id, other);
                self.disconnect(other, id);
            }
        }
        id != other
    }

    fn disk_fault(&mut self, fault: Fault, id: NodeId, lasts: Duration) -> bool {
        let until = self.now + lasts;
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        match fault {
            Fault::DiskFull => {
                let used = node.disk.used();
                node.faulted = true;
                node.disk.faults(|faults| faults.capacity = Some(used));
                self.later(lasts, Happening::DiskMends(id));
            }
            Fault::DiskError => {
                node.faulted = true;
                node.disk.faults(|faults| faults.change_fails = true);
            }
            Fault::SyncError => {
                node.faulted = true;
                node.disk.faults(|faults| faults.sync_fails = true);
            }
            _ => node.hangs_until = until,
        }
        true
    }

    /// What is on a disk at rest is not what it was, or is gone.
    fn disk_loss(&mut self, fault: Fault, id: NodeId, lasts: Duration) -> bool {
        if !self.may_lose(id) {
            return false;
        }
        self.crash(id, Stop::Torn);
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        let what = match fault {
            Fault::Rot => node.disk.rot(&mut self.dice),
            Fault::Misdirected => node.disk.misdirect(&mut self.dice),
            _ => {
                self.lost.insert(id);
                return true;
            }
        };
        node.damaged = true;
        self.note(|| format!("the disk of {id} is harmed: {what:?}"));
        self.later(lasts, Happening::Start(id));
        true
    }

    /// Whether a disk may be lost for good: one in a world, and only where the others can go on.
    pub(crate) fn may_lose(&self, id: NodeId) -> bool {
        let harmed = self.nodes.values().any(|node| node.damaged) || !self.remembers_all();
        let leader = self.leader().and_then(|leader| self.nodes.get(&leader)?.running.as_ref());
        let Some(core) = leader.map(|running| running.replica.core()) else { return false };
        let membership = core.membership();
        let voters = membership.voters().count() - usize::from(membership.is_voter(&id));
        !harmed && self.lost.is_empty() && membership.contains(&id) && !membership.is_joint() && voters >= 2
    }

    fn process_fault(&mut self, fault: Fault, id: NodeId, lasts: Duration) -> bool {
        let (now, until) = (self.now, self.now + lasts);
        let (rate, wall, place) = (self.dice.one_of(&[957, 1_000, 1_052]), self.dice.below(1 << 40), self.dice.draw());
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        match fault {
            Fault::Drift => {
                node.pace.set(now, rate);
                self.set_alarm(id);
            }
            Fault::WallJump => node.wall = wall,
            Fault::Pause => {
                let Some(running) = &mut node.running else { return false };
                let read = node.pace.shows(now);
                node.pause.get_or_insert((read, until));
                running.turn_is_due = true;
                let run = running.run;
                self.at(until, Happening::Turn(id, run));
            }
            Fault::SlowMachine => node.slow_until = until,
            Fault::HaltingMachine => {
                node.halts = true;
                self.later(lasts, Happening::DiskMends(id));
            }
            Fault::Amid => node.ends_after = node.running.is_some().then_some(place % 40),
            Fault::SnapshotFails => node.snapshot_fails = !node.snapshot_fails,
            Fault::Stop => {
                let deadline = node.pace.shows(now) + lasts;
                node.stopping = node.running.is_some();
                self.tell(id, Event::Stop { deadline });
            }
            Fault::Moved => {
                if node.running.is_none() {
                    node.config.address = format!("{id}.moved:{}", place % 1_000);
                    return true;
                }
                return false;
            }
            _ => return false,
        }
        true
    }

    /// There is space again, and a node that gave up is started anew.
    pub(crate) fn disk_mends(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.disk.faults(|faults| faults.capacity = None);
        let given_up = node.running.as_ref().is_some_and(|r| r.store_failed || r.work.halted.is_some());
        if given_up {
            let stop = self.dice.one_of(&[Stop::Kill, Stop::Clean, Stop::Torn]);
            self.goes_down(id, stop);
        } else {
            node.halts = false;
        }
    }

    /// A disk that hung and a machine that was slow are done with what they were at.
    fn goes_on(&mut self, id: NodeId) {
        let now = self.now;
        let Some(running) = self.nodes.get_mut(&id).and_then(|node| node.running.as_mut()) else { return };
        let (run, stores) = (running.run, !running.storing.is_empty() && running.storing_until > now);
        if stores {
            running.storing_until = now;
        }
        let works = running.working.is_some_and(|until| until > now);
        if works {
            running.working = Some(now);
        }
        if stores {
            self.at(now, Happening::Stored(id, run));
        }
        if works {
            self.at(now, Happening::Worked(id, run));
        }
    }

    /// Everything works again.
    pub(crate) fn heal(&mut self) {
        self.note(|| "everything heals".to_owned());
        self.healed = true;
        self.network.cuts.clear();
        self.network.clogs.clear();
        let now = self.now;
        for id in self.ids() {
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            node.disk
                .faults(|f| (f.capacity, f.change_fails, f.sync_fails, f.power_off_in) = (None, false, false, None));
            (node.hangs_until, node.slow_until) = (Instant(0), Instant(0));
            (node.snapshot_fails, node.ends_after) = (false, None);
            node.pace.set(now, 1_000);
            node.code = self.releases.newest;
            let is_old = node.running.as_ref().is_some_and(|running| running.ledger.code < node.code);
            let stops = node.stopping || is_old;
            self.set_alarm(id);
            self.goes_on(id);
            if stops {
                self.crash(id, Stop::Kill);
            }
            self.disk_mends(id);
            self.later(Duration::from_millis(500), Happening::Start(id));
        }
    }
}
