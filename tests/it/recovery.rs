//! What is left of a cluster whose majority is lost goes on in another one.

use std::path::PathBuf;

use graft::infrastructure::config::NodeConfig;
use graft::infrastructure::runtime::Node;
use graft::infrastructure::runtime::offline::{OfflineError, Wreck, inspect};
use graft::services::Consistency;
use graft::services::ports::StoreError;

use crate::cluster::{Cluster, Lines, PATIENCE, count, execute, id, value, wait};
use crate::sessions::answer;

fn directories(cluster: &Cluster) -> Vec<PathBuf> {
    cluster.configs.iter().map(|config| config.data_dir.clone()).collect()
}

/// A cluster that has written and has snapshots and logs of different lengths; and how many lines each is sure to have.
fn written() -> (Cluster, Vec<usize>) {
    let mut cluster = Cluster::new(3);
    for n in 0..20 {
        execute(cluster.node(n % 3), &format!("{n}"));
    }
    cluster.converged();
    answer(|caller| graft::services::api::Api::snapshot(cluster.node(1), false, caller, PATIENCE));
    for n in 20..30 {
        execute(cluster.node(n % 3), &format!("{n}"));
    }
    cluster.converged();
    let leader = cluster.leader();
    let gone = (leader + 1) % 3;
    cluster.crash(gone);
    for n in 30..40 {
        execute(cluster.node(leader), &format!("{n}"));
    }
    wait("the other to have it all", || {
        let other = cluster.node((leader + 2) % 3).status();
        (other.last == cluster.node(leader).status().last).then_some(())
    });
    cluster.crash(leader);
    cluster.crash((leader + 2) % 3);
    let has = |n| if n == gone { 30 } else { 40 };
    (cluster, (0..3).map(has).collect())
}

#[test]
fn a_survivor_alone_goes_on_with_everything_it_has() {
    let (cluster, has) = written();
    let all = directories(&cluster);
    for n in 0..3 {
        let target = tempfile::tempdir().unwrap();
        let before = inspect(&all[n]).unwrap().last;
        let wreck = Wreck::look(&all[n..=n]).unwrap();
        assert!(!wreck.verdict.is_quorum && !wreck.verdict.is_complete);
        assert_eq!(wreck.verdict.missing.len(), 2);
        let recovered = wreck.recover(&target.path().join("data"), None, None).unwrap();
        assert_eq!((recovered.id, &recovered.address), (id(n), &cluster.configs[n].address));
        assert_eq!(recovered.last.index, before.index.next());
        drop(wreck);
        assert_eq!(inspect(&all[n]).unwrap().last, before, "the survivor is as it was");

        let config = NodeConfig::new(id(n), recovered.address.clone(), target.path().join("data"));
        for round in 0..2 {
            let machine = Lines::default();
            let node = Node::start(&config, Box::new(machine.clone())).unwrap();
            assert_eq!(count(&node, Consistency::Linearizable), (has[n] + round).to_string());
            let lines: Vec<String> = (0..has[n]).map(|line| line.to_string()).collect();
            assert!(machine.seen().iter().zip(&lines).all(|(seen, line)| seen == line.as_bytes()));
            assert_eq!(value(execute(&node, "more")), (has[n] + round + 1).to_string());
            let status = node.status();
            assert_eq!((status.cluster, status.members.len()), (recovered.cluster, 1));
            assert!(node.stop(PATIENCE));
        }
    }
}

#[test]
fn the_dead_stay_out_of_it_and_new_members_get_all_of_it() {
    let (mut cluster, has) = written();
    let all = directories(&cluster);
    let target = tempfile::tempdir().unwrap();
    let wreck = Wreck::look(&all).unwrap();
    assert!(wreck.verdict.is_quorum, "three of three are there");
    let best = wreck.verdict.best;
    assert_eq!(has[best], 40, "the one that has most");
    drop(wreck);
    let recovered = Wreck::look(&all[best..=best]).unwrap().recover(&target.path().join("new"), None, None).unwrap();
    let config = NodeConfig::new(id(best), recovered.address.clone(), target.path().join("new"));
    let node = Node::start(&config, Box::new(Lines::default())).unwrap();
    assert_eq!(count(&node, Consistency::Linearizable), "40");

    // Those of the old cluster come back, and neither take part nor take over.
    let others: Vec<usize> = (0..3).filter(|n| *n != best).collect();
    for n in &others {
        cluster.start(*n);
    }
    wait("an old one to hear that it is another cluster", || {
        let heard = |n: &usize| {
            cluster.node(*n).why().is_some_and(|why| why.iter().any(|why| why.contains("belongs to the cluster")))
        };
        others.iter().any(heard).then_some(())
    });
    assert_eq!(value(execute(&node, "more")), "41");
    assert_eq!((node.status().members.len(), node.status().cluster), (1, recovered.cluster));
}

/// Memberships of the lost cluster stand in the log that a newcomer gets bit by bit.
#[test]
fn new_members_get_all_of_it_and_take_no_membership_of_the_lost_cluster_for_their_own() {
    let mut cluster = Cluster::new(3);
    for n in 0..60 {
        execute(cluster.node(n % 3), &format!("{n:0>30000}"));
    }
    let old = cluster.node(0).status().cluster;
    let leader = cluster.leader();
    (0..3).for_each(|n| cluster.crash(n));
    let target = tempfile::tempdir().unwrap();
    let left = [cluster.configs[leader].data_dir.clone()];
    let found = inspect(&left[0]).unwrap();
    assert!(found.snapshot.is_none() && found.membership().unwrap().cluster == old, "its log has it all");
    drop(found);
    let recovered = Wreck::look(&left).unwrap().recover(&target.path().join("new"), None, None).unwrap();
    let config = NodeConfig {
        batch_bytes_max: 64 << 10,
        ..NodeConfig::new(id(leader), recovered.address.clone(), target.path().join("new"))
    };
    let node = Node::start(&config, Box::new(Lines::default())).unwrap();
    assert_eq!(count(&node, Consistency::Linearizable), "60");
    let machine = Lines::default();
    let join = vec![recovered.address.clone()];
    let config = NodeConfig { join, ..NodeConfig::new(id(7), "127.0.0.1:0", target.path().join("n8")) };
    let joiner = Node::start(&config, Box::new(machine.clone())).unwrap();
    wait("it to be a voter", || joiner.status().members.iter().any(|m| m.id == id(7) && m.voter).then_some(()));
    assert_eq!(value(execute(&joiner, "together")), "61");
    wait("it to have all", || (machine.seen().len() == 61).then_some(()));
    assert_eq!(joiner.status().cluster, recovered.cluster);
    // It knows so after a restart, too.
    assert!(joiner.stop(PATIENCE));
    assert_eq!(inspect(&target.path().join("n8")).unwrap().identity.cluster, recovered.cluster);
}

#[test]
fn what_cannot_be_recovered_is_refused_in_words() {
    let (cluster, _) = written();
    let all = directories(&cluster);
    let target = tempfile::tempdir().unwrap();
    let refused = |result: Result<_, OfflineError>| result.map(drop).unwrap_err().to_string();
    assert!(refused(Wreck::look(&[])).contains("no data directory"));
    let nowhere = target.path().join("nowhere");
    assert!(matches!(Wreck::look(&[nowhere]), Err(OfflineError::Store(StoreError::Io { .. }))));
    assert!(refused(Wreck::look(&[target.path().to_owned()])).contains("no file named `identity`"));
    let twice = [all[0].clone(), all[0].clone()];
    assert!(matches!(Wreck::look(&twice), Err(OfflineError::Store(StoreError::Locked { .. }))));
    let wreck = Wreck::look(&all[..1]).unwrap();
    assert!(matches!(inspect(&all[0]), Err(StoreError::Locked { .. })), "it is held while it is looked at");
    let full = wreck.recover(&all[1], None, None);
    assert!(full.map(drop).unwrap_err().to_string().contains("something in it already"));
    let no_id = wreck.recover(&target.path().join("a"), Some("no id"), None);
    assert!(no_id.map(drop).unwrap_err().to_string().contains("is no id"));
    let no_address = wreck.recover(&target.path().join("a"), None, Some("nowhere"));
    assert!(no_address.map(drop).unwrap_err().to_string().contains("is no address"));
    assert!(!target.path().join("a").exists());
}
