//! What is refused: directories of others, logs that no crash leaves behind, writes that no log can hold.

use super::super::record::{self, Base, put_base, put_entry, put_hard_state};
use super::super::segment::{HEADER_BYTES, SegmentHeader};
use super::super::segments::Leave;
use super::super::state::HardState;
use super::super::{batch, preamble};
use super::*;
use disk::{Crash, Faults};

const FIRST: &str = "log-0000000001";

/// A log of four segments, with entries 1..=24 of term 2.
fn four_segments() -> Disk {
    let disk = Disk::new();
    let (mut wal, _) = open_well(&disk);
    for index in 1..=24 {
        wal.persist(&[write(2, None, commands(2, index, index), 0)]).expect("it is written");
    }
    assert_eq!(wal.segments.active.number, 4);
    disk
}

fn refused(disk: &Disk, file: &str, why: &str) {
    match open(disk) {
        Err(StoreError::Corrupt { file: named, what, .. }) => {
            assert!(named.ends_with(file), "it blames {named}, not {file}: {what}");
            assert!(what.contains(why), "{what}");
        }
        other => panic!("it is not refused for {why}: {:?}", other.map(|(_, opened)| opened)),
    }
}

#[test]
fn another_nodes_directory() {
    let disk = four_segments();
    let (before, other) = (disk.changes(), Founding { id: node("n2"), ..founding() });
    let error = open_in(disk.clone(), Path::new("data"), &other, SMALL).expect_err("it is n1's");
    assert_eq!(error, StoreError::WrongNode { path: "data".into(), found: node("n1"), expected: node("n2") });
    assert_eq!(disk.changes(), before, "nothing was changed");
}

#[test]
fn a_directory_in_use() {
    let disk = four_segments();
    let (wal, _) = open_well(&disk);
    assert_eq!(open(&disk).expect_err("it is in use"), StoreError::Locked { path: "data".into(), pid: Some(7) });
    drop(wal);
    open_well(&disk);
}

#[test]
fn a_missing_file() {
    let (second, third, last) = ("log-0000000002", "log-0000000003", "log-0000000004");
    for (missing, file, why) in [
        (FIRST, second, "a segment is missing"),
        (second, third, "a segment is missing"),
        (last, third, "the next segment, which is missing"),
        ("identity", "identity", "it is missing"),
    ] {
        let disk = four_segments();
        disk.put(missing, None);
        refused(&disk, file, why);
    }
    let disk = four_segments();
    for name in disk.names().iter().filter(|name| name.starts_with("log-")) {
        disk.put(name, None);
    }
    refused(&disk, "data", "no log");
}

/// Its checksum is good, and no log leads up to it.
#[test]
fn a_header_that_was_never_written() {
    let first = SegmentHeader::first(founding().mint);
    let forged = [
        SegmentHeader { prev: EntryId::new(3, 0), ..first },
        SegmentHeader { base: EntryId::new(3, 0), ..first },
        SegmentHeader { prev: EntryId::new(3, 4), base: EntryId::new(3, 5), ..first },
    ];
    for header in forged {
        let disk = Disk::new();
        drop(open_well(&disk));
        disk.edit(FIRST, |bytes| bytes[..HEADER_BYTES].copy_from_slice(&header.encode().0));
        refused(&disk, FIRST, "its header holds what no version writes");
    }
}

#[test]
fn a_segment_from_elsewhere() {
    let (disk, other) = (four_segments(), Disk::new());
    let founding = Founding { mint: Incarnation(12), ..founding() };
    drop(open_in(other.clone(), Path::new("data"), &founding, SMALL).expect("it opens"));
    disk.put(FIRST, Some(other.read(FIRST)));
    refused(&disk, FIRST, "another directory");

    let disk = four_segments();
    disk.put("log-0000000002", Some(disk.read("log-0000000003")));
    refused(&disk, "log-0000000002", "under another name");

    // The same node's, from a life in which its log went another way.
    let (disk, other) = (four_segments(), Disk::new());
    let (mut wal, _) = open_well(&other);
    for index in 1..=24 {
        wal.persist(&[write(3, None, commands(3, index, index), 0)]).expect("it is written");
    }
    disk.put("log-0000000003", Some(other.read("log-0000000003")));
    refused(&disk, "log-0000000003", "does not go on");
}

/// As a disk may do that mixes up blocks: the header is right, the batches are another directory's.
#[test]
fn batches_of_another_segment_are_none_of_this_one() {
    let (disk, other) = (four_segments(), Disk::new());
    let founding = Founding { mint: Incarnation(12), ..founding() };
    let (mut wal, ..) = open_in(other.clone(), Path::new("data"), &founding, SMALL).expect("it opens");
    for index in 1..=7 {
        wal.persist(&[write(2, None, commands(2, index, index), 0)]).expect("it is written");
    }
    disk.edit(FIRST, |bytes| bytes.splice(HEADER_BYTES.., other.read(FIRST).split_off(HEADER_BYTES)).for_each(drop));
    refused(&disk, FIRST, "batch 1 is damaged");
}

#[test]
fn a_newer_format() {
    for file in ["identity", FIRST] {
        let disk = four_segments();
        disk.edit(file, |bytes| {
            bytes[8] = 2;
            let crc = crc32c::crc32c(&bytes[..12]);
            bytes[12..preamble::PREAMBLE_BYTES].copy_from_slice(&crc.to_le_bytes());
        });
        let error = open(&disk).expect_err("nobody knows version 2");
        assert_eq!(error, StoreError::NewerFormat { file: format!("data/{file}"), found: 2, known: 1 });
    }
}

#[test]
fn segments_that_a_snapshot_covers_may_be_left_or_not() {
    let disk = four_segments();
    let copy = disk.copy();
    let (mut wal, _) = open_well(&disk);
    wal.compact(EntryId::new(2, 24)).expect("it forgets");
    drop(wal);
    // As if any of them had outlived the crash that came right after.
    for left in [vec![FIRST], vec!["log-0000000002"], vec![FIRST, "log-0000000003"]] {
        let disk = disk.copy();
        for name in &left {
            disk.put(name, Some(copy.read(name)));
        }
        let (_, opened) = open_well(&disk);
        assert_eq!((opened.recovered.snapshot, opened.recovered.entries.len()), (EntryId::new(2, 24), 0));
        let names = disk.names();
        assert!(left.iter().all(|name| !names.contains(&(*name).to_owned())), "they are removed: {names:?}");
    }
}

#[test]
fn an_unfinished_first_opening_is_finished() {
    let whole = Disk::new();
    drop(open_well(&whole));
    let mut finished = 0;
    for at in 0..whole.changes() {
        let disk = Disk::new();
        disk.set_faults(Faults { power_off_at: Some(at), ..Faults::default() });
        assert!(open(&disk).is_err());
        disk.crash(Crash::Keep);
        if disk.names().contains(&"identity".to_owned()) {
            continue;
        }
        let other = Founding { mint: Incarnation(99), ..founding() };
        let (_, _, opened) = open_in(disk, Path::new("data"), &other, SMALL).expect("nothing was in it");
        assert!(opened.recovered.entries.is_empty());
        assert_eq!(opened.identity.incarnation, Incarnation(99));
        finished += 1;
    }
    assert!(finished > 3, "{finished} times");
}

#[test]
fn a_directory_that_lost_its_identity_founds_nothing() {
    let disk = Disk::new();
    drop(open_well(&disk));
    disk.put("identity", None);
    let Err(StoreError::Io { what, .. }) = open(&disk) else { panic!("it founds") };
    assert!(what.contains("not finished"), "{what}");
}

#[test]
fn files_of_others_are_left_alone() {
    let disk = four_segments();
    for name in ["log-1", "log-0000000001.old", "log-", "log-+000000001", "snapshot-7", "log-99999999999999999999999"] {
        disk.put(name, Some(vec![1, 2, 3]));
    }
    open_well(&disk);
    assert!(disk.names().contains(&"log-1".to_owned()));
}

/// Writes records under good checksums that no log of this program holds.
fn forge(put: impl FnOnce(&mut Vec<u8>)) -> Disk {
    let disk = Disk::new();
    let (mut store, _) = open_well(&disk);
    store.persist(&[write(2, Some("n1"), commands(2, 1, 3), 0)]).expect("it is written");
    store.compact(EntryId::new(2, 1)).expect("it forgets");
    let wal = &mut store.wal;
    wal.next.copy_from(&wal.durable.state.clone());
    batch::begin(&mut wal.buffer);
    put(&mut wal.buffer);
    wal.commit(Leave::RoomForBase, Index(9)).expect("it is written");
    disk
}

#[test]
fn records_that_do_not_belong() {
    let hard = |term, vote| HardState { term: Term(term), vote, commit: Index(0) };
    let entry = |entry: Entry| move |out: &mut Vec<u8>| assert!(put_entry(out, &entry));
    refused(&forge(entry(command(2, 5, 1))), FIRST, "entry 5 comes after entry 3");
    refused(&forge(entry(command(1, 4, 1))), FIRST, "entry 4 has term 1");
    refused(&forge(entry(command(3, 4, 1))), FIRST, "entry 4 has term 3");
    refused(&forge(entry(command(2, 1, 1))), FIRST, "entry 1 comes again");
    refused(&forge(entry(command(2, 0, 1))), FIRST, "entry 0 comes again");
    refused(&forge(entry(command(2, u64::MAX, 1))), FIRST, "comes after entry 3");
    refused(&forge(|out| put_hard_state(out, &hard(1, None))), FIRST, "goes back from 2 to 1");
    refused(&forge(|out| put_hard_state(out, &hard(2, Some(node("n2"))))), FIRST, "a second vote in term 2");
    refused(&forge(|out| put_hard_state(out, &hard(2, None))), FIRST, "a second vote in term 2");
    let base = |index, reset| move |out: &mut Vec<u8>| put_base(out, &Base { id: EntryId::new(2, index), reset });
    refused(&forge(base(9, false)), FIRST, "a snapshot covers 2/9");
    refused(&forge(base(1, true)), FIRST, "a snapshot covers 2/1");
    let other_term = Base { id: EntryId::new(1, 2), reset: false };
    refused(&forge(|out| put_base(out, &other_term)), FIRST, "a snapshot covers 1/2");
}

#[test]
fn batches_out_of_order() {
    for (number, found) in [(7, 8), (0, 1)] {
        let disk = Disk::new();
        let (mut wal, _) = open_well(&disk);
        wal.persist(&[write(2, None, commands(2, 1, 3), 0)]).expect("it is written");
        wal.durable.batch = number;
        wal.persist(&[write(2, None, commands(2, 4, 4), 0)]).expect("it is written");
        drop(wal);
        refused(&disk, FIRST, &format!("batch {found} is where batch 2 should be"));
    }
}

#[test]
fn records_of_unknown_make() {
    let head = |kind, detail, length: u8| {
        move |out: &mut Vec<u8>| {
            out.extend_from_slice(&[kind, detail, 0, 0, length, 0, 0, 0]);
            out.resize(out.len() + record::HEAD_BYTES - 8, 1);
        }
    };
    refused(&forge(head(9, 0, 0)), FIRST, "unknown kind 9");
    refused(&forge(head(0, 0, 0)), FIRST, "unknown kind 0");
    refused(&forge(head(3, 2, 0)), FIRST, "unknown detail 2");
    refused(&forge(head(1, 1, 0)), FIRST, "unknown detail 1");
    refused(&forge(head(2, 1, 1)), FIRST, "longer than its batch");
    refused(&forge(head(2, 77, 0)), FIRST, "unknown kind 77");
    refused(&forge(|out| out.push(2)), FIRST, "longer than its batch");
    let vote = |out: &mut Vec<u8>| {
        head(1, 0, 3)(out);
        out.extend_from_slice(b"n \xff");
    };
    refused(&forge(vote), FIRST, "a vote for what is not");
}

#[test]
fn writes_that_no_log_can_hold() {
    let bad = [
        vec![write(2, None, commands(2, 5, 5), 0)],
        vec![write(1, None, vec![], 0)],
        vec![write(2, Some("n2"), vec![], 0)],
        vec![write(2, Some("n1"), commands(2, 1, 1), 0)],
        vec![write(2, Some("n1"), commands(3, 4, 4), 0)],
        vec![write(2, Some("n1"), commands(1, 4, 4), 0)],
        vec![write(2, Some("n1"), [commands(2, 4, 5), commands(2, 7, 7)].concat(), 0)],
        vec![write(2, Some("n1"), [commands(2, 4, 5), commands(2, 3, 3)].concat(), 0)],
        vec![write(3, None, vec![], 0), write(2, Some("n1"), vec![], 0)],
    ];
    for writes in bad {
        let disk = Disk::new();
        let (mut wal, _) = open_well(&disk);
        let steps =
            [Step::Persist(vec![write(2, Some("n1"), commands(2, 1, 3), 0)]), Step::Compact(EntryId::new(2, 1))];
        let model = run_all(&mut wal, &steps);
        let error = wal.persist(&writes).expect_err("the log cannot hold it");
        assert!(matches!(&error, StoreError::Io { what, .. } if what.contains("a bug")), "{error}");
        assert_eq!(wal.persist(&[]), Err(StoreError::Poisoned));
        drop(wal);
        assert_eq!(Model::of(&open_well(&disk).1), model.shown(), "nothing of it was written");
    }
}

#[test]
fn a_cluster_is_recorded_once() {
    let disk = Disk::new();
    let (mut wal, _) = open_well(&disk);
    wal.record_cluster(ClusterId::UNKNOWN).expect("nothing to do");
    wal.record_cluster(ClusterId(3)).expect("it is written");
    wal.record_cluster(ClusterId(3)).expect("nothing to do");
    for other in [ClusterId(4), ClusterId::UNKNOWN] {
        assert!(matches!(wal.record_cluster(other), Err(StoreError::Io { .. })));
    }
    wal.persist(&[write(1, None, commands(1, 1, 1), 0)]).expect("the store goes on");
    drop(wal);
    disk.crash(Crash::Drop);
    assert_eq!(open_well(&disk).1.identity.cluster, ClusterId(3));
}

#[test]
fn a_log_that_was_emptied() {
    let disk = Disk::new();
    let (mut wal, _) = open_well(&disk);
    wal.record_cluster(ClusterId(3)).expect("it is written");
    drop(wal);
    refused(&disk, FIRST, "what it held is gone");
}
