//! The machine stops between any two changes of the disk while snapshots are written and taken in and logs are cut behind
//! them: the old snapshot is there or the new one, each whole, and never less of the log than it needs.

use super::crash::{crash_anywhere, crash_twice, kill_anywhere};
use super::*;

/// Snapshots of this node's own and of others: behind the log, within it, against it and far ahead of it, each with writes
/// before the log is cut.
fn snapshots_life() -> Vec<Step> {
    let id = EntryId::new;
    let persist =
        |term, vote, first, last, commit| Step::Persist(vec![write(term, vote, commands(term, first, last), commit)]);
    vec![
        Step::Persist(vec![write(1, Some("n1"), vec![], 0)]),
        persist(1, Some("n1"), 1, 6, 4),
        Step::Cluster(77),
        Step::Write(id(1, 4)),
        persist(1, Some("n1"), 7, 9, 6),
        Step::Cut(id(1, 4)),
        persist(1, Some("n1"), 10, 20, 18),
        // A tail is kept for those who lag behind.
        Step::Write(id(1, 18)),
        Step::Cut(id(1, 12)),
        persist(1, Some("n1"), 21, 24, 20),
        // Ahead of the log; the old leader still writes when it is here already.
        Step::Accept(id(2, 40)),
        persist(1, Some("n1"), 25, 26, 20),
        Step::Persist(vec![write(2, None, vec![], 20)]),
        Step::Cut(id(2, 40)),
        persist(2, Some("n2"), 41, 45, 40),
        // Against it: entries behind a conflict must not come back.
        Step::Accept(id(3, 43)),
        Step::Persist(vec![write(3, Some("n3"), vec![], 40)]),
        Step::Cut(id(3, 43)),
        Step::Cut(id(3, 43)),
        persist(3, Some("n3"), 44, 50, 46),
        // Within it.
        Step::Accept(id(3, 47)),
        persist(3, Some("n3"), 51, 60, 52),
        Step::Cut(id(3, 47)),
        Step::Write(id(3, 58)),
        Step::Cut(id(3, 58)),
        Step::Accept(id(9, 70)),
        Step::Cut(id(9, 70)),
        Step::Persist(vec![
            write(9, None, vec![], 70),
            write(9, Some("n2"), commands(9, 71, 72), 70),
            write(9, Some("n2"), commands(9, 73, 75), 71),
        ]),
    ]
}

#[test]
fn a_crash_anywhere_leaves_the_old_snapshot_or_the_new_one() {
    let (_, kept) = crash_anywhere(&snapshots_life());
    assert!(kept > 50, "a step was done and not acknowledged, {kept} times");
}

#[test]
fn a_crash_while_recovering_leaves_one_too() {
    crash_twice(&snapshots_life());
}

#[test]
fn a_snapshot_that_a_killed_process_left_is_durable_before_anything_rests_on_it() {
    let unsynced = kill_anywhere(&snapshots_life());
    assert!(unsynced > 20, "a step was found done, {unsynced} times");
}

/// The log on the disk holds nothing of what the snapshot replaced, in whatever way it is written on.
#[test]
fn a_log_goes_on_after_a_snapshot_it_did_not_lead_to() {
    let id = EntryId::new;
    for covered in [id(2, 5), id(2, 9), id(2, 10), id(2, 700)] {
        let disk = Disk::new();
        let (mut store, _) = open_well(&disk);
        let next = covered.index.0 + 1;
        let steps = [
            Step::Persist(vec![write(1, Some("n1"), commands(1, 1, 9), 3)]),
            Step::Accept(covered),
            Step::Cut(covered),
            Step::Cut(covered),
            // What waited while the log was cut comes in one batch.
            Step::Persist(vec![
                write(1, Some("n1"), vec![], 3),
                write(2, None, vec![], 5),
                write(2, Some("n2"), commands(2, next, next + 1), covered.index.0),
                write(3, Some("n3"), commands(3, next + 1, next + 2), covered.index.0),
            ]),
            Step::Cut(covered),
            Step::Cut(id(1, 3)),
        ];
        let model = run_all(&mut store, &steps);
        drop(store);
        disk.crash(disk::Crash::Drop);
        let (_, opened) = open_well(&disk);
        assert_eq!(Model::of(&opened), model.shown());
        assert_eq!(opened.recovered.entries.len(), 3);
        assert_eq!((opened.recovered.membership, opened.notes), (membership(), vec![]));
    }
}

#[test]
fn entries_behind_a_conflict_are_let_go_and_told_of() {
    let disk = Disk::new();
    let (mut store, _) = open_well(&disk);
    run_all(
        &mut store,
        &[Step::Persist(vec![write(1, Some("n1"), commands(1, 1, 9), 3)]), Step::Accept(EntryId::new(2, 6))],
    );
    drop(store);
    let (store, opened) = open_well(&disk);
    let [note] = &opened.notes[..] else { panic!("one note, not {:?}", opened.notes) };
    assert!(note.contains("entries 7 to 9") && note.contains("2/6"), "{note}");
    assert_eq!(opened.recovered.entries, []);
    // Of the term that the snapshot shows nothing is known but that it was.
    assert_eq!((opened.recovered.term, opened.recovered.vote), (Term(2), None));
    drop(store);
    assert_eq!(open_well(&disk).1.notes, [""; 0], "it is told once");
}
