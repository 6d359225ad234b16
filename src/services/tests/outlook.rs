//! What a node says of itself and of what would be.

use graft_domain::{Index, Term};

use super::clients::{add, apply, demote, remove};
use super::world::{World, id};
use crate::Event;
use crate::ports::Halt;

#[test]
fn a_node_that_is_well_has_nothing_to_explain() {
    let world = World::new(3);
    for n in 1..=3 {
        assert_eq!(world.replica(n).why(), Vec::<String>::new());
    }
}

#[test]
fn a_node_says_why_nothing_goes_on() {
    let mut world = World::new(3);
    for n in [2, 3] {
        world.crash(id(n), 0);
    }
    world.execute(1, "waits", 60_000);
    world.tell(1, Event::Trouble(id(2), "connection refused".to_owned()));
    world.run(500);
    let why = world.replica(1).why();
    assert_eq!(why[0], "no majority: 1 of 3 voters can be reached from here, 2 have to be");
    assert!(why.contains(&"n2 at host2:7001 cannot be reached: connection refused".to_owned()), "{why:?}");
    assert!(why.contains(&"n3 at host3:7001 cannot be reached: no connection yet".to_owned()), "{why:?}");
    let mut world = World::new(3);
    world.crash(id(1), 0);
    world.run(100);
    let why = world.replica(2).why();
    assert!(why.contains(&"n1 at host1:7001 cannot be reached: no connection yet".to_owned()), "{why:?}");
    world.until(1_000, |world| world.core(2).leader().is_none());
    let why = world.replica(2).why();
    assert!(why.iter().any(|why| why.starts_with("there is no leader in term ")), "{why:?}");
}

#[test]
fn the_leader_knows_whose_machine_has_halted() {
    let mut world = World::new(3);
    let leader = world.leader().expect("there is one");
    let other = 1 + leader % 3;
    world.tell(other, Event::Halted(Halt { index: Index(7), why: "put() raised\nTraceback".to_owned() }));
    world.run(2_000);
    let why = world.replica(leader).why();
    assert_eq!(why, [format!("n{other} at host{other}:7001 does not work: put() raised")]);
    let troubles: Vec<_> = world.replica(leader).status().members.into_iter().filter_map(|m| m.trouble).collect();
    assert_eq!(troubles, ["put() raised"]);
}

#[test]
fn the_leader_knows_whose_disk_has_failed_though_it_led_before() {
    let mut world = World::new(3);
    let former = world.leader().expect("there is one");
    world.node(id(former)).disk.failed = true;
    world.tell(former, Event::StorageFailed("the disk fails".to_owned()));
    world.until(10_000, |world| world.leader().is_some_and(|leader| leader != former));
    let leader = world.leader().expect("another one");
    world.run(2_000);
    let own = world.replica(former).status();
    assert_eq!((own.role, own.leader), ("failed", None), "it cannot take part in another term");
    let why = world.replica(leader).why();
    assert_eq!(why, [format!("n{former} at host{former}:7001 does not work: {}", own.error.unwrap_or_default())]);
    // Nor does it depend on who leads next.
    let third = 6 - former - leader;
    world.tell(leader, Event::Halted(Halt { index: Index(7), why: "put() raised".to_owned() }));
    world.until(10_000, |world| world.leader() == Some(third));
    world.run(2_000);
    let why = world.replica(third).why();
    assert!(why.iter().any(|why| why.starts_with(&format!("n{former} at "))), "{why:?}");
}

#[test]
fn a_member_that_does_not_get_on_says_so_and_the_leader_knows() {
    let mut world = World::new(3);
    let leader = world.leader().expect("there is one");
    let other = 1 + leader % 3;
    for (hold, words) in [
        ((true, false, false), "its machine does not get done with what it is at"),
        ((false, true, false), "no space is left on its disk"),
        ((false, false, true), "its disk does not finish a write"),
    ] {
        let (machine_held, disk_full, disk_held) = hold;
        let node = world.node(id(other));
        (node.machine.held, node.disk.full, node.disk.held) = (machine_held, disk_full, disk_held);
        world.execute(leader, words, 60_000);
        world.run(2_000);
        if machine_held {
            assert_eq!(world.replica(other).status().trouble, None, "it may just be slow");
        }
        world.run(4_000);
        let own = world.replica(other).status().trouble.unwrap_or_default();
        assert!(own.starts_with(words), "{own}");
        assert_eq!(world.replica(other).why().len(), 1, "{:?}", world.replica(other).why());
        let status = world.replica(leader).status();
        let known = status.members.into_iter().find(|member| member.id == id(other)).and_then(|member| member.trouble);
        assert_eq!((status.trouble, known), (None, Some(own)));
        let node = world.node(id(other));
        (node.machine.held, node.disk.full, node.disk.held) = (false, false, false);
        world.run(2_000);
        assert_eq!(world.replica(other).status().trouble, None);
        assert_eq!(world.replica(leader).why(), [""; 0]);
    }
}

#[test]
fn a_node_without_memory_says_whom_it_waits_for() {
    let mut world = World::new(3);
    (1..=3).for_each(|n| world.crash(id(n), usize::MAX));
    // It was wiped, and refilled in part.
    world.node(id(2)).disk.commit = Index(50);
    world.start(id(2), 7);
    world.start(id(3), 7);
    world.connect_all();
    world.run(2_000);
    assert_eq!(world.leader(), None, "two of three are up, and cannot");
    let why = world.replica(2).why().join("\n");
    assert!(why.contains("of at least 50 entries again") && why.contains("start the members that are down"), "{why}");
    assert!(world.replica(3).why()[0].contains("each one's why() says"));
    world.crash(id(2), 0);
    let disk = &mut world.node(id(2)).disk;
    (disk.commit, disk.term, disk.vote) = (Index::ZERO, Term::ZERO, None);
    disk.entries.clear();
    world.start(id(2), 8);
    world.connect_all();
    world.run(2_000);
    let why = world.replica(2).why().join("\n");
    assert!(why.contains("the log of n2 is empty"), "{why}");
    world.start(id(1), 8);
    world.connect_all();
    world.run(5_000);
    assert_eq!(world.replica(2).why(), Vec::<String>::new());
}

#[test]
fn a_node_that_waits_to_be_let_in_says_what_keeps_it() {
    let mut world = World::new(1);
    world.joiner(2);
    world.tell(2, Event::JoinTrouble("n1 says: not now".to_owned()));
    world.run(100);
    assert_eq!(world.replica(2).why(), ["n2 waits to be let into a cluster", "n1 says: not now"]);
    let added = world.change(1, add(2), 5_000);
    world.run(1_500);
    world.assert_done(added);
    assert_eq!(world.replica(2).why(), Vec::<String>::new());
}

#[test]
fn an_outcast_says_what_to_do() {
    let mut world = World::new(1);
    world.joiner(2);
    world.tell(2, Event::Outcast { code: "WIPED", why: "start it anew".to_owned() });
    world.run(10);
    let status = world.replica(2).status();
    assert_eq!((status.error_code, status.error.as_deref()), (Some("WIPED"), Some("start it anew")));
}

#[test]
fn what_would_be_is_told_on_every_member_and_changes_nothing() {
    let mut world = World::new(3);
    world.run(200);
    for n in 1..=3 {
        let what = world.replica(n).what_if(&remove(3));
        assert_eq!((what.refused.clone(), what.voters.clone()), (None, vec![id(1), id(2)]), "as n{n} sees it");
        assert_eq!((what.needed, what.tolerates()), (2, 0));
        let what = world.replica(n).what_if(&apply(&[1, 2, 3, 4, 5]));
        assert_eq!((what.refused.clone(), what.needed, what.tolerates()), (None, 3, 2));
        let what = world.replica(n).what_if(&demote(3));
        assert_eq!((what.learners.clone(), what.refused), (vec![id(3)], None));
        let what = world.replica(n).what_if(&remove(9));
        assert_eq!(what.refused.as_deref(), Some("there is no member n9; there are n1, n2, n3"));
        assert_eq!(what.voters.len(), 3);
    }
    world.crash(id(3), 0);
    world.run(1_000);
    for n in 1..=2 {
        let what = world.replica(n).what_if(&remove(2));
        assert!(what.refused.is_some_and(|why| why.contains("n3 cannot be reached")), "as n{n} sees it");
        assert_eq!(what.alive, [id(1)]);
    }
    assert_eq!(world.shape(), "1 2 3");
}

#[test]
fn status_tells_members_with_what_the_leader_knows() {
    let mut world = World::new(3);
    world.run(200);
    let status = world.replica(1).status();
    assert_eq!((status.role, status.leader), ("leader", Some(id(1))));
    for member in &status.members {
        assert_eq!(member.matched, Some(status.last), "{member:?}");
        assert!(!member.installing && member.sent.is_none() && member.voter);
    }
    assert_eq!(world.replica(2).status().members[0].matched, None);
}
