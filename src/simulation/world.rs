//! The world: its time, what is going to happen in it, its nodes and what is between them.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use graft_domain::{Instant, Membership, NodeId};
use graft_services::Event;
use graft_services::ports::PeerMessage;

use crate::checks::Checks;
use crate::clients::Client;
use crate::coverage::Coverage;
use crate::dice::Dice;
use crate::history::{History, Verdict};
use crate::mix::{Fault, Mix};
use crate::network::Network;
use crate::node::Node;
use crate::release::Releases;
use crate::trace::Trace;

/// Lines of the story that are kept.
const STORY_LINES: usize = 400;
/// More happenings than this in one world, and it turns in circles.
const HAPPENINGS_MAX: u64 = 6_000_000;

/// Something that will happen. What is about one run of a node names that run.
#[derive(Debug)]
pub(crate) enum Happening {
    Turn(NodeId, u64),
    Wake(NodeId, u64),
    Deliver(NodeId, NodeId, Box<PeerMessage>),
    Stored(NodeId, u64),
    Worked(NodeId, u64),
    SnapshotWritten(NodeId, u64),
    Fetch(NodeId, u64),
    Probe(Box<Probe>),
    Start(NodeId),
    Links,
    Call,
    Fault,
    /// A misfortune that lasts is over.
    Mend(NodeId, NodeId),
    DiskMends(NodeId),
    ForgetsEarly,
    /// There is a newer version of the program.
    Publish,
    /// A node gets a version.
    Release(NodeId, u8),
}

/// A node wants to know who answers at an address.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) by: NodeId,
    pub(crate) run: u64,
    pub(crate) id: NodeId,
    pub(crate) address: String,
}

/// When it happens, and which of those of one moment comes first. The earliest is the greatest, as a heap wants it.
#[derive(Debug)]
struct Due {
    at: Instant,
    order: u64,
    happening: Box<Happening>,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Due {}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) mix: Mix,
    pub(crate) dice: Dice,
    pub(crate) now: Instant,
    agenda: BinaryHeap<Due>,
    order: u64,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) network: Network,
    pub(crate) checks: Checks,
    pub(crate) history: History,
    pub(crate) clients: Vec<Client>,
    pub(crate) requests: u64,
    pub(crate) releases: Releases,
    pub(crate) coverage: Coverage,
    /// All is well from now on.
    pub(crate) healed: bool,
    pub(crate) broken: Option<String>,
    pub(crate) story: Option<VecDeque<String>>,
    /// What happens, for the specification.
    pub(crate) trace: Option<Trace>,
    pub(crate) hash: u64,
    pub(crate) happenings: u64,
    /// Disks that are gone for good.
    pub(crate) lost: BTreeSet<NodeId>,
}

pub(crate) fn id_of(n: usize) -> NodeId {
    #[expect(clippy::expect_used, reason = "a letter and a number are a good id")]
    NodeId::new(&format!("n{n}")).expect("a good id") // a letter and a number
}

pub(crate) fn address_of(id: NodeId) -> String {
    format!("{id}.example:7001")
}

impl World {
    pub(crate) fn new(seed: u64, mix: Mix, mut dice: Dice, told: bool) -> Self {
        let ids: Vec<(NodeId, String)> = (1..=mix.members).map(|n| (id_of(n), address_of(id_of(n)))).collect();
        let membership = Arc::new(Membership::founding(ids.iter().map(|(id, address)| (*id, address.as_str()))));
        let mut nodes = BTreeMap::new();
        for n in 1..=mix.members {
            nodes.insert(id_of(n), Node::new(id_of(n), Arc::clone(&membership), &mix, &mut dice));
        }
        let mut world = Self {
            clients: (0..4).map(|_| Client::default()).collect(),
            mix,
            dice,
            now: Instant(0),
            agenda: BinaryHeap::new(),
            order: 0,
            nodes,
            network: Network::default(),
            checks: Checks::default(),
            history: History::default(),
            requests: 0,
            releases: Releases::default(),
            coverage: Coverage::default(),
            healed: false,
            broken: None,
            story: told.then(VecDeque::new),
            trace: None,
            hash: seed,
            happenings: 0,
            lost: BTreeSet::new(),
        };
        for id in world.ids() {
            let after = world.dice.micros(0, 50_000);
            world.later(after, Happening::Start(id));
        }
        world.later(Duration::from_millis(60), Happening::Links);
        world.later(Duration::from_millis(300), Happening::Call);
        let first = world.dice.micros(300_000, 2_000_000);
        world.later(first, Happening::Fault);
        if world.mix.faults.contains(&Fault::Amnesia) {
            let early = world.dice.micros(200_000, 1_000_000);
            world.later(early, Happening::ForgetsEarly);
        }
        if world.mix.faults.contains(&Fault::Release) {
            let first = world.dice.micros(500_000, 12_000_000);
            world.later(first, Happening::Publish);
        }
        world
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn any(&mut self) -> NodeId {
        let ids = self.ids();
        self.dice.one_of(&ids)
    }

    pub(crate) fn is_up(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.running.is_some())
    }

    /// Who leads the newest term.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        let cores = self.nodes.values().filter_map(|node| Some(node.running.as_ref()?.replica.core()));
        cores.filter(|core| core.is_leader()).max_by_key(|core| core.term()).map(graft_domain::RaftCore::id)
    }

    pub(crate) fn later(&mut self, after: Duration, happening: Happening) {
        self.at(self.now + after, happening);
    }

    pub(crate) fn at(&mut self, at: Instant, happening: Happening) {
        self.order += 1;
        self.agenda.push(Due { at: at.max(self.now), order: self.order, happening: Box::new(happening) });
    }

    /// What this node sent, or was sent, and has not arrived never does.
    pub(crate) fn nothing_comes_from_or_to(&mut self, id: NodeId) {
        let is_its = |due: &Due| matches!(&*due.happening, Happening::Deliver(from, to, _) if *from == id || *to == id);
        self.agenda.retain(|due| !is_its(due));
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        let now = self.now.0 / 1_000;
        if let Some(story) = &mut self.story {
            if story.len() == STORY_LINES {
                story.pop_front();
            }
            story.push_back(format!("{:>6}.{:03} ms  {}", now / 1_000, now % 1_000, line()));
        }
    }

    /// The world ends if something does not hold.
    pub(crate) fn must(&mut self, verdict: Verdict) {
        if let Err(why) = verdict {
            self.broken.get_or_insert(why);
        }
    }

    /// Takes a number into the transcript's hash.
    pub(crate) fn mark(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    /// Lets happen what is due until then, or until something is broken.
    pub(crate) fn run_until(&mut self, end: Instant) {
        while self.broken.is_none() {
            if self.agenda.peek().is_none_or(|due| due.at > end) {
                break;
            }
            let Some(Due { at, happening, .. }) = self.agenda.pop() else { break };
            self.now = at;
            self.happenings += 1;
            if self.happenings > HAPPENINGS_MAX {
                self.must(Err("the world turns in circles: too much happens in too little time".to_owned()));
            }
            self.mark(at.0);
            self.happens(*happening);
        }
        self.now = self.now.max(end);
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Turn(id, run) if self.is_run(id, run) => self.turn(id),
            Happening::Wake(id, run) if self.is_run(id, run) => self.wake(id),
            Happening::Deliver(from, to, message) => self.deliver(from, to, *message),
            Happening::Stored(id, run) if self.is_run(id, run) => self.stored(id),
            Happening::Worked(id, run) if self.is_run(id, run) => self.worked(id),
            Happening::SnapshotWritten(id, run) if self.is_run(id, run) => self.snapshot_written(id),
            Happening::Fetch(id, generation) => self.fetch_on(id, generation),
            Happening::Probe(probe) if self.is_run(probe.by, probe.run) => self.probe(*probe),
            Happening::Start(id) => self.start(id),
            Happening::Links => self.mind_links(),
            Happening::Call => self.call(),
            Happening::Fault => self.fault(),
            Happening::Mend(from, to) => self.mend(from, to),
            Happening::DiskMends(id) => self.disk_mends(id),
            Happening::ForgetsEarly => self.forgets_early(),
            Happening::Publish => self.publishes(),
            Happening::Release(id, version) => self.released(id, version),
            _ => {}
        }
    }

    fn is_run(&self, id: NodeId, run: u64) -> bool {
        self.nodes.get(&id).and_then(|node| node.running.as_ref()).is_some_and(|running| running.run == run)
    }

    /// Something reaches a node, if it is there.
    pub(crate) fn tell(&mut self, id: NodeId, event: Event) {
        let now = self.now;
        let Some(running) = self.nodes.get_mut(&id).and_then(|node| node.running.as_mut()) else { return };
        running.inbox.push_back(event);
        let run = running.run;
        if !running.turn_is_due {
            running.turn_is_due = true;
            self.at(now, Happening::Turn(id, run));
        }
    }
}
