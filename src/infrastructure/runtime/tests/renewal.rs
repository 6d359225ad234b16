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
fn what_could_not_be_used_is_tried_again_without_new_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_directory, depot, files) = depot();
    let certified = Arc::new(Certified::open(&files.source()).unwrap());
    let weak = Arc::downgrade(&certified);
    let mut keeper = Keeper::new(certified.opened.clone());
    let now = SystemTime::now();
    let mut look = |seconds: u64| phases(keeper.look(&weak, now + Duration::from_secs(seconds)));
    let mode = |mode| std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(mode)).unwrap();
    depot.renew(&[]).unwrap();
    touch(&files);
    mode(0o644);
    assert_eq!((look(0), look(1)), (vec![], vec!["refused"]));
    assert!(look(30).is_empty(), "the same once more is no news");
    mode(0o600);
    assert!(look(31).is_empty(), "not at every look");
    assert_eq!(look(60), ["renewed"]);
    assert!(look(90).is_empty());
}

#[test]
fn what_was_replaced_while_the_node_started_is_noticed() {
    let (_directory, depot, files) = depot();
    let certified = Arc::new(Certified::open(&files.source()).unwrap());
    depot.renew(&[]).unwrap();
    touch(&files);
    let mut keeper = Keeper::new(certified.opened.clone());
    let weak = Arc::downgrade(&certified);
    let mut look = || phases(keeper.look(&weak, SystemTime::now()));
    assert_eq!((look(), look()), (vec![], vec!["renewed"]));
}

#[test]
fn a_members_certificate_of_an_authority_that_it_was_not_told_of_is_not_taken() {
    let (_directory, mut depot, files) = depot();
    let certified = Certified::open(&files.source()).unwrap();
    let before = std::fs::read(&files.ca).unwrap();
    depot.rotate().unwrap();
    depot.renew(&[]).unwrap();
    let both = std::fs::read(&files.ca).unwrap();
    // The certificate and its key were given to the node, and what to believe was forgotten.
    std::fs::write(&files.ca, before).unwrap();
    let why = certified.renew().unwrap_err();
    assert!(why.0.contains("is not believed by those who believe"), "{why}");
    std::fs::write(&files.ca, both).unwrap();
    assert!(certified.renew().is_ok());
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
