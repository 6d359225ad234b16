//! Full disks and failing syncs.

use super::disk::{Crash, Faults};
use super::*;

fn room(disk: &Disk, bytes: usize) -> Faults {
    Faults { capacity: Some(disk.used() + bytes), ..Faults::default() }
}

#[test]
fn on_a_full_disk_nothing_changes_and_the_same_writes_succeed_later() {
    let mut full = 0;
    for bytes in [0, 1, 23, 24, 60, 100, 300, 511, 1000, 4096, 4200, 5000] {
        let disk = Disk::new();
        let (mut wal, _) = open_well(&disk);
        let mut model = Model::default();
        for step in life() {
            disk.set_faults(room(&disk, bytes));
            let after = model.after(&step);
            if let Err(error) = step.run(&mut wal) {
                full += 1;
                let context = format!("{bytes} bytes of room, {step:?}");
                assert!(matches!(error, StoreError::Full { .. }), "{context}: {error}");
                for crash in [Crash::Drop, Crash::Keep, Crash::Tear(1), Crash::Tear(2)] {
                    let copy = disk.copy();
                    copy.crash(crash);
                    let found = Model::of(&open_well(&copy).1);
                    assert!(found == model.shown() || found == after.shown(), "{context}, then {crash:?}");
                }
                disk.set_faults(Faults::default());
                step.run(&mut wal).unwrap_or_else(|error| panic!("{context}, again: {error}"));
            }
            model = after;
            if full % 5 == 0 {
                let copy = disk.copy();
                copy.crash(Crash::Drop);
                assert_eq!(Model::of(&open_well(&copy).1), model.shown(), "{bytes} bytes of room, after {step:?}");
            }
        }
        drop(wal);
        disk.crash(Crash::Drop);
        assert_eq!(Model::of(&open_well(&disk).1), model.shown(), "{bytes} bytes of room");
    }
    assert!(full > 60, "the disk was full {full} times");
}

#[test]
fn on_a_full_disk_other_writes_may_take_the_place() {
    let disk = Disk::new();
    let (mut wal, _) = open_well(&disk);
    let mut model = run_all(&mut wal, &[Step::Persist(vec![write(1, None, commands(1, 1, 2), 0)])]);
    for (index, bytes) in [(3, 600), (4, 4000), (5, 300), (6, 2000)] {
        disk.set_faults(room(&disk, bytes / 2));
        let large = [write(1, None, vec![command(1, index, bytes + 1000)], 0)];
        assert!(matches!(wal.persist(&large), Err(StoreError::Full { .. })));
        let small = Step::Persist(vec![write(1, None, vec![command(1, index, 3)], 0)]);
        small.run(&mut wal).expect("there is room for this one");
        model = model.after(&small);
        let copy = disk.copy();
        copy.crash(Crash::Drop);
        assert_eq!(Model::of(&open_well(&copy).1), model.shown());
        assert_eq!(Model::of(&open_well(&disk.copy()).1), model.shown());
    }
}

/// The first attempt may be whole on disk at the end of a segment; the second is larger and goes to the next one.
#[test]
fn a_failed_attempt_is_no_part_of_the_log() {
    for bytes in 0..150 {
        let disk = Disk::new();
        let (mut wal, _) = open_well(&disk);
        let mut model = Model::default();
        for index in 1..=5 {
            let step = Step::Persist(vec![write(1, None, commands(1, index, index), 0)]);
            step.run(&mut wal).expect("it is written");
            model = model.after(&step);
        }
        disk.set_faults(room(&disk, bytes));
        let attempt = wal.persist(&[write(1, None, commands(1, 6, 6), 0)]);
        disk.set_faults(Faults::default());
        if attempt.is_ok() {
            continue;
        }
        let attempted = disk.read("log-0000000001");
        let step = Step::Persist(vec![write(2, None, vec![command(2, 6, 600)], 0)]);
        step.run(&mut wal).expect("it is written");
        assert_eq!(wal.segments.active.number, 2);
        drop(wal);
        assert_eq!(Model::of(&open_well(&disk).1), model.after(&step).shown(), "{bytes} bytes of room");
        // As if there had been no space for the mark that the log goes on.
        disk.edit("log-0000000001", |bytes| *bytes = attempted);
        assert_eq!(Model::of(&open_well(&disk).1), model.after(&step).shown(), "{bytes} bytes of room");
    }
}

#[test]
fn a_full_disk_is_relieved_by_compaction() {
    for bytes in (0..5000).step_by(7) {
        let disk = Disk::new();
        let (mut wal, _) = open_well(&disk);
        run_all(&mut wal, &[1, 10].map(|first| Step::Persist(vec![write(1, None, commands(1, first, first + 8), 0)])));
        disk.set_faults(room(&disk, bytes));
        let mut index = 19;
        while wal.persist(&[write(1, None, commands(1, index, index), 0)]).is_ok() {
            index += 1;
        }
        // The snapshot is on a disk of its own, as it were.
        let full = disk.used();
        disk.set_faults(Faults::default());
        wal.snapshots.write(&meta(EntryId::new(1, index - 1)), state_of(EntryId::ZERO, 0)).expect("it is written");
        disk.set_faults(room(&disk, 0));
        wal.wal.compact(EntryId::new(1, index - 1)).expect("a base fits on a full disk");
        assert!(disk.used() < full + 300, "only the snapshot is more than there was");
        wal.persist(&[write(1, None, commands(1, index, index), 0)]).expect("space was made");
        drop(wal);
        assert_eq!(open_well(&disk).1.recovered.entries, commands(1, index, index));
    }
}

#[test]
fn a_full_disk_gets_the_spare_files_back() {
    let disk = Disk::new();
    let (mut wal, _) = open_well(&disk);
    for index in 1..=22 {
        wal.persist(&[write(1, None, commands(1, index, index), 0)]).expect("it is written");
    }
    wal.compact(EntryId::new(1, 22)).expect("it forgets");
    let spares = || disk.names().iter().filter(|name| name.starts_with("spare-")).count();
    assert_eq!(spares(), 1);
    disk.set_faults(room(&disk, 0));
    // More than the segment has, less than it may have.
    let large = [write(1, None, vec![command(1, 23, 400)], 0)];
    assert!(matches!(wal.persist(&large), Err(StoreError::Full { .. })));
    assert_eq!(spares(), 0);
    wal.persist(&large).expect("there is room now");
}

#[test]
fn a_failed_sync_poisons_and_reopening_makes_sure() {
    for sync_fails_with_no_space in [false, true] {
        let steps = life();
        let clean = Disk::new();
        run_all(&mut open_well(&clean).0, &steps);
        let mut poisoned = 0;
        for nth in 0..clean.syncs() {
            let disk = Disk::new();
            let faults = Faults { sync_fails_at: Some(nth), sync_fails_with_no_space, ..Faults::default() };
            disk.set_faults(faults);
            let mut model = Model::default();
            let mut after = Model::default();
            if let Ok((mut wal, _)) = open(&disk) {
                for step in &steps {
                    after = model.after(step);
                    match step.run(&mut wal) {
                        Ok(()) => {}
                        // Nothing is kept of the file; the log is as good as before, and so is another attempt.
                        Err(_) if wal.no_snapshot => step.run(&mut wal).expect("one sync fails"),
                        Err(error) => {
                            assert!(matches!(error, StoreError::Io { .. }), "sync {nth}: {error}");
                            poisoned += 1;
                            let poisoned = Err(StoreError::Poisoned);
                            assert_eq!(wal.persist(&[]), poisoned, "sync {nth}");
                            assert_eq!(wal.wal.compact(EntryId::ZERO), poisoned);
                            assert_eq!(wal.record_cluster(ClusterId(1)), poisoned);
                            break;
                        }
                    }
                    model = after.clone();
                }
            }
            // The pages of the failed sync are in the cache, count as clean, and are not on the disk.
            let (wal, opened) = open_well(&disk);
            let found = Model::of(&opened);
            assert!(found == model.shown() || found == after.shown(), "sync {nth}");
            drop(wal);
            disk.crash(Crash::Drop);
            assert_eq!(Model::of(&open_well(&disk).1), found, "sync {nth}: what was handed out is gone");
        }
        assert!(poisoned > 30, "syncs of the log failed, {poisoned} times");
    }
}
