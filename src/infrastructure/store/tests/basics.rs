//! What goes in comes out.

use super::super::batch;
use super::super::segment::HEADER_BYTES;
use super::*;

#[test]
fn a_new_directory_is_fresh_and_founded() {
    let disk = Disk::new();
    let (wal, opened) = open_well(&disk);
    assert!(opened.recovered.entries.is_empty());
    assert_eq!(opened.recovered.membership, membership());
    assert_eq!((opened.identity.id, opened.identity.incarnation), (node("n1"), Incarnation(11)));
    assert_eq!(opened.identity.cluster, ClusterId::UNKNOWN);
    assert_eq!(opened.notes, [""; 0]);
    drop(wal);

    let other_mint = Founding { mint: Incarnation(12), ..founding() };
    let (_wal, _, opened) = open_in(disk, Path::new("data"), &other_mint, SMALL).expect("it opens again");
    assert!(opened.recovered.entries.is_empty(), "nothing was ever written");
    assert_eq!(opened.identity.incarnation, Incarnation(11), "minted once");
}

#[test]
fn every_step_of_a_life_is_there_after_reopening() {
    let disk = Disk::new();
    let mut model = Model::default();
    for step in life() {
        let (mut wal, opened) = open_well(&disk);
        assert_eq!(Model::of(&opened), model.shown(), "before {step:?}");
        assert_eq!(opened.notes, [""; 0], "before {step:?}");
        step.run(&mut wal).unwrap_or_else(|error| panic!("{step:?}: {error}"));
        model = model.after(&step);
    }
    let (_wal, opened) = open_well(&disk);
    assert_eq!(Model::of(&opened), model.shown());
    assert_ne!(opened.recovered.term, Term::ZERO);
}

#[test]
fn a_life_without_reopening_ends_the_same() {
    let disk = Disk::new();
    let (mut wal, _) = open_well(&disk);
    let model = run_all(&mut wal, &life());
    assert!(wal.segments.active.number > 10, "the life rolls through many segments");
    assert!(wal.segments.sealed.len() < 4, "and compaction forgets them");
    drop(wal);
    let (_wal, opened) = open_well(&disk);
    assert_eq!(Model::of(&opened), model.shown());
}

#[test]
fn one_persist_is_one_sync_and_one_write() {
    let disk = Disk::new();
    let config = StoreConfig { segment_bytes: 1 << 20, preallocate_bytes: 1 << 16, ..SMALL };
    let (mut wal, _) = open_with(&disk, config).expect("it opens");
    let (changes, syncs) = (disk.changes(), disk.syncs());
    let writes = [write(1, None, commands(1, 1, 20), 0), write(1, None, commands(1, 21, 40), 0)];
    wal.persist(&writes).expect("it is written");
    assert_eq!((disk.changes() - changes, disk.syncs() - syncs), (2, 1), "a write and a sync");

    wal.persist(&[]).expect("nothing to do");
    wal.persist(&[write(1, None, vec![], 0)]).expect("nothing new");
    assert_eq!(disk.changes() - changes, 2, "what is durable already is not written again");
}

#[test]
fn a_commit_hint_beyond_the_log_is_kept() {
    let disk = Disk::new();
    let (mut wal, _) = open_well(&disk);
    wal.persist(&[write(1, None, commands(1, 1, 3), 1000)]).expect("it is written");
    drop(wal);
    let (mut wal, opened) = open_well(&disk);
    assert_eq!(opened.recovered.commit, Index(1000), "so far the log has to come before its node votes");
    wal.compact(EntryId::new(1, 3)).expect("it forgets");
    wal.persist(&[write(1, None, vec![], 0)]).expect("it is written");
    drop(wal);
    assert_eq!(open_well(&disk).1.recovered.commit, Index(3), "a snapshot covers nothing but committed entries");
}

#[test]
fn a_batch_larger_than_a_segment_is_one_segment() {
    let disk = Disk::new();
    let (mut wal, _) = open_well(&disk);
    let steps = [
        Step::Persist(vec![write(1, None, commands(1, 1, 2), 0)]),
        Step::Persist(vec![write(1, None, vec![command(1, 3, 3 << 20), command(1, 4, 10)], 0)]),
        Step::Persist(vec![write(1, None, commands(1, 5, 6), 0)]),
    ];
    let model = run_all(&mut wal, &steps);
    assert_eq!(wal.segments.active.number, 3);
    assert!(wal.bytes() > 3 << 20);
    drop(wal);
    assert_eq!(Model::of(&open_well(&disk).1), model.shown());
}

#[test]
fn compaction_frees_whole_segments_and_keeps_a_spare() {
    let disk = Disk::new();
    let (mut wal, _) = open_well(&disk);
    for index in 1..=40 {
        wal.persist(&[write(1, None, commands(1, index, index), 0)]).expect("it is written");
    }
    let (before, last) = (wal.bytes(), wal.segments.active.number);
    assert!(last >= 5);
    wal.compact(EntryId::new(1, 20)).expect("it forgets");
    assert!(wal.bytes() < before);
    let kept = wal.segments.sealed.front().expect("entries after 20 are in older segments").greatest;
    assert!(kept > Index(20));
    wal.compact(EntryId::new(1, 40)).expect("it forgets");
    assert_eq!(wal.segments.sealed.len(), 0);
    assert_eq!(disk.names().iter().filter(|name| name.starts_with("spare-")).count(), 1);
    assert_eq!(disk.names().iter().filter(|name| name.starts_with("log-")).count(), 1, "never the one that grows");
    drop(wal);
    let (_, opened) = open_well(&disk);
    assert_eq!((opened.recovered.snapshot, opened.recovered.entries.len()), (EntryId::new(1, 40), 0));
}

#[test]
fn a_log_may_begin_amid_a_conflict() {
    let disk = Disk::new();
    let (mut wal, _) = open_well(&disk);
    for entries in [commands(1, 1, 9), commands(1, 10, 18)] {
        wal.persist(&[write(1, None, entries, 0)]).expect("it is written");
    }
    wal.persist(&[write(2, None, commands(2, 12, 20), 0)]).expect("it is written");
    wal.compact(EntryId::new(2, 18)).expect("it forgets");
    assert_eq!(wal.segments.sealed.len(), 0, "the log begins with entry 12, in place of another");
    drop(wal);
    let (_, opened) = open_well(&disk);
    assert_eq!((opened.recovered.snapshot, opened.recovered.entries), (EntryId::new(2, 18), commands(2, 19, 20)));
}

#[test]
fn a_reopened_log_forgets_no_more_than_is_covered() {
    let disk = Disk::new();
    let (mut wal, _) = open_well(&disk);
    wal.persist(&[write(1, None, commands(1, 1, 9), 0)]).expect("it is written");
    drop(wal);
    let (mut wal, _) = open_well(&disk);
    wal.persist(&[write(1, None, commands(1, 10, 18), 0)]).expect("it is written");
    assert_eq!(wal.segments.active.number, 2);
    wal.compact(EntryId::new(1, 3)).expect("it forgets nothing yet");
    drop(wal);
    assert_eq!(open_well(&disk).1.recovered.entries, commands(1, 4, 18));
}

#[test]
fn what_a_recycled_segment_held_never_comes_back() {
    let disk = Disk::new();
    let (mut wal, _) = open_well(&disk);
    // Batches of one size, so that those of one life lie exactly where those of the other did.
    let one = |index| [write(1, None, commands(1, index, index), 0)];
    let mut model = Model::default();
    let mut recycled = 0;
    for index in 1..=60 {
        wal.persist(&one(index)).expect("it is written");
        model = model.after(&Step::Persist(one(index).to_vec()));
        if index % 6 == 0 {
            let covered = Step::Compact(EntryId::new(1, index - 2));
            covered.run(&mut wal).expect("it forgets");
            model = model.after(&covered);
        }
        let position = position(&wal.wal);
        let bytes = disk.read(&format!("log-{:010}", wal.segments.active.number));
        recycled += u32::from(bytes.len() > position && bytes[position..].iter().any(|byte| *byte != 0));
        // Opened as it is, and with the power gone.
        let copy = disk.copy();
        let (copied, opened) = open_well(&copy);
        assert_eq!(Model::of(&opened), model.shown(), "at {index}");
        assert_eq!(opened.notes, [""; 0], "an earlier life's bytes are not a torn write");
        drop(copied);
    }
    assert!(recycled > 10, "stale bytes did lie behind the log's end, {recycled} times");
}

#[test]
fn a_cut_suffix_never_comes_back() {
    let disk = Disk::new();
    let (mut wal, _) = open_well(&disk);
    run_all(&mut wal, &[Step::Persist(vec![write(1, None, commands(1, 1, 9), 0)])]);
    wal.persist(&[write(2, None, commands(2, 4, 4), 0)]).expect("it is written");
    drop(wal);
    for round in 5..12 {
        let (mut wal, opened) = open_well(&disk);
        let terms: Vec<u64> = opened.recovered.entries.iter().map(|entry| entry.term.0).collect();
        assert_eq!(terms[..3], [1, 1, 1]);
        assert!(terms[3..].iter().all(|term| *term == 2), "{terms:?}");
        wal.persist(&[write(2, None, commands(2, round, round), 0)]).expect("it is written");
    }
}

/// A command may well hold a copy of the log it is in.
#[test]
fn a_copy_of_the_log_inside_a_command_is_no_log() {
    let disk = Disk::new();
    let (mut wal, _) = open_well(&disk);
    let mut steps = vec![Step::Persist(vec![write(1, None, commands(1, 1, 2), 0)])];
    let mut model = run_all(&mut wal, &steps);
    // As far on as the copy is: the log goes on with what the copy holds, at another place.
    let ahead = disk.copy();
    let (mut later, _) = open_well(&ahead);
    for index in 3..=4 {
        later.persist(&[write(1, None, commands(1, index, index), 0)]).expect("it is written");
    }
    let image = ahead.read("log-0000000001")[HEADER_BYTES..position(&later.wal)].to_vec();
    let copy = Entry { index: Index(3), term: Term(1), payload: Payload::Command(Bytes::from(image)) };
    let start = position(&wal.wal);
    steps = vec![Step::Persist(vec![write(1, None, vec![copy], 0)])];
    steps[0].run(&mut wal).expect("it is written");
    drop(wal);
    // Torn, it is still no proof of a later batch.
    let torn = disk.copy();
    torn.edit("log-0000000001", |bytes| bytes[start] ^= 1);
    assert_eq!(Model::of(&open_well(&torn).1), model.shown());
    model = model.after(&steps[0]);
    assert_eq!(Model::of(&open_well(&disk).1), model.shown());
}

/// A window of the reader ends anywhere in a header, a record or a body.
#[test]
fn a_log_of_many_windows_is_read_whole() {
    let disk = Disk::new();
    let config = StoreConfig { segment_bytes: 64 << 20, preallocate_bytes: 1 << 16, spares_max: 1 };
    let open = || open_with(&disk, config);
    let (mut wal, _) = open().expect("it opens");
    let mut model = Model::default();
    for (index, bytes) in (1..=700).zip((12..).step_by(7)) {
        let bytes = if index % 100 == 0 { 1_200_000 } else { bytes };
        let step = Step::Persist(vec![write(1, None, vec![command(1, index, bytes)], 0)]);
        step.run(&mut wal).expect("it is written");
        model = model.after(&step);
    }
    drop(wal);
    let (_, opened) = open().expect("it opens");
    assert!(Model::of(&opened) == model.shown());
}

#[test]
fn a_later_batch_is_seen_wherever_a_window_ends() {
    const WINDOW: usize = 1 << 20;
    for shift in (0..64).step_by(8) {
        let disk = Disk::new();
        let config = StoreConfig { segment_bytes: 64 << 20, preallocate_bytes: 512, spares_max: 1 };
        let open = || open_with(&disk, config);
        let (mut wal, _) = open().expect("it opens");
        // The first window begins with the damaged batch; the next batch's header lies around that window's end.
        let body = WINDOW - shift + 32 - batch::HEADER_BYTES - 24 - 24;
        wal.persist(&[write(1, None, vec![command(1, 1, body)], 0)]).expect("it is written");
        assert_eq!(position(&wal.wal), HEADER_BYTES + WINDOW - shift + 32);
        wal.persist(&[write(1, None, commands(1, 2, 2), 0)]).expect("it is written");
        drop(wal);
        disk.edit("log-0000000001", |bytes| bytes[HEADER_BYTES] ^= 1);
        let error = open().expect_err("a durable batch is damaged");
        assert!(matches!(error, StoreError::Corrupt { offset: 4096, .. }), "{error}");
    }
}

#[test]
fn the_longest_promise_that_may_bind_is_kept_until_it_is_over() {
    let (disk, path) = (Disk::new(), Path::new("data"));
    let begin = |promise| {
        let founding = Founding { promise, ..founding() };
        let (wal, _, opened) = open_in(disk.clone(), path, &founding, SMALL).expect("it opens");
        (wal, opened.recovered.promised, opened.identity.promise)
    };
    let run = |promise| {
        let (_, promised, kept) = begin(promise);
        (promised, kept)
    };
    let (long, short) = (Duration::from_secs(5), Duration::from_millis(100));
    assert_eq!(run(PROMISE), (PROMISE, PROMISE), "a new directory has promised no more than this run will");
    assert_eq!(run(long), (PROMISE, long));
    assert_eq!(run(short), (long, long), "what the run before promised");
    let (mut wal, promised, kept) = begin(short);
    assert_eq!((promised, kept), (long, long), "it may bind still, however often the node is started");
    wal.keep_promise(short).expect("it is over");
    drop(wal);
    assert_eq!(run(Duration::MAX), (short, Duration::MAX));
    assert_eq!(run(short).0, Duration::from_nanos(u64::MAX));
}
