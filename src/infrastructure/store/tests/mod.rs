//! The log against a disk in memory that tears, lies and fills up; `os` has the real one.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{
    ClusterId, Entry, EntryId, Incarnation, Index, Membership, NodeId, Payload, Recovered, Term, Write,
};
use graft_services::ports::{LogStore, Opened, SnapshotError, SnapshotFiles, StoreError, WriteSnapshot};
use graft_services::snapshot_meta::SnapshotMeta;

use super::{Files, Founding, Snapshots, StoreConfig, Wal, open_in};
use disk::Disk;

mod basics;
mod crash;
mod damage;
mod disk;
mod faults;
mod os;
mod refusals;
mod restoring;
mod snapshot_crash;
mod snapshot_damage;
mod snapshots;
mod space;
mod state;
mod transfer;

/// Segments that are full after a few batches.
const SMALL: StoreConfig = StoreConfig { segment_bytes: 4096 + 640, preallocate_bytes: 512, spares_max: 1 };

fn node(name: &str) -> NodeId {
    NodeId::new(name).expect("a good id")
}

fn membership() -> Arc<Membership> {
    Arc::new(Membership::founding(["n1", "n2", "n3"].map(|id| (node(id), "127.0.0.1:7001"))))
}

/// How long the first run of a directory promises a leader its vote.
const PROMISE: Duration = Duration::from_millis(300);

fn founding() -> Founding {
    Founding { id: node("n1"), membership: membership(), mint: Incarnation(11), promise: PROMISE }
}

/// An open log and its snapshots.
#[derive(Debug)]
struct Store<F: Files = Disk> {
    wal: Wal<F>,
    snapshots: Arc<Snapshots<F>>,
    /// The last failure was the snapshot's.
    no_snapshot: bool,
}

impl<F: Files> Deref for Store<F> {
    type Target = Wal<F>;

    fn deref(&self) -> &Wal<F> {
        &self.wal
    }
}

impl<F: Files> DerefMut for Store<F> {
    fn deref_mut(&mut self) -> &mut Wal<F> {
        &mut self.wal
    }
}

impl<F: Files> Store<F> {
    fn new((wal, snapshots, opened): super::Store<F>) -> (Self, Opened) {
        (Self { wal, snapshots, no_snapshot: false }, opened)
    }

    /// Cuts the log as a node does: behind a snapshot.
    fn compact(&mut self, covered: EntryId) -> Result<(), StoreError> {
        if self.snapshots.newest().is_none_or(|(newest, _)| newest.index < covered.index) {
            self.write(covered)?;
        }
        self.no_snapshot = false;
        self.wal.compact(covered)
    }

    fn write(&mut self, last: EntryId) -> Result<(), StoreError> {
        self.no_snapshot = true;
        self.snapshots.write(&meta(last), state_of(last, STATE_BYTES)).map(drop).map_err(store_error)
    }

    /// Takes in another member's snapshot, in pieces.
    fn accept(&mut self, last: EntryId) -> Result<(), StoreError> {
        self.no_snapshot = true;
        let file = snapshot_file(last, STATE_BYTES);
        let mut from = self.snapshots.begin(last, file.len() as u64)?;
        for piece in file.chunks(100) {
            self.snapshots.take(last, from, piece)?;
            from += piece.len() as u64;
        }
        assert_eq!(self.snapshots.accept(last)?, meta(last));
        Ok(())
    }

    /// The machine's bytes of a snapshot, all of them.
    fn state(&self, last: EntryId) -> Vec<u8> {
        let (read, mut reader) = self.snapshots.read(last).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(read, meta(last));
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap_or_else(|error| panic!("{error}"));
        bytes
    }
}

/// Of a machine's state, when it does not matter how many.
const STATE_BYTES: usize = 100;

/// The file of a snapshot, as another member has it.
fn snapshot_file(last: EntryId, count: usize) -> Vec<u8> {
    let disk = Disk::new();
    let founding = Founding { id: node("n9"), mint: Incarnation(99), ..founding() };
    let (_wal, snapshots, _) = open_in(disk.clone(), Path::new("data"), &founding, SMALL).expect("it opens");
    snapshots.write(&meta(last), state_of(last, count)).expect("it is written");
    disk.read(&snapshot_name(last))
}

/// As the disk knows it.
fn snapshot_name(last: EntryId) -> String {
    format!("snapshots/snapshot-{:010}-{:010}", last.index.0, last.term.0)
}

fn store_error(error: SnapshotError) -> StoreError {
    match error {
        SnapshotError::Store(error) => error,
        SnapshotError::Machine(why) => panic!("no machine of a test fails unasked: {why}"),
    }
}

fn meta(last: EntryId) -> SnapshotMeta {
    SnapshotMeta { last, command: last.index, time: 7, membership: membership() }
}

/// The state of a machine at `last`: so many bytes, the same on every member.
fn state_bytes(last: EntryId, count: usize) -> Vec<u8> {
    format!("the state at {last}; ").into_bytes().into_iter().cycle().take(count).collect()
}

fn state_of(last: EntryId, count: usize) -> WriteSnapshot {
    Box::new(move |out| out.write_all(&state_bytes(last, count)).map_err(|error| error.to_string()))
}

fn open(disk: &Disk) -> Result<(Store, Opened), StoreError> {
    open_with(disk, SMALL)
}

fn open_with(disk: &Disk, config: StoreConfig) -> Result<(Store, Opened), StoreError> {
    open_in(disk.clone(), Path::new("data"), &founding(), config).map(Store::new)
}

fn open_well(disk: &Disk) -> (Store, Opened) {
    open(disk).unwrap_or_else(|error| panic!("opening failed: {error}"))
}

/// Where the next batch goes in the segment that grows.
fn position(wal: &Wal<impl Files>) -> usize {
    usize::try_from(wal.segments.active.position).expect("a small file")
}

fn command(term: u64, index: u64, bytes: usize) -> Entry {
    // No two entries of a test have the same bytes.
    let body = format!("{term}/{index} ").into_bytes().into_iter().cycle().take(bytes).collect::<Vec<u8>>();
    Entry { index: Index(index), term: Term(term), payload: Payload::Command(Bytes::from(body)) }
}

/// Entries `first..=last` of `term`, of 40 bytes each.
fn commands(term: u64, first: u64, last: u64) -> Vec<Entry> {
    (first..=last).map(|index| command(term, index, 40)).collect()
}

fn write(term: u64, vote: Option<&str>, entries: Vec<Entry>, commit: u64) -> Write {
    Write { seq: 0, term: Term(term), vote: vote.map(node), entries, commit: Index(commit) }
}

/// What a log should hold.
#[derive(Clone, PartialEq, Debug, Default)]
struct Model {
    term: Term,
    vote: Option<NodeId>,
    commit: Index,
    base: EntryId,
    entries: Vec<Entry>,
    cluster: ClusterId,
    /// The newest one, if the log is not cut behind it yet.
    snapshot: EntryId,
}

/// What is done to a log.
#[derive(Clone, Debug)]
enum Step {
    Persist(Vec<Write>),
    /// Both [`Step::Write`] and [`Step::Cut`].
    Compact(EntryId),
    Cluster(u128),
    /// A snapshot of this node's own machine.
    Write(EntryId),
    /// Another member's snapshot.
    Accept(EntryId),
    /// The log, behind a snapshot.
    Cut(EntryId),
}

impl Step {
    fn run(&self, store: &mut Store<impl Files>) -> Result<(), StoreError> {
        match self {
            Self::Persist(writes) => store.persist(writes),
            Self::Compact(covered) => store.compact(*covered),
            Self::Cluster(cluster) => store.record_cluster(ClusterId(*cluster)),
            Self::Write(last) => store.write(*last),
            Self::Accept(last) => store.accept(*last),
            Self::Cut(covered) => store.wal.compact(*covered),
        }
    }
}

impl Model {
    fn after(&self, step: &Step) -> Self {
        let mut next = self.clone();
        match step {
            Step::Persist(writes) => writes.iter().for_each(|write| next.write(write)),
            Step::Compact(covered) | Step::Cut(covered) if covered.index > next.base.index => {
                let kept = next.entries.iter().any(|entry| entry.id() == *covered);
                next.entries.retain(|entry| kept && entry.index > covered.index);
                next.base = *covered;
            }
            Step::Compact(_) | Step::Cut(_) => {}
            Step::Write(last) | Step::Accept(last) => next.snapshot = *last,
            Step::Cluster(cluster) => next.cluster = ClusterId(*cluster),
        }
        next
    }

    /// Whether it is about entries that a snapshot covers by now.
    fn is_past(&self, step: &Step) -> bool {
        let Step::Persist(writes) = step else { return false };
        writes.iter().flat_map(|write| &write.entries).any(|entry| entry.index <= self.base.index)
    }

    fn write(&mut self, write: &Write) {
        (self.term, self.vote, self.commit) = (write.term, write.vote, write.commit);
        if let Some(first) = write.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
            self.entries.extend_from_slice(&write.entries);
        }
    }

    fn of(opened: &Opened) -> Self {
        let Recovered { term, vote, snapshot, entries, commit, .. } = &opened.recovered;
        let cluster = opened.identity.cluster;
        let (base, entries) = (*snapshot, entries.clone());
        Self { term: *term, vote: *vote, commit: *commit, base, entries, cluster, snapshot: EntryId::ZERO }
    }

    /// What it is once it is opened again: cut behind the newest snapshot.
    fn reopened(&self) -> Self {
        Self { snapshot: EntryId::ZERO, ..self.after(&Step::Cut(self.snapshot)) }
    }

    /// As recovery shows it: neither the commit index nor the term is less than the snapshot's.
    fn shown(&self) -> Self {
        let cut = self.reopened();
        let vote = cut.vote.filter(|_| cut.term >= cut.base.term);
        let (term, commit) = (cut.term.max(cut.base.term), cut.commit.max(cut.base.index));
        Self { term, vote, commit, ..cut }
    }
}

/// Runs all steps on a new log and answers what it then holds.
fn run_all(wal: &mut Store, steps: &[Step]) -> Model {
    steps.iter().fold(Model::default(), |model, step| {
        step.run(wal).unwrap_or_else(|error| panic!("{step:?}: {error}"));
        model.after(step)
    })
}

/// Whatever happens to a log: votes, terms, conflicts, rolls, compaction, a snapshot from elsewhere, recycling.
fn life() -> Vec<Step> {
    let noop = |term, index| Entry { index: Index(index), term: Term(term), payload: Payload::Noop };
    let joint = Entry { index: Index(4), term: Term(1), payload: Payload::Membership(membership()) };
    let mut steps = vec![
        Step::Persist(vec![write(1, Some("n1"), vec![], 0)]),
        Step::Persist(vec![write(1, Some("n1"), vec![noop(1, 1)], 0)]),
        Step::Persist(vec![
            write(1, Some("n1"), commands(1, 2, 3), 1),
            write(1, Some("n1"), vec![joint, command(1, 5, 40)], 2),
        ]),
        Step::Cluster(77),
        Step::Persist(vec![write(2, None, vec![], 2)]),
        Step::Persist(vec![write(2, Some("n3"), vec![noop(2, 4)], 3)]),
        Step::Persist(vec![
            write(2, Some("n3"), commands(2, 5, 9), 4),
            write(4, Some("n2"), [vec![noop(4, 8)], commands(4, 9, 10)].concat(), 7),
        ]),
        Step::Persist(vec![write(4, Some("n2"), vec![command(4, 11, 1500)], 10)]),
        Step::Persist(vec![write(4, Some("n2"), commands(4, 12, 13), 11)]),
        Step::Compact(EntryId::new(2, 6)),
        Step::Persist(vec![write(4, Some("n2"), commands(4, 14, 22), 13)]),
        Step::Compact(EntryId::new(4, 13)),
        Step::Persist(vec![write(5, None, commands(5, 16, 20), 15)]),
        Step::Compact(EntryId::new(5, 20)),
        Step::Compact(EntryId::new(4, 9)),
        Step::Persist(vec![write(5, None, commands(5, 21, 24), 15)]),
        // A snapshot of what the log has otherwise, then one of what it does not have at all.
        Step::Compact(EntryId::new(6, 22)),
        Step::Persist(vec![write(6, None, commands(6, 23, 25), 22)]),
        Step::Compact(EntryId::new(7, 100)),
        Step::Persist(vec![write(7, Some("n1"), vec![], 100)]),
        Step::Persist(vec![write(7, Some("n1"), commands(7, 101, 106), 100)]),
    ];
    for first in (107..150).step_by(7) {
        steps.push(Step::Persist(vec![write(7, Some("n1"), commands(7, first, first + 6), first)]));
        steps.push(Step::Compact(EntryId::new(7, first)));
    }
    steps
}
