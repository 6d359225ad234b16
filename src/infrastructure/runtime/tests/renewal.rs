use super::*;
use crate::infrastructure::tls::{Depot, Files};

fn depot() -> (tempfile::TempDir, Depot, Files) {
    let directory = tempfile::tempdir().unwrap();
    let depot = Depot::create(&directory.path().join("tls"), "bank").unwrap();
    let files = depot.node("n1").unwrap();
    (directory, depot, files)
}

fn phases(notices: Option<Vec<Notice>>) -> Vec<&'static str> {
    let phase = |notice: &Notice| match notice {
        Notice::Certificate { phase, .. } => *phase,
        other => panic!("{other:?}"),
    };
    notices.expect("it is there").iter().map(phase).collect()
}

/// A file system may tell times apart by seconds only; sizes differ by luck.
fn touch(files: &Files) {
    let later = SystemTime::now() + Duration::from_secs(5);
    std::fs::File::options().append(true).open(&files.cert).unwrap().set_modified(later).unwrap();
}

#[test]
fn new_files_are_taken_once_they_stay_the_same_and_bad_ones_are_told_of_once() {
    let (_directory, depot, files) = depot();
    let certified = Arc::new(Certified::open(&files.source()).unwrap());
    let weak = Arc::downgrade(&certified);
    let mut keeper = Keeper::new(files.source().stamp());
    let mut look = || phases(keeper.look(&weak, SystemTime::now()));
    assert!(look().is_empty());
    let before = certified.endpoint().expires();
    depot.renew(&[]).unwrap();
    touch(&files);
    assert!(look().is_empty(), "somebody may be at it still");
    assert_eq!(look(), ["renewed"]);
    assert!(certified.endpoint().expires() >= before);
    assert!(look().is_empty());

    let good = std::fs::read(&files.cert).unwrap();
    std::fs::write(&files.cert, "nonsense").unwrap();
    assert!(look().is_empty());
    assert_eq!(look(), ["refused"]);
    assert!(look().is_empty(), "once");
    assert_eq!(certified.identity().to_string(), "spiffe://bank/node/n1", "the one before is in use");
    std::fs::remove_file(&files.cert).unwrap();
    assert!(look().is_empty());
    assert_eq!(look(), ["refused"]);
    std::fs::write(&files.cert, good).unwrap();
    assert!(look().is_empty());
    assert_eq!(look(), ["renewed"]);
    drop(certified);
    assert!(keeper.look(&weak, SystemTime::now()).is_none());
}

#[test]
fn somebody_elses_certificate_is_not_taken() {
    let (_directory, depot, files) = depot();
    let certified = Certified::open(&files.source()).unwrap();
    assert!(certified.renew().is_ok());
    let other = depot.node("n2").unwrap();
    std::fs::copy(other.cert, files.cert).unwrap();
    std::fs::copy(other.key, files.key).unwrap();
    let why = certified.renew().unwrap_err();
    assert!(why.0.contains("node/n2") && why.0.contains("node/n1"), "{why}");
}

#[test]
fn one_that_expires_is_told_of_once_a_day_from_a_third_of_its_life_on() {
    let (_directory, _depot, files) = depot();
    let certified = Arc::new(Certified::open(&files.source()).unwrap());
    let weak = Arc::downgrade(&certified);
    let mut keeper = Keeper::new(files.source().stamp());
    let day = Duration::from_hours(24);
    let mut after = |days: u32| phases(keeper.look(&weak, SystemTime::now() + day * days));
    assert!(after(59).is_empty());
    assert_eq!(after(61), ["expiring"]);
    assert!(after(61).is_empty());
    assert_eq!(after(62), ["expiring"]);
}
