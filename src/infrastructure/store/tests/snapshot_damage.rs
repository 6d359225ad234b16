//! Every bit of a snapshot's file is changed and the file is cut at every byte: whoever opens it, reads it or takes it in
//! says so, or gets exactly what was written.

use std::io::{self, Read};

use super::super::batch::Place;
use super::super::preamble;
use super::super::snapshot_file::{END_BYTES, End, FRAME_BYTES, FRAME_HEAD_BYTES, Header};
use super::*;

const LAST: EntryId = EntryId::new(2, 9);

struct Scene {
    disk: Disk,
    store: Store,
    name: String,
    good: Vec<u8>,
    state: Vec<u8>,
}

fn scene(count: usize) -> Scene {
    let disk = Disk::new();
    let (mut store, _) = open_well(&disk);
    store.persist(&[write(2, None, commands(2, 1, 9), 9)]).expect("it is written");
    store.snapshots.write(&meta(LAST), state_of(LAST, count)).expect("it is written");
    store.wal.compact(LAST).expect("it forgets");
    let name = snapshot_name(LAST);
    let good = disk.read(&name);
    Scene { disk, store, name, good, state: state_bytes(LAST, count) }
}

impl Scene {
    /// What opening a damaged directory says.
    fn opened(&self, bytes: &[u8]) -> Result<SnapshotMeta, StoreError> {
        let disk = self.disk.copy();
        disk.edit(&self.name, |file| *file = bytes.to_vec());
        let before = disk.changes();
        let opened = open(&disk).map(|(_, opened)| opened.snapshot.expect("there is one"));
        assert!(opened.is_ok() || disk.changes() == before, "a refused directory is not changed");
        assert!(opened.is_ok() || disk.read(&self.name) == bytes, "nor is the file");
        opened
    }

    /// What a running member reads of it: what came before an error is what was written.
    fn read(&self, bytes: &[u8]) -> Result<(), String> {
        self.disk.edit(&self.name, |file| *file = bytes.to_vec());
        let (meta, mut reader) = self.store.snapshots.read(LAST).map_err(|error| error.to_string())?;
        assert_eq!(meta, super::meta(LAST));
        let mut state = Vec::new();
        let outcome = reader.read_to_end(&mut state);
        assert!(self.state.starts_with(&state), "bytes were handed out that were never written");
        match outcome {
            Ok(_) => assert!(state == self.state, "a part was taken for the whole"),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                let again = reader.read(&mut [0; 9]).expect_err("it stays damaged");
                assert_eq!(again.kind(), io::ErrorKind::InvalidData);
                return Err(error.to_string());
            }
        }
        Ok(())
    }

    fn accepted(bytes: &[u8]) -> Result<SnapshotMeta, StoreError> {
        let (store, _) = open_well(&Disk::new());
        store.snapshots.begin(LAST, bytes.len() as u64)?;
        store.snapshots.take(LAST, 0, bytes)?;
        let accepted = store.snapshots.accept(LAST);
        assert_eq!(store.snapshots.newest().is_some(), accepted.is_ok());
        accepted
    }

    /// Nobody takes it for good, but for who opens the directory, unless header or end are damaged.
    fn check(&self, bytes: &[u8], at_opening: bool, context: &str) {
        let named = |error: &str| error.contains("snapshot-0000000009-0000000002") && error.contains("at byte");
        let error = self.read(bytes).expect_err(context);
        assert!(named(&error), "{context}: {error}");
        let error = Self::accepted(bytes).expect_err(context).to_string();
        assert!(named(&error), "{context}: {error}");
        match self.opened(bytes) {
            Ok(meta) => {
                assert!(!at_opening, "{context}: not seen at opening");
                assert_eq!(meta, super::meta(LAST));
            }
            Err(error) => assert!(named(&error.to_string()), "{context}: {error}"),
        }
    }

    fn header_bytes(&self) -> usize {
        self.good.len() - self.state.len() - FRAME_HEAD_BYTES * self.state.len().div_ceil(FRAME_BYTES) - END_BYTES
    }
}

#[test]
fn every_bit() {
    let scene = scene(300);
    let frames = scene.header_bytes()..scene.good.len() - END_BYTES;
    for bit in 0..scene.good.len() * 8 {
        let mut bytes = scene.good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        scene.check(&bytes, !frames.contains(&(bit / 8)), &format!("bit {} of byte {}", bit % 8, bit / 8));
    }
    assert_eq!(scene.read(&scene.good), Ok(()));
}

#[test]
fn every_length() {
    for count in [0, 300] {
        let scene = scene(count);
        for length in (0..scene.good.len()).chain([scene.good.len() + 1, scene.good.len() + END_BYTES]) {
            let mut bytes = scene.good.clone();
            bytes.resize(length, 0);
            scene.check(&bytes, true, &format!("{length} bytes"));
        }
        // Its own end twice: good, but not where it says.
        let twice = [&scene.good[..], &scene.good[scene.good.len() - END_BYTES..]].concat();
        scene.check(&twice, true, "two ends");
    }
}

/// Frames that are good by themselves.
#[test]
fn frames_in_another_order_or_from_elsewhere() {
    const WHOLE: usize = FRAME_HEAD_BYTES + FRAME_BYTES;
    let scene = scene(2 * FRAME_BYTES + 50);
    let start = scene.header_bytes();
    let frame = |nth: usize| start + nth * WHOLE..start + (nth + 1) * WHOLE;
    let end = scene.good.len() - END_BYTES;

    let mut swapped = scene.good.clone();
    swapped.splice(frame(0), scene.good[frame(1)].iter().copied());
    scene.check(&swapped, false, "the second frame twice");
    swapped.splice(frame(1), scene.good[frame(0)].iter().copied());
    scene.check(&swapped, false, "two frames swapped");
    let dropped = [&scene.good[..frame(0).end], &scene.good[frame(1).end..]].concat();
    scene.check(&dropped, true, "a frame left out");

    // Another writing of the same entry's snapshot, by a machine that says it in other words; a transfer that goes on with
    // another member's file would mix them.
    let other = Disk::new();
    let (store, _) = open_well(&other);
    let state = vec![b'x'; scene.state.len()];
    store
        .snapshots
        .write(&meta(LAST), Box::new(move |out| out.write_all(&state).map_err(|e| e.to_string())))
        .expect("it is written");
    let other = other.read(&scene.name);
    let mixed = [&scene.good[..frame(0).end], &other[frame(0).end..]].concat();
    let error = Scene::accepted(&mixed).expect_err("it is mixed").to_string();
    assert!(error.contains("were not written together") && error.contains(&format!("at byte {end}")), "{error}");

    let mut elsewhere = scene.good.clone();
    elsewhere.splice(frame(0), snapshot_file(EntryId::new(2, 8), scene.state.len())[frame(0)].iter().copied());
    scene.check(&elsewhere, false, "a frame of another snapshot");
}

/// Good checksums around what no writer writes.
#[test]
fn an_end_that_lies() {
    let scene = scene(300);
    let at = scene.good.len() - END_BYTES;
    let (_, seed) = Header::encode(&meta(LAST)).expect("it is small");
    for total in [0, 1, 299, 301, 1 << 20, u64::MAX - 7, u64::MAX] {
        let end = End { total, running: crc32c::crc32c_append(seed, &scene.state) };
        let end = end.encode(Place { seed, offset: at as u64 });
        let forged = [&scene.good[..at], &end].concat();
        scene.check(&forged, true, &format!("{total} bytes of state"));
    }
    let mut long = scene.good.clone();
    long[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    scene.check(&long, true, "a header of 4 GiB");
}

#[test]
fn a_newer_format() {
    let scene = scene(10);
    let mut newer = scene.good.clone();
    newer[8] = 2;
    let crc = crc32c::crc32c(&newer[..12]);
    newer[12..preamble::PREAMBLE_BYTES].copy_from_slice(&crc.to_le_bytes());
    let file = format!("data/{}", scene.name);
    assert_eq!(scene.opened(&newer), Err(StoreError::NewerFormat { file, found: 2, known: 1 }));
    assert!(matches!(Scene::accepted(&newer), Err(StoreError::NewerFormat { found: 2, known: 1, .. })));
}

fn refused(disk: &Disk, file: &str, why: &str) {
    match open(disk) {
        Err(StoreError::Corrupt { file: named, what, .. }) => {
            assert!(named.ends_with(file) && what.contains(why), "{named}: {what}");
            assert!(what.contains("Replace this member"), "{what}");
        }
        other => panic!("it is not refused for {why}: {:?}", other.map(|(_, opened)| opened)),
    }
}

#[test]
fn a_log_without_the_snapshot_it_begins_after() {
    let scene = scene(10);
    let disk = scene.disk.copy();
    disk.put(&scene.name, None);
    refused(&disk, "snapshots", "the log begins after entry 2/9, and the snapshot that covers it is missing");
    disk.put(&snapshot_name(EntryId::new(2, 8)), Some(snapshot_file(EntryId::new(2, 8), 10)));
    refused(&disk, "snapshot-0000000008-0000000002", "a newer one is missing");
    disk.put(&snapshot_name(EntryId::new(2, 8)), None);
    disk.put(&snapshot_name(EntryId::new(1, 9)), Some(snapshot_file(EntryId::new(1, 9), 10)));
    refused(&disk, "snapshot-0000000009-0000000001", "a newer one is missing");
    // One that is newer will do: a crash may come before the log is cut.
    disk.put(&snapshot_name(EntryId::new(3, 12)), Some(snapshot_file(EntryId::new(3, 12), 10)));
    assert_eq!(open_well(&disk).1.recovered.snapshot, EntryId::new(3, 12));
}

#[test]
fn a_snapshot_under_another_name() {
    let scene = scene(10);
    let disk = scene.disk.copy();
    disk.put(&snapshot_name(EntryId::new(2, 10)), Some(scene.good.clone()));
    refused(&disk, "snapshot-0000000010-0000000002", "it is a snapshot of entry 2/9 under another name");
}

/// What was promised may rest on it, so neither a whole log nor an older snapshot will do in its place.
#[test]
fn a_damaged_snapshot_beside_what_it_replaced() {
    let disk = Disk::new();
    let (mut store, _) = open_well(&disk);
    store.persist(&[write(2, None, commands(2, 1, 9), 9)]).expect("it is written");
    store.write(EntryId::new(2, 5)).expect("it is written");
    let older = disk.read(&snapshot_name(EntryId::new(2, 5)));
    store.write(LAST).expect("it is written");
    drop(store);
    disk.put(&snapshot_name(EntryId::new(2, 5)), Some(older));
    drop(open_well(&disk.copy()));
    disk.edit(&snapshot_name(LAST), |file| file[60] ^= 1);
    refused(&disk, "snapshot-0000000009-0000000002", "fails the checksum");
}

#[test]
fn a_snapshot_of_another_cluster() {
    let disk = Disk::new();
    let (mut store, _) = open_well(&disk);
    store.persist(&[write(2, None, commands(2, 1, 9), 9)]).expect("it is written");
    store.record_cluster(ClusterId(5)).expect("it is written");
    drop(store);
    for (cluster, fits) in [(0, true), (5, true), (6, false)] {
        let mut members = Membership::clone(&membership());
        members.cluster = ClusterId(cluster);
        let other = Disk::new();
        let meta = SnapshotMeta { membership: Arc::new(members), ..meta(LAST) };
        open_well(&other).0.snapshots.write(&meta, state_of(LAST, 9)).expect("it is written");
        let disk = disk.copy();
        disk.put(&snapshot_name(LAST), Some(other.read(&snapshot_name(LAST))));
        if fits {
            assert_eq!(open_well(&disk).1.recovered.membership, meta.membership);
        } else {
            refused(&disk, "snapshot-0000000009-0000000002", "the node belongs to");
        }
    }
}

#[test]
fn a_directory_that_lost_its_identity_or_its_log() {
    let scene = scene(10);
    let disk = scene.disk.copy();
    disk.put("identity", None);
    refused(&disk, "identity", "though the directory holds a log");
    // The log's only segment without any of its batches, in a cluster that is known.
    let disk = Disk::new();
    let (mut store, _) = open_well(&disk);
    store.record_cluster(ClusterId(5)).expect("it is written");
    store.write(LAST).expect("it is written");
    drop(store);
    refused(&disk, "log-0000000001", "what it held is gone");
}
