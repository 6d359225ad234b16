//! Many small clusters under random misfortune, all checks after every step; then everything heals and must work again.
//!
//! `CHAOS_SEEDS=100000` runs so many, from `CHAOS_FIRST` on; `CHAOS_SEED=17` runs one and shows its transcript when it breaks.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use std::{env, eprintln, println, thread};

use bytes::Bytes;

use super::cluster::World;
use super::disk::Disk;
use crate::random::Random;
use crate::{
    ClusterId, Config, Entry, EntryId, Index, Input, Instant, Membership, NodeId, Payload, RaftCore, ReadId, Target,
    Term,
};

const SEEDS: u64 = 300;
/// How long everything takes to be well again.
const HEALING: Duration = Duration::from_secs(15);
const STEPS: u64 = 800;

/// How unlucky one run is, in thousandths.
#[derive(Debug)]
pub(super) struct Luck {
    lost: u64,
    twice: u64,
    out_of_order: u64,
    crash: u64,
    cut: u64,
    disk_held: u64,
    machine_held: u64,
    gather: u64,
    propose: u64,
    snapshot: u64,
    fail: u64,
    /// Leaders go before what they append is committed (thesis figure 3.7).
    dethrone: u64,
    hang: u64,
    /// Clocks run fast, slow, and otherwise than before.
    clocks: u64,
    pub(super) churn: u64,
}

pub(super) struct Chaos {
    pub(super) world: World,
    pub(super) random: Random,
    pub(super) luck: Luck,
    reads: u64,
    proposed: u64,
    pub(super) seen: Seen,
    /// Whose machine has halted.
    unfit: BTreeSet<NodeId>,
    /// Whose disk does nothing until everything heals.
    hung: BTreeSet<NodeId>,
    /// Learners whose disk is empty: never to vote, and to be removed.
    pub(super) wiped: BTreeSet<NodeId>,
    /// What a new node is made like.
    pub(super) pattern: Config,
}

/// That the interesting things do happen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    commits: u64,
    terms: u64,
    crashes: u64,
    reads: u64,
    leased: u64,
    transfers: u64,
    installs: u64,
    pub(super) changes: u64,
    pub(super) joint: u64,
    pub(super) retired: u64,
    hung: u64,
    pub(super) wiped: u64,
    cut: u64,
    steps: u64,
}

impl Chaos {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.random.next() % end.max(1)
    }

    pub(super) fn chance(&mut self, thousandths: u64) -> bool {
        self.below(1_000) < thousandths
    }

    fn any(&mut self) -> NodeId {
        let ids = self.world.ids();
        let place = self.below(ids.len() as u64);
        ids[usize::try_from(place).expect("a small number")]
    }

    pub(super) fn some(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).expect("a small number")
    }

    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut rare = |most: u64| if random.next().is_multiple_of(3) { 0 } else { random.next() % most };
        let luck = Luck {
            lost: rare(300),
            twice: rare(200),
            out_of_order: rare(800),
            crash: rare(150),
            cut: rare(150),
            disk_held: rare(700),
            machine_held: rare(500),
            gather: rare(500),
            propose: 20 + rare(300),
            snapshot: rare(400),
            fail: rare(10),
            dethrone: rare(900),
            hang: rare(60),
            churn: rare(900),
            clocks: rare(200),
        };
        let mut world = World { name: format!("seed {seed}"), ..World::default() };
        world.recording = env::var("CHAOS_SEED").is_ok();
        let pattern = Config::new(NodeId::new("n0").expect("a good id"), ClusterId(1), seed.wrapping_mul(31));
        let mut chaos = Self {
            world,
            random,
            luck,
            reads: 0,
            proposed: 0,
            seen: Seen::default(),
            unfit: BTreeSet::new(),
            hung: BTreeSet::new(),
            wiped: BTreeSet::new(),
            pattern,
        };
        chaos.limits();
        chaos.found();
        chaos
    }

    /// Three to five members: to be founded or at work already, with a learner, or half-way through a change.
    fn found(&mut self) {
        let count = 3 + self.below(3);
        let ids: Vec<NodeId> = (1..=count).map(|n| NodeId::new(&format!("n{n}")).expect("a good id")).collect();
        let mut membership = Membership::founding(ids.iter().map(|id| (*id, "")));
        let shape = self.below(5);
        for (place, member) in membership.members.values_mut().enumerate() {
            match shape {
                1 if place == 0 => (member.voter, member.target) = (false, Target::Learner),
                2 => (member.voter, member.outgoing) = (place != 0, place + 1 != ids.len()),
                _ => {}
            }
            if shape == 2 && !member.voter {
                member.target = if ids.len() == 4 { Target::Learner } else { Target::Gone };
            }
        }
        let founded = shape != 0;
        let founding = Arc::new(membership.clone());
        membership.cluster = ClusterId(1);
        let first = Entry { index: Index(1), term: Term(1), payload: Payload::Membership(Arc::new(membership)) };
        for id in &ids {
            let mut disk = Disk { membership: Arc::clone(&founding), ..Disk::default() };
            if founded {
                (disk.entries, disk.term, disk.commit) = (vec![first.clone()], Term(1), Index(1));
            }
            self.add(*id, disk);
        }
        for id in ids {
            self.world.start(&id, true);
        }
    }

    fn limits(&mut self) {
        let (tight, short) = (self.chance(500), self.chance(300));
        let config = &mut self.pattern;
        if tight {
            (config.append_bytes_max, config.inflight_messages_max) = (100, 2);
            (config.inflight_bytes_max, config.apply_bytes_max, config.reads_max) = (200, 100, 3);
        }
        if short {
            config.log_bytes_max = 3_000;
        }
        self.pattern.append_bytes_max = if tight && self.chance(500) { 1 } else { self.pattern.append_bytes_max };
        self.pattern.tail_bytes = [0, 100, 400][self.some(3)];
        self.pattern.held_bytes_max = [0, 1_000, 100_000][self.some(3)];
    }

    /// Adds a node that has never run, with a name for the cluster and luck of its own.
    pub(super) fn add(&mut self, id: NodeId, disk: Disk) {
        let n = self.world.nodes.len() as u64 + 1;
        let seed = self.pattern.seed.wrapping_add(n);
        let config = Config { id, cluster: ClusterId(u128::from(n)), seed, ..self.pattern.clone() };
        self.world.add(config, disk);
        self.world.node_mut(&id).machine.keeps = self.chance(500);
        if self.luck.clocks > 0 {
            let (now, rate) = (self.world.now, self.rate());
            self.world.node_mut(&id).clock.set_rate(now, rate);
        }
    }

    /// No two clocks differ by more than a tenth in how fast they run.
    fn rate(&mut self) -> u64 {
        [953, 1_000, 1_048][self.some(3)]
    }

    fn misfortune(&mut self) {
        for _ in 0..STEPS {
            self.seen.steps += 1;
            match self.below(13) {
                0..=4 => (0..=self.below(4)).for_each(|_| self.network()),
                5 => self.clock(),
                6 => self.client(),
                7 => self.disks(),
                8 => self.faults(),
                9..=11 => self.churn(),
                _ => self.turns(),
            }
        }
    }

    fn network(&mut self) {
        let waiting = self.world.wire.len();
        if waiting == 0 {
            return self.clock();
        }
        let out_of_order = self.luck.out_of_order;
        let place = if self.chance(out_of_order) { self.some(waiting.min(20)) } else { 0 };
        if self.chance(self.luck.lost) {
            self.world.wire.remove(place);
            return;
        }
        if self.chance(self.luck.twice) {
            let copy = self.world.wire[place].clone();
            self.world.wire.push_back(copy);
        }
        self.world.deliver(place);
        // What nobody takes from the wire is lost in the end.
        while self.world.wire.len() > 200 {
            self.world.wire.pop_front();
        }
    }

    fn clock(&mut self) {
        let most = if self.chance(200) { 400_000 } else { 30_000 };
        self.world.now = self.world.now + Duration::from_micros(self.below(most));
        if self.chance(self.luck.clocks) {
            let (id, now, rate) = (self.any(), self.world.now, self.rate());
            self.world.node_mut(&id).clock.set_rate(now, rate);
        }
        for id in self.world.ids() {
            // Some are slow to notice.
            if self.chance(800) {
                self.world.fire(&id);
            }
        }
    }

    fn client(&mut self) {
        let id = self.any();
        let leader = self.world.leader().unwrap_or(id);
        if self.chance(self.luck.propose) {
            let count = 1 + self.below(3);
            let commands = (0..count).map(|_| {
                self.proposed += 1;
                Bytes::from(format!("c{}", self.proposed))
            });
            let commands: Vec<Bytes> = commands.collect();
            let _ = self.world.step(&leader, Input::Propose(commands));
        }
        if self.chance(200) && self.world.node(&id).core.is_some() {
            self.seen.reads += u64::from(self.read(&id));
        }
        if self.chance(20) {
            let to = if self.chance(500) { Some(id) } else { None };
            self.seen.transfers += u64::from(self.world.step(&leader, Input::TransferLeadership(to)).is_ok());
        }
    }

    fn read(&mut self, id: &NodeId) -> bool {
        self.reads += 1;
        let lease = self.chance(500);
        // On this very node, as far as it knows itself.
        let core = self.world.node(id).core.as_ref();
        let leased = lease && core.is_some_and(|core| core.holds_lease(self.world.clock(id)));
        self.seen.leased += u64::from(leased);
        self.world.read(id, ReadId(self.reads), lease).is_ok()
    }

    fn disks(&mut self) {
        let id = self.any();
        let count = self.some(3);
        if !self.hung.contains(&id) {
            let held = self.chance(self.luck.disk_held);
            self.world.node_mut(&id).disk.held = held;
            self.world.sync(&id, count);
        }
        let held = self.chance(self.luck.machine_held);
        self.world.node_mut(&id).machine.held = held;
        self.world.apply(&id, count);
        if !self.world.node(&id).gathering {
            self.world.act(&id);
        }
        if self.chance(self.luck.snapshot) {
            let back = self.below(4);
            let upto = self.world.checks.committed_last().0.saturating_sub(back);
            let id = if self.chance(700) { self.world.leader().unwrap_or(id) } else { id };
            let base = |world: &World| world.node(&id).core.as_ref().map(RaftCore::base);
            let before = base(&self.world);
            if self.chance(900) {
                self.world.snapshot(&id, Index(upto));
            } else {
                // Durable, and then the power goes or the word is late.
                self.world.write_snapshot(&id, Index(upto));
            }
            self.seen.cut += u64::from(base(&self.world) > before);
        }
        for id in self.world.ids() {
            self.fetch(id);
        }
    }

    /// Snapshots arrive late, never, or once more.
    fn fetch(&mut self, id: NodeId) {
        let wanted = self.world.node(&id).fetch;
        if self.chance(300) {
            self.seen.installs += u64::from(self.world.fetch(&id));
            if self.chance(100) && self.world.node(&id).core.is_some() {
                self.world.node_mut(&id).fetch = wanted;
            }
        } else if self.chance(50) {
            self.world.node_mut(&id).fetch = None;
        }
    }

    fn faults(&mut self) {
        let (mut id, other) = (self.any(), self.any());
        // What happens to leaders matters most.
        if self.chance(300) {
            id = self.world.leader().unwrap_or(id);
        }
        let in_doubt = |core: &RaftCore| core.is_leader() && core.commit() < core.last().index;
        if self.world.node(&id).core.as_ref().is_some_and(in_doubt) && self.chance(self.luck.dethrone) {
            self.world.sync(&id, usize::MAX);
            self.world.crash(&id, 0);
            self.seen.crashes += 1;
        } else if self.world.node(&id).core.is_none() {
            if self.chance(200) {
                let disk = &mut self.world.node_mut(&id).disk;
                (disk.failed, disk.held) = (false, false);
                self.hung.remove(&id);
                self.world.start(&id, false);
            }
        } else if self.chance(self.luck.crash) {
            let pending = self.world.node(&id).disk.pending.len();
            let kept = self.some(pending + 1);
            self.world.crash(&id, kept);
            self.seen.crashes += 1;
        } else if self.chance(self.luck.fail) {
            self.fail(id);
        } else if self.chance(self.luck.hang) {
            self.world.node_mut(&id).disk.held = true;
            self.hung.insert(id);
            self.seen.hung += 1;
        } else if self.chance(self.luck.cut) {
            self.partition(id, other);
        } else if self.chance(100) {
            self.world.cuts.clear();
        } else if self.chance(50) {
            let _ = self.world.step(&id, Input::Unreachable(other));
        } else if self.chance(20) {
            let _ = self.world.step(&id, Input::SnapshotFailed(other));
        }
    }

    /// The disk or the machine of a node is of no more use until it is started again.
    fn fail(&mut self, id: NodeId) {
        if self.chance(500) {
            let disk = &mut self.world.node_mut(&id).disk;
            disk.failed = true;
            disk.pending.clear();
            let _ = self.world.step(&id, Input::StorageFailed);
        } else {
            let _ = self.world.step(&id, Input::Unfit);
            self.unfit.insert(id);
        }
    }

    /// Cuts one way, both ways, two sides from one another, or one member from all.
    fn partition(&mut self, id: NodeId, other: NodeId) {
        match self.below(4) {
            0 => drop(self.world.cuts.insert((id, other))),
            1 => self.world.cuts.extend([(id, other), (other, id)]),
            2 => {
                let sides: Vec<(NodeId, bool)> =
                    self.world.ids().into_iter().map(|id| (id, self.chance(500))).collect();
                let across =
                    |a: &(NodeId, bool)| sides.iter().filter(|b| b.1 != a.1).map(|b| (a.0, b.0)).collect::<Vec<_>>();
                self.world.cuts = sides.iter().flat_map(across).collect();
            }
            _ => {
                let ids = self.world.ids();
                self.world.cuts.extend(ids.iter().flat_map(|to| [(id, *to), (*to, id)]));
            }
        }
    }

    /// Whether a node's inputs gather, or each is carried out at once.
    fn turns(&mut self) {
        let id = self.any();
        let gathering = self.chance(self.luck.gather);
        if !gathering {
            self.world.node_mut(&id).gathering = false;
            self.world.act(&id);
        } else if self.world.node(&id).core.is_some() && self.chance(500) {
            self.world.begin_turn(&id);
        } else {
            self.world.node_mut(&id).gathering = self.world.node(&id).core.is_some();
        }
    }

    /// Everything works again, so everything must work: one leader, equal logs, a fresh command and fresh reads everywhere.
    fn recovery(&mut self) {
        let world = &mut self.world;
        world.note(|| "everything heals".to_string());
        world.cuts.clear();
        self.hung.clear();
        for id in world.ids() {
            let node = world.node_mut(&id);
            (node.disk.held, node.machine.held, node.gathering, node.clock.turn) = (false, false, false, None);
            // Whoever can serve no more is started again.
            if node.core.as_ref().is_some_and(|core| core.role() == "silenced") || self.unfit.remove(&id) {
                world.crash(&id, 0);
            }
            if world.node(&id).core.is_none() {
                world.node_mut(&id).disk.failed = false;
                world.start(&id, false);
            }
            world.act(&id);
        }
        world.run(HEALING);
        let leader = self.settle();
        self.everything_works(&leader);
        self.seen.commits = self.world.checks.committed_last().0;
        self.seen.terms = self.world.cores().map(|core| core.term().0).max().unwrap_or(0);
    }

    /// One leader, equal logs and memberships, a fresh command and fresh reads everywhere.
    fn everything_works(&mut self, leader: &NodeId) {
        let world = &mut self.world;
        let membership = world.node(leader).core.as_ref().map(|core| Arc::clone(core.membership())).unwrap_or_default();
        let command = vec![Bytes::from_static(b"fresh")];
        let index = world
            .step(leader, Input::Propose(command))
            .unwrap_or_else(|rejected| panic!("{}: the leader turns a command down: {rejected:?}", world.name));
        for id in membership.members.keys() {
            self.reads += 1;
            let lease = self.reads.is_multiple_of(2);
            let asked = world.read(id, ReadId(self.reads), lease).map_err(|r| format!("{id} turns a read down: {r:?}"));
            world.must(asked);
        }
        world.run(Duration::from_secs(1));
        let leaders = world.cores().filter(|core| core.is_leader()).count();
        let members: Vec<&RaftCore> = world.cores().filter(|core| membership.contains(&core.id())).collect();
        let ends: BTreeSet<EntryId> = members.iter().map(|core| core.last()).collect();
        let behind: BTreeMap<NodeId, Index> =
            members.iter().filter(|c| c.applied() < index).map(|c| (c.id(), c.applied())).collect();
        let one_membership = members.iter().all(|core| *core.membership() == membership);
        let reads = world.checks.reads_open();
        let converged = leaders == 1 && behind.is_empty() && ends.len() == 1 && one_membership && reads == 0;
        let verdict = || {
            format!(
                "not well: {leaders} leaders, {index} not applied by {behind:?}, ends {ends:?}, one membership: \
                 {one_membership}, {reads} reads open"
            )
        };
        world.must(if converged { Ok(()) } else { Err(verdict()) });
    }
}

/// Says which run it was when the core itself panics.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("broken: CHAOS_SEED={} shows it", self.0);
        }
    }
}

fn run(seed: u64) -> Chaos {
    let named = Named(seed);
    let mut chaos = Chaos::new(seed);
    chaos.misfortune();
    chaos.recovery();
    drop(named);
    chaos
}

pub(super) fn number(name: &str) -> Option<u64> {
    env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn nothing_breaks_and_everything_heals() {
    let (first, count) = match number("CHAOS_SEED") {
        Some(seed) => (seed, 1),
        None => (number("CHAOS_FIRST").unwrap_or(0), number("CHAOS_SEEDS").unwrap_or(SEEDS)),
    };
    let mut total = Seen::default();
    for seed in first..first + count {
        let seen = run(seed).seen;
        total.commits += seen.commits;
        total.terms += seen.terms;
        total.crashes += seen.crashes;
        total.reads += seen.reads;
        total.leased += seen.leased;
        total.transfers += seen.transfers;
        total.installs += seen.installs;
        total.changes += seen.changes;
        total.joint += seen.joint;
        total.retired += seen.retired;
        total.hung += seen.hung;
        total.wiped += seen.wiped;
        total.cut += seen.cut;
        total.steps += seen.steps;
    }
    println!("{count} runs: {total:?}");
    let protocol = [total.commits, total.terms, total.crashes, total.reads, total.leased, total.transfers];
    let shape = [total.installs, total.changes, total.joint, total.retired * 4, total.wiped * 4, total.cut, total.hung];
    assert!(
        count < SEEDS || protocol.iter().chain(&shape).all(|n| *n > count / 10),
        "too little happens to mean anything: {total:?}"
    );
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let ends = |seed| {
        let chaos = run(seed);
        let cores: Vec<RaftCore> = chaos.world.cores().cloned().collect();
        (cores, chaos.world.now, format!("{:?}", chaos.seen))
    };
    let (first, second): ((Vec<RaftCore>, Instant, _), _) = (ends(7), ends(7));
    assert!(first == second, "luck came from somewhere else than the seed");
}
