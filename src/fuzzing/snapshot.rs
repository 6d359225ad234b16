//! Snapshot files, which are also what backups are: whatever a file holds, it is refused in words, or it is one and the
//! same snapshot to everyone: to who verifies it as a backup, takes it in from a leader, restores from it, and reads it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use graft_domain::{ClusterId, EntryId, Index};
use graft_services::applier::Applier;
use graft_services::ports::{SnapshotFiles, StoreError};
use graft_services::sessions::Sessions;
use graft_services::snapshot_meta::SnapshotMeta;
use graft_store::{is_restored, restore_in, verify_backup_in};

use crate::echo::Echo;
use crate::input::{Input, put_block};
use crate::log::open;
use crate::memory::Memory;
use crate::samples::{Sample, membership};
use crate::script;

/// The file is the input, as it is; else the input is what [`script::snapshot`] seals.
const BARE: u8 = 1;

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (file, is_broken) = match input.u8() {
        BARE => (bytes.get(1..).unwrap_or_default().to_vec(), false),
        broken => {
            let (meta, state, broken) = (input.block(), input.block(), broken >> 1 & 15);
            // Of a state of no bytes there is no frame.
            (script::snapshot(meta, state, broken), broken & !2 > 0 || broken > 0 && !state.is_empty())
        }
    };
    let files = Memory::default();
    let backup = PathBuf::from("elsewhere").join("backup");
    files.put(&backup, file.clone());
    let verified = verify_backup_in(&files, &backup);
    if let Err(error) = &verified {
        let is_foreign =
            |error: &StoreError| matches!(error, StoreError::Io { what, .. } if what.starts_with("it is no backup"));
        assert!(
            matches!(error, StoreError::Corrupt { .. } | StoreError::NewerFormat { .. }) || is_foreign(error),
            "{error}"
        );
        // Its end or its head may be good.
        let _ = restore_in(&files, &backup, Path::new("restored"));
    }
    let (meta, length) = verified.clone().unwrap_or((nobodys(EntryId::new(1, 1)), file.len() as u64));
    if verified.is_ok() {
        assert!(!is_broken, "a broken seal is taken for a good one");
        assert_eq!(length, file.len() as u64);
    }
    taken_in(&file, meta.last, verified.ok().map(|(meta, _)| meta).as_ref());
}

/// A node that has nothing is given the file in pieces.
fn taken_in(file: &[u8], last: EntryId, meta: Option<&SnapshotMeta>) {
    let files = Memory::default();
    let (_, snapshots, _) = open(&files).unwrap_or_else(|error| panic!("a new directory: {error}"));
    let begun = snapshots.begin(last, file.len() as u64);
    assert_eq!(begun, Ok(0));
    for (number, piece) in file.chunks(100).enumerate() {
        let taken = snapshots.take(last, number as u64 * 100, piece);
        assert_eq!(taken, Ok(()));
    }
    let accepted = snapshots.accept(last);
    assert_eq!(accepted.as_ref().ok(), meta, "verified by itself and taken in differ: {accepted:?}");
    let Some(meta) = meta else {
        assert_eq!(snapshots.newest(), None, "of a damaged one nothing is left");
        return;
    };
    assert_eq!(snapshots.newest(), Some((last, file.len() as u64)));
    let (read, state) = snapshots.read(last).unwrap_or_else(|error| panic!("accepted, and not readable: {error}"));
    assert_eq!(&read, meta);
    let mut applier = Applier::new(Box::new(Echo::default()));
    if applier.restore(state, Index::ZERO).is_ok() {
        let again = Sessions::decode(&applier.sessions().encode()).map(|sessions| sessions.encode());
        assert_eq!(again.as_ref(), Ok(&applier.sessions().encode()));
        let (_, mut state) = snapshots.read(last).unwrap_or_else(|error| panic!("read before: {error}"));
        let mut whole = Vec::new();
        let read = std::io::copy(&mut state, &mut whole);
        let written = write(&mut applier);
        assert!(read.is_ok() && written.as_ref() == Ok(&whole), "a restored state is written as the same bytes");
    }
    restored(file, meta);
}

/// A directory is made of it, which founds a cluster of its own.
fn restored(file: &[u8], meta: &SnapshotMeta) {
    let files = Memory::default();
    let backup = PathBuf::from("elsewhere").join("backup");
    files.put(&backup, file.to_vec());
    let restored = restore_in(&files, &backup, &script::directory());
    assert_eq!(restored.as_ref(), Ok(meta));
    let (_, _, opened) = open(&files).unwrap_or_else(|error| panic!("restored, and not to be opened: {error}"));
    let snapshot = opened.snapshot.unwrap_or_else(|| panic!("restored without a snapshot"));
    assert!(is_restored(&snapshot));
    assert_eq!((snapshot.last, snapshot.command, snapshot.time), (meta.last, meta.command, meta.time));
    assert_eq!(*snapshot.membership, membership(3));
}

fn write(applier: &mut Applier) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    applier.snapshot()?(&mut out)?;
    Ok(out)
}

fn nobodys(last: EntryId) -> SnapshotMeta {
    SnapshotMeta { last, command: last.index, time: 0, membership: Arc::default() }
}

/// A state as the applier writes it, with sessions that were used.
pub(crate) fn state(machine: &[u8]) -> Vec<u8> {
    let sessions = crate::formats::sessions().encode();
    [&(sessions.len() as u64).to_le_bytes()[..], &sessions, machine].concat()
}

pub(crate) fn samples() -> Vec<Sample> {
    let meta = |index| SnapshotMeta {
        last: EntryId::new(3, index),
        command: Index(index - 1),
        time: 77,
        membership: Arc::new(graft_domain::Membership { cluster: ClusterId(5), ..membership(3) }),
    };
    let sealed = |meta: &SnapshotMeta, state: &[u8]| {
        let mut out = vec![0];
        put_block(&mut out, &meta.encode());
        put_block(&mut out, state);
        out
    };
    let bare = [&[BARE][..], &script::snapshot(&meta(9).encode(), &state(b"bare"), 0)].concat();
    vec![
        Sample::new("empty", sealed(&meta(4), b"")),
        Sample::new("state", sealed(&meta(8), &state(b"of the machine"))),
        Sample::new("long", sealed(&meta(2), &state(&[9; 300]))),
        Sample::new("founding", sealed(&nobodys(EntryId::new(1, 3)), &state(b"x"))),
        Sample::new("bare", bare),
    ]
}
