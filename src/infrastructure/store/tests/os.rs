//! The same on the operating system's files.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

use super::super::{OsFiles, OsPlace, open};
use super::*;

/// A directory of its own for a test, gone when the test ends.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("graft-store-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(env::temp_dir().join(name))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_life_on_real_files() {
    let directory = Directory::new();
    let data = directory.0.join("deep").join("data");
    let mut model = Model::default();
    for steps in life().chunks(5) {
        let (mut store, opened) = Store::new(open(&data, &founding(), SMALL).expect("it opens"));
        assert_eq!(Model::of(&opened), model.shown());
        assert_eq!(opened.notes, [""; 0]);
        for step in steps {
            step.run(&mut store).unwrap_or_else(|error| panic!("{step:?}: {error}"));
            model = model.after(step);
        }
    }
    let (_, _, opened) = open(&data, &founding(), StoreConfig::default()).expect("it opens");
    assert_eq!(Model::of(&opened), model.shown());
}

/// Long enough that memory is made ready for it, with things in it.
#[test]
fn a_long_log_is_read_back_as_it_was() {
    let directory = Directory::new();
    let all: Vec<Entry> = (1..=60).map(|index| command(1, index, 700_001)).collect();
    let (mut wal, ..) = open(&directory.0, &founding(), StoreConfig::default()).expect("it opens");
    all.chunks(3).for_each(|some| wal.persist(&[write(1, None, some.to_vec(), 0)]).expect("it is written"));
    drop(wal);
    assert!(fs::read_dir(&directory.0).unwrap().count() > 3, "several segments");
    let (.., opened) = open(&directory.0, &founding(), StoreConfig::default()).expect("it opens");
    assert!(opened.recovered.entries == all);
}

#[test]
fn a_second_opener_learns_who_has_it() {
    let directory = Directory::new();
    let first = open(&directory.0, &founding(), StoreConfig::default()).expect("it opens");
    let path = directory.0.display().to_string();
    let error = open(&directory.0, &founding(), StoreConfig::default()).expect_err("it is in use");
    assert_eq!(error, StoreError::Locked { path, pid: Some(process::id()) });
    drop(first);
    open(&directory.0, &founding(), StoreConfig::default()).expect("it is free again");
}

#[test]
fn a_directory_that_is_removed_or_renamed_is_not_there() {
    let directory = Directory::new();
    let [data, other] = ["data", "other"].map(|name| directory.0.join(name));
    let (_wal, ..) = open(&data, &founding(), SMALL).expect("it opens");
    let place = OsPlace::of(&data).expect("it is there");
    assert!(place.is_there());
    fs::rename(&data, &other).expect("it is renamed");
    assert!(!place.is_there());
    let (_another, ..) = open(&data, &founding(), SMALL).expect("it opens");
    assert!(!place.is_there(), "it is another one");
    fs::remove_dir_all(&data).expect("it is removed");
    fs::rename(&other, &data).expect("it is renamed");
    assert!(place.is_there());
    assert!(OsPlace::of(&other).is_err());
}

/// Whoever restores a backup may not have stopped the node that has the directory open.
#[test]
fn what_has_taken_the_place_of_an_open_directory_is_left_as_it_is() {
    let directory = Directory::new();
    let [data, gone, other] = ["data", "gone", "other"].map(|name| directory.0.join(name));
    let filled = |data: &Path| {
        let (mut store, _) = Store::new(open(data, &founding(), SMALL).expect("it opens"));
        for n in 1..=20 {
            store.persist(&[write(1, None, commands(1, n, n), 0)]).expect("it is written");
        }
        store
    };
    drop(filled(&other));
    let mut store = filled(&data);
    let length =
        store.snapshots.write(&meta(EntryId::new(1, 5)), state_of(EntryId::new(1, 5), 10)).expect("it is there");
    assert_eq!(store.snapshots.begin(EntryId::new(1, 15), length), Ok(0));
    fs::rename(&data, &gone).expect("it is renamed");
    fs::rename(&other, &data).expect("it is renamed");
    let whole = || ["", "snapshots"].map(|name| contents_of(&data.join(name)));
    let before = whole();
    let last = EntryId::new(1, 12);
    let written = store.snapshots.write(&meta(last), state_of(last, 10)).expect_err("it is not there");
    assert!(format!("{written:?}").contains("removed or moved"), "{written:?}");
    assert!(store.snapshots.begin(EntryId::new(1, 16), length).is_err());
    let compacted = store.compact(last).expect_err("it is not there");
    assert!(compacted.to_string().contains("removed or moved"), "{compacted}");
    drop(store);
    assert!(whole() == before, "nothing of it is changed");
    let (_, opened) = Store::new(open(&data, &founding(), SMALL).expect("it opens"));
    assert_eq!(opened.recovered.entries.len(), 20);
}

fn contents_of(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let names = files_in(directory).into_iter();
    names.filter_map(|name| Some((name.clone(), fs::read(directory.join(name)).ok()?))).collect()
}

/// Names lead through the link: to the new place, once it leads there.
#[cfg(unix)]
#[test]
fn a_directory_behind_a_link_that_leads_elsewhere_is_not_there() {
    let directory = Directory::new();
    let [here, there, link] = ["here", "there", "link"].map(|name| directory.0.join(name));
    for data in [&here, &there] {
        drop(open(data, &founding(), SMALL).expect("it opens"));
    }
    std::os::unix::fs::symlink(&here, &link).expect("it is made");
    let (_wal, snapshots, _) = open(&link, &founding(), SMALL).expect("it opens");
    let place = OsPlace::of(&link).expect("it is there");
    assert!(place.is_there());
    fs::remove_file(&link).expect("it is removed");
    std::os::unix::fs::symlink(&there, &link).expect("it is made");
    assert!(!place.is_there());
    let last = EntryId::new(1, 1);
    assert!(snapshots.write(&meta(last), state_of(last, 10)).is_err());
    assert_eq!(files_in(&there.join("snapshots")), [""; 0]);
}

#[test]
fn a_torn_tail_on_a_real_file() {
    let directory = Directory::new();
    let (mut wal, ..) = open(&directory.0, &founding(), SMALL).expect("it opens");
    wal.persist(&[write(1, None, commands(1, 1, 2), 0)]).expect("it is written");
    let position = position(&wal);
    drop(wal);
    let log = directory.0.join("log-0000000001");
    let mut bytes = fs::read(&log).expect("it is there");
    bytes[position..].fill(0xA5);
    fs::write(&log, &bytes).expect("it is written");
    let (wal, _, opened) = open(&directory.0, &founding(), SMALL).expect("it opens");
    assert_eq!((opened.recovered.entries.len(), opened.notes.len()), (2, 1));
    drop(wal);
    let bytes = fs::read(&log).expect("it is there");
    assert!(bytes[position..].iter().all(|byte| *byte == 0), "the torn bytes are gone");
}

#[test]
fn a_directory_that_cannot_be() {
    let directory = Directory::new();
    fs::create_dir_all(&directory.0).expect("it is made");
    let file = directory.0.join("file");
    fs::write(&file, b"x").expect("it is written");
    let error = open(&file.join("data"), &founding(), SMALL).expect_err("a file is in the way");
    assert!(matches!(&error, StoreError::Io { path, .. } if path.contains("file")), "{error}");
    assert!(matches!(open_in(OsFiles, &file, &founding(), SMALL), Err(StoreError::Io { .. })));
}

fn files_in(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).expect("it is there").map(|item| item.expect("it is readable").file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().expect("it is text")).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_snapshot_from_one_real_directory_to_another() {
    const COUNT: usize = 20 << 20;
    let (directory, other) = (Directory::new(), Directory::new());
    let last = EntryId::new(2, 9);
    let (from, _) = Store::new(open(&directory.0, &founding(), StoreConfig::default()).expect("it opens"));
    let length = from.snapshots.write(&meta(last), state_of(last, COUNT)).expect("it is written");
    let (mut to, _) = Store::new(open(&other.0, &founding(), StoreConfig::default()).expect("it opens"));
    to.persist(&[write(1, Some("n1"), commands(1, 1, 12), 3)]).expect("it is written");
    let mut at = to.snapshots.begin(last, length).expect("there is room");
    let mut piece = vec![0; 1 << 18];
    loop {
        if at == 40 << 18 {
            // It is gone here and can still be sent.
            from.snapshots.write(&meta(EntryId::new(2, 10)), state_of(last, 10)).expect("it is written");
            assert_eq!(files_in(&directory.0.join("snapshots")), ["snapshot-0000000010-0000000002"]);
        }
        match from.snapshots.send(last, at, &mut piece).expect("it is held open") {
            0 => break,
            count => to.snapshots.take(last, at, &piece[..count]).expect("there is room"),
        }
        at = to.snapshots.begin(last, length).expect("it goes on");
    }
    assert_eq!(to.snapshots.accept(last), Ok(meta(last)));
    drop(to);
    fs::write(other.0.join("snapshots").join("snapshot-0000000099-0000000009.part"), b"x").expect("it is written");
    let (to, opened) = Store::new(open(&other.0, &founding(), StoreConfig::default()).expect("it opens"));
    assert_eq!((opened.recovered.snapshot, opened.recovered.entries.len(), opened.notes.len()), (last, 0, 1));
    assert_eq!(files_in(&other.0.join("snapshots")), ["snapshot-0000000009-0000000002"]);
    assert!(to.state(last) == state_bytes(last, COUNT));
    let listed = |path: &Path| fs::metadata(path).expect("it is there").len();
    assert_eq!(to.disk_bytes(), listed(&other.0.join("log-0000000001")));
    assert_eq!(to.snapshots.newest(), Some((last, length)));
}

#[test]
fn a_directory_without_snapshots_gets_room_for_them() {
    let directory = Directory::new();
    drop(open(&directory.0, &founding(), SMALL).expect("it opens"));
    fs::remove_dir(directory.0.join("snapshots")).expect("it is empty");
    let (store, _) = Store::new(open(&directory.0, &founding(), SMALL).expect("it opens"));
    store.snapshots.write(&meta(EntryId::new(1, 1)), state_of(EntryId::ZERO, 1)).expect("it is written");
}

/// A snapshot may be being written when the node is stopped: the directory is in use until that is over.
#[test]
fn snapshots_hold_the_lock_of_their_directory() {
    let directory = Directory::new();
    let (wal, snapshots, _) = open(&directory.0, &founding(), SMALL).expect("it opens");
    drop(wal);
    assert!(matches!(open(&directory.0, &founding(), SMALL), Err(StoreError::Locked { .. })));
    drop(snapshots);
    open(&directory.0, &founding(), SMALL).expect("it is free");
}

/// Writing, reading and sending from threads of their own, as a node does it.
#[test]
fn whoever_reads_while_others_write_gets_whole_snapshots() {
    const LAST: u64 = 40;
    let directory = Directory::new();
    let (_wal, snapshots, _) = open(&directory.0, &founding(), SMALL).expect("it opens");
    let snapshots: Arc<dyn SnapshotFiles> = snapshots;
    let writer = Arc::clone(&snapshots);
    let writing = std::thread::spawn(move || {
        for index in 1..=LAST {
            let last = EntryId::new(1, index);
            writer.write(&meta(last), state_of(last, 100_000)).expect("it is written");
        }
    });
    let mut seen = Index::ZERO;
    while seen < Index(LAST) {
        let Some((last, bytes)) = snapshots.newest() else { continue };
        assert!(last.index >= seen, "the newest does not go back");
        seen = last.index;
        // It may be gone by now; what can be opened is whole.
        let Ok((found, mut reader)) = snapshots.read(last) else { continue };
        let mut state = Vec::new();
        reader.read_to_end(&mut state).expect("it is good");
        assert!(found == meta(last) && state == state_bytes(last, 100_000));
        let mut file = vec![0; 200_000];
        if let Ok(count) = snapshots.send(last, 0, &mut file) {
            assert_eq!(count as u64, bytes);
        }
    }
    writing.join().expect("it is well");
}

#[cfg(unix)]
#[test]
fn what_is_made_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let above = tempfile::tempdir().unwrap();
    let directory = above.path().join("new/data");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    OsFiles.make_directory(&directory).unwrap();
    OsFiles.create(&directory.join("made")).unwrap();
    let (beside, _file) = OsFiles::create_beside(&directory.join("backup")).unwrap();
    let _lock = OsFiles.lock(&directory.join("lock")).unwrap();
    assert_eq!(mode(&directory), 0o700);
    for file in [directory.join("made"), beside, directory.join("lock")] {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}
