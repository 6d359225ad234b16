//! The machine stops between any two changes of the disk, unsynced ones being lost, kept or torn. A step is there
//! wholly or not at all, and if it was acknowledged it is there.

use super::disk::{Crash, Faults};
use super::*;

pub(super) const CRASHES: [Crash; 6] =
    [Crash::Drop, Crash::Keep, Crash::Tear(1), Crash::Tear(2), Crash::Tear(3), Crash::Tear(4)];

/// Where a life was when the power went.
struct Stopped {
    done: usize,
    before: Model,
    /// If the step at hand was done after all.
    after: Model,
}

/// Lives until the power goes at change `at`.
fn live_until(disk: &Disk, steps: &[Step], at: u64) -> Stopped {
    disk.set_faults(Faults { power_off_at: Some(at), ..Faults::default() });
    let mut before = Model::default();
    let Ok((mut wal, _)) = open(disk) else { return Stopped { done: 0, after: before.clone(), before } };
    for (done, step) in steps.iter().enumerate() {
        let after = before.after(step);
        if step.run(&mut wal).is_err() {
            // A snapshot that could not be written leaves the log as it was; here the power is off for both.
            let again = wal.persist(&[write(9, None, vec![], 0)]).expect_err("the power is off");
            assert!(wal.no_snapshot || again == StoreError::Poisoned, "a failed store takes nothing more: {again}");
            return Stopped { done, before, after };
        }
        before = after;
    }
    Stopped { done: steps.len(), after: before.clone(), before }
}

/// Checks what came back and answers how many steps are done.
fn check(stopped: &Stopped, opened: &Opened, context: &str) -> usize {
    let found = Model::of(opened);
    if found == stopped.before.shown() {
        return stopped.done;
    }
    assert_eq!(found, stopped.after.shown(), "{context}: neither before nor after step {}", stopped.done);
    stopped.done + 1
}

fn changes_of(steps: &[Step]) -> u64 {
    let disk = Disk::new();
    let (mut wal, _) = open_well(&disk);
    run_all(&mut wal, steps);
    disk.changes()
}

/// The snapshot that the log begins after is there and whole.
fn check_snapshot(store: &Store, opened: &Opened, context: &str) {
    let newest = store.snapshots.newest().map(|(last, _)| last);
    assert_eq!(newest.unwrap_or(EntryId::ZERO), opened.recovered.snapshot, "{context}");
    assert_eq!(newest, opened.snapshot.as_ref().map(|meta| meta.last), "{context}");
    if let Some(last) = newest {
        assert_eq!(store.state(last), state_bytes(last, STATE_BYTES), "{context}");
    }
}

#[test]
fn a_crash_anywhere_loses_nothing_acknowledged() {
    let (torn, kept) = crash_anywhere(&life());
    assert!(torn > 50 && kept > 50, "both kinds of ends came about: {torn} torn, {kept} kept");
}

/// Answers how often a tail was torn, and how often a step was done that was not acknowledged.
pub(super) fn crash_anywhere(steps: &[Step]) -> (usize, usize) {
    let (mut torn, mut kept) = (0, 0);
    for at in 0..=changes_of(steps) {
        for crash in CRASHES {
            let context = format!("power off at change {at}, {crash:?}");
            let disk = Disk::new();
            let stopped = live_until(&disk, steps, at);
            disk.crash(crash);
            let (mut wal, opened) = open(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
            let done = check(&stopped, &opened, &context);
            torn += usize::from(!opened.notes.is_empty());
            kept += usize::from(done > stopped.done);
            check_snapshot(&wal, &opened, &context);
            let mut model = if done == stopped.done { stopped.before } else { stopped.after }.reopened();
            // What a reopened log hands out it must keep, and life goes on.
            for step in &steps[done.min(steps.len())..] {
                if model.is_past(step) {
                    continue;
                }
                step.run(&mut wal).unwrap_or_else(|error| panic!("{context}, then {step:?}: {error}"));
                model = model.after(step);
            }
            drop(wal);
            disk.crash(Crash::Drop);
            let (wal, opened) = open_well(&disk);
            assert_eq!(Model::of(&opened), model.shown(), "{context}, after the rest of its life");
            check_snapshot(&wal, &opened, &context);
        }
    }
    (torn, kept)
}

#[test]
fn a_crash_while_recovering_from_a_crash_loses_nothing_either() {
    crash_twice(&life()[..16]);
}

pub(super) fn crash_twice(steps: &[Step]) {
    // Every other time only the process is killed first, and leaves in the cache what is not durable.
    for at in 0..=changes_of(steps) {
        let disk = Disk::new();
        let stopped = live_until(&disk, steps, at);
        if at % 2 == 0 {
            disk.crash(Crash::Tear(at));
        } else {
            disk.set_faults(Faults::default());
        }
        for second in 0.. {
            let disk = disk.copy();
            let off = disk.changes() + second;
            disk.set_faults(Faults { power_off_at: Some(off), ..Faults::default() });
            let finished = open(&disk).map(|(_, opened)| Model::of(&opened)).ok();
            disk.crash(Crash::Tear(second));
            let context = format!("power off at change {at}, again at change {second} of the recovery");
            let (wal, opened) = open(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
            check(&stopped, &opened, &context);
            check_snapshot(&wal, &opened, &context);
            if let Some(finished) = finished {
                assert_eq!(Model::of(&opened), finished, "{context}: what was handed out is gone");
                break;
            }
        }
    }
}

/// The process is killed with a write in the page cache; the next one reads it, believes it, and then the power goes.
#[test]
fn what_a_reopened_log_hands_out_is_durable() {
    let unsynced = kill_anywhere(&life());
    assert!(unsynced > 20, "a write was in the page cache only, {unsynced} times");
}

/// Answers how often a step was found done that was not acknowledged.
pub(super) fn kill_anywhere(steps: &[Step]) -> usize {
    let mut unsynced = 0;
    for at in 0..changes_of(steps) {
        let disk = Disk::new();
        let stopped = live_until(&disk, steps, at);
        disk.set_faults(Faults::default());
        let (wal, opened) = open_well(&disk);
        let done = check(&stopped, &opened, "killed");
        unsynced += usize::from(done > stopped.done);
        check_snapshot(&wal, &opened, "killed");
        drop(wal);
        disk.crash(Crash::Drop);
        let (wal, again) = open_well(&disk);
        assert_eq!(Model::of(&again), Model::of(&opened), "killed at change {at}, then a power failure");
        check_snapshot(&wal, &again, "killed, then a power failure");
    }
    unsynced
}

/// A write that was torn and cut off is longer than what is written in its place.
#[test]
fn torn_bytes_never_come_back() {
    for seed in 0..40 {
        let disk = Disk::new();
        let (mut wal, _) = open_well(&disk);
        disk.set_faults(Faults { power_off_at: Some(disk.changes() + 1), ..Faults::default() });
        wal.persist(&[write(1, None, vec![command(1, 1, 4000)], 0)]).expect_err("the power is off");
        drop(wal);
        disk.crash(Crash::Tear(seed));
        let (mut wal, opened) = open_well(&disk);
        assert!(opened.recovered.entries.is_empty(), "nothing was acknowledged");
        let behind = disk.read("log-0000000001")[position(&wal.wal)..].to_vec();
        assert!(behind.iter().all(|byte| *byte == 0), "seed {seed}: torn bytes are left");
        let model = run_all(&mut wal, &[Step::Persist(vec![write(1, None, commands(1, 1, 1), 0)])]);
        drop(wal);
        disk.crash(Crash::Drop);
        assert_eq!(Model::of(&open_well(&disk).1), model.shown());
    }
}

/// The process is killed amid the founding; the next one finds the directory there, and must not believe that it will stay.
#[test]
fn a_directory_that_is_there_may_not_be_durable() {
    let place = Path::new("data/of/n1");
    let open_there = |disk: &Disk| open_in(disk.clone(), place, &founding(), SMALL).map(Store::new);
    let whole = Disk::new();
    drop(open_there(&whole).expect("it opens"));
    for at in 0..=whole.changes() {
        let disk = Disk::new();
        disk.set_faults(Faults { power_off_at: Some(at), ..Faults::default() });
        let _ = open_there(&disk);
        disk.set_faults(Faults::default());
        let (mut store, _) = open_there(&disk).unwrap_or_else(|error| panic!("killed at change {at}: {error}"));
        let model = run_all(&mut store, &[Step::Persist(vec![write(1, Some("n1"), commands(1, 1, 2), 0)])]);
        drop(store);
        disk.crash(Crash::Drop);
        let (_, opened) = open_there(&disk).unwrap_or_else(|error| panic!("killed at change {at}: {error}"));
        assert_eq!(Model::of(&opened), model.shown(), "killed at change {at} of the founding, then a power failure");
    }
}
