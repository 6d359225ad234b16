//! Nodes that are somewhere they should not be, and members that go on all the same.

use std::time::Duration;

use graft::infrastructure::runtime::{Node, NodeConfig};
use graft::services::Consistency;
use graft::services::error::{Outcome, Refusal};

use crate::cluster::{Cluster, Lines, PATIENCE, count, execute, id, value, wait};

/// Long enough for every member to dial every other one some times.
const A_WHILE: Duration = Duration::from_secs(3);

/// A node that founds a cluster of its own, with the name and at the address of member 0, whose directory is elsewhere.
fn impostor(cluster: &Cluster, directory: &tempfile::TempDir) -> Node {
    let config = NodeConfig { members: None, ..cluster.configs[0].clone() };
    let config = NodeConfig { data_dir: directory.path().into(), ..config };
    Node::start(&config, Box::new(Lines::default())).unwrap()
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
    let lost = impostor(&cluster, &elsewhere);
    let status = wait("the impostor to hear whom it takes the place of", || {
        let status = lost.status();
        is_well(&cluster, &[1, 2]);
        (status.error_code == Some("CLUSTER_MISMATCH")).then_some(status)
    });
    let why = status.error.unwrap();
    assert!(why.contains("takes this node for its member n1") && why.contains("data directory"), "{why}");
    assert!(matches!(execute(&lost, "x"), Outcome::Refused(Refusal::Halted(_))), "it serves nobody");

    // Those who are left go on, and come back, too.
    assert_eq!(value(execute(cluster.node(1), "b")), "2");
    cluster.crash(1);
    cluster.start(1);
    assert_eq!(value(execute(cluster.node(2), "c")), "3");
    std::thread::sleep(A_WHILE);
    is_well(&cluster, &[1, 2]);

    // The right one takes its place again.
    assert!(lost.stop(PATIENCE));
    cluster.start(0);
    wait("it to catch up", || (cluster.node(0).status().applied >= cluster.node(1).status().commit).then_some(()));
    assert_eq!(count(cluster.node(0), Consistency::Linearizable), "3");
}

#[test]
fn a_cluster_of_one_is_not_brought_down_by_others_that_want_its_address() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(3);
    cluster.leader();
    cluster.crash(0);
    // It has been there before this start, so that it is no mistake of this start.
    let config = NodeConfig::new(id(0), "127.0.0.1:0", directory.path());
    let first = Node::start(&config, Box::new(Lines::default())).unwrap();
    assert_eq!(value(execute(&first, "a")), "1");
    assert!(first.stop(PATIENCE));
    let again = impostor(&cluster, &directory);
    std::thread::sleep(A_WHILE);
    assert_eq!(again.status().error, None);
    assert_eq!(value(execute(&again, "b")), "2");
    is_well(&cluster, &[1, 2]);
}
