//! Many small clusters and their clients under random misfortune, all checks after every step; then everything heals, and
//! everyone must be answered and served.
//!
//! `CHAOS_SEEDS=100000` runs so many, from `CHAOS_FIRST` on; `CHAOS_SEED=17` runs one and shows what went before it broke.

use std::collections::BTreeSet;
use std::time::Duration;

use graft_domain::{Config, Index, Instant, NodeId};

use super::customers::Customer;
use super::random::Random;
use super::world::{Packet, World, id};
use crate::error::{Outcome, Refusal};
use crate::{Consistency, Event, Notice, Read, ReplicaConfig, RequestId};

const SEEDS: u64 = 300;
const STEPS: u64 = 770;
/// Of log in memory, where snapshots are taken.
pub(super) const LOG_BYTES_MAX: usize = 8_000;

/// How unlucky one run is, in thousandths.
#[derive(Debug)]
pub(super) struct Luck {
    /// Messages arrive in order, once, and are lost only with their connection, as on TCP.
    pub(super) orderly: bool,
    pub(super) lost: u64,
    pub(super) twice: u64,
    pub(super) out_of_order: u64,
    pub(super) faults: u64,
    pub(super) disk_held: u64,
    pub(super) machine_held: u64,
    pub(super) calls: u64,
    pub(super) patience_ms: u64,
    /// Members come and go, and operators ask for it.
    pub(super) reshaped: u64,
    /// Snapshots are taken and sent.
    pub(super) snapshots: bool,
    /// Clocks run fast, slow, and otherwise than before.
    pub(super) clocks: u64,
    /// Processes are stopped in the middle of a turn.
    pub(super) pauses: u64,
}

pub(super) struct Chaos {
    pub(super) world: World,
    pub(super) customers: Vec<Customer>,
    /// Calls that were made again.
    pub(super) resolves: Vec<RequestId>,
    pub(super) random: Random,
    pub(super) luck: Luck,
    /// Copies of old messages that come back.
    pub(super) echoes: Vec<Packet>,
    /// Those whose directories are gone.
    pub(super) wiped: BTreeSet<NodeId>,
    /// The wiped are a majority of some half: nobody can help.
    pub(super) is_lost: bool,
}

/// That the interesting things do happen.
#[derive(Debug, Default)]
struct Seen {
    done: u64,
    refused: u64,
    unknown: u64,
    busy: u64,
    crashes: u64,
    stops: u64,
    terms: u64,
    changes: u64,
    removed: u64,
    taken: u64,
    installed: u64,
    wiped: u64,
    lost: u64,
    /// Commands that stand in the log more than once.
    repeated: u64,
    /// Calls that were made again and have their answer.
    resolved: u64,
    expired: u64,
    compared: u64,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let mut rare = |most: u64| if random.chance(300) { 0 } else { random.below(most) };
        let luck = Luck {
            lost: rare(200),
            twice: rare(300),
            out_of_order: rare(700),
            faults: 30 + rare(400),
            disk_held: rare(700),
            machine_held: rare(700),
            calls: 100 + rare(900),
            orderly: random.chance(400),
            patience_ms: random.one_of(&[50, 400, 3_000, 60_000]),
            reshaped: if random.chance(500) { 50 + random.below(500) } else { 0 },
            snapshots: random.chance(600),
            clocks: random.one_of(&[0, 50, 200]),
            pauses: random.one_of(&[0, 20, 100]),
        };
        let (tight, size) = (random.chance(400), 1 + random.size(5));
        let mut world = World::found(size, |_, core, config| {
            core.seed = random.next();
            if luck.snapshots {
                small_snapshots(&mut random, core, config);
            }
            if tight {
                (core.append_bytes_max, core.inflight_messages_max, core.apply_bytes_max) = (100, 2, 100);
                (core.uncommitted_bytes_max, core.reads_max) = (200, 2);
                (config.inflight_max, config.inflight_bytes_max) = (6, 60);
                config.command_bytes_max = random.one_of(&[8, 1024]);
            }
        });
        world.name = format!("CHAOS_SEED={seed} shows it");
        world.trace = number("CHAOS_SEED").map(|_| Vec::new());
        let (echoes, wiped, customers, resolves) = (Vec::new(), BTreeSet::new(), Vec::new(), Vec::new());
        let mut chaos = Self { world, customers, resolves, random, luck, echoes, wiped, is_lost: false };
        chaos.customers.resize_with(3, Customer::default);
        let session_ttl = Duration::from_millis(chaos.random.one_of(&[100, 3_000, 3_600_000_000, 3_600_000_000]));
        for id in chaos.world.ids() {
            let (wall, keeps, gathers) =
                (chaos.random.below(1 << 40), chaos.random.chance(500), chaos.random.chance(500));
            let node = chaos.world.node(id);
            (node.wall, node.machine.keeps, node.machine.gathers) = (wall, keeps, gathers);
            node.config.session_ttl = session_ttl;
            node.machine.snapshot_bytes = wall % 2_000;
            chaos.start(id);
        }
        chaos.world.connect_all();
        chaos
    }

    pub(super) fn start(&mut self, id: NodeId) {
        let session = self.random.next();
        self.world.start(id, session);
    }

    pub(super) fn any(&mut self) -> NodeId {
        let ids = self.world.ids();
        self.random.one_of(&ids)
    }

    fn misfortune(&mut self) {
        for _ in 0..STEPS {
            match self.random.below(11) {
                _ if self.random.chance(self.luck.pauses / 10) => self.pause(),
                0..=3 => (0..=self.random.below(6)).for_each(|_| self.network()),
                4 => self.clock(),
                5 if self.random.chance(self.luck.calls) => self.client(),
                10 if self.random.chance(350) => self.resolve(),
                10 => (0..=self.random.below(6)).for_each(|_| self.customer()),
                6 if self.random.chance(self.luck.faults) => self.fault(),
                6 if self.random.chance(self.luck.reshaped) => self.operate(),
                7 => self.disks(),
                _ => (0..3).for_each(|_| self.turn()),
            }
        }
    }

    /// A process is stopped, a leader's with a question in its inbox.
    fn pause(&mut self) {
        let leader = self.world.leader().filter(|_| self.random.chance(600));
        let milliseconds = self.random.one_of(&[30, 600, 2_000]);
        if let Some(n) = leader {
            self.world.lease_query(n, 3_000);
        }
        let id = leader.map_or_else(|| self.any(), id);
        self.world.pause(id, milliseconds);
    }

    fn turn(&mut self) {
        let (id, count) = (self.any(), self.random.size(8));
        self.world.turn(id, count);
    }

    fn network(&mut self) {
        if self.random.chance(300) {
            self.world.fetch();
            self.world.probe();
        }
        let waiting = self.world.wire.len();
        if waiting == 0 {
            return;
        }
        if self.luck.orderly {
            // Any link may be the next, but each keeps its order.
            let place = self.random.size(waiting);
            let link = |packet: &Packet| (packet.from, packet.to);
            let of = link(&self.world.wire[place]);
            let first = self.world.wire.iter().position(|packet| link(packet) == of).unwrap_or(place);
            return self.world.deliver(first);
        }
        let place = if self.random.chance(self.luck.out_of_order) { self.random.size(waiting.min(30)) } else { 0 };
        if self.random.chance(self.luck.lost) {
            if let Some(packet) = self.world.wire.remove(place) {
                self.world.lost(&packet);
            }
            return;
        }
        if self.random.chance(self.luck.twice) {
            let packet = self.world.wire[place].clone();
            self.echoes.push(packet);
        }
        self.world.deliver(place);
        if !self.echoes.is_empty() && self.random.chance(self.luck.twice) {
            let place = self.random.size(self.echoes.len());
            let packet = self.echoes.swap_remove(place);
            self.world.wire.push_back(packet);
        }
    }

    fn clock(&mut self) {
        self.world.now = self.world.now + Duration::from_micros(self.random.below(90_000));
        for id in self.world.ids() {
            // Some are slow to notice.
            if self.random.chance(800) {
                let count = self.random.size(20);
                self.world.turn(id, count);
            }
        }
        if self.random.chance(self.luck.clocks) {
            // No two differ by more than a tenth.
            let (id, rate) = (self.any(), self.random.one_of(&[957, 1_000, 1_052]));
            self.world.set_pace(id, rate);
        }
        if self.random.chance(100) {
            // Somebody sets the clock, forwards or back.
            let (id, wall) = (self.any(), self.random.below(1 << 40));
            self.world.node(id).wall = wall;
        }
    }

    fn client(&mut self) {
        let size = self.world.nodes.len();
        for _ in 0..=self.random.below(4) {
            let n = 1 + self.random.size(size);
            if !self.world.is_up(id(n)) {
                continue;
            }
            let patience = self.random.below(self.luck.patience_ms);
            let body = format!("c{}", self.world.requests);
            let long = format!("{body} is longer than some nodes take");
            match self.random.below(20) {
                0 => self.world.execute(n, &long, patience),
                1..=12 => self.world.execute(n, &body, patience),
                13..=16 => self.world.query(n, patience),
                17 => self.world.verify(n, patience),
                _ => self.read(n, patience),
            };
        }
    }

    /// A query of any kind, which may want to see what was seen before, or what is not there yet.
    fn read(&mut self, n: usize, patience: u64) -> RequestId {
        let max_age = self.random.one_of(&[0, 10, 100, 1_000, 100_000]);
        let consistency = match self.random.below(6) {
            0 => Consistency::Linearizable,
            1 | 2 => Consistency::Lease,
            3 => Consistency::Stale { max_age: None },
            _ => Consistency::Stale { max_age: Some(Duration::from_millis(max_age)) },
        };
        let seen = self.world.history.seen;
        let at_least = match self.random.below(8) {
            0..=4 => Index::ZERO,
            5 => seen,
            6 => Index(seen.0 + self.random.below(5)),
            _ => Index(u64::MAX - self.random.below(2)),
        };
        self.world.read(n, Read { consistency, at_least }, patience)
    }

    fn disks(&mut self) {
        let id = self.any();
        let (disk_held, machine_held) =
            (self.random.chance(self.luck.disk_held), self.random.chance(self.luck.machine_held));
        let (syncs, jobs) = (self.random.size(4), self.random.below(4));
        if !disk_held {
            self.world.sync(id, syncs);
        }
        if !machine_held {
            for _ in 0..jobs {
                self.world.work(id);
            }
            if self.random.chance(400) {
                self.world.write_snapshot(id);
            }
        }
    }

    fn fault(&mut self) {
        let (id, other) = (self.any(), self.any());
        if !self.world.is_up(id) {
            return self.begin(id);
        }
        match self.random.below(24) {
            0..=2 => {
                let kept = self.random.size(3);
                if self.random.chance(500) {
                    // The snapshot was durable, and nobody heard of it.
                    self.world.write_snapshot(id);
                }
                self.world.crash(id, kept);
            }
            3 => self.world.node(id).disk.full = true,
            4 | 5 => self.world.node(id).disk.full = false,
            6 => {
                let disk = &mut self.world.node(id).disk;
                disk.failed = true;
                disk.pending.clear();
                self.world.inbox(id, Event::StorageFailed("told to fail".to_owned()));
            }
            7 => self.world.node(id).machine.halts = true,
            8 => {
                let deadline = self.world.clock(id).now + Duration::from_millis(self.random.below(1_000));
                self.world.inbox(id, Event::Stop { deadline });
            }
            9..=11 => self.world.disconnect(id, other),
            12..=14 => self.world.connect(id, other),
            15 => drop(self.world.cuts.insert((id, other))),
            16 => {
                for other in self.world.ids() {
                    self.world.cuts.extend([(id, other), (other, id)]);
                }
            }
            17..=20 => self.misfortune_of_snapshots(id),
            _ => self.world.mend(),
        }
    }

    fn seen(&self, total: &mut Seen) {
        for asked in self.world.history.asked.values() {
            match &asked.answer {
                Some(Outcome::Done { .. }) => total.done += 1,
                Some(Outcome::Refused(Refusal::Busy(_))) => total.busy += 1,
                Some(Outcome::Refused(Refusal::SessionExpired)) => total.expired += 1,
                Some(Outcome::Refused(_)) => total.refused += 1,
                Some(Outcome::Unknown { .. }) => total.unknown += 1,
                Some(Outcome::Compared { .. }) => total.compared += 1,
                None => total.crashes += 1,
            }
        }
        total.terms += self.world.nodes.values().map(|node| node.disk.term.0).max().unwrap_or(0);
        total.stops += self.world.stops;
        total.changes += self.world.history.memberships.len() as u64;
        total.removed += self.world.history.memberships.values().last().map_or(0, |m| m.removed.len() as u64);
        total.wiped += self.wiped.len() as u64;
        total.lost += u64::from(self.is_lost);
        total.repeated += self.world.history.repeated();
        let answer = |request: &&RequestId| matches!(self.world.answer(**request), Some(Outcome::Done { .. }));
        total.resolved += self.resolves.iter().filter(answer).count() as u64;
        for (_, notice) in &self.world.notices {
            match notice {
                Notice::Snapshot { phase: "written", .. } => total.taken += 1,
                Notice::Snapshot { phase: "installed", .. } => total.installed += 1,
                _ => {}
            }
        }
    }
}

/// Snapshots are due after a few dozen entries, and few are kept beside them.
fn small_snapshots(random: &mut Random, core: &mut Config, config: &mut ReplicaConfig) {
    config.snapshot_every_entries = random.one_of(&[5, 20, 1_000_000]);
    config.snapshot_every_bytes = random.one_of(&[300, 1_000, 3_000]);
    core.log_bytes_max = LOG_BYTES_MAX;
    core.tail_bytes = random.one_of(&[0, 200, 1_000]);
    core.held_bytes_max = random.one_of(&[0, 500, 2_000]);
}

/// Says which run it was when the code under test itself panics.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("broken: CHAOS_SEED={} shows it", self.0);
        }
    }
}

fn run(seed: u64) -> Chaos {
    let _named = Named(seed);
    let mut chaos = Chaos::new(seed);
    chaos.misfortune();
    chaos.heal();
    let verdict = chaos.liveness();
    chaos.world.must(verdict);
    chaos
}

#[expect(clippy::disallowed_methods, reason = "whoever runs the test chooses the seeds")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_call_has_one_true_answer_whatever_happens() {
    let (first, count) = match number("CHAOS_SEED") {
        Some(seed) => (seed, 1),
        None => (number("CHAOS_FIRST").unwrap_or(0), number("CHAOS_SEEDS").unwrap_or(SEEDS)),
    };
    let mut total = Seen::default();
    for seed in first..first + count {
        run(seed).seen(&mut total);
    }
    println!("{count} runs: {total:?}");
    let Seen { done, refused, unknown, busy, crashes, terms, changes, taken, .. } = total;
    let Seen { repeated, resolved, expired, compared, .. } = total;
    let often = [done, refused, unknown, busy, crashes, terms, changes, taken].iter().all(|n| *n > count);
    let often = often && [repeated, expired, compared].iter().all(|n| *n > count);
    let sometimes = [total.installed, total.removed, total.stops, resolved].iter().all(|n| *n > count / 20);
    let happens = often && sometimes && total.lost <= count / 20;
    assert!(count < SEEDS || happens, "too little happens to mean anything");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let end = |seed| {
        let Chaos { world, .. } = run(seed);
        (world.now, format!("{:?}", world.history), world.nodes.len())
    };
    let (first, second): ((Instant, _, _), _) = (end(7), end(7));
    assert!(first == second, "luck comes from somewhere else than the seed");
}
