//! A backup is one file with everything that was acknowledged, and other clusters are founded with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use graft::infrastructure::config::NodeConfig;
use graft::infrastructure::runtime::{self, Client, ClientConfig, Node, StartError, offline};
use graft::services::Consistency;
use graft::services::api::Api;
use graft::services::error::{Outcome, Refusal};
use graft::services::ports::StoreError;

use crate::cluster::{Cluster, Lines, PATIENCE, count, execute, free_address, id, value, wait};
use crate::sessions::answer;

fn backup(api: &Arc<dyn Api>, path: &Path) -> Outcome {
    answer(|caller| runtime::backup(api, path.to_owned(), caller, PATIENCE))
}

fn index(outcome: &Outcome) -> u64 {
    let Outcome::Done { index, .. } = outcome else { panic!("no backup: {outcome:?}") };
    index.0
}

fn client(cluster: &Cluster) -> Arc<dyn Api> {
    let endpoints = cluster.configs.iter().map(|config| config.address.clone());
    Arc::new(Client::start(ClientConfig::new(endpoints)).unwrap())
}

fn refusal(outcome: &Outcome) -> String {
    let Outcome::Refused(refusal) = outcome else { panic!("it should be refused: {outcome:?}") };
    refusal.to_string()
}

#[test]
fn a_backup_has_everything_that_was_acknowledged_and_a_new_cluster_begins_with_it() {
    let cluster = Cluster::new(3);
    let directory = tempfile::tempdir().unwrap();
    for n in 0..5 {
        assert_eq!(value(execute(cluster.node(n % 3), &format!("line {n}"))), (n + 1).to_string());
    }
    let path = directory.path().join("bank.backup");
    let client = client(&cluster);
    let covered = index(&backup(&client, &path));
    let (meta, bytes) = offline::verify_backup(&path).unwrap();
    assert_eq!((meta.last.index.0, bytes), (covered, std::fs::metadata(&path).unwrap().len()));
    assert!(refusal(&backup(&client, &path)).contains("is there already"), "nothing is written over");

    let data = directory.path().join("n9");
    assert_eq!(offline::restore(&path, &data).unwrap(), meta);
    let error = offline::restore(&path, &data).unwrap_err();
    assert!(error.to_string().contains("there is something in it already"), "{error}");
    // Another id, another address, another cluster; the same state, and a log that goes on.
    let config = NodeConfig::new(id(8), "127.0.0.1:0", &data);
    let old = cluster.node(0).status().cluster;
    for round in 0..2 {
        let machine = Lines::default();
        let node = Node::start(&config, Box::new(machine.clone())).unwrap();
        assert_eq!(count(&node, Consistency::Linearizable), (5 + round).to_string());
        assert_eq!(value(execute(&node, "more")), (6 + round).to_string());
        assert_eq!(&machine.seen()[..5], &cluster.machines[0].seen()[..]);
        assert!(node.status().last.0 > covered);
        assert_ne!(node.status().cluster, old);
        assert!(node.stop(PATIENCE));
    }
}

#[test]
fn a_backup_of_more_than_one_part_is_taken_while_commands_go_on() {
    let cluster = Cluster::new(3);
    let leader = cluster.leader();
    let big = "x".repeat(900_000);
    for _ in 0..5 {
        execute(cluster.node(leader), &big);
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("big.backup");
    let client = client(&cluster);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (0..50).for_each(|n| drop(execute(cluster.node(leader), &format!("{n}")))));
        let covered = index(&backup(&client, &path));
        assert!(covered >= 5);
        writer.join().unwrap();
    });
    let (meta, bytes) = offline::verify_backup(&path).unwrap();
    assert!(bytes > 4_500_000, "{bytes} bytes of {meta:?}");
}

/// Three nodes with these directories that found a cluster with one another.
fn founders(directories: &[PathBuf]) -> Vec<NodeConfig> {
    let addresses: BTreeMap<_, _> = (0..directories.len()).map(|n| (id(n), free_address())).collect();
    let config = |(n, directory): (usize, &PathBuf)| NodeConfig {
        members: Some(addresses.clone()),
        ..NodeConfig::new(id(n), addresses[&id(n)].clone(), directory)
    };
    directories.iter().enumerate().map(config).collect()
}

fn start(config: &NodeConfig) -> Node {
    Node::start(config, Box::new(Lines::default())).unwrap()
}

#[test]
fn three_members_begin_with_the_same_backup_and_nobody_with_another_state_joins_them() {
    let source = Cluster::new(1);
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let client = client(&source);
    execute(source.node(0), "a");
    index(&backup(&client, &at("first")));
    execute(source.node(0), "b");
    index(&backup(&client, &at("second")));

    for name in ["n1", "n2"] {
        offline::restore(&at("first"), &at(name)).unwrap();
    }
    offline::restore(&at("second"), &at("n3")).unwrap();
    let configs = founders(&[at("n1"), at("n2"), at("n3")]);
    let (one, two) = (start(&configs[0]), start(&configs[1]));
    assert_eq!(count(&one, Consistency::Linearizable), "1");
    assert_eq!(value(execute(&two, "c")), "2");
    // Their own snapshots do not tell any more with what they began.
    let restart = |node: Node, config: &NodeConfig| {
        let taken = answer(|caller| node.snapshot(true, caller, PATIENCE));
        assert!(index(&taken) > 0 && node.stop(PATIENCE));
        start(config)
    };
    let one = restart(one, &configs[0]);
    let two = restart(two, &configs[1]);
    assert_eq!(count(&two, Consistency::Linearizable), "2");
    let three = start(&configs[2]);
    let told = |words: &str| {
        let trouble = |node: &Node| {
            let status = node.status();
            status.members.iter().any(|member| member.trouble.as_ref().is_some_and(|why| why.contains(words)))
        };
        trouble(&one) || trouble(&three) || three.why().is_some_and(|why| why.iter().any(|why| why.contains(words)))
    };
    wait("the one with another backup to be refused", || {
        told("same state").then_some(()).or(told("same backup").then_some(()))
    });
    assert_eq!(three.status().applied.0, three.status().snapshot.0, "it was given nothing");
    assert!(three.kill(PATIENCE));

    // One with the right backup is let in, as is one that lost everything before it had begun.
    offline::restore(&at("first"), &at("again")).unwrap();
    let three = start(&NodeConfig { data_dir: at("again"), ..configs[2].clone() });
    assert_eq!(count(&three, Consistency::Linearizable), "2");
    wait("all to have it", || (three.status().applied == one.status().last).then_some(()));
}

#[test]
fn what_is_no_backup_is_refused_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let source = Cluster::new(1);
    execute(source.node(0), "a");
    index(&backup(&client(&source), &at("good")));
    let good = std::fs::read(at("good")).unwrap();
    let cut = &good[..good.len() - 1];
    let mut flipped = good.clone();
    let middle = good.len() - 40;
    flipped[middle] ^= 1;
    for (name, bytes) in [("cut", cut), ("flipped", &flipped), ("empty", b""), ("nonsense", b"nothing of the kind")] {
        std::fs::write(at(name), bytes).unwrap();
        let is_told = |error: &StoreError| match error {
            StoreError::Corrupt { .. } => matches!(name, "cut" | "flipped"),
            StoreError::Io { what, .. } => what.starts_with("it is no backup") && matches!(name, "empty" | "nonsense"),
            _ => false,
        };
        let error = offline::verify_backup(&at(name)).unwrap_err();
        assert!(is_told(&error), "{name}: {error:?}");
        let target = at(&format!("{name}-data"));
        let error = offline::restore(&at(name), &target).unwrap_err();
        assert!(is_told(&error), "{name}: {error:?}");
        // Nobody founds an empty cluster in its place.
        if target.join("snapshots").is_dir() {
            let config = NodeConfig::new(id(0), "127.0.0.1:0", &target);
            let error = Node::start(&config, Box::new(Lines::default())).unwrap_err();
            assert!(error.to_string().contains("was not finished"), "{error}");
        }
        // A good one may take its place.
        offline::restore(&at("good"), &target).unwrap();
    }
    let outcome = backup(&client(&source), &at("no/such/place"));
    assert!(matches!(outcome, Outcome::Refused(Refusal::Snapshot(_))), "{outcome:?}");
}

#[test]
fn of_backups_to_the_same_place_one_is_made_and_good() {
    let cluster = Cluster::new(1);
    execute(cluster.node(0), &"x".repeat(100_000));
    let directory = tempfile::tempdir().unwrap();
    let client = client(&cluster);
    for round in 0..5 {
        let path = directory.path().join(format!("{round}"));
        let made: Vec<Outcome> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(|| backup(&client, &path))).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let done = made.iter().filter(|outcome| matches!(outcome, Outcome::Done { .. })).count();
        assert_eq!(done, 1, "{made:?}");
        offline::verify_backup(&path).unwrap();
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 5, "and nothing else is left");
}

#[test]
fn a_restored_directory_founds_and_does_not_join() {
    let directory = tempfile::tempdir().unwrap();
    let source = Cluster::new(1);
    execute(source.node(0), "a");
    let path = directory.path().join("backup");
    index(&backup(&client(&source), &path));
    let data = directory.path().join("n2");
    offline::restore(&path, &data).unwrap();
    let join = vec![source.configs[0].address.clone()];
    let config = NodeConfig { join, ..NodeConfig::new(id(1), "127.0.0.1:0", &data) };
    let Err(StartError::Store(error)) = Node::start(&config, Box::new(Lines::default())) else { panic!("it started") };
    assert!(error.to_string().contains("without `join`"), "{error}");
    // It is as it was: without `join` it starts.
    let node = start(&NodeConfig::new(id(1), "127.0.0.1:0", &data));
    assert_eq!(count(&node, Consistency::Linearizable), "1");
}
