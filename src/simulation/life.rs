//! How a node comes up, from what is on its disk, and goes down.

use std::collections::VecDeque;
use std::sync::Arc;

use graft_domain::{ClusterId, Index, Instant, NodeId, Payload, RaftCore, Recovered};
use graft_services::applier::Applier;
use graft_services::commands::{self, Logged};
use graft_services::ports::{Opened, SnapshotFiles, StoreError};
use graft_services::{Committed, Replica};
use graft_store::{Snapshots, Wal};

use crate::disk::{Disk, Stop};
use crate::ledger::Ledger;
use crate::machine::Work;
use crate::node::Running;
use crate::release::reads;
use crate::shadow::Shadow;
use crate::storage::StoreJob;
use crate::world::{Happening, World};

impl World {
    /// A machine comes up and its node with it, from what is on its disk.
    pub(crate) fn start(&mut self, id: NodeId) {
        if self.is_up(id) || self.lost.contains(&id) {
            return;
        }
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let cut_again = (!self.healed && self.dice.chance(120)).then(|| self.dice.below(12));
        let again = cut_again.is_none() && self.dice.chance(200);
        if node.code < self.releases.newest && !self.healed && self.dice.chance(200) {
            node.code = self.releases.newest;
        }
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
                if let Err(why) = self.begin(id, wal, Arc::clone(&snapshots), &opened)
                    && !self.is_too_old(id, &snapshots, &opened, &why)
                {
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
                node.unreported = node.in_flight.last().filter(|_| unreported).map_or(0, |write| write.seq);
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
        let Some(node) = self.nodes.get(&id) else { return Ok(()) };
        let ledger = Ledger::new(node.kept.clone(), node.code);
        let mut applier = Applier::new(Box::new(ledger.clone()));
        let upto = self.restore_at_start(id, &mut applier, &ledger, &snapshots, opened)?;
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        node.runs += 1;
        self.coverage.saw_times("a replica was rolled back", u64::from(node.code < node.ran));
        node.ran = node.code;
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
        if let Some(trace) = &mut self.trace {
            trace.restarted(id, replica.core(), node.unreported);
        }
        node.running = Some(Running {
            run,
            replica,
            wal,
            snapshots,
            applier,
            ledger,
            work: Work { restored: upto, applied: upto, halted: None },
            inbox: VecDeque::new(),
            heard_halt: false,
            unfit_since: None,
            turn_is_due: true,
            wake_at: Instant::NEVER,
            store_jobs,
            storing: Vec::new(),
            storing_until: Instant(0),
            store_failed: false,
            machine_jobs: VecDeque::new(),
            working: None,
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

    /// A machine begins with the newest snapshot, or with what it kept itself, if that is newer, as in the runtime. Answers up
    /// to where that goes.
    fn restore_at_start(
        &mut self,
        id: NodeId,
        applier: &mut Applier,
        ledger: &Ledger,
        snapshots: &Snapshots<Disk>,
        opened: &Opened,
    ) -> Result<Index, String> {
        let has = applier.machine().open("").map_err(|halt| halt.why)?;
        let last = opened.recovered.entries.last().map_or(opened.recovered.snapshot.index, |entry| entry.index);
        if has > last {
            return Err(format!("its machine has applied {has}, and its log ends with {last}"));
        }
        let mut covered = Index::ZERO;
        if let Some(meta) = &opened.snapshot {
            covered = meta.last.index;
            let (_, file) = snapshots.read(meta.last).map_err(|error| error.to_string())?;
            applier.restore(reads(ledger.code, file)?, has)?;
            self.coverage.saw("a machine is restored at a start");
            let is_behind = has != Index::ZERO && has < meta.command;
            self.coverage.saw_times("a machine keeps what is behind its snapshot", u64::from(is_behind));
        }
        let behind = commands_between(&opened.recovered, covered, has)?;
        applier.replay(&behind);
        if has > covered {
            self.coverage.saw("a machine goes on with what it kept");
            self.note(|| format!("the machine of {id} goes on with what it kept upto {has}"));
        }
        let (command, digest) = ledger.end();
        let verdict = self.history.agrees(id, command, digest);
        self.must(verdict);
        self.passes(id, covered);
        if let Some(stopped) = self.nodes.get(&id).and_then(|node| node.stopped_at).filter(|stopped| has >= *stopped) {
            self.must(Err(format!("{id} halted at {stopped}, and its machine has kept what is up to {has}")));
        }
        Ok(has.max(covered))
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
        let forgets = node.kept.as_ref().is_some_and(|kept| kept.stop(stop, &mut self.dice));
        self.coverage.saw_times("a machine loses what it had not synced", u64::from(forgets));
        self.history.crashed(id);
        for other in self.ids() {
            self.disconnect(other, id);
        }
    }
}

/// The commands behind `covered` up to and with `has`.
fn commands_between(recovered: &Recovered, covered: Index, has: Index) -> Result<Vec<Committed>, String> {
    let mut found = Vec::new();
    for entry in recovered.entries.iter().filter(|entry| entry.index > covered && entry.index <= has) {
        let Payload::Command(command) = &entry.payload else { continue };
        let Logged { time, act, .. } = commands::decode(command).map_err(|why| format!("{}: {why}", entry.id()))?;
        found.push(Committed { index: entry.index, term: entry.term, time, act });
    }
    Ok(found)
}

fn wal_end(opened: &Opened) -> String {
    let recovered = &opened.recovered;
    let kind = |payload: &Payload| if matches!(payload, Payload::Membership(_)) { " (a membership)" } else { "" };
    recovered
        .entries
        .last()
        .map_or_else(|| recovered.snapshot.to_string(), |e| format!("{}{}", e.id(), kind(&e.payload)))
}
