//! Replicas, the network between them, their disks and machines, their clients, and the time. One turn of a node is as in
//! the runtime: some of what waits, then the timer, then all effects.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{ClusterId, Config, EntryId, Incarnation, Index, Instant, Membership, NodeId, RaftCore};

use super::clock::{Pace, Pause};
use super::disk::Disk;
use super::history::{History, Verdict};
use super::machine::{Machine, State};
use crate::ports::PeerMessage;
use crate::{Event, Notice, Replica, ReplicaConfig, RequestId};

/// How long a message takes when time runs.
const HOP: Duration = Duration::from_millis(1);
/// Turns without any event that may follow on one another at the same time.
const SPIN_MAX: usize = 8;

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) core: Config,
    pub(crate) config: ReplicaConfig,
    /// None while it is down.
    pub(crate) replica: Option<Replica>,
    pub(crate) disk: Disk,
    pub(crate) machine: Machine,
    pub(crate) inbox: VecDeque<Event>,
    /// What its wall clock is ahead.
    pub(crate) wall: u64,
    pub(crate) pace: Pace,
    /// It does nothing for a while.
    pub(crate) pause: Option<Pause>,
    /// Whom it has a connection to.
    pub(crate) links: BTreeSet<NodeId>,
}

/// A follower that wants its leader's snapshot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetch {
    pub(crate) to: NodeId,
    pub(crate) from: NodeId,
    pub(crate) last: EntryId,
}

/// A leader that wants to know who answers at an address.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub(crate) by: NodeId,
    pub(crate) id: NodeId,
    pub(crate) address: String,
}

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) message: PeerMessage,
}

#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) name: String,
    pub(crate) now: Instant,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) wire: VecDeque<Packet>,
    pub(crate) fetches: VecDeque<Fetch>,
    pub(crate) probes: VecDeque<Probe>,
    /// Nothing gets through, and nobody notices.
    pub(crate) cuts: BTreeSet<(NodeId, NodeId)>,
    pub(crate) history: History,
    pub(crate) trace: Option<Vec<String>>,
    pub(crate) requests: u64,
    /// Refusals that got lost: their calls are told at their deadline.
    pub(crate) refusals_lost: u64,
    /// How often a node that was told to stop did.
    pub(crate) stops: u64,
    /// What watchers of each node were told.
    pub(crate) notices: Vec<(NodeId, Notice)>,
}

pub(crate) fn id(n: usize) -> NodeId {
    NodeId::new(&format!("n{n}")).expect("a good id")
}

/// Where it is to be found.
pub(crate) fn address(n: usize) -> String {
    format!("host{n}:7001")
}

impl Node {
    pub(crate) fn new(n: usize) -> Self {
        let core = Config::new(id(n), ClusterId(n as u128), n as u64);
        let config = ReplicaConfig {
            session: 0,
            command_bytes_max: 1 << 20,
            inflight_max: 65_536,
            inflight_bytes_max: 256 << 20,
            retry: core.heartbeat / 2,
            read_retry: core.election_timeout,
            election_timeout: core.election_timeout,
            address: address(n),
            incarnation: Incarnation(1_000 + n as u64),
            session_ttl: Duration::from_hours(1_000),
            snapshot_every_bytes: 64 << 20,
            snapshot_every_entries: 1_000_000,
        };
        let (disk, machine, inbox, links) = (Disk::default(), Machine::default(), VecDeque::new(), BTreeSet::new());
        let pace = Pace::default();
        Self { core, config, replica: None, disk, machine, inbox, wall: 0, pace, pause: None, links }
    }
}

impl World {
    /// So many members that have never run, not started. `tune` may change what each is told.
    pub(crate) fn found(size: usize, mut tune: impl FnMut(usize, &mut Config, &mut ReplicaConfig)) -> Self {
        let mut world = Self::default();
        let addresses: Vec<String> = (1..=size).map(address).collect();
        let founders = addresses.iter().enumerate().map(|(place, address)| (id(place + 1), address.as_str()));
        let membership = Arc::new(Membership::founding(founders));
        for n in 1..=size {
            let mut node = Node::new(n);
            node.disk.membership = Arc::clone(&membership);
            tune(n, &mut node.core, &mut node.config);
            world.nodes.insert(id(n), node);
        }
        world
    }

    /// So many members, connected, with n1 leading them.
    pub(crate) fn new(size: usize) -> Self {
        Self::with(size, |_, _, _| {})
    }

    pub(crate) fn with(size: usize, tune: impl FnMut(usize, &mut Config, &mut ReplicaConfig)) -> Self {
        let mut world = Self::found(size, tune);
        for n in 1..=size {
            // n1 is the first to lose patience.
            let bounds = if n == 1 { 300..350 } else { 450..600 };
            let node = world.node(id(n));
            let recovered = node.disk.recover(Index::ZERO);
            let patience = |seed| {
                let core = Config { seed, ..node.core.clone() };
                RaftCore::new(core, recovered.clone(), Instant(0)).deadline().0 / 1_000_000
            };
            node.core.seed = (1_000 * n as u64..1_000 * (n as u64 + 1))
                .find(|seed| bounds.contains(&patience(*seed)))
                .expect("there are many");
            world.start(id(n), n as u64 * 1_000_000);
        }
        world.connect_all();
        world.run(400);
        assert_eq!(world.leader(), Some(1), "n1 leads");
        world.open_sessions();
        world
    }

    /// Each node opens its own session, so that what is made next on it goes straight to the leader.
    pub(crate) fn open_sessions(&mut self) {
        for id in self.ids() {
            if let Some(replica) = &mut self.node(id).replica {
                replica.open_own_session();
            }
        }
        self.run(30);
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).unwrap_or_else(|| panic!("there is no node {id}"))
    }

    pub(crate) fn is_up(&self, id: NodeId) -> bool {
        self.nodes[&id].replica.is_some()
    }

    pub(crate) fn replica(&self, n: usize) -> &Replica {
        self.nodes[&id(n)].replica.as_ref().expect("it is up")
    }

    pub(crate) fn core(&self, n: usize) -> &RaftCore {
        self.replica(n).core()
    }

    /// Who leads the newest term.
    pub(crate) fn leader(&self) -> Option<usize> {
        let number = |id: &NodeId| id.as_str()[1..].parse::<usize>().expect("ids here are numbered");
        let up = self.nodes.keys().map(number).filter(|n| self.is_up(id(*n)) && self.core(*n).is_leader());
        up.max_by_key(|n| self.core(*n).term())
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        let now = self.now.0 / 1_000_000;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now} ms: {}", line()));
        }
    }

    /// Ends the test if something does not hold.
    pub(crate) fn must(&self, verdict: Verdict) {
        if let Err(broken) = verdict {
            let trace = self.trace.as_deref().unwrap_or_default();
            let last = &trace[trace.len().saturating_sub(150)..];
            panic!("{}\n{}: BROKEN: {broken}", last.join("\n"), self.name);
        }
    }

    /// Starts a node from its disk.
    pub(crate) fn start(&mut self, id: NodeId, session: u64) {
        let clock = self.clock(id);
        let node = self.node(id);
        node.config.session = session;
        node.disk.open();
        let restored = node.disk.snapshot.as_ref().map(|stored| (stored.meta.clone(), stored.bytes));
        let applied = node.machine.open(&node.disk).expect("its snapshot can be read");
        let core = RaftCore::new(node.core.clone(), node.disk.recover(applied), clock.now);
        node.replica = Some(Replica::new(node.config.clone(), core, clock, restored));
        self.note(|| format!("{id} starts"));
        self.turn(id, usize::MAX);
    }

    /// Takes a node down. Of its pending writes the first `kept` had reached the disk.
    pub(crate) fn crash(&mut self, id: NodeId, kept: usize) {
        self.note(|| format!("{id} ends"));
        let node = self.node(id);
        node.replica = None;
        node.inbox.clear();
        node.links.clear();
        node.pause = None;
        let verdict = node.disk.crash(kept);
        node.machine.crash();
        self.must(verdict);
        self.history.crashed(id);
        for other in self.ids() {
            self.disconnect(other, id);
        }
    }

    pub(crate) fn inbox(&mut self, id: NodeId, event: Event) {
        if self.is_up(id) {
            self.node(id).inbox.push_back(event);
        }
    }

    /// Hands the packet at this place to its recipient, unless the link is cut or nobody is there.
    pub(crate) fn deliver(&mut self, place: usize) {
        let Some(packet) = self.wire.remove(place) else { return };
        if self.cuts.contains(&(packet.from, packet.to)) || !self.is_up(packet.to) {
            return self.lost(&packet);
        }
        self.inbox(packet.to, Event::Peer(packet.message));
    }

    /// Takes the messages that are so from the wire.
    pub(crate) fn take(&mut self, is_so: impl Fn(&PeerMessage) -> bool) -> Vec<Packet> {
        let (taken, kept): (Vec<Packet>, Vec<Packet>) = self.wire.drain(..).partition(|packet| is_so(&packet.message));
        self.wire = kept.into();
        taken
    }

    /// Puts messages on the wire, once more or at last.
    pub(crate) fn put(&mut self, packets: &[Packet]) {
        self.wire.extend(packets.iter().cloned());
    }

    /// One turn of the loop with up to `count` events, and further ones while its timer says that it is time.
    pub(crate) fn turn(&mut self, id: NodeId, count: usize) {
        let Some(begun) = self.begin_turn(id) else { return };
        self.history.now = self.now;
        let clock = self.clock(id);
        let mut gives_up = false;
        for turn in 0.. {
            let node = self.nodes.get_mut(&id).unwrap_or_else(|| panic!("there is no node {id}"));
            let Some(replica) = &mut node.replica else { return };
            if turn == 0 {
                for event in node.inbox.drain(..count.min(node.inbox.len())) {
                    gives_up |= matches!(event, Event::Halted(_) | Event::StorageFailed(_));
                    replica.handle(begun, event);
                }
            } else if replica.deadline() > clock.now {
                break;
            }
            // As in the runtime: by the time that was read when the turn began.
            let now = if turn == 0 { begun } else { clock };
            if replica.deadline() <= now.now {
                replica.handle(now, Event::Timeout);
            }
            let effects = replica.effects(clock);
            for effect in effects {
                self.perform(id, effect);
            }
            self.must(if turn < SPIN_MAX { Ok(()) } else { Err(format!("{id} spins")) });
        }
        let verdict = self.answers_in_time(id, gives_up).and_then(|()| self.leases_end());
        self.must(verdict);
    }

    /// Whoever's deadline has come has an answer, and the timer strikes at the next one. Of a node that gave up, all have.
    pub(crate) fn answers_in_time(&self, id: NodeId, gives_up: bool) -> Verdict {
        let node = &self.nodes[&id];
        let waiting: BTreeSet<RequestId> = node.inbox.iter().filter_map(request_of).collect();
        let Some(replica) = &node.replica else { return Ok(()) };
        let now = self.clock(id).now;
        for (request, asked) in self.history.open(id).filter(|(request, _)| !waiting.contains(request)) {
            if asked.deadline <= now || gives_up || asked.deadline < replica.deadline() {
                return Err(format!("{id} owes {request:?} an answer: {asked:?}, timer {}", replica.deadline()));
            }
        }
        Ok(())
    }

    /// Lets a disk do up to `count` writes. False if there was nothing it could do.
    pub(crate) fn sync(&mut self, id: NodeId, count: usize) -> bool {
        let disk = &mut self.node(id).disk;
        if disk.full && !disk.pending.is_empty() {
            self.inbox(id, Event::StorageFull);
            return false;
        }
        let synced = disk.sync(count);
        let seq = synced.unwrap_or_else(|broken| {
            self.must(Err(format!("{id}: {broken}")));
            None
        });
        if let Some(seq) = seq {
            self.inbox(id, Event::Persisted { seq });
        }
        seq.is_some()
    }

    /// Lets a machine do its next job. False if there was none.
    pub(crate) fn work(&mut self, id: NodeId) -> bool {
        self.history.now = self.now;
        let node = self.nodes.get_mut(&id).unwrap_or_else(|| panic!("there is no node {id}"));
        let done = node.machine.work(id, &node.disk, &mut self.history);
        let (is_done, events) = done.unwrap_or_else(|broken| {
            self.must(Err(broken));
            (false, Vec::new())
        });
        for event in events {
            self.inbox(id, event);
        }
        is_done
    }

    /// Turns once, with everything that waits.
    pub(crate) fn turn_of(&mut self, n: usize) {
        self.turn(id(n), usize::MAX);
    }

    /// Lets time pass for so many milliseconds: messages take a while, timers strike, disks and machines work unless held.
    pub(crate) fn run(&mut self, milliseconds: u64) {
        let end = self.now + Duration::from_millis(milliseconds);
        loop {
            for id in self.ids() {
                self.settle(id);
            }
            let next = self.next_timer().max(self.now + Duration::from_nanos(1));
            let quiet = self.wire.is_empty() && self.fetches.is_empty() && self.probes.is_empty();
            let next = if quiet { next } else { next.min(self.now + HOP) };
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            for _ in 0..self.wire.len() {
                self.deliver(0);
            }
            (0..self.fetches.len()).for_each(|_| self.fetch());
            (0..self.probes.len()).for_each(|_| self.probe());
        }
    }

    /// Turns until a node has nothing to do at this time.
    fn settle(&mut self, id: NodeId) {
        loop {
            self.turn(id, usize::MAX);
            let node = &self.nodes[&id];
            let synced = !node.disk.held && self.sync(id, usize::MAX);
            let worked = !self.nodes[&id].machine.held && self.work(id);
            let wrote = !self.nodes[&id].machine.writing_held && self.write_snapshot(id);
            let idle = self.nodes[&id].inbox.is_empty() || self.nodes[&id].pause.is_some();
            if !synced && !worked && !wrote && idle {
                return;
            }
            if self.nodes[&id].disk.full && !synced && !worked && !wrote {
                return;
            }
        }
    }

    /// The bodies that were applied, in the order of the log.
    pub(crate) fn applied(&self) -> Vec<String> {
        let text = |body: &Bytes| String::from_utf8_lossy(body).into_owned();
        self.history.log.values().map(|(_, _, body)| text(body)).collect()
    }

    pub(crate) fn state(&self, n: usize) -> State {
        self.nodes[&id(n)].machine.state
    }

    pub(crate) fn applied_at(&self, n: usize) -> Index {
        self.state(n).applied
    }
}

fn request_of(event: &Event) -> Option<RequestId> {
    match event {
        Event::Execute { request, .. }
        | Event::Query { request, .. }
        | Event::OpenSession { request, .. }
        | Event::Verify { request, .. }
        | Event::Ask { request, .. }
        | Event::Snapshot { request, .. } => Some(*request),
        _ => None,
    }
}
