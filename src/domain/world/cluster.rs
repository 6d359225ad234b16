//! Cores, the network between them, their disks, machines and clocks.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;
use std::panic;

use super::checks::Checks;
use super::clock::Clock;
use super::disk::{Disk, Operation};
use super::show::Shown;
use crate::{
    Config, Entry, EntryId, Envelope, Index, Input, Instant, Membership, NodeId, RaftCore, ReadId, ReadOutcome, Ready,
    Rejected, SnapshotFetch,
};

/// How long a message takes when time runs.
const HOP: Duration = Duration::from_millis(1);

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) config: Config,
    /// None while it is down.
    pub(crate) core: Option<RaftCore>,
    pub(crate) disk: Disk,
    pub(crate) machine: Machine,
    /// Inputs are stepped, but nothing they want done is carried out: a turn of the loop that takes in many.
    pub(crate) gathering: bool,
    pub(crate) clock: Clock,
    /// A snapshot that a leader has offered.
    pub(crate) fetch: Option<SnapshotFetch>,
    /// A leader's snapshot that is durable here; the machine is to be restored from it.
    pub(crate) fetched: Option<(EntryId, Arc<Membership>)>,
    /// The commit index that was last told of.
    told: Index,
}

/// The user's machine: what it has been handed, and how far it has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    pub(crate) handed: Index,
    pub(crate) applied: Index,
    pub(crate) held: bool,
    /// What it applied survives a crash.
    pub(crate) keeps: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    /// Told when something is broken, so that it can be run again.
    pub(crate) name: String,
    pub(crate) now: Instant,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    /// On their way, in the order they were sent.
    pub(crate) wire: VecDeque<Envelope>,
    pub(crate) cuts: BTreeSet<(NodeId, NodeId)>,
    pub(crate) checks: Checks,
    pub(crate) trace: Vec<String>,
    pub(crate) recording: bool,
}

impl World {
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if self.recording {
            self.trace.push(line());
        }
    }

    /// Ends the test if a check failed.
    pub(crate) fn must<T>(&self, verdict: Result<T, impl Into<String>>) -> T {
        verdict.unwrap_or_else(|broken| {
            let from = self.trace.len().saturating_sub(60);
            let ends: Vec<String> = self.cores().map(|core| format!("{}", Shown(core))).collect();
            let (after, ends) = (self.trace[from..].join("\n"), ends.join("\n"));
            panic!("{}: BROKEN: {}\nafter\n{after}\nwith\n{ends}", self.name, broken.into())
        })
    }

    pub(crate) fn node(&self, id: &NodeId) -> &Node {
        self.must(self.nodes.get(id).ok_or_else(|| format!("there is no node {id}")))
    }

    pub(crate) fn node_mut(&mut self, id: &NodeId) -> &mut Node {
        self.nodes.get_mut(id).unwrap_or_else(|| panic!("there is no node {id}"))
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn cores(&self) -> impl Iterator<Item = &RaftCore> {
        self.nodes.values().filter_map(|n| n.core.as_ref())
    }

    /// Adds a node that has never run.
    pub(crate) fn add(&mut self, config: Config, disk: Disk) {
        let node = Node {
            config,
            core: None,
            disk,
            machine: Machine::default(),
            gathering: false,
            clock: Clock::default(),
            fetch: None,
            fetched: None,
            told: Index::ZERO,
        };
        self.nodes.insert(node.config.id, node);
    }

    /// Starts a node from its disk. `first` takes what it finds there as history.
    pub(crate) fn start(&mut self, id: &NodeId, first: bool) {
        let now = self.clock(id);
        let node = self.node_mut(id);
        let machine = &mut node.machine;
        machine.applied =
            if machine.keeps { machine.applied.max(node.disk.snapshot.index) } else { node.disk.snapshot.index };
        machine.handed = machine.applied;
        let core = RaftCore::new(node.config.clone(), node.disk.recover(machine.applied), now);
        if first {
            self.checks.adopt(&core);
        } else {
            self.checks.restarted(&core);
        }
        let node = self.node_mut(id);
        (node.told, node.core) = (core.commit(), Some(core));
        self.observe(id);
        self.act(id);
    }

    /// Takes a node down. Of its pending writes the first `kept` had reached the disk.
    pub(crate) fn crash(&mut self, id: &NodeId, kept: usize) {
        let node = self.node_mut(id);
        (node.core, node.fetch, node.fetched, node.gathering) = (None, None, None, false);
        node.clock.turn = None;
        let done = node.disk.crash(kept);
        self.must(done);
        self.checks.forget_reads(id);
    }

    /// What a node takes for the time.
    pub(crate) fn clock(&self, id: &NodeId) -> Instant {
        let clock = self.node(id).clock;
        clock.turn.unwrap_or_else(|| clock.shows(self.now))
    }

    /// A node begins a turn that takes in many inputs; it takes them all to come at the time it is now.
    pub(crate) fn begin_turn(&mut self, id: &NodeId) {
        let now = self.clock(id);
        let node = self.node_mut(id);
        (node.gathering, node.clock.turn) = (true, Some(now));
    }

    /// When the next timer strikes, by the world's clock.
    fn next_timer(&self) -> Instant {
        let timers = self.nodes.values().filter_map(|n| n.core.as_ref().map(|core| n.clock.when(core.deadline())));
        timers.min().unwrap_or(Instant::NEVER)
    }

    /// Steps one core and, unless it gathers, does what it wants done.
    pub(crate) fn step(&mut self, id: &NodeId, input: Input) -> Result<Index, Rejected> {
        let now = self.clock(id);
        let Some(core) = &mut self.node_mut(id).core else { return Err(Rejected::Silenced) };
        let answer = core.step(now, input);
        self.observe(id);
        if !self.node(id).gathering {
            self.act(id);
        }
        answer
    }

    pub(crate) fn observe(&mut self, id: &NodeId) {
        let verdict = self.checks.observe(id, &self.nodes);
        self.must(verdict);
        // Who holds a lease could serve a read by it at this moment.
        for node in self.nodes.values() {
            let verdict = self.checks.leases(node.core.as_ref(), node.clock.shows(self.now));
            self.must(verdict);
        }
    }

    /// Does what a core wants done until it wants nothing more.
    pub(crate) fn act(&mut self, id: &NodeId) {
        self.node_mut(id).clock.turn = None;
        let now = self.clock(id);
        for turn in 0.. {
            self.must(if turn < 10_000 { Ok(()) } else { Err(format!("{id} is never done")) });
            let Some(core) = &mut self.node_mut(id).core else { return };
            let ready = core.ready(now);
            let idle = ready == Ready::default();
            self.observe(id);
            self.carry_out(id, ready);
            let disk_moved = !self.node(id).disk.held && self.sync(id, usize::MAX) > 0;
            let machine_free = !self.node(id).machine.held;
            let machine_moved = machine_free && (self.apply(id, usize::MAX) || self.restore(id));
            if idle && !disk_moved && !machine_moved {
                return;
            }
        }
    }

    fn carry_out(&mut self, id: &NodeId, ready: Ready) {
        for transition in &ready.transitions {
            self.note(|| format!("{id} {}", Shown(transition)));
        }
        let node = self.node_mut(id);
        let commit = node.core.as_ref().map_or(Index::ZERO, RaftCore::commit);
        if mem::replace(&mut node.told, commit) < commit {
            self.note(|| format!("{id} commits {commit}"));
        }
        if let Some(last) = ready.compact {
            self.note(|| format!("{id} forgets the log up to {last}"));
            self.node_mut(id).disk.pending.push_back(Operation::Compact(last));
        }
        if let Some(write) = ready.write {
            self.note(|| format!("{id} writes {}", Shown(&write)));
            self.node_mut(id).disk.pending.push_back(Operation::Write(write));
        }
        let disk = &mut self.node_mut(id).disk;
        if disk.failed {
            disk.pending.clear();
        }
        for envelope in ready.send {
            self.send(envelope);
        }
        for need in &ready.snapshots {
            self.note(|| format!("{id} needs a snapshot for {} from {}", need.to, need.from));
        }
        if let Some(fetch) = ready.fetch {
            self.note(|| format!("{id} wants the snapshot {} of {}", fetch.last, fetch.leader));
            self.node_mut(id).fetch = Some(fetch);
        }
        self.hand_over(id, &ready.apply);
        for outcome in ready.reads {
            self.answer(id, outcome);
        }
    }

    fn send(&mut self, envelope: Envelope) {
        let verdict = self.nodes.get(&envelope.from).map_or(Ok(()), |sender| self.checks.sends(&envelope, sender));
        self.must(verdict);
        let cut = self.cuts.contains(&(envelope.from, envelope.to));
        self.note(|| format!("{}{}", Shown(&envelope), if cut { "  (lost)" } else { "" }));
        if !cut {
            self.wire.push_back(envelope);
        }
    }

    fn hand_over(&mut self, id: &NodeId, entries: &[Entry]) {
        for entry in entries {
            let node = self.node(id);
            let verdict = self.checks.applies(id, node.machine.handed, entry, node);
            self.must(verdict);
            self.node_mut(id).machine.handed = entry.index;
        }
    }

    fn answer(&mut self, id: &NodeId, outcome: ReadOutcome) {
        self.note(|| format!("{id} {}", Shown(&outcome)));
        let verdict = self.checks.answers(*id, outcome.read, outcome.outcome.ok());
        self.must(verdict);
    }

    /// Makes up to `count` pending operations durable and reports them. Gives how many there were.
    pub(crate) fn sync(&mut self, id: &NodeId, count: usize) -> usize {
        let mut done = 0;
        while done < count {
            let Some(completed) = self.node_mut(id).disk.sync() else { break };
            let input = self.must(completed);
            done += 1;
            self.report(id, input);
        }
        done
    }

    /// Tells the core what its disk has done.
    pub(crate) fn report(&mut self, id: &NodeId, input: Input) {
        // A silenced core takes no reports.
        let _ = self.step(id, input);
    }

    /// The machine applies up to `count` of what it was handed. True if there was any.
    pub(crate) fn apply(&mut self, id: &NodeId, count: usize) -> bool {
        let machine = &mut self.node_mut(id).machine;
        let before = machine.applied;
        let index = Index(machine.handed.0.min(before.0.saturating_add(count as u64)));
        machine.applied = index;
        if index == before {
            return false;
        }
        self.note(|| {
            format!(
                "{id} applies {}",
                if index == before.next() { format!("{index}") } else { format!("{}..{index}", before.next()) }
            )
        });
        let _ = self.step(id, Input::Applied { index });
        true
    }

    /// Asks for a read; gives why it was turned down at once.
    pub(crate) fn read(&mut self, id: &NodeId, read: ReadId, lease: bool) -> Result<(), Rejected> {
        self.checks.asks(*id, read);
        let answer = self.step(id, Input::Read { read, lease });
        if let Err(rejected) = answer {
            let verdict = self.checks.answers(*id, read, None);
            self.must(verdict);
            return Err(rejected);
        }
        Ok(())
    }

    /// Hands the message at this place on the wire to whom it is for.
    pub(crate) fn deliver(&mut self, place: usize) {
        if let Some(envelope) = self.wire.remove(place) {
            self.receive(envelope);
        }
    }

    /// A message arrives, unless the link was cut while it was on its way or nobody is there.
    pub(crate) fn receive(&mut self, envelope: Envelope) {
        let to = envelope.to;
        let cut = self.cuts.contains(&(envelope.from, to));
        if !cut && self.nodes.contains_key(&to) {
            let _ = self.step(&to, Input::Receive(envelope));
        }
    }

    /// Delivers everything, and what comes of it, until nothing is on its way.
    pub(crate) fn deliver_all(&mut self) {
        let mut left = 20_000;
        while !self.wire.is_empty() {
            self.deliver(0);
            left -= 1;
            self.must(if left > 0 { Ok(()) } else { Err("messages go round for ever") });
        }
    }

    /// Takes a snapshot of what the machine has applied.
    pub(crate) fn snapshot(&mut self, id: &NodeId, upto: Index) {
        if let Some(last) = self.write_snapshot(id, upto) {
            let _ = self.step(id, Input::SnapshotTaken { last });
        }
    }

    /// A snapshot of the machine becomes durable, and the core is not told yet.
    pub(crate) fn write_snapshot(&mut self, id: &NodeId, upto: Index) -> Option<EntryId> {
        let core = self.node(id).core.as_ref()?;
        let index = upto.min(core.applied());
        let last = core.entry(index).map(Entry::id)?;
        let membership = Arc::clone(core.membership_at(index));
        let verdict = self.checks.covers(last, &membership);
        self.must(verdict);
        self.node_mut(id).disk.keep(last, membership);
        Some(last)
    }

    /// The node fetches the snapshot that it was offered; when that is durable the machine is to be restored from it. False
    /// if there was nothing to fetch.
    pub(crate) fn fetch(&mut self, id: &NodeId) -> bool {
        let Some(fetch) = self.node(id).fetch.filter(|f| !self.cuts.contains(&(f.leader, *id))) else { return false };
        self.node_mut(id).fetch = None;
        let Some(source) = self.nodes.get(&fetch.leader) else { return false };
        // The leader serves the newest one that it has.
        let (last, membership) = (source.disk.snapshot, Arc::clone(&source.disk.membership));
        if last.index < fetch.last.index {
            return false;
        }
        let verdict = self.checks.covers(last, &membership);
        self.must(verdict);
        self.arrive(id, last, membership);
        true
    }

    /// A snapshot is here, whole and durable.
    pub(crate) fn arrive(&mut self, id: &NodeId, last: EntryId, membership: Arc<Membership>) {
        let node = self.node_mut(id);
        node.disk.keep(last, Arc::clone(&membership));
        node.fetched = Some((last, membership));
        self.act(id);
    }

    /// The machine is restored from the snapshot that arrived, unless it is past it already. False if none did.
    pub(crate) fn restore(&mut self, id: &NodeId) -> bool {
        let node = self.node_mut(id);
        let Some((last, membership)) = node.fetched.take() else { return false };
        node.machine.handed = node.machine.handed.max(last.index);
        node.machine.applied = node.machine.applied.max(last.index);
        let _ = self.step(id, Input::SnapshotInstalled { last, membership });
        true
    }

    /// Lets time pass: messages take a while, timers strike, snapshots are fetched.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            for _ in 0..self.wire.len() {
                self.deliver(0);
            }
            for id in self.ids() {
                self.fetch(&id);
                self.fire(&id);
            }
            let quiet = self.wire.is_empty();
            let next = self.next_timer();
            self.now = if quiet { next.max(self.now + HOP).min(end) } else { self.now + HOP };
        }
    }

    /// Lets a timer strike if it is due.
    pub(crate) fn fire(&mut self, id: &NodeId) {
        if self.node(id).core.as_ref().is_some_and(|core| core.deadline() <= self.clock(id)) {
            let _ = self.step(id, Input::Timeout);
            let waits = self.node(id).core.as_ref().is_none_or(|core| core.deadline() > self.clock(id));
            // Before its turn is over a leader that it has heard may be news to its timer.
            let waits = waits || self.node(id).gathering;
            self.must(if waits { Ok(()) } else { Err(format!("{id} wants to be woken at once, for ever")) });
        }
    }

    /// The only leader, if there is one that is not deposed.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.cores().filter(|core| core.is_leader()).max_by_key(|core| core.term()).map(RaftCore::id)
    }
}
