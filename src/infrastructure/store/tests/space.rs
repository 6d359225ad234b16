//! How much of a disk a node takes that writes snapshots and cuts its log behind them.

use super::super::segment::HEADER_BYTES;
use super::*;

/// So much smaller than the defaults is the whole of this test: segments, the log between two snapshots, the tail that is
/// kept for those who lag, the number of commands, and the limit.
const SCALE: u64 = 64;

#[test]
fn millions_of_small_commands_leave_less_than_200_mib() {
    let defaults = StoreConfig::default();
    let config = StoreConfig {
        segment_bytes: defaults.segment_bytes / SCALE,
        preallocate_bytes: defaults.preallocate_bytes / SCALE,
        ..defaults
    };
    let (every, tail, limit) = ((64 << 20) / SCALE, (4 << 20) / SCALE, (200 << 20) / SCALE);
    let disk = Disk::new();
    let (mut store, _) = open_with(&disk, config).expect("it opens");
    let (mut peak, mut since, mut snapshots, mut snapshot) = (0, 0, 0, EntryId::ZERO);
    for index in 1..=4_000_000 / SCALE {
        // Each in a batch of its own, which takes the most space that there is to take.
        let entry = command(1, index, 100);
        let bytes = entry.size() as u64;
        let kept = tail / bytes;
        since += bytes;
        store.persist(&[write(1, Some("n1"), vec![entry], index - 1)]).expect("it is written");
        if since >= every {
            snapshot = EntryId::new(1, index);
            store.snapshots.write(&meta(snapshot), state_of(snapshot, 2000)).expect("it is written");
            peak = peak.max(disk.used());
            store.wal.compact(EntryId::new(1, index - kept)).expect("it forgets");
            (since, snapshots) = (0, snapshots + 1);
        }
    }
    peak = peak.max(disk.used());
    let left = disk.used() as u64;
    assert!(snapshots >= 4, "{snapshots} snapshots");
    assert!(peak as u64 <= limit * 6 / 10, "{peak} bytes at most, {left} at the end, limit {limit}");
    let counted = store.disk_bytes() + store.snapshots.newest().map_or(0, |(_, bytes)| bytes);
    // The lock and the identity are not.
    assert!(left - counted < 200, "{left} bytes on the disk, {counted} counted");
    assert!(store.bytes() <= store.disk_bytes());
    // What was kept is found again, and counted the same.
    drop(store);
    let (store, opened) = open_with(&disk, config).expect("it opens");
    assert_eq!(opened.recovered.snapshot, snapshot);
    let counted = store.disk_bytes() + store.snapshots.newest().map_or(0, |(_, bytes)| bytes);
    assert!(disk.used() as u64 - counted < 200);
}

/// A segment for one large batch is larger than others, and its file is not kept.
#[test]
fn an_oversized_segment_gives_its_space_back() {
    let disk = Disk::new();
    let (mut store, _) = open_well(&disk);
    for index in (1..40).step_by(3) {
        let large = command(1, index, 60_000);
        store.persist(&[write(1, None, vec![large], 0)]).expect("it is written");
        store.persist(&[write(1, None, commands(1, index + 1, index + 2), 0)]).expect("it is written");
        store.compact(EntryId::new(1, index + 1)).expect("it forgets");
        let segments = 2 * (SMALL.segment_bytes + HEADER_BYTES as u64);
        assert!(store.disk_bytes() < segments, "{} bytes of log", store.disk_bytes());
    }
    drop(store);
    let left = "spare-0000000000";
    disk.put(left, Some(vec![7; 60_000]));
    let (store, _) = open_well(&disk);
    assert!(!disk.names().contains(&left.to_owned()), "nor is one kept that was left");
    assert!(store.disk_bytes() < 60_000);
}

/// A stop amid the making of a segment leaves a spare of the name that the segment gets again when it is forgotten. It is one
/// file, however often it has been named.
#[test]
fn a_spare_that_was_left_is_counted_once() {
    let config = StoreConfig { spares_max: 4, ..SMALL };
    let disk = Disk::new();
    drop(open_with(&disk, config).expect("it opens"));
    // The last of them is used first, and what is forgotten goes on top: the first one stays.
    for left in [12, 1_000] {
        disk.put(&format!("spare-{left:010}"), Some(vec![7; 5_000]));
    }
    let (mut store, _) = open_with(&disk, config).expect("it opens");
    for first in (1..400).step_by(3) {
        store.persist(&[write(1, None, commands(1, first, first + 2), 0)]).expect("it is written");
        store.compact(EntryId::new(1, first)).expect("it forgets");
    }
    // More than one segment at a time, so that all spares are used.
    for first in (400..600).step_by(2) {
        store.persist(&[write(1, None, commands(1, first, first + 1), 0)]).expect("it is written");
    }
}
