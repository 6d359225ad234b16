//! One node: what is on its machine, and what runs there. A turn is as in the runtime's engine: some of what waits, then the
//! timer, then all effects.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use graft_domain::{
    ClusterId, Config, Incarnation, Index, Instant, Membership, NodeId, Payload, RaftCore, Recovered, Transition, Write,
};
use graft_services::applier::Applier;
use graft_services::ports::{Opened, PeerMessage, SnapshotFiles, StoreError};
use graft_services::{Clock, Effect, Event, Replica, ReplicaConfig};
use graft_store::{Founding, Snapshots, StoreConfig, Wal, open_in};

use crate::dice::Dice;
use crate::disk::{Disk, Stop};
use crate::fetching::Transfer;
use crate::ledger::Ledger;
use crate::machine::{MachineJob, Work};
use crate::mix::Mix;
use crate::pace::Pace;
use crate::shadow::Shadow;
use crate::storage::{SnapshotJob, StoreJob};
use crate::world::{Happening, Probe, World, address_of};

/// A log and snapshots, and what they hold.
type Store = (Wal<Disk>, Arc<Snapshots<Disk>>, Opened);

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are what goes wrong with it, each for itself")]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) core: Config,
    pub(crate) config: ReplicaConfig,
    pub(crate) founding: Founding,
    pub(crate) store: StoreConfig,
    pub(crate) disk: Disk,
    /// None while it is down.
    pub(crate) running: Option<Running>,
    pub(crate) runs: u64,
    pub(crate) pace: Pace,
    /// What its wall clock is ahead.
    pub(crate) wall: u64,
    /// It has read its clock and does nothing until then.
    pub(crate) pause: Option<(Instant, Instant)>,
    pub(crate) links: BTreeSet<NodeId>,
    pub(crate) shadow: Shadow,
    /// What was being written when it went down.
    pub(crate) in_flight: Vec<Write>,
    /// Its disk was told to fail in this run.
    pub(crate) faulted: bool,
    /// Bits of it were flipped.
    pub(crate) damaged: bool,
    pub(crate) hangs_until: Instant,
    pub(crate) slow_until: Instant,
    pub(crate) halts: bool,
    pub(crate) snapshot_fails: bool,
    /// Its process ends after so many more effects.
    pub(crate) ends_after: Option<u64>,
    /// It was told to stop.
    pub(crate) stopping: bool,
    pub(crate) transfer: Option<Transfer>,
    pub(crate) transfers: u64,
}

/// A process.
pub(crate) struct Running {
    pub(crate) run: u64,
    pub(crate) replica: Replica,
    pub(crate) wal: Wal<Disk>,
    pub(crate) snapshots: Arc<Snapshots<Disk>>,
    pub(crate) applier: Applier,
    pub(crate) ledger: Ledger,
    pub(crate) work: Work,
    pub(crate) inbox: VecDeque<Event>,
    pub(crate) turn_is_due: bool,
    pub(crate) wake_at: Instant,
    pub(crate) store_jobs: VecDeque<StoreJob>,
    /// What the disk is at.
    pub(crate) storing: Vec<StoreJob>,
    pub(crate) store_failed: bool,
    pub(crate) machine_jobs: VecDeque<MachineJob>,
    pub(crate) working: bool,
    pub(crate) snapshot_jobs: VecDeque<SnapshotJob>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("run", &self.run).finish_non_exhaustive()
    }
}

impl Node {
    pub(crate) fn new(id: NodeId, membership: Arc<Membership>, mix: &Mix, dice: &mut Dice) -> Self {
        let mint = Incarnation(dice.draw().max(1));
        let mut core = Config {
            incarnation: mint,
            election_timeout: mix.election_timeout,
            heartbeat: mix.heartbeat,
            storage_timeout: mix.election_timeout * 5,
            tail_bytes: mix.tail_bytes,
            log_bytes_max: 200_000,
            held_bytes_max: 4_000,
            ..Config::new(id, ClusterId(u128::from(dice.draw()) << 64 | 1), dice.draw())
        };
        let mut config = ReplicaConfig {
            session: 0,
            command_bytes_max: 1 << 20,
            inflight_max: 65_536,
            inflight_bytes_max: 256 << 20,
            retry: core.heartbeat / 2,
            read_retry: core.election_timeout,
            election_timeout: core.election_timeout,
            address: address_of(id),
            incarnation: mint,
            session_ttl: mix.session_ttl,
            snapshot_every_bytes: 64 << 20,
            snapshot_every_entries: mix.snapshot_every_entries,
        };
        if mix.tight {
            (core.append_bytes_max, core.inflight_messages_max, core.apply_bytes_max) = (300, 2, 300);
            (core.uncommitted_bytes_max, core.reads_max) = (600, 4);
            (config.inflight_max, config.inflight_bytes_max) = (12, 400);
        }
        let store = StoreConfig {
            segment_bytes: mix.segment_bytes,
            preallocate_bytes: dice.one_of(&[64, 512, 4_096]),
            spares_max: dice.size(3),
        };
        let promise = core.election_timeout;
        Self {
            id,
            core,
            config,
            founding: Founding { id, membership, mint, promise },
            store,
            disk: Disk::default(),
            running: None,
            runs: 0,
            pace: Pace::new(dice.below(1 << 30)),
            wall: dice.below(1 << 40),
            pause: None,
            links: BTreeSet::new(),
            shadow: Shadow::default(),
            in_flight: Vec::new(),
            faulted: false,
            damaged: false,
            hangs_until: Instant(0),
            slow_until: Instant(0),
            halts: false,
            snapshot_fails: false,
            ends_after: None,
            stopping: false,
            transfer: None,
            transfers: 0,
        }
    }

    /// Opens what is on the disk. A recovery leaves nothing to do for the next: opened `again`, as it is in any case if
    /// something was repaired, with nothing done in between, all is the same and nothing torn. Answers whether it is.
    fn open(&self, again: bool) -> (Result<Store, StoreError>, bool) {
        let open = || open_in(self.disk.clone(), Path::new("data"), &self.founding, self.store);
        let opened = open();
        self.disk.faults(|faults| faults.power_off_in = None);
        match opened {
            Ok((wal, snapshots, first)) if again || !first.notes.is_empty() => {
                drop((wal, snapshots));
                let second = open();
                let is_same = second.as_ref().is_ok_and(|(_, _, second)| {
                    second.notes.is_empty()
                        && (&second.recovered, second.identity) == (&first.recovered, first.identity)
                });
                // What was cut is told once.
                let told =
                    second.map(|(wal, snapshots, second)| (wal, snapshots, Opened { notes: first.notes, ..second }));
                (told, is_same)
            }
            once => (once, true),
        }
    }

    pub(crate) fn clock(&self, now: Instant) -> Clock {
        Clock { now: self.pace.shows(now), wall: now.0 + self.wall }
    }
}

impl World {
    /// A machine comes up and its node with it, from what is on its disk.
    pub(crate) fn start(&mut self, id: NodeId) {
        if self.is_up(id) || self.lost.contains(&id) {
            return;
        }
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let cut_again = (!self.healed && self.dice.chance(120)).then(|| self.dice.below(12));
        let again = cut_again.is_none() && self.dice.chance(200);
        node.faulted = false;
        node.disk.faults(|faults| {
            (faults.change_fails, faults.sync_fails, faults.power_off_in) = (false, false, cut_again);
        });
        let (opened, is_settled) = node.open(again);
        self.coverage.saw_times("a recovery is opened again", u64::from(again));
        if !is_settled {
            self.must(Err(format!(
                "{id} recovers, and what is opened once more is not the same, or to be repaired again"
            )));
            return;
        }
        match opened {
            Ok((wal, snapshots, opened)) => {
                if let Err(why) = self.begin(id, wal, snapshots, &opened) {
                    let damaged = self.nodes[&id].damaged;
                    self.must(if damaged { Ok(()) } else { Err(format!("{id} does not start: {why}")) });
                    self.refused(id, &why);
                }
            }
            Err(StoreError::Corrupt { file, offset, what }) if node.damaged => {
                self.refused(id, &format!("{file} at {offset}: {what}"));
            }
            Err(error) => {
                let excused = cut_again.is_some() || matches!(error, StoreError::Full { .. } | StoreError::Io { .. });
                let fatal = !excused || (self.healed && !matches!(error, StoreError::Full { .. }));
                self.note(|| format!("{id} does not start: {error}"));
                self.must(if fatal { Err(format!("{id} does not start: {error}")) } else { Ok(()) });
                let Some(node) = self.nodes.get_mut(&id) else { return };
                node.disk.stop(Stop::Torn, &mut self.dice);
                self.coverage.saw("recovery crashed half way");
                let after = self.dice.micros(10_000, 400_000);
                self.later(after, Happening::Start(id));
            }
        }
    }

    /// What is on its disk is not what it was, and the node says so: it is replaced, never repaired.
    fn refused(&mut self, id: NodeId, why: &str) {
        self.coverage.saw("a damaged disk is refused");
        self.note(|| format!("{id} refuses its disk for good: {why}"));
        self.lost.insert(id);
    }

    /// Whether what the store acknowledged is there again. Otherwise the world has ended.
    fn is_held_to_its_word(&mut self, id: NodeId, opened: &Opened) -> bool {
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        let found = node.shadow.is_found_again(&node.in_flight, opened);
        let tails = opened.notes.iter().filter(|note| note.contains("torn") || note.contains("cut")).count();
        self.coverage.saw_times("recovery cut a torn tail", tails as u64);
        match found {
            Ok(unreported) => {
                node.shadow = Shadow::of(opened);
                node.in_flight.clear();
                self.coverage.saw_times("recovery found a write that was never reported", u64::from(unreported));
                true
            }
            Err(why) => {
                self.must(Err(format!("{id}: what its store had acknowledged is not there any more: {why}")));
                false
            }
        }
    }

    fn begin(
        &mut self,
        id: NodeId,
        wal: Wal<Disk>,
        snapshots: Arc<Snapshots<Disk>>,
        opened: &Opened,
    ) -> Result<(), String> {
        let (session, now) = (self.dice.draw().max(1), self.now);
        if !self.is_held_to_its_word(id, opened) {
            return Ok(());
        }
        let ledger = Ledger::default();
        let mut applier = Applier::new(Box::new(ledger.clone()));
        let upto = self.restore_at_start(id, &mut applier, &ledger, &snapshots, opened)?;
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        node.runs += 1;
        let run = node.runs;
        node.core.seed = session;
        node.core.incarnation = opened.identity.incarnation;
        node.config.session = session;
        let bytes = snapshots.newest().map_or(0, |(_, bytes)| bytes);
        let restored = opened.snapshot.clone().map(|meta| (meta, bytes));
        let clock = node.clock(now);
        let recovered = Recovered { applied: upto, ..opened.recovered.clone() };
        let replica =
            Replica::new(node.config.clone(), RaftCore::new(node.core.clone(), recovered, clock.now), clock, restored);
        let mut store_jobs = VecDeque::new();
        let cluster = replica.core().cluster();
        if opened.identity.cluster == ClusterId::UNKNOWN && cluster != ClusterId::UNKNOWN {
            store_jobs.push_back(StoreJob::Cluster(cluster));
        }
        self.checks.restarted(replica.core());
        node.running = Some(Running {
            run,
            replica,
            wal,
            snapshots,
            applier,
            ledger,
            work: Work { restored: upto, applied: upto, halted: None },
            inbox: VecDeque::new(),
            turn_is_due: true,
            wake_at: Instant::NEVER,
            store_jobs,
            storing: Vec::new(),
            store_failed: false,
            machine_jobs: VecDeque::new(),
            working: false,
            snapshot_jobs: VecDeque::new(),
        });
        self.note(|| {
            format!(
                "{id} starts: its log ends with {}, its snapshot with {}",
                wal_end(opened),
                opened.recovered.snapshot
            )
        });
        self.mind_store(id);
        self.turn(id);
        Ok(())
    }

    /// A machine begins with the newest snapshot. Answers up to where that goes.
    fn restore_at_start(
        &mut self,
        id: NodeId,
        applier: &mut Applier,
        ledger: &Ledger,
        snapshots: &Snapshots<Disk>,
        opened: &Opened,
    ) -> Result<Index, String> {
        let Some(meta) = &opened.snapshot else { return Ok(Index::ZERO) };
        let (_, file) = snapshots.read(meta.last).map_err(|error| error.to_string())?;
        applier.restore(file, Index::ZERO)?;
        self.coverage.saw("a machine is restored at a start");
        let (command, digest) = ledger.end();
        let verdict = self.history.agrees(id, command, digest);
        self.must(verdict);
        Ok(meta.last.index)
    }

    /// A node goes down.
    pub(crate) fn crash(&mut self, id: NodeId, stop: Stop) {
        if !self.is_up(id) {
            return;
        }
        self.note(|| format!("{id} goes down ({stop:?})"));
        self.break_off(id);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.running = None;
        (node.pause, node.transfer) = (None, None);
        node.links.clear();
        (node.halts, node.snapshot_fails, node.stopping, node.ends_after) = (false, false, false, None);
        (node.hangs_until, node.slow_until) = (Instant(0), Instant(0));
        node.disk.stop(stop, &mut self.dice);
        self.history.crashed(id);
        for other in self.ids() {
            self.disconnect(other, id);
        }
    }

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
        for event in running.inbox.drain(..count.min(running.inbox.len())) {
            running.replica.handle(begun, event);
        }
        if running.replica.deadline() <= begun.now {
            running.replica.handle(begun, Event::Timeout);
        }
        let effects = running.replica.effects(clock);
        if !running.inbox.is_empty() {
            running.turn_is_due = true;
            let run = running.run;
            self.at(now + Duration::from_micros(5), Happening::Turn(id, run));
        }
        // First: one of the effects may be the end of the node.
        self.look_at(id);
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

fn wal_end(opened: &Opened) -> String {
    let recovered = &opened.recovered;
    let kind = |payload: &Payload| if matches!(payload, Payload::Membership(_)) { " (a membership)" } else { "" };
    recovered
        .entries
        .last()
        .map_or_else(|| recovered.snapshot.to_string(), |e| format!("{}{}", e.id(), kind(&e.payload)))
}
