//! The log against a disk in memory that tears, lies and fills up; `os` has the real one.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use graft_domain::{
    ClusterId, Entry, EntryId, Incarnation, Index, Membership, NodeId, Payload, Recovered, Term, Write,
};
use graft_services::ports::{LogStore, Opened, StoreError};

use super::{Founding, StoreConfig, Wal, open_in};
use disk::Disk;

mod basics;
mod crash;
mod damage;
mod disk;
mod faults;
mod os;
mod refusals;
mod state;

/// Segments that are full after a few batches.
const SMALL: StoreConfig = StoreConfig { segment_bytes: 4096 + 640, preallocate_bytes: 512, spares_max: 1 };

fn node(name: &str) -> NodeId {
    NodeId::new(name).expect("a good id")
}

fn membership() -> Arc<Membership> {
    Arc::new(Membership::founding(["n1", "n2", "n3"].map(|id| (node(id), "127.0.0.1:7001"))))
}

fn founding() -> Founding {
    Founding { id: node("n1"), membership: membership(), mint: Incarnation(11) }
}

fn open(disk: &Disk) -> Result<(Wal<Disk>, Opened), StoreError> {
    open_in(disk.clone(), Path::new("data"), &founding(), SMALL)
}

fn open_well(disk: &Disk) -> (Wal<Disk>, Opened) {
    open(disk).unwrap_or_else(|error| panic!("opening failed: {error}"))
}

/// Where the next batch goes in the segment that grows.
fn position(wal: &Wal<impl super::Files>) -> usize {
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
}

/// What is done to a log.
#[derive(Clone, Debug)]
enum Step {
    Persist(Vec<Write>),
    Compact(EntryId),
    Cluster(u128),
}

impl Step {
    fn run(&self, wal: &mut Wal<Disk>) -> Result<(), StoreError> {
        match self {
            Self::Persist(writes) => wal.persist(writes),
            Self::Compact(covered) => wal.compact(*covered),
            Self::Cluster(cluster) => wal.record_cluster(ClusterId(*cluster)),
        }
    }
}

impl Model {
    fn after(&self, step: &Step) -> Self {
        let mut next = self.clone();
        match step {
            Step::Persist(writes) => writes.iter().for_each(|write| next.write(write)),
            Step::Compact(covered) if covered.index > next.base.index => {
                let kept = next.entries.iter().any(|entry| entry.id() == *covered);
                next.entries.retain(|entry| kept && entry.index > covered.index);
                next.base = *covered;
            }
            Step::Compact(_) => {}
            Step::Cluster(cluster) => next.cluster = ClusterId(*cluster),
        }
        next
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
        Self { term: *term, vote: *vote, commit: *commit, base: *snapshot, entries: entries.clone(), cluster }
    }

    /// As recovery shows it: the commit index is no more than the log.
    fn shown(&self) -> Self {
        let last = self.entries.last().map_or(self.base.index, |entry| entry.index);
        Self { commit: self.commit.min(last).max(self.base.index), ..self.clone() }
    }
}

/// Runs all steps on a new log and answers what it then holds.
fn run_all(wal: &mut Wal<Disk>, steps: &[Step]) -> Model {
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
