//! What happens in a world, as a behaviour that `spec/TraceGraft.tla` holds against the specification: what every core was told,
//! what it said, and what could be seen of it then.
//!
//! Nothing here decides what may happen. That a line says so little (who was told what) is on purpose: the specification has to
//! come to the same messages, writes and states by itself.

mod turn;
mod words;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use graft_domain::{EntryId, Instant, NodeId, RaftCore};
use graft_services::Event;

use crate::dice::Dice;
use crate::mix::{Fault, Mix};
use crate::world::World;
pub(crate) use turn::{Turn, handle};
use words::Commands;

/// A message that was heard so often in a row, while nothing else happened to who hears it, is nothing new.
const HEARD_MAX: u32 = 3;

/// Where a snapshot on a disk comes from. Of one that is found at a start, just after a crash, it is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    Made,
    Fetched,
    Unknown,
}

/// A behaviour, line by line.
#[derive(Debug)]
pub(crate) struct Trace {
    lines: Vec<String>,
    /// No turn begins after so many lines.
    lines_max: usize,
    founding: String,
    members: BTreeMap<NodeId, Traced>,
    commands: Commands,
    sent: BTreeSet<String>,
}

/// What is known of one node.
#[derive(Debug, Default)]
struct Traced {
    seen: String,
    /// Steps since the last write was handed out that changed what has to be written: in the specification each is a write.
    steps: usize,
    /// Writes on their way, with how many of the specification's each is.
    flights: VecDeque<(u64, usize)>,
    /// The disk has done all up to this one.
    stored: u64,
    snapshot: EntryId,
    /// What it last heard from each, how often in a row.
    heard: BTreeMap<NodeId, (String, u32)>,
}

impl Traced {
    /// How many of the specification's writes are durable with this one.
    fn done(&mut self, seq: u64) -> usize {
        let mut count = 0;
        while let Some((_, steps)) = self.flights.pop_front_if(|(flight, _)| *flight <= seq) {
            count += steps;
        }
        count
    }
}

impl Trace {
    pub(crate) fn new(lines_max: usize, founding: &graft_domain::Membership) -> Self {
        Self {
            lines: Vec::new(),
            lines_max,
            founding: words::membership(founding),
            // Who never comes up is asked for votes all the same.
            members: founding.members.keys().map(|id| (*id, Traced::default())).collect(),
            commands: Commands::default(),
            sent: BTreeSet::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.lines.len() >= self.lines_max
    }

    fn line(&mut self, event: &str, id: NodeId, more: &str) {
        let more = if more.is_empty() { String::new() } else { format!(", {more}") };
        self.lines.push(format!("[event |-> \"{event}\", node |-> \"{id}\"{more}]"));
    }

    fn look(&mut self, id: NodeId, core: &RaftCore) {
        let seen = words::look(core);
        let member = self.members.entry(id).or_default();
        if member.seen != seen {
            member.seen.clone_from(&seen);
            member.heard.clear();
            self.line("look", id, &seen);
        }
    }

    /// Its disk has done everything up to this write. Nobody has heard of it yet.
    pub(crate) fn stored(&mut self, id: NodeId, seq: u64) {
        self.members.entry(id).or_default().stored = seq;
    }

    /// A process begins. Its disk had the writes up to `unreported` too, if it had any that nobody heard of.
    pub(crate) fn restarted(&mut self, id: NodeId, core: &RaftCore, unreported: u64) {
        if self.is_full() {
            return;
        }
        self.has_snapshot(id, core.snapshot(), Origin::Unknown);
        let member = self.members.entry(id).or_default();
        let done = member.done(member.stored.max(unreported));
        let snapshot = member.snapshot;
        *member = Traced { snapshot, ..Traced::default() };
        self.line("restart", id, &format!("done |-> {done}, commit |-> {}", core.commit()));
        self.look(id, core);
    }

    /// A snapshot is durable.
    pub(crate) fn has_snapshot(&mut self, id: NodeId, last: EntryId, origin: Origin) {
        let member = self.members.entry(id).or_default();
        if self.lines.len() >= self.lines_max || last.index <= member.snapshot.index {
            return;
        }
        member.snapshot = last;
        let event = match origin {
            Origin::Made => "snapshot",
            Origin::Fetched => "fetch",
            Origin::Unknown => "found",
        };
        self.line(event, id, &format!("last |-> [term |-> {}, index |-> {}]", last.term, last.index));
    }

    /// A turn of a node begins; none if nothing more is to be written down.
    pub(crate) fn turn(&self, id: NodeId, core: &RaftCore) -> Option<Turn> {
        (!self.is_full()).then(|| Turn::new(id, core))
    }

    /// Whether there is anything new in hearing this.
    fn is_news(&mut self, id: NodeId, from: NodeId, message: &str) -> bool {
        let heard = self.members.entry(id).or_default().heard.entry(from).or_default();
        if heard.0 == message {
            heard.1 += 1;
        } else {
            *heard = (message.to_owned(), 1);
        }
        heard.1 <= HEARD_MAX
    }

    /// As a module, with how many lines it has, and of which events.
    fn module(&self, name: &str) -> (String, usize, BTreeMap<String, usize>) {
        let servers: Vec<NodeId> = self.members.keys().copied().collect();
        let mut events = BTreeMap::new();
        for line in &self.lines {
            let event = line.split('"').nth(1).unwrap_or_default();
            *events.entry(event.to_owned()).or_default() += 1;
        }
        (words::module(name, &servers, &self.founding, &self.lines), self.lines.len(), events)
    }
}

/// A behaviour of the cluster in one world.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Behaviour {
    /// A module for `spec/TraceGraft.tla`.
    pub module: String,
    pub lines: usize,
    /// How often there is what.
    pub events: BTreeMap<String, usize>,
    /// What does not hold in the world itself, if something does not.
    pub broken: Option<String>,
}

/// What happens in the world of this seed until there are so many lines of it. Much goes wrong in it and little is asked for,
/// so that few lines tell much. None if it is too large a world, or too lonely.
///
/// Nobody's disk forgets in it, or is damaged, and there is one version: the rest is outside of what is specified.
pub fn behaviour(seed: u64, name: &str, lines_max: usize) -> Option<Behaviour> {
    let mut dice = Dice::new(seed);
    let mut mix = Mix::draw(&mut dice);
    if !(2..=5).contains(&mix.members) {
        return None;
    }
    mix.faults.retain(|fault| {
        !matches!(fault, Fault::Wipe | Fault::Amnesia | Fault::Rot | Fault::Misdirected | Fault::Release)
    });
    (mix.call_every, mix.fault_every) = (mix.call_every.max(50) * 4, mix.fault_every.min(600) / 2);
    (mix.operate, mix.tight) = (mix.operate.max(60), false);
    mix.keeps = 0;
    mix.tail_bytes = mix.tail_bytes.min(200);
    mix.snapshot_every_entries = mix.snapshot_every_entries.min(12);
    let mut world = World::new(seed, mix, dice, false);
    for node in world.nodes.values_mut() {
        node.core.held_bytes_max = 100;
    }
    let founding = world.nodes.values().next().map(|node| Arc::clone(&node.founding.membership))?;
    world.trace = Some(Trace::new(lines_max, &founding));
    let end = Instant(world.mix.horizon * 1_000_000);
    while world.now < end && world.broken.is_none() && world.trace.as_ref().is_some_and(|trace| !trace.is_full()) {
        let next = world.now + Duration::from_millis(10);
        world.run_until(next);
    }
    let (module, lines, events) = world.trace.as_ref().map(|trace| trace.module(name))?;
    Some(Behaviour { module, lines, events, broken: world.broken })
}

/// What is remembered of an event when it has been handled.
#[derive(Clone, Debug)]
enum Told {
    Message(Box<graft_domain::Envelope>),
    Persisted(u64),
    Unreachable(NodeId),
    Restored(EntryId),
    Timeout,
    Other,
}

impl Told {
    fn of(event: &Event) -> Self {
        match event {
            Event::Peer(graft_services::ports::PeerMessage::Raft(envelope)) => {
                Self::Message(Box::new(envelope.clone()))
            }
            Event::Persisted { seq } => Self::Persisted(*seq),
            Event::Unreachable(peer) => Self::Unreachable(*peer),
            Event::SnapshotRestored { last } => Self::Restored(*last),
            Event::Timeout => Self::Timeout,
            _ => Self::Other,
        }
    }
}
