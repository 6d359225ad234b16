//! One node: what is on its machine, and what runs there.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use graft_domain::{ClusterId, Config, Incarnation, Index, Instant, Membership, NodeId, Write};
use graft_services::applier::Applier;
use graft_services::ports::{Opened, StoreError};
use graft_services::{Clock, Event, Replica, ReplicaConfig};
use graft_store::{Founding, Snapshots, StoreConfig, Wal, open_in};

use crate::dice::Dice;
use crate::disk::Disk;
use crate::fetching::Transfer;
use crate::kept::Kept;
use crate::ledger::Ledger;
use crate::machine::{MachineJob, Work};
use crate::mix::Mix;
use crate::pace::Pace;
use crate::shadow::Shadow;
use crate::storage::{SnapshotJob, StoreJob};
use crate::world::address_of;

/// A log and snapshots, and what they hold.
pub(crate) type Store = (Wal<Disk>, Arc<Snapshots<Disk>>, Opened);

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are what goes wrong with it, each for itself")]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) core: Config,
    pub(crate) config: ReplicaConfig,
    pub(crate) founding: Founding,
    pub(crate) store: StoreConfig,
    pub(crate) disk: Disk,
    /// What its machine keeps on a disk of its own.
    pub(crate) kept: Option<Kept>,
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
    /// What its store had acknowledged before its disk was wiped, until it has got the log again.
    pub(crate) forgotten: Option<Shadow>,
    /// What was being written when it went down.
    pub(crate) in_flight: Vec<Write>,
    /// The last write of an earlier run that was found again although nobody had heard of it.
    pub(crate) unreported: u64,
    /// Its disk was told to fail in this run.
    pub(crate) faulted: bool,
    /// Bits of it were flipped.
    pub(crate) damaged: bool,
    /// The version of the code that it is started with.
    pub(crate) code: u8,
    /// The version that it ran last.
    pub(crate) ran: u8,
    /// The command at which its machine halted, as its code did not know it.
    pub(crate) stopped_at: Option<Index>,
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
    /// Its replica was told that the machine halted.
    pub(crate) heard_halt: bool,
    /// Since when it leads all the same.
    pub(crate) unfit_since: Option<Instant>,
    pub(crate) turn_is_due: bool,
    pub(crate) wake_at: Instant,
    pub(crate) store_jobs: VecDeque<StoreJob>,
    /// What the disk is at.
    pub(crate) storing: Vec<StoreJob>,
    /// When it will be done with that.
    pub(crate) storing_until: Instant,
    pub(crate) store_failed: bool,
    pub(crate) machine_jobs: VecDeque<MachineJob>,
    /// When the machine will be done with what it is at.
    pub(crate) working: Option<Instant>,
    pub(crate) snapshot_jobs: VecDeque<SnapshotJob>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("run", &self.run).finish_non_exhaustive()
    }
}

/// With what is not drawn as the product has it, but for limits that have to be met.
fn core(id: NodeId, incarnation: Incarnation, mix: &Mix, dice: &mut Dice) -> Config {
    Config {
        incarnation,
        election_timeout: mix.election_timeout,
        heartbeat: mix.heartbeat,
        commit_delay: mix.heartbeat * mix.commit_delay / 16,
        storage_timeout: mix.election_timeout * 5,
        tail_bytes: mix.tail_bytes,
        log_bytes_max: 200_000,
        held_bytes_max: 4_000,
        ..Config::new(id, ClusterId(u128::from(dice.draw()) << 64 | 1), dice.draw())
    }
}

impl Node {
    pub(crate) fn new(id: NodeId, membership: Arc<Membership>, mix: &Mix, dice: &mut Dice) -> Self {
        let mint = Incarnation(dice.draw().max(1));
        let mut core = core(id, mint, mix, dice);
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
            kept: dice.chance(mix.keeps).then(|| Kept::new(dice)),
            running: None,
            runs: 0,
            pace: Pace::new(dice.below(1 << 30)),
            wall: dice.below(1 << 40),
            pause: None,
            links: BTreeSet::new(),
            shadow: Shadow::default(),
            forgotten: None,
            in_flight: Vec::new(),
            unreported: 0,
            faulted: false,
            damaged: false,
            code: 0,
            ran: 0,
            stopped_at: None,
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
    pub(crate) fn open(&self, again: bool) -> (Result<Store, StoreError>, bool) {
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
