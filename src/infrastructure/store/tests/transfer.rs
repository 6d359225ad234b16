//! A snapshot's file from one member to another: in pieces, broken off and gone on with, damaged, out of order.

use super::disk::Faults;
use super::*;

const LAST: EntryId = EntryId::new(3, 30);
const COUNT: usize = 5000;

/// A member that has the snapshot, and one that wants it.
struct Transfer {
    from: Store,
    to: Store,
    disk: Disk,
    length: u64,
}

fn transfer() -> Transfer {
    let disk = Disk::new();
    let (from, _) = open_well(&Disk::new());
    let (to, _) = open_well(&disk);
    let length = from.snapshots.write(&meta(LAST), state_of(LAST, COUNT)).expect("it is written");
    Transfer { from, to, disk, length }
}

impl Transfer {
    /// Sends at most `count` bytes, in pieces, and answers how far it came.
    fn send(&self, mut at: u64, count: usize) -> Result<u64, StoreError> {
        let mut piece = vec![0; 333.min(count)];
        let upto = at + count as u64;
        while at < upto {
            let count = self.from.snapshots.send(LAST, at, &mut piece)?;
            if count == 0 {
                break;
            }
            self.to.snapshots.take(LAST, at, &piece[..count])?;
            at += count as u64;
        }
        Ok(at)
    }

    fn begin(&self) -> u64 {
        self.to.snapshots.begin(LAST, self.length).expect("there is room")
    }

    fn parts(&self) -> usize {
        self.disk.names().iter().filter(|name| name.contains(".part")).count()
    }

    fn finish(&self) {
        let at = self.send(self.begin(), usize::MAX >> 1).expect("it goes on");
        assert_eq!(at, self.length);
        assert_eq!(self.to.snapshots.accept(LAST), Ok(meta(LAST)));
        assert_eq!(self.to.snapshots.newest(), Some((LAST, self.length)));
        assert_eq!((self.to.state(LAST), self.parts()), (state_bytes(LAST, COUNT), 0));
    }
}

fn says(result: Result<impl std::fmt::Debug, StoreError>, why: &str) {
    let error = result.expect_err("it is refused").to_string();
    assert!(error.contains(why), "{error}");
}

#[test]
fn a_broken_transfer_goes_on_where_it_was() {
    let transfer = transfer();
    assert_eq!(transfer.begin(), 0);
    assert_eq!(transfer.send(0, 1000), Ok(999 + 333));
    assert_eq!(transfer.begin(), 1332);
    says(transfer.to.snapshots.accept(LAST), "only 1332 of");
    assert_eq!(transfer.begin(), 1332, "it can still go on");
    transfer.finish();
    says(transfer.to.snapshots.accept(LAST), "no snapshot of entry 3/30 is being taken in");
}

#[test]
fn bytes_that_do_not_follow_are_refused_and_change_nothing() {
    let transfer = transfer();
    says(transfer.to.snapshots.take(LAST, 0, &[1]), "no snapshot of entry 3/30 is being taken in");
    transfer.begin();
    transfer.send(0, 400).expect("it is taken in");
    let to = &transfer.to.snapshots;
    says(to.take(LAST, 0, &[1]), "do not follow the 666 that are here");
    says(to.take(LAST, 667, &[1]), "do not follow the 666 that are here");
    says(to.take(LAST, u64::MAX, &[1]), "do not follow");
    says(to.take(LAST, 666, &vec![1; usize::try_from(transfer.length).expect("small")]), "more than the");
    says(to.take(EntryId::new(3, 31), 666, &[1]), "no snapshot of entry 3/31");
    says(to.accept(EntryId::new(3, 31)), "no snapshot of entry 3/31");
    to.take(LAST, 666, &[]).expect("nothing follows anything");
    transfer.finish();
}

#[test]
fn another_file_is_begun_anew() {
    let transfer = transfer();
    transfer.begin();
    transfer.send(0, 400).expect("it is taken in");
    assert_eq!(transfer.to.snapshots.begin(LAST, transfer.length + 1), Ok(0), "it has another length");
    assert_eq!(transfer.to.snapshots.begin(EntryId::new(3, 31), transfer.length), Ok(0), "it is another snapshot");
    assert_eq!((transfer.begin(), transfer.parts()), (0, 1));
    transfer.finish();
}

#[test]
fn one_that_cannot_replace_the_newest_is_refused_before_it_is_sent() {
    let mut transfer = transfer();
    transfer.begin();
    transfer.send(0, usize::MAX >> 1).expect("it is taken in");
    // It is overtaken by one of this node's own.
    transfer.to.write(EntryId::new(4, 31)).expect("it is written");
    says(transfer.to.snapshots.accept(LAST), "entry 4/31 is here");
    assert_eq!(transfer.parts(), 0);
    says(transfer.to.snapshots.begin(LAST, transfer.length), "entry 4/31 is here");
    says(transfer.to.snapshots.begin(EntryId::new(3, 90), 1000), "entry 4/31 is here");
}

#[test]
fn a_damaged_newest_is_replaced_by_the_same_from_elsewhere() {
    let transfer = transfer();
    transfer.finish();
    transfer.disk.edit(&snapshot_name(LAST), |file| file[777] ^= 16);
    let mut state = Vec::new();
    let (_, mut reader) = transfer.to.snapshots.read(LAST).expect("header and end are good");
    let error = reader.read_to_end(&mut state).expect_err("it is damaged");
    assert_eq!((error.kind(), state.len()), (std::io::ErrorKind::InvalidData, 0));
    assert!(error.to_string().contains("snapshot-0000000030-0000000003 is damaged at byte "), "{error}");
    transfer.finish();
}

#[test]
fn whatever_is_wrong_with_what_came_nothing_of_it_is_left() {
    let transfer = transfer();
    let file = snapshot_file(LAST, COUNT);
    let take_in = |file: &[u8]| {
        let to = &transfer.to.snapshots;
        to.begin(LAST, file.len() as u64)?;
        to.take(LAST, 0, file)?;
        to.accept(LAST)
    };
    let mut damaged = file.clone();
    damaged[2000] ^= 1;
    let refused = |file: &[u8], why: &str| {
        let error = take_in(file).expect_err("it is refused");
        assert!(
            matches!(&error, StoreError::Corrupt { file, what, .. } if file.ends_with("-0000000003.part") && what.contains("sent again")),
            "{error}"
        );
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!((transfer.parts(), transfer.to.snapshots.newest()), (0, None));
    };
    refused(&damaged, "fails the checksum");
    refused(&snapshot_file(EntryId::new(3, 31), 10), "it is a snapshot of entry 3/31");
    refused(b"", "ends within its header");
    refused(&file[..file.len() - 1], "no good end");
    transfer.finish();
}

#[test]
fn a_snapshot_of_another_cluster_is_not_taken_in() {
    let mut transfer = transfer();
    transfer.to.record_cluster(ClusterId(5)).expect("it is written");
    let mut foreign = Membership::clone(&membership());
    foreign.cluster = ClusterId(6);
    let foreign = SnapshotMeta { membership: Arc::new(foreign), ..meta(EntryId::new(3, 40)) };
    let last = foreign.last;
    transfer.from.snapshots.write(&foreign, state_of(last, 9)).expect("it is written");
    let mut file = vec![0; 4000];
    let count = transfer.from.snapshots.send(last, 0, &mut file).expect("it is there");
    transfer.to.snapshots.begin(last, count as u64).expect("there is room");
    transfer.to.snapshots.take(last, 0, &file[..count]).expect("there is room");
    says(transfer.to.snapshots.accept(last), "cluster 00000000000000000000000000000006");
    assert_eq!((transfer.parts(), transfer.to.snapshots.newest()), (0, None));
}

#[test]
fn on_a_full_disk_it_waits_for_space_and_goes_on() {
    for room in [0, 1, 500, 3000] {
        let transfer = transfer();
        transfer.begin();
        transfer.disk.set_faults(Faults { capacity: Some(transfer.disk.used() + room), ..Faults::default() });
        let error = transfer.send(0, usize::MAX >> 1).expect_err("there is no room");
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
        let kept = transfer.begin();
        assert!(kept <= room as u64 && kept + 333 > room as u64, "{kept} bytes were kept, there was room for {room}");
        transfer.disk.set_faults(Faults::default());
        transfer.finish();
    }
}

#[test]
fn whatever_fails_it_can_be_taken_in_again() {
    let mut failed = 0;
    for nth in 0..30 {
        let transfer = transfer();
        transfer.disk.set_faults(Faults { fails_at: Some(transfer.disk.changes() + nth), ..Faults::default() });
        let to = &transfer.to.snapshots;
        let outcome = to.begin(LAST, transfer.length).and_then(|at| transfer.send(at, usize::MAX >> 1));
        if let Err(error) = outcome.and_then(|_| to.accept(LAST)) {
            failed += 1;
            assert!(matches!(error, StoreError::Io { .. }), "failure {nth}: {error}");
            assert_eq!((to.newest(), transfer.parts()), (None, 0), "failure {nth}");
        }
        transfer.disk.set_faults(Faults::default());
        transfer.finish();
    }
    assert!((15..30).contains(&failed), "every change failed once: {failed}");
}

/// A sync that fails for lack of space may have lost any of the pages: what is here is not gone on with.
#[test]
fn after_a_failed_sync_nothing_of_it_is_believed() {
    let transfer = transfer();
    transfer.begin();
    transfer.send(0, usize::MAX >> 1).expect("it is taken in");
    let sync =
        Faults { sync_fails_at: Some(transfer.disk.syncs()), sync_fails_with_no_space: true, ..Faults::default() };
    transfer.disk.set_faults(sync);
    assert!(matches!(transfer.to.snapshots.accept(LAST), Err(StoreError::Full { .. })));
    assert_eq!((transfer.begin(), transfer.parts()), (0, 1));
    transfer.finish();
}

#[test]
fn a_transfer_ends_though_newer_snapshots_come() {
    let mut transfer = transfer();
    transfer.begin();
    transfer.send(0, 400).expect("it is taken in");
    transfer.from.write(EntryId::new(3, 31)).expect("it is written");
    transfer.send(666, 400).expect("its file is held open");
    transfer.from.write(EntryId::new(3, 32)).expect("it is written");
    transfer.finish();
    // It was given up: nobody asked for it between two newer ones.
    transfer.from.write(EntryId::new(3, 33)).expect("it is written");
    transfer.from.write(EntryId::new(3, 34)).expect("it is written");
    assert!(matches!(transfer.from.snapshots.send(LAST, 0, &mut [0; 9]), Err(StoreError::Io { .. })));
}

#[test]
fn few_files_are_held_open() {
    let mut transfer = transfer();
    let ask = |from: &Store, index| from.snapshots.send(EntryId::new(3, index), 0, &mut [0; 9]);
    for index in 31..40 {
        ask(&transfer.from, index - 1).expect("it is the newest");
        transfer.from.write(EntryId::new(3, index)).expect("it is written");
    }
    ask(&transfer.from, 39).expect("it is the newest");
    ask(&transfer.from, 38).expect("it is held open");
    assert!((30..38).all(|index| ask(&transfer.from, index).is_err()), "older ones are let go");
}
