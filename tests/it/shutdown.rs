//! A node that is told to end from afar, and what is left to ask of it then.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use graft::domain::Incarnation;
use graft::infrastructure::config::NodeConfig;
use graft::infrastructure::runtime::Node;
use graft::services::api::{Api, View};
use graft::services::change::Change;
use graft::services::error::{Outcome, Refusal};

use crate::cluster::{Cluster, Kind, Lines, PATIENCE, call, execute, id, value, wait};

fn view(node: &dyn Api) -> View {
    let (told, view) = channel();
    node.view(Box::new(move |view| drop(told.send(view))));
    view.recv_timeout(PATIENCE).expect("it is told once").expect("there is always something to say")
}

#[test]
fn a_node_that_was_shut_down_is_stopped_for_everyone() {
    let cluster = Cluster::new(3);
    let leader = cluster.leader();
    value(execute(cluster.node(leader), "x"));
    let node = cluster.node(leader);
    let mut events = Api::events(node, None, Arc::new(|| {}));
    node.doorkeeper().shutdown(PATIENCE);
    node.doorkeeper().shutdown(PATIENCE);
    wait("the node to be down", || (node.status().role == "stopped").then_some(()));
    // It waits for what was begun, and that ends well.
    assert!(node.stop(PATIENCE));
    TcpListener::bind(node.address()).expect("its port is free");
    assert_eq!((node.status().role, node.status().error), ("stopped", None));
    let view = view(&*node.doorkeeper());
    assert_eq!((view.status.role, &view.why[..]), ("stopped", &["the node is stopped".to_owned()][..]));
    assert_eq!(call(node, Kind::Execute, &["y"], PATIENCE), [Outcome::Refused(Refusal::Stopped)]);
    assert_eq!(call(&*node.doorkeeper(), Kind::Execute, &["y"], PATIENCE), [Outcome::Refused(Refusal::Stopped)]);
    let happenings = events.take(usize::MAX);
    assert!(happenings.items.last().is_some_and(|last| last.notice.is_none()) && happenings.ended.is_some());
    assert!(node.stop(PATIENCE) && node.kill(PATIENCE), "there is nothing more to do");
    // It handed over: the others go on.
    let other = (leader + 1) % 3;
    assert_eq!(value(execute(cluster.node(other), "y")), "2");
}

#[test]
fn stopping_a_node_that_is_being_shut_down_waits_for_it_and_hears_how_it_went() {
    let directory = tempfile::tempdir().unwrap();
    let machine = Lines::default();
    machine.blocked.store(true, std::sync::atomic::Ordering::Relaxed);
    let node =
        Node::start(&NodeConfig::new(id(0), "127.0.0.1:0", directory.path()), Box::new(machine.clone())).unwrap();
    wait("a leader", || node.status().leader);
    assert!(matches!(
        call(&node, Kind::Execute, &["block"], Duration::from_millis(300))[..],
        [Outcome::Unknown { .. }]
    ));
    node.shutdown(Duration::from_millis(200));
    assert!(!node.stop(PATIENCE), "the machine is left behind");
    assert_eq!(node.status().role, "stopped");
    machine.blocked.store(false, std::sync::atomic::Ordering::Relaxed);
}

#[test]
fn what_a_node_says_of_itself_is_told_once_whatever_becomes_of_it() {
    let cluster = Cluster::new(1);
    let node = cluster.node(0);
    wait("a leader", || node.status().leader);
    assert_eq!((view(node).status.role, view(node).why), ("leader", vec![]));
    let add = || Change::Add { id: id(1), address: "127.0.0.1:1".to_owned(), voter: true, incarnation: Incarnation(0) };
    let outlook = |node: &Node| {
        let (told, outlook) = channel();
        Api::what_if(node, add(), Box::new(move |outlook| drop(told.send(outlook))));
        outlook.recv_timeout(PATIENCE).expect("it is told once")
    };
    assert_eq!(outlook(node).map(|outlook| outlook.needed), Ok(2));
    // Some of these reach the engine, some find it ending, some find it gone.
    let (told, views) = channel();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            for _ in 0..20_000 {
                let told = told.clone();
                node.view(Box::new(move |view| drop(told.send(view))));
            }
        });
        assert!(node.kill(PATIENCE));
        asking.join().unwrap();
    });
    drop(told);
    // Those who ask while too many wait are told that.
    let is_told = |view: &Result<View, Refusal>| matches!(view, Ok(_) | Err(Refusal::Busy(_)));
    assert_eq!(views.iter().filter(is_told).count(), 20_000);
    assert_eq!(outlook(node), Err(Refusal::Stopped));
}
