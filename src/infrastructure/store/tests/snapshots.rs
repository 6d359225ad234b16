//! Writing, reading and replacing snapshots, on disks that fill up, fail and lie.

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::super::snapshot_file::FRAME_BYTES;
use super::disk::Faults;
use super::*;

const FIRST: EntryId = EntryId::new(1, 10);
const SECOND: EntryId = EntryId::new(2, 20);

fn names(disk: &Disk) -> Vec<String> {
    disk.names().into_iter().filter_map(|name| name.strip_prefix("snapshots/").map(str::to_owned)).collect()
}

/// The names of these snapshots and of nothing else.
fn only(last: EntryId) -> Vec<String> {
    vec![snapshot_name(last).strip_prefix("snapshots/").expect("it is in there").to_owned()]
}

/// A directory with the first snapshot in it.
fn with_first() -> (Disk, Store) {
    let disk = Disk::new();
    let (mut store, _) = open_well(&disk);
    store.write(FIRST).expect("it is written");
    (disk, store)
}

fn refused_write(store: &Store, last: EntryId, why: &str) {
    let write: WriteSnapshot = Box::new(|_| panic!("nothing is asked of the machine"));
    let error = store.snapshots.write(&meta(last), write).expect_err("it is refused").to_string();
    assert!(error.contains(why), "{error}");
}

#[test]
fn what_is_written_is_read() {
    for count in [0, 1, 999, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 3 * FRAME_BYTES, 9 * FRAME_BYTES + 7] {
        let (disk, mut store) = with_first();
        let bytes = store.snapshots.write(&meta(SECOND), state_of(SECOND, count)).expect("it is written");
        assert_eq!(store.snapshots.newest(), Some((SECOND, bytes)));
        assert_eq!((disk.read(&snapshot_name(SECOND)).len() as u64, names(&disk)), (bytes, only(SECOND)));
        assert!(store.state(SECOND) == state_bytes(SECOND, count), "{count} bytes");
        assert!(disk.read(&snapshot_name(SECOND)) == snapshot_file(SECOND, count), "another member writes the same");
        store.wal.persist(&[write(2, None, vec![], 0)]).expect("it is written");
        drop(store);
        disk.crash(disk::Crash::Drop);
        let (store, opened) = open_well(&disk);
        assert_eq!((opened.snapshot, store.snapshots.newest()), (Some(meta(SECOND)), Some((SECOND, bytes))));
    }
}

/// Written down byte by byte from `docs/snapshot-format.md`: a file of today is read for years.
#[test]
fn the_bytes_are_those_of_the_document() {
    let state = state_bytes(SECOND, FRAME_BYTES + 3);
    let crc = |seed: u32, parts: &[&[u8]]| parts.iter().fold(seed, |crc, part| crc32c::crc32c_append(crc, part));
    let mut metadata = vec![2];
    for number in [2_u64, 20, 20, 7] {
        metadata.extend_from_slice(&number.to_le_bytes());
    }
    metadata.push(1);
    metadata.extend_from_slice(&[0; 16]);
    metadata.extend_from_slice(&3_u32.to_le_bytes());
    for id in ["n1", "n2", "n3"] {
        metadata.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        metadata.extend_from_slice(id.as_bytes());
        metadata.extend_from_slice(&[14, 0]);
        metadata.extend_from_slice(b"127.0.0.1:7001");
    }
    metadata.extend_from_slice(&[0; 4]);

    let mut file = b"GRAFTSNP\x01\0\0\0".to_vec();
    file.extend_from_slice(&crc(0, &[&file]).to_le_bytes());
    file.extend_from_slice(&u32::try_from(metadata.len()).expect("it is small").to_le_bytes());
    file.extend_from_slice(&metadata);
    let seed = crc(0, &[&file]);
    file.extend_from_slice(&seed.to_le_bytes());
    assert_eq!(file.len(), 24 + metadata.len());
    for data in [&state[..1 << 20], &state[1 << 20..]] {
        let (offset, length) = ((file.len() as u64).to_le_bytes(), u32::try_from(data.len()).expect("it is small"));
        let length = length.to_le_bytes();
        file.extend_from_slice(&length);
        file.extend_from_slice(&crc(seed, &[&offset, &length, data]).to_le_bytes());
        file.extend_from_slice(data);
    }
    let (offset, total) = ((file.len() as u64).to_le_bytes(), (state.len() as u64).to_le_bytes());
    let running = crc(seed, &[&state]).to_le_bytes();
    file.extend_from_slice(&[0; 4]);
    file.extend_from_slice(&crc(seed, &[&offset, &[0; 4], &total, &running]).to_le_bytes());
    file.extend_from_slice(&total);
    file.extend_from_slice(&running);
    assert_eq!(file.len(), 44 + metadata.len() + state.len() + 2 * 8);
    assert!(snapshot_file(SECOND, state.len()) == file, "the format has changed");
}

#[test]
fn a_machine_may_write_in_any_pieces_and_a_reader_read_so() {
    let (disk, store) = with_first();
    let state = state_bytes(SECOND, FRAME_BYTES + 5000);
    let pieces = state.clone();
    let in_pieces: WriteSnapshot = Box::new(move |out| {
        let mut luck = disk::Luck(3);
        let mut left = &pieces[..];
        while !left.is_empty() {
            let count = usize::try_from(luck.draw() % 7000).expect("it is small").min(left.len());
            out.write_all(&left[..count]).and_then(|()| out.flush()).map_err(|error| error.to_string())?;
            left = &left[count..];
        }
        Ok(())
    });
    store.snapshots.write(&meta(SECOND), in_pieces).expect("it is written");
    assert!(disk.read(&snapshot_name(SECOND)) == snapshot_file(SECOND, state.len()));
    let (_, mut reader) = store.snapshots.read(SECOND).expect("it is there");
    let (mut luck, mut read) = (disk::Luck(4), Vec::new());
    loop {
        let mut piece = vec![0; usize::try_from(1 + luck.draw() % 9000).expect("it is small")];
        match reader.read(&mut piece).expect("it is good") {
            0 => break,
            count => read.extend_from_slice(&piece[..count]),
        }
    }
    assert!(read == state);
    assert_eq!(reader.read(&mut []).expect("nothing is asked"), 0);
}

/// One flush of all of it would hold up the syncs of the log.
#[test]
fn a_large_file_is_synced_as_it_grows() {
    let (from, store) = with_first();
    let syncs = from.syncs();
    store.snapshots.write(&meta(SECOND), state_of(SECOND, 17 * FRAME_BYTES)).expect("it is written");
    assert_eq!(from.syncs() - syncs, 3, "every 8 MiB, and at the end");
    let (disk, store) = with_first();
    let (file, syncs) = (from.read(&snapshot_name(SECOND)), disk.syncs());
    store.snapshots.begin(SECOND, file.len() as u64).expect("there is room");
    for (nth, piece) in file.chunks(FRAME_BYTES).enumerate() {
        store.snapshots.take(SECOND, (nth * FRAME_BYTES) as u64, piece).expect("there is room");
    }
    store.snapshots.accept(SECOND).expect("it is good");
    assert_eq!(disk.syncs() - syncs, 3, "every 8 MiB, and at the end");
}

#[test]
fn of_a_machine_that_fails_nothing_is_left() {
    let (disk, mut store) = with_first();
    let fails: WriteSnapshot = Box::new(|out| {
        out.write_all(&vec![7; 3 * FRAME_BYTES]).map_err(|error| error.to_string())?;
        Err("the lock is held".to_owned())
    });
    let error = store.snapshots.write(&meta(SECOND), fails).expect_err("the machine says no");
    assert_eq!(error, SnapshotError::Machine("the lock is held".to_owned()));
    let panics: WriteSnapshot = Box::new(|_| panic!("the machine is broken"));
    let caught = catch_unwind(AssertUnwindSafe(|| store.snapshots.write(&meta(SECOND), panics)));
    assert!(caught.is_err(), "it is not for the store to hide it");
    assert_eq!((names(&disk), store.state(FIRST)), (only(FIRST), state_bytes(FIRST, STATE_BYTES)));
    store.write(SECOND).expect("a later one is as good as the first");
    assert_eq!(names(&disk), only(SECOND));
}

#[test]
fn on_a_full_disk_the_old_snapshot_stays_and_nothing_else() {
    let needed = snapshot_file(SECOND, 500).len();
    for room in (0..needed).step_by(3) {
        let (disk, store) = with_first();
        disk.set_faults(Faults { capacity: Some(disk.used() + room), ..Faults::default() });
        // The machine makes light of it.
        let careless: WriteSnapshot = Box::new(|out| {
            let _ = out.write_all(&state_bytes(SECOND, 500));
            Ok(())
        });
        for write in [careless, state_of(SECOND, 500)] {
            let error = store.snapshots.write(&meta(SECOND), write).expect_err("there is no room");
            assert!(matches!(error, SnapshotError::Store(StoreError::Full { .. })), "{room} bytes of room: {error}");
            assert_eq!((names(&disk), store.snapshots.newest().map(|n| n.0)), (only(FIRST), Some(FIRST)));
        }
        disk.set_faults(Faults { capacity: Some(disk.used() + needed), ..Faults::default() });
        store.snapshots.write(&meta(SECOND), state_of(SECOND, 500)).expect("there is room");
        assert_eq!((names(&disk), store.state(SECOND)), (only(SECOND), state_bytes(SECOND, 500)));
    }
}

/// A full disk may show within a frame that is written while the machine goes on, or in a sync.
#[test]
fn what_the_disk_says_counts_whatever_the_machine_makes_of_it() {
    let (disk, store) = with_first();
    disk.set_faults(Faults { capacity: Some(disk.used() + 2 * FRAME_BYTES), ..Faults::default() });
    for swallow in [true, false] {
        let large: WriteSnapshot = Box::new(move |out| match out.write_all(&vec![7; 4 * FRAME_BYTES]) {
            Err(_) if swallow => Ok(()),
            result => result.map_err(|error| format!("MemoryError: {error}")),
        });
        let error = store.snapshots.write(&meta(SECOND), large).expect_err("there is no room");
        assert!(matches!(error, SnapshotError::Store(StoreError::Full { .. })), "{error}");
    }
    let sync = Faults { sync_fails_at: Some(disk.syncs()), sync_fails_with_no_space: true, ..Faults::default() };
    disk.set_faults(sync);
    let error = store.snapshots.write(&meta(SECOND), state_of(SECOND, 9)).expect_err("there is no room");
    assert!(matches!(error, SnapshotError::Store(StoreError::Full { .. })), "{error}");
    assert_eq!(names(&disk), only(FIRST));
}

#[test]
fn whatever_fails_the_old_snapshot_is_untouched() {
    let mut failed = 0;
    for nth in 0..20 {
        let (disk, mut store) = with_first();
        disk.set_faults(Faults { fails_at: Some(disk.changes() + nth), ..Faults::default() });
        let outcome = store.write(SECOND);
        let newest = store.snapshots.newest().map(|(last, _)| last).expect("there is one");
        let whole = state_bytes(newest, STATE_BYTES);
        assert_eq!(store.state(newest), whole, "failure {nth}");
        match outcome {
            Ok(()) => assert_eq!(newest, SECOND, "failure {nth}"),
            Err(error) => {
                failed += 1;
                assert!(matches!(error, StoreError::Io { .. }), "failure {nth}: {error}");
                assert_eq!((newest, names(&disk)), (FIRST, only(FIRST)), "failure {nth}");
            }
        }
        disk.set_faults(Faults::default());
        store.write(SECOND).expect("the disk is well again");
        drop(store);
        disk.crash(disk::Crash::Drop);
        let (store, _) = open_well(&disk);
        assert_eq!(store.state(SECOND), state_bytes(SECOND, STATE_BYTES), "failure {nth}");
    }
    assert!((5..15).contains(&failed), "every change failed once: {failed}");
}

#[test]
fn a_disk_that_keeps_something_else_is_found_out() {
    let (disk, mut store) = with_first();
    disk.set_faults(Faults { lies_at: Some(disk.syncs()), ..Faults::default() });
    let error = store.write(SECOND).expect_err("it was read back");
    assert!(
        matches!(&error, StoreError::Corrupt { file, what, .. } if file.contains("snapshot-0000000020") && what.contains("Look at the disk")),
        "{error}"
    );
    assert_eq!((names(&disk), store.state(FIRST)), (only(FIRST), state_bytes(FIRST, STATE_BYTES)));
}

#[test]
fn one_is_written_at_a_time() {
    let (_disk, store) = with_first();
    let other = Arc::clone(&store.snapshots);
    let write: WriteSnapshot = Box::new(move |out| {
        let error = other.write(&meta(EntryId::new(2, 30)), Box::new(|_| Ok(()))).expect_err("one is being written");
        out.write_all(error.to_string().as_bytes()).map_err(|error| error.to_string())
    });
    store.snapshots.write(&meta(SECOND), write).expect("it is written");
    let said = String::from_utf8(store.state(SECOND)).expect("it is text");
    assert!(said.contains("another snapshot is being written"), "{said}");
}

#[test]
fn an_older_snapshot_never_replaces_a_newer_one() {
    let (disk, mut store) = with_first();
    store.write(SECOND).expect("it is written");
    refused_write(&store, FIRST, "the snapshot of entry 2/20 is here, and one of entry 1/10 cannot replace it");
    refused_write(&store, EntryId::new(3, 20), "cannot replace it");
    refused_write(&store, EntryId::new(1, 30), "cannot replace it");
    // One that was newer when it was begun.
    let other = Arc::clone(&store.snapshots);
    let overtaken: WriteSnapshot = Box::new(move |_| {
        let (last, file) = (EntryId::new(2, 40), snapshot_file(EntryId::new(2, 40), 5));
        let begun = other.begin(last, file.len() as u64).and_then(|_| other.take(last, 0, &file));
        begun.and_then(|()| other.accept(last)).map(drop).map_err(|error| error.to_string())
    });
    let error = store.snapshots.write(&meta(EntryId::new(2, 30)), overtaken).expect_err("it is old by now");
    assert!(error.to_string().contains("2/40 is here"), "{error}");
    assert_eq!(names(&disk), only(EntryId::new(2, 40)));
}

#[test]
fn a_snapshot_that_is_here_is_not_written_again_unless_it_is_damaged() {
    let (disk, mut store) = with_first();
    let written = disk.changes();
    let bytes = store.snapshots.write(&meta(FIRST), Box::new(|_| panic!("it is there"))).expect("it is there");
    assert_eq!((disk.changes(), store.snapshots.newest()), (written, Some((FIRST, bytes))));
    disk.edit(&snapshot_name(FIRST), |file| file[150] ^= 1);
    store.write(FIRST).expect("it is written anew");
    assert_eq!((names(&disk), store.state(FIRST)), (only(FIRST), state_bytes(FIRST, STATE_BYTES)));
}

#[test]
fn leftovers_are_removed_and_files_of_others_are_not() {
    let (disk, store) = with_first();
    drop(store);
    let other = ["snapshot-10-1", "snapshot-0000000010-0000000001.old", "notes.part", "snapshot-0000000010-.new"];
    let leftover = [
        "snapshot-0000000011-0000000001.new",
        "snapshot-0000000040-0000000002.part",
        "snapshot-0000000010-0000000001.part",
        "snapshot-0000000009-0000000001",
    ];
    for name in other.iter().chain(&leftover) {
        disk.put(&format!("snapshots/{name}"), Some(vec![1, 2, 3]));
    }
    drop(open_well(&disk));
    let mut left = [&other[..], &["snapshot-0000000010-0000000001"]].concat();
    left.sort_unstable();
    assert_eq!(names(&disk), left);
}

#[test]
fn a_snapshot_of_nothing_that_is_here() {
    let (_disk, store) = with_first();
    let error = store.snapshots.read(SECOND).map(|(meta, _)| meta).expect_err("it is not there");
    assert!(matches!(&error, StoreError::Io { path, .. } if path.contains("0000000020")), "{error}");
    assert!(matches!(store.snapshots.send(SECOND, 0, &mut [0; 9]), Err(StoreError::Io { .. })));
}
