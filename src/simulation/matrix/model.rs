//! What a store should hold, and what is done to it.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{
    ClusterId, Entry, EntryId, Incarnation, Index, Membership, NodeId, Payload, Recovered, Term, Write,
};
use graft_services::ports::{LogStore, Opened, SnapshotError, SnapshotFiles, StoreError, WriteSnapshot};
use graft_services::snapshot_meta::SnapshotMeta;
use graft_store::{Founding, Snapshots, StoreConfig, Wal, open_in};

use super::disk::Disk;
use super::image::Image;

pub(super) const DIRECTORY: &str = "data";
/// Bytes of a machine's state in a snapshot.
const STATE_BYTES: usize = 100;
/// How long a run promises a leader its vote.
const PROMISE: Duration = Duration::from_millis(300);

pub(super) fn node(name: &str) -> NodeId {
    #[expect(clippy::expect_used, reason = "the names are written down in this directory, and are short ASCII")]
    NodeId::new(name).expect("a good id") // they are short, and ASCII
}

pub(super) fn founders() -> Membership {
    Membership::founding(["n1", "n2", "n3"].map(|id| (node(id), "127.0.0.1:7001")))
}

pub(super) fn founding() -> Founding {
    Founding { id: node("n1"), membership: Arc::new(founders()), mint: Incarnation(11), promise: PROMISE }
}

/// What a snapshot says of itself: every other one has another member.
pub(super) fn meta(last: EntryId) -> SnapshotMeta {
    let fourth = last.index.0.is_multiple_of(2).then(|| (node("n4"), "127.0.0.1:7004"));
    let three = ["n1", "n2", "n3"].map(|id| (node(id), "127.0.0.1:7001"));
    let membership = Arc::new(Membership::founding(three.into_iter().chain(fourth)));
    SnapshotMeta { last, command: last.index, time: 7, membership }
}

/// The state of a machine at `last`, the same on every member.
fn state_bytes(last: EntryId) -> Vec<u8> {
    format!("the state at {last}; ").into_bytes().into_iter().cycle().take(STATE_BYTES).collect()
}

fn state_of(last: EntryId) -> WriteSnapshot {
    Box::new(move |out| out.write_all(&state_bytes(last)).map_err(|error| error.to_string()))
}

/// The file of a snapshot, as another member has it.
pub(super) fn snapshot_file(last: EntryId) -> Result<Bytes, StoreError> {
    let disk = Disk::on(Image::empty());
    let (mut store, _) = Store::open(&disk, StoreConfig { preallocate_bytes: 512, ..StoreConfig::default() })?;
    store.run(&Step::Write(last))?;
    let image = disk.image();
    let file =
        image.files().find(|(name, ..)| name.contains("/snapshot-")).map(|(.., bytes)| Bytes::from(bytes.to_vec()));
    file.ok_or(StoreError::Poisoned)
}

/// Everything that must survive.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Model {
    pub(super) term: Term,
    pub(super) vote: Option<NodeId>,
    pub(super) commit: Index,
    pub(super) base: EntryId,
    pub(super) entries: Vec<Entry>,
    pub(super) cluster: ClusterId,
    /// The newest one; the log may not be cut behind it yet.
    pub(super) snapshot: EntryId,
    pub(super) promise: Duration,
}

/// What is done to a store.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Persist(Vec<Write>),
    Cluster(u128),
    Promise(Duration),
    /// A snapshot of this node's own machine.
    Write(EntryId),
    /// Another member's, taken in piece by piece.
    Accept(EntryId, Bytes),
    /// The log, behind the snapshot.
    Cut(EntryId),
    /// The process ends and another begins.
    Reopen,
}

/// An open store.
#[derive(Debug)]
pub(super) struct Store {
    wal: Wal<Disk>,
    snapshots: Arc<Snapshots<Disk>>,
}

impl Store {
    pub(super) fn open(disk: &Disk, config: StoreConfig) -> Result<(Self, Opened), StoreError> {
        let (wal, snapshots, opened) = open_in(disk.clone(), Path::new(DIRECTORY), &founding(), config)?;
        Ok((Self { wal, snapshots }, opened))
    }

    /// [`Step::Reopen`] is not for an open store.
    pub(super) fn run(&mut self, step: &Step) -> Result<(), StoreError> {
        match step {
            Step::Persist(writes) => self.wal.persist(writes),
            Step::Cluster(cluster) => self.wal.record_cluster(ClusterId(*cluster)),
            Step::Promise(promise) => self.wal.keep_promise(*promise),
            Step::Write(last) => {
                let written = self.snapshots.write(&meta(*last), state_of(*last));
                written.map(drop).map_err(|error| match error {
                    SnapshotError::Store(error) => error,
                    SnapshotError::Machine(_) => StoreError::Poisoned,
                })
            }
            Step::Accept(last, file) => {
                let mut from = self.snapshots.begin(*last, file.len() as u64)?;
                let rest = usize::try_from(from).ok().and_then(|from| file.get(from..)).unwrap_or_default();
                for piece in rest.chunks(100) {
                    self.snapshots.take(*last, from, piece)?;
                    from += piece.len() as u64;
                }
                self.snapshots.accept(*last).map(drop)
            }
            Step::Cut(covered) => self.wal.compact(*covered),
            Step::Reopen => Ok(()),
        }
    }

    /// Whether the snapshot that the log begins after is there and whole; why not, if it is not.
    pub(super) fn check_snapshot(&self, opened: &Opened) -> Result<(), Unfit> {
        let newest = self.snapshots.newest().map(|(last, _)| last);
        let known = opened.snapshot.as_ref().map(|meta| meta.last);
        if newest.unwrap_or(EntryId::ZERO) != opened.recovered.snapshot || newest != known {
            let what =
                format!("the newest snapshot is {newest:?} and {known:?}, the log's {}", opened.recovered.snapshot);
            return Err(Unfit::Wrong(what));
        }
        let Some(last) = newest else { return Ok(()) };
        let (found, mut reader) = self.snapshots.read(last).map_err(Unfit::Refused)?;
        let mut state = Vec::new();
        if let Err(error) = reader.read_to_end(&mut state) {
            return Err(match error.downcast::<StoreError>() {
                Ok(error) => Unfit::Refused(error),
                Err(error) => Unfit::Wrong(error.to_string()),
            });
        }
        let same = state == state_bytes(last) && opened.snapshot.as_ref() == Some(&found);
        if same { Ok(()) } else { Err(Unfit::Wrong(format!("the snapshot of {last} has another state"))) }
    }
}

/// Why a snapshot is not as it should be.
#[derive(Debug)]
pub(super) enum Unfit {
    Refused(StoreError),
    Wrong(String),
}

impl Model {
    /// Of a new store.
    pub(super) fn founded() -> Self {
        Self { promise: PROMISE, ..Self::default() }
    }

    pub(super) fn after(&self, step: &Step) -> Self {
        let mut next = self.clone();
        match step {
            Step::Persist(writes) => writes.iter().for_each(|write| next.write(write)),
            Step::Cut(covered) if covered.index > next.base.index => {
                let kept = next.entries.iter().any(|entry| entry.id() == *covered);
                next.entries.retain(|entry| kept && entry.index > covered.index);
                next.base = *covered;
            }
            Step::Cut(_) => {}
            // One that failed late may be there all the same, and no older one counts beside it.
            Step::Write(last) | Step::Accept(last, _) if last.index < next.snapshot.index => {}
            Step::Write(last) | Step::Accept(last, _) => next.snapshot = *last,
            Step::Cluster(cluster) => next.cluster = ClusterId(*cluster),
            Step::Promise(promise) => next.promise = *promise,
            Step::Reopen => next = next.reopened(),
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

    /// What it is once it is opened again: cut behind the newest snapshot.
    pub(super) fn reopened(&self) -> Self {
        let cut = self.after(&Step::Cut(self.snapshot));
        Self { promise: cut.promise.max(PROMISE), ..cut }
    }

    pub(super) fn last(&self) -> EntryId {
        self.entries.last().map_or(self.base, Entry::id)
    }

    /// As recovery shows it: neither the commit index nor the term is less than the snapshot's.
    pub(super) fn shown(&self) -> Self {
        let cut = Self { promise: self.promise, ..self.reopened() };
        let vote = cut.vote.filter(|_| cut.term >= cut.base.term);
        let commit = cut.commit.max(cut.base.index);
        Self { term: cut.term.max(cut.base.term), vote, commit, ..cut }
    }

    /// Whether this, which was shown by [`Model::shown`], is what was found.
    pub(super) fn is(&self, opened: &Opened) -> bool {
        let Recovered { term, vote, snapshot, membership, entries, commit, applied, promised } = &opened.recovered;
        let newest = opened.snapshot.as_ref();
        let in_force = newest.map_or_else(|| **membership == founders(), |meta| meta.membership == *membership);
        (self.term, self.vote, self.commit, self.base) == (*term, *vote, *commit, *snapshot)
            && self.entries == *entries
            && self.cluster == opened.identity.cluster
            && self.promise == *promised
            && self.snapshot == newest.map_or(EntryId::ZERO, |meta| meta.last)
            && in_force
            && *applied == Index::ZERO
    }
}

pub(super) fn command(term: u64, index: u64, bytes: usize) -> Entry {
    // No two entries have the same bytes.
    let body = format!("{term}/{index} ").into_bytes().into_iter().cycle().take(bytes).collect::<Vec<u8>>();
    Entry { index: Index(index), term: Term(term), payload: Payload::Command(Bytes::from(body)) }
}

/// Entries `first..=last` of `term`, of 40 bytes each.
pub(super) fn commands(term: u64, first: u64, last: u64) -> Vec<Entry> {
    (first..=last).map(|index| command(term, index, 40)).collect()
}

pub(super) fn noop(term: u64, index: u64) -> Entry {
    Entry { index: Index(index), term: Term(term), payload: Payload::Noop }
}

pub(super) fn member(term: u64, index: u64) -> Entry {
    Entry {
        index: Index(index),
        term: Term(term),
        payload: Payload::Membership(meta(EntryId::new(term, index)).membership),
    }
}

pub(super) fn write(term: u64, vote: Option<&str>, entries: Vec<Entry>, commit: u64) -> Write {
    Write { seq: 0, term: Term(term), vote: vote.map(node), entries, commit: Index(commit) }
}
