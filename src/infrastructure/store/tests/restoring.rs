//! The machine stops while a backup is restored or what is left of a cluster is copied: what is there afterwards is all of it, or
//! is refused. It never founds an empty cluster in its place.

use super::super::inspection::inspect_in;
use super::super::recovering::{Successor, recover_in};
use super::super::restoring::restore_in;
use super::crash::CRASHES;
use super::disk::{Crash, Faults};
use super::*;

const LAST: EntryId = EntryId { term: Term(3), index: Index(40) };

/// A disk with a good backup on it, and nothing else.
fn with_backup() -> Disk {
    let disk = Disk::new();
    disk.put("elsewhere/backup", Some(snapshot_file(LAST, STATE_BYTES)));
    disk
}

fn restore(disk: &Disk) -> Result<SnapshotMeta, StoreError> {
    restore_in(disk, Path::new("data/elsewhere/backup"), Path::new("data"))
}

/// Whether anything of a restore is on the disk.
fn is_begun(disk: &Disk) -> bool {
    Files::list(disk, Path::new("data/snapshots")).is_ok()
}

/// Opens it as whoever starts a node would.
fn check_opened(disk: &Disk, context: &str) -> bool {
    let begun = is_begun(disk);
    match open(disk) {
        Ok((store, opened)) if opened.recovered.snapshot == LAST => {
            assert_eq!(store.state(LAST), state_bytes(LAST, STATE_BYTES), "{context}");
            assert_eq!(*opened.recovered.membership, *membership(), "{context}");
            assert_eq!(opened.identity.cluster, ClusterId::UNKNOWN, "{context}");
            true
        }
        Ok((_, opened)) => panic!("{context}: it founds with {:?}; begun: {begun}", opened.recovered.snapshot),
        Err(StoreError::Io { what, .. }) if what.contains("not finished") => false,
        Err(other) => panic!("{context}: {other}"),
    }
}

#[test]
fn a_restore_is_done_or_refused_wherever_it_stops() {
    let whole = with_backup();
    let before = whole.changes();
    restore(&whole).expect("it is restored");
    let changes = whole.changes() - before;
    let (mut done, mut refused) = (0, 0);
    for at in 0..=changes {
        for crash in CRASHES {
            let context = format!("power off at change {at} of {changes}, {crash:?}");
            let disk = with_backup();
            disk.set_faults(Faults { power_off_at: Some(before + at), ..Faults::default() });
            let acknowledged = restore(&disk).is_ok();
            disk.crash(crash);
            if !is_begun(&disk) {
                assert!(!acknowledged, "{context}");
                continue;
            }
            let is_there = check_opened(&disk.copy(), &context);
            assert!(is_there || !acknowledged, "{context}");
            done += usize::from(is_there);
            refused += usize::from(!is_there);
            if !is_there {
                // It can be done again in the same place.
                restore(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
                assert!(check_opened(&disk, &context));
            }
        }
    }
    assert!(done > 5 && refused > 20, "{done} done, {refused} refused");
}

#[test]
fn a_first_start_after_a_restore_may_stop_anywhere() {
    let restored = with_backup();
    restore(&restored).expect("it is restored");
    let before = restored.changes();
    let whole = restored.copy();
    drop(open_well(&whole));
    let changes = whole.changes() - before;
    for at in 0..=changes {
        for crash in CRASHES {
            let disk = restored.copy();
            disk.set_faults(Faults { power_off_at: Some(before + at), ..Faults::default() });
            let _ = open(&disk);
            disk.crash(crash);
            assert!(check_opened(&disk, &format!("power off at change {at} of {changes}, {crash:?}")));
        }
    }
}

#[test]
fn a_recovery_is_done_or_refused_wherever_it_stops() {
    for with_snapshot in [false, true] {
        let source = Disk::new();
        let (mut store, _) = open_well(&source);
        store.persist(&[write(1, Some("n1"), commands(1, 1, 9), 7)]).expect("it is written");
        store.record_cluster(ClusterId(77)).expect("it is written");
        if with_snapshot {
            store.write(EntryId::new(1, 4)).expect("it is written");
            store.compact(EntryId::new(1, 4)).expect("it is cut");
        }
        drop(store);
        let found = inspect_in(&source.copy(), Path::new("data")).expect("it is good");
        let successor = Successor {
            id: node("n1"),
            address: "127.0.0.1:7001".to_owned(),
            cluster: ClusterId(88),
            mint: Incarnation(12),
            promise: Duration::ZERO,
        };
        let target = Path::new("data/new");
        let recover = |disk: &Disk| recover_in(disk, Path::new("data"), &found, target, &successor);
        let open_new = |disk: &Disk| open_in(disk.clone(), target, &founding(), StoreConfig::default());
        let whole = source.copy();
        let before = whole.changes();
        recover(&whole).expect("it is recovered");
        let changes = whole.changes() - before;
        let mut done = 0;
        for at in 0..=changes {
            for crash in CRASHES {
                let context = format!("power off at change {at} of {changes}, {crash:?}, snapshot {with_snapshot}");
                let disk = source.copy();
                disk.set_faults(Faults { power_off_at: Some(before + at), ..Faults::default() });
                let acknowledged = recover(&disk).is_ok();
                disk.crash(crash);
                if Files::list(&disk, Path::new("data/new/snapshots")).is_err() {
                    assert!(!acknowledged, "{context}");
                    continue;
                }
                match open_new(&disk) {
                    Ok((_, _, opened)) => {
                        assert_eq!(opened.identity.cluster, ClusterId(88), "{context}");
                        let last = opened.recovered.entries.last().expect("it has entries");
                        assert_eq!((last.index, opened.recovered.commit), (Index(10), Index(10)), "{context}");
                        done += 1;
                    }
                    Err(error) => assert!(!acknowledged, "{context}: {error}"),
                }
            }
        }
        assert!(done >= CRASHES.len(), "{done} done");
    }
}

/// The process is killed amid a restore, which is done again, and then the power goes.
#[test]
fn a_restore_that_was_done_again_is_durable() {
    let whole = with_backup();
    let before = whole.changes();
    restore_into(&whole).expect("it is restored");
    let mut refused = 0;
    for at in before..whole.changes() {
        let disk = with_backup();
        disk.set_faults(Faults { power_off_at: Some(at), ..Faults::default() });
        assert!(restore_into(&disk).is_err(), "killed at change {at}");
        disk.set_faults(Faults::default());
        if restore_into(&disk).is_err() {
            // The snapshot has its name already.
            refused += 1;
            continue;
        }
        disk.crash(Crash::Drop);
        let place = format!("new/{}", snapshot_name(LAST));
        assert!(disk.names().contains(&place), "killed at change {at}: {:?}", disk.names());
    }
    assert!(refused <= 2, "{refused} were not done again");
}

fn restore_into(disk: &Disk) -> Result<SnapshotMeta, StoreError> {
    restore_in(disk, Path::new("data/elsewhere/backup"), Path::new("data/new"))
}
