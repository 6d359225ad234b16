//! Recovery of a data directory: whatever its files hold, it is refused in words and left as it is, or it gives a log. That
//! log is given again at the next opening, survives being written down anew, and takes what is written behind it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{
    ClusterId, Config, Entry, EntryId, Incarnation, Index, Instant, Membership, NodeId, Payload, RaftCore, Recovered,
    Term, Write,
};
use graft_services::ports::{LogStore, Opened, SnapshotFiles, StoreError};
use graft_services::snapshot_meta::SnapshotMeta;
use graft_store::{Founding, Snapshots, StoreConfig, Wal, inspect_in, open_in};

use crate::memory::Memory;
use crate::samples::{Sample, id, membership};
use crate::script;

/// Small, so that few bytes fill a segment and leave a spare one.
const STORE: StoreConfig = StoreConfig { segment_bytes: 4096 + 256, preallocate_bytes: 128, spares_max: 1 };

type Store = (Wal<Memory>, Arc<Snapshots<Memory>>, Opened);

pub(crate) fn founding() -> Founding {
    Founding {
        id: id(1),
        membership: Arc::new(membership(3)),
        mint: Incarnation(7),
        promise: Duration::from_millis(300),
    }
}

pub(crate) fn open(files: &Memory) -> Result<Store, StoreError> {
    open_as(files, &founding())
}

pub(crate) fn open_as(files: &Memory, founding: &Founding) -> Result<Store, StoreError> {
    open_in(files.clone(), &script::directory(), founding, STORE)
}

pub(crate) fn run(bytes: &[u8]) {
    let files = script::build(bytes);
    let before = files.all();
    let inspected = inspect_in(&files.copy(), &script::directory());
    let (store, had_identity) = (open(&files), before.contains_key(&script::directory().join("identity")));
    let (mut wal, snapshots, opened) = match store {
        Ok(store) => store,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            if let StoreError::Corrupt { .. } | StoreError::NewerFormat { .. } | StoreError::WrongNode { .. } = error {
                let mut after = files.all();
                after.remove(&script::directory().join("LOCK"));
                let mut before = before;
                before.remove(&script::directory().join("LOCK"));
                assert_eq!(before, after, "refused, and changed: {error}");
            }
            return;
        }
    };
    let recovered = &opened.recovered;
    is_sound(&opened);
    if had_identity {
        let inspected = inspected.unwrap_or_else(|error| panic!("opened, and not to be looked at: {error}"));
        assert_eq!(inspected.entries, recovered.entries);
        assert_eq!(
            (inspected.term, inspected.commit),
            (recovered.term, recovered.commit.min(last_of(recovered).index))
        );
        assert_eq!(inspected.snapshot.map(|(meta, _)| meta), opened.snapshot);
        assert_eq!(snapshots.newest().is_some(), opened.snapshot.is_some());
    }
    written_anew(recovered);
    if last_of(recovered).index < Index::LAST && recovered.term < Term::LAST {
        goes_on(&files, &mut wal, recovered);
    }
    drop((wal, snapshots));
}

fn last_of(recovered: &Recovered) -> EntryId {
    recovered.entries.last().map_or(recovered.snapshot, Entry::id)
}

/// What the core is made of keeps its rules, and the entries are a log.
fn is_sound(opened: &Opened) {
    let recovered = &opened.recovered;
    let mut before = recovered.snapshot;
    for entry in &recovered.entries {
        assert_eq!(entry.index, before.index.next(), "a gap");
        assert!(entry.term >= before.term && entry.term <= recovered.term, "{entry:?} after {before}");
        before = entry.id();
    }
    assert!(recovered.commit >= recovered.snapshot.index);
    let config = Config::new(id(1), ClusterId(1), 1);
    let core = RaftCore::new(config, recovered.clone(), Instant(0));
    assert_eq!(core.broken_invariant(), None);
}

/// The same term, vote and entries in a new directory are recovered as the same.
fn written_anew(recovered: &Recovered) {
    let files = Memory::default();
    let (mut wal, ..) = open(&files).unwrap_or_else(|error| panic!("a new directory: {error}"));
    let Recovered { term, vote, snapshot, entries, commit, .. } = recovered.clone();
    if snapshot > EntryId::ZERO {
        wal.compact(snapshot).unwrap_or_else(|error| panic!("a new log begins after {snapshot}: {error}"));
    }
    let write = Write { seq: 1, term, vote, entries, commit };
    wal.persist(&[write]).unwrap_or_else(|error| panic!("what was recovered is written anew: {error}"));
    drop(wal);
    if snapshot > EntryId::ZERO {
        // Its snapshot is another target's.
        return;
    }
    let (_, _, again) = open(&files).unwrap_or_else(|error| panic!("what was written anew is recovered: {error}"));
    let Recovered { membership, promised, .. } = again.recovered.clone();
    assert_eq!(again.recovered, Recovered { membership, promised, ..recovered.clone() });
}

/// It is given again, with what is written behind it, and once more after that is replaced by another leader's.
fn goes_on(files: &Memory, wal: &mut Wal<Memory>, recovered: &Recovered) {
    let again =
        |files: &Memory| open(&files.copy()).unwrap_or_else(|error| panic!("opened before: {error}")).2.recovered;
    let first = again(files);
    assert_eq!((&first.entries, first.snapshot), (&recovered.entries, recovered.snapshot));
    assert_eq!((first.term, first.vote, first.commit), (recovered.term, recovered.vote, recovered.commit));
    let (last, mut expected, mut term) = (last_of(recovered), recovered.entries.clone(), recovered.term);
    for round in 0..3_u64 {
        term = term.next();
        let first = last.index.next().0 + round % 2;
        let entries: Vec<Entry> = (first..first + 2).map(|index| command(index, term.0, round)).collect();
        expected.truncate(expected.partition_point(|entry| entry.index.0 < first));
        expected.extend(entries.iter().cloned());
        let write = Write { seq: round + 1, term, vote: Some(id(2)), entries, commit: recovered.commit };
        wal.persist(&[write]).unwrap_or_else(|error| panic!("written behind what was recovered: {error}"));
        let now = again(files);
        assert_eq!((&now.entries, now.term, now.vote), (&expected, term, Some(id(2))));
    }
}

fn command(index: u64, term: u64, fill: u64) -> Entry {
    let body = vec![u8::try_from(fill % 251).unwrap_or_default(); 40];
    Entry { index: Index(index), term: Term(term), payload: Payload::Command(Bytes::from(body)) }
}

/// Directories as real stores leave them.
pub(crate) fn samples() -> Vec<Sample> {
    let mut all = vec![Sample::new("new", story(|_| {}))];
    all.push(Sample::new(
        "votes",
        story(|store| {
            for term in 1..4 {
                persist(store, term, Some(id(term % 3 + 1)), Vec::new(), 0);
            }
        }),
    ));
    all.push(Sample::new("entries", story(fill)));
    all.push(Sample::new(
        "replaced",
        story(|store| {
            persist(store, 1, None, (1..5).map(|index| command(index, 1, index)).collect(), 2);
            persist(store, 3, Some(id(3)), (3..5).map(|index| command(index, 3, index)).collect(), 2);
        }),
    ));
    all.push(Sample::new(
        "segments",
        story(|store| (0..6).for_each(|n| persist(store, 2, None, vec![command(n + 1, 2, n)], n))),
    ));
    all.push(Sample::new(
        "compacted",
        story(|store| {
            (0..8).for_each(|n| persist(store, 2, None, vec![command(n + 1, 2, n)], n));
            snapshot(store, EntryId::new(2, 6));
            (8..12).for_each(|n| persist(store, 2, None, vec![command(n + 1, 2, n)], n));
        }),
    ));
    all.push(Sample::new(
        "installed",
        story(|store| {
            persist(store, 2, None, vec![command(1, 2, 1)], 0);
            snapshot(store, EntryId::new(5, 40));
            persist(store, 6, None, vec![command(41, 6, 1)], 40);
        }),
    ));
    let whole = story(fill);
    all.push(Sample::new("torn", whole[..whole.len() - 20].to_vec()));
    all
}

fn fill(store: &mut Store) {
    let founded = Payload::Membership(Arc::new(Membership { cluster: ClusterId(9), ..membership(3) }));
    let noop = Entry { index: Index(2), term: Term(1), payload: Payload::Noop };
    let entries = vec![Entry { index: Index(1), term: Term(1), payload: founded }, noop, command(3, 1, 3)];
    persist(store, 1, Some(id(1)), entries, 0);
    persist(store, 1, Some(id(1)), vec![command(4, 1, 4)], 3);
}

fn story(tell: impl FnOnce(&mut Store)) -> Vec<u8> {
    let files = Memory::default();
    let mut store = open(&files).unwrap_or_else(|error| panic!("a new directory: {error}"));
    tell(&mut store);
    drop(store);
    script::describe(&files)
}

fn persist(store: &mut Store, term: u64, vote: Option<NodeId>, entries: Vec<Entry>, commit: u64) {
    let write = Write { seq: 1, term: Term(term), vote, entries, commit: Index(commit) };
    store.0.persist(&[write]).unwrap_or_else(|error| panic!("a sample is written: {error}"));
}

fn snapshot(store: &mut Store, last: EntryId) {
    let meta = SnapshotMeta { last, command: last.index, time: 5, membership: Arc::new(membership(3)) };
    let state = crate::snapshot::state(b"the machine's");
    let written = store.1.write(&meta, Box::new(move |file| file.write_all(&state).map_err(|e| e.to_string())));
    written.unwrap_or_else(|error| panic!("a sample's snapshot is written: {error:?}"));
    store.0.compact(last).unwrap_or_else(|error| panic!("a sample is cut: {error}"));
}
