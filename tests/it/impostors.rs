//! Nodes that are somewhere they should not be, and members that go on all the same.

use std::path::Path;
use std::time::Duration;

use graft::infrastructure::runtime::{Node, NodeConfig};
use graft::services::Consistency;
use graft::services::error::{Outcome, Refusal};

use crate::cluster::{Cluster, Lines, PATIENCE, count, execute, id, value, wait};

/// Long enough for every member to dial every other one some times.
const A_WHILE: Duration = Duration::from_secs(3);

/// Founds a cluster of its own in this directory, with the name and at the address of member 0 of the other one.
fn founding(cluster: &Cluster, directory: &Path) -> NodeConfig {
    NodeConfig { members: None, data_dir: directory.into(), ..cluster.configs[0].clone() }
}

fn impostor(cluster: &Cluster, directory: &Path) -> Node {
    Node::start(&founding(cluster, directory), Box::new(Lines::default())).unwrap()
}

/// It has been there for long enough.
fn settle(directory: &Path) {
    std::fs::remove_file(directory.join("doubt")).unwrap();
}

fn is_well(cluster: &Cluster, of: &[usize]) {
    for n in of {
        let status = cluster.node(*n).status();
        assert!(status.error.is_none() && status.role != "failed", "n{}: {:?}", n + 1, status.error);
    }
}

#[test]
fn a_member_that_founds_anew_disturbs_nobody_and_serves_nobody() {
    let mut cluster = Cluster::new(3);
    cluster.leader();
    assert_eq!(value(execute(cluster.node(1), "a")), "1");
    cluster.crash(0);
    let elsewhere = tempfile::tempdir().unwrap();
    let lost = impostor(&cluster, elsewhere.path());
    let status = wait("the impostor to hear whom it takes the place of", || {
        let status = lost.status();
        is_well(&cluster, &[1, 2]);
        (status.error_code == Some("CLUSTER_MISMATCH")).then_some(status)
    });
    let why = status.error.unwrap();
    assert!(why.contains("takes this node for its member n1") && why.contains("data directory"), "{why}");
    assert!(matches!(execute(&lost, "x"), Outcome::Refused(Refusal::Halted(_))), "it serves nobody");
    // A supervisor starts it again.
    assert!(lost.stop(PATIENCE));
    let again = Node::start(&founding(&cluster, elsewhere.path()), Box::new(Lines::default()));
    let words = again.expect_err("it is not to go on").to_string();
    assert_eq!(words, why);

    // Those who are left go on, and come back, too.
    assert_eq!(value(execute(cluster.node(1), "b")), "2");
    cluster.crash(1);
    cluster.start(1);
    assert_eq!(value(execute(cluster.node(2), "c")), "3");
    std::thread::sleep(A_WHILE);
    is_well(&cluster, &[1, 2]);

    // The right one takes its place again.
    cluster.start(0);
    wait("it to catch up", || (cluster.node(0).status().applied >= cluster.node(1).status().commit).then_some(()));
    assert_eq!(count(cluster.node(0), Consistency::Linearizable), "3");
}

#[test]
fn the_other_one_of_two_outlives_an_impostor() {
    let mut cluster = Cluster::new(2);
    cluster.leader();
    assert_eq!(value(execute(cluster.node(0), "a")), "1");
    cluster.crash(0);
    let elsewhere = tempfile::tempdir().unwrap();
    let lost = impostor(&cluster, elsewhere.path());
    wait("the impostor to end", || lost.status().error_code);
    std::thread::sleep(A_WHILE);
    is_well(&cluster, &[1]);
    assert!(lost.stop(PATIENCE));
    cluster.start(0);
    assert_eq!(value(execute(cluster.node(1), "b")), "2");
}

#[test]
fn a_cluster_of_one_is_not_brought_down_by_others_that_want_its_address() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(3);
    cluster.leader();
    cluster.crash(0);
    let config = NodeConfig::new(id(0), "127.0.0.1:0", directory.path());
    let first = Node::start(&config, Box::new(Lines::default())).unwrap();
    assert_eq!(value(execute(&first, "a")), "1");
    assert!(first.stop(PATIENCE));
    settle(directory.path());
    let again = impostor(&cluster, directory.path());
    std::thread::sleep(A_WHILE);
    assert_eq!(again.status().error, None);
    assert_eq!(value(execute(&again, "b")), "2");
    is_well(&cluster, &[1, 2]);
}

#[test]
fn a_doubt_outlives_a_restart_and_ends_with_the_first_companion() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(2);
    cluster.leader();
    (0..2).for_each(|n| cluster.crash(n));
    let new = impostor(&cluster, directory.path());
    assert_eq!(value(execute(&new, "a")), "1");
    assert!(new.stop(PATIENCE));
    let new = impostor(&cluster, directory.path());
    assert!(directory.path().join("doubt").exists());
    let elsewhere = tempfile::tempdir().unwrap();
    let config = NodeConfig::new(id(4), "127.0.0.1:0", elsewhere.path());
    let config = NodeConfig { join: vec![cluster.configs[0].address.clone()], ..config };
    let companion = Node::start(&config, Box::new(Lines::default())).unwrap();
    wait("it to have company", || (!directory.path().join("doubt").exists()).then_some(()));
    // One that belongs to the cluster that was there before.
    cluster.start(1);
    std::thread::sleep(A_WHILE);
    assert_eq!((new.status().error, companion.status().error), (None, None));
    assert_eq!(value(execute(&new, "b")), "2");
}

#[test]
fn a_cluster_of_one_goes_on_whoever_is_where_it_once_joined() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(1);
    cluster.leader();
    let config = NodeConfig::new(id(4), "127.0.0.1:0", directory.path());
    let first = Node::start(&config, Box::new(Lines::default())).unwrap();
    assert_eq!(value(execute(&first, "a")), "1");
    assert!(first.stop(PATIENCE));
    settle(directory.path());
    let config = NodeConfig { join: vec![cluster.configs[0].address.clone()], ..config };
    // Long before it leads again it hears that there is another cluster.
    let config = NodeConfig { election_timeout: Duration::from_secs(2), ..config };
    let again = Node::start(&config, Box::new(Lines::default())).unwrap();
    wait("it to lead again", || {
        let status = again.status();
        assert_eq!(status.error, None);
        (status.role == "leader").then_some(())
    });
    assert_eq!(value(execute(&again, "b")), "2");
}
