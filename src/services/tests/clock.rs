//! The monotonic clock of one node: it may run fast or slow. And pauses: a process that is stopped in the middle of a turn.

use std::time::Duration;

use graft_domain::{Instant, NodeId, RaftCore};

use super::history::Verdict;
use super::world::World;
use crate::Clock;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// What it shows while a thousand of the world's go by.
    rate: u64,
    /// When it was last set to another rate, by the world's clock and by itself.
    since: (Instant, Instant),
}

/// A node has read its clock, is stopped, and then takes in what waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pause {
    read: Clock,
    until: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Self { rate: 1_000, since: (Instant(0), Instant(0)) }
    }
}

impl Pace {
    pub(crate) fn shows(&self, now: Instant) -> Instant {
        let (world, own) = self.since;
        own + Duration::from_nanos(now.0.saturating_sub(world.0) * self.rate / 1_000)
    }

    /// The first moment in the world at which it shows `at` or more.
    fn when(&self, at: Instant) -> Instant {
        let (world, own) = self.since;
        if at == Instant::NEVER {
            return at;
        }
        let ahead = u128::from(at.0.saturating_sub(own.0)) * 1_000;
        world + Duration::from_nanos(u64::try_from(ahead.div_ceil(u128::from(self.rate))).unwrap_or(u64::MAX))
    }
}

impl World {
    /// What a node's clocks show.
    pub(crate) fn clock(&self, id: NodeId) -> Clock {
        let node = &self.nodes[&id];
        Clock { now: node.pace.shows(self.now), wall: self.now.0 + node.wall }
    }

    /// From now on a node's clock shows so many milliseconds while a thousand pass.
    pub(crate) fn set_pace(&mut self, id: NodeId, rate: u64) {
        let now = self.now;
        let pace = &mut self.node(id).pace;
        *pace = Pace { rate, since: (now, pace.shows(now)) };
    }

    /// No leader holds a lease, by its own clock, once there is another of a later term.
    pub(crate) fn leases_end(&self) -> Verdict {
        let cores = self.nodes.iter().filter_map(|(id, node)| Some((*id, node.replica.as_ref()?.core())));
        let leaders: Vec<_> = cores.filter(|(_, core)| core.is_leader()).collect();
        let newest = leaders.iter().map(|(_, core)| core.term()).max();
        let holds = |(id, core): &&(NodeId, &RaftCore)| core.holds_lease(self.clock(*id).now);
        match leaders.iter().filter(|(_, core)| Some(core.term()) < newest).find(holds) {
            Some((id, core)) => Err(format!("{id} holds a lease in term {}, {newest:?} is led", core.term())),
            None => Ok(()),
        }
    }

    /// When the next timer of all strikes, by the world's clock.
    pub(crate) fn next_timer(&self) -> Instant {
        let running = self.nodes.values().filter(|node| node.pause.is_none());
        let timers = running.filter_map(|node| node.replica.as_ref().map(|r| node.pace.when(r.deadline())));
        let pauses = self.nodes.values().filter_map(|node| node.pause.map(|pause| pause.until));
        timers.chain(pauses).min().unwrap_or(Instant::NEVER)
    }

    /// A node begins a turn, and is stopped before it takes in anything.
    pub(crate) fn pause(&mut self, id: NodeId, milliseconds: u64) {
        if self.is_up(id) {
            let (read, until) = (self.clock(id), self.now + Duration::from_millis(milliseconds));
            self.note(|| format!("{id} is paused for {milliseconds} ms"));
            self.node(id).pause.get_or_insert(Pause { read, until });
        }
    }

    /// What a node that begins its turn, or goes on with it, takes for the time; none if it is stopped.
    pub(crate) fn begin_turn(&mut self, id: NodeId) -> Option<Clock> {
        let (now, clock) = (self.now, self.clock(id));
        match self.node(id).pause {
            Some(pause) if now < pause.until => None,
            Some(pause) => {
                self.node(id).pause = None;
                Some(Clock { now: pause.read.now, wall: clock.wall })
            }
            None => Some(clock),
        }
    }
}
