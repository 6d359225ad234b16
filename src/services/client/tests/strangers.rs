//! Two clusters that know the same session: the client keeps to one, whatever is at the addresses that it knows.

use std::time::Duration;

use bytes::Bytes;
use graft_domain::ClusterId;

use super::cluster::{Cluster, Mood};
use super::story::{Story, done, leads, ms};
use super::world::World;
use crate::client::{Answer, Demand, Event};
use crate::error::{Outcome, Refusal};
use crate::waiting::RequestId;

/// Some commands, each of which must be done.
fn works(world: &mut World, name: &str) {
    let asked: Vec<_> = (0..5).map(|n| world.execute(&format!("{name} {n}"), Duration::from_secs(20))).collect();
    for _ in 0..30 {
        world.run(ms(200));
        world.commit_late();
    }
    for request in asked {
        let outcome = world.outcome(request);
        assert!(matches!(outcome, Some(Outcome::Done { .. })), "{name}: {outcome:?}");
    }
    assert_eq!(world.misled, [], "{name}: said to another cluster");
}

#[test]
fn a_restored_cluster_never_hears_a_command_of_the_old_ones_client() {
    for seed in 0..40 {
        let mut world = World::new(seed, 3, 3);
        works(&mut world, "before");
        let backup = world.cluster.restored(1);
        world.usurp(1, backup);
        // They are on their way when the leader dies, and no majority is left.
        let asked: Vec<_> = (0..5).map(|n| world.execute(&format!("risked {n}"), Duration::from_secs(20))).collect();
        world.run(ms(seed % 5));
        world.crash(0);
        world.run(Duration::from_secs(5));
        assert_eq!(world.misled, [], "seed {seed}");
        world.heal(0);
        world.elect();
        works(&mut world, "after");
        for request in asked {
            let outcome = world.outcome(request);
            assert!(matches!(outcome, Some(Outcome::Done { .. })), "seed {seed}: {outcome:?}");
        }
        assert!(world.cluster.applied.values().all(|(times, _)| *times == 1), "seed {seed}");
    }
}

#[test]
fn a_seed_that_founds_a_cluster_of_its_own_draws_nobody_in() {
    for seed in 0..40 {
        let mut world = World::new(seed, 3, 1);
        works(&mut world, "before");
        world.usurp(0, Cluster::founded(3, 0));
        world.run(ms(seed * 50));
        world.elect();
        works(&mut world, "with the others");
        // The others are still known to him.
        world.crash(1);
        world.elect();
        world.heal(1);
        world.elect();
        works(&mut world, "after");
    }
}

#[test]
fn who_finds_none_but_strangers_is_told_whose_they_are() {
    let mut world = World::new(1, 3, 3);
    works(&mut world, "before");
    let backup = world.cluster.restored(1);
    world.usurp(1, backup);
    world.crash(0);
    world.crash(2);
    world.run(Duration::from_secs(3));
    let asked = world.execute("x", Duration::from_secs(5));
    world.run(Duration::from_secs(5));
    let Some(Outcome::Refused(Refusal::Unreachable(why))) = world.outcome(asked) else {
        panic!("{:?}", world.outcome(asked));
    };
    let (theirs, ours) = (ClusterId(2), ClusterId(1));
    assert!(why.contains(&format!("a member of cluster {theirs} is at this address")), "{why}");
    assert!(why.contains(&format!("belongs to cluster {ours}")) && why.contains("make a new client"), "{why}");
    assert_eq!((world.cluster.moods[1], world.misled), (Mood::Strange, Vec::new()));
}

/// A cluster of three that is not the client's.
fn other() -> Cluster {
    Cluster { name: ClusterId(2), leader: Some(0), ..Cluster::new(3) }
}

#[test]
fn a_risked_command_stays_on_its_way_to_the_right_cluster() {
    let mut story = Story::begins(|_| {});
    story.goes_well();
    story.asks(2, 8_000);
    story.loses(1);
    story.connects(2, leads(1));
    story.hears_of(2, 5, 1, &other(), " of another cluster");
    story.introduces(3, 2);
    story.hears(3, 7, done(8));
    story.is("
            0 < call 2
            0 > say 1 #4 execute 7/2 from 2 within 7.75s
            0 < 1 lost
            0 > dial 2 m1:1
            0 > use none
            0 < 2 connected, m1 leads
            0 > say 2 #5 view within 5s
            0 < 2 answers #5 that it is m1 of three of another cluster
            0 > close 2
            0 > dial 3 m2:1
            0 < 3 connected, m2 leads
            0 > say 3 #6 view within 5s
            0 < 3 answers #6 that it is m2 of three
            0 > say 3 #7 execute 7/2 from 2 within 7.75s
            0 > use 3
            0 < 3 answers #7 done 8
            0 > answer 2 done 8
    ");
}

#[test]
fn a_risked_command_that_only_strangers_could_hear_ends_unknown() {
    let mut story = Story::begins(|_| {});
    story.goes_well();
    story.asks(2, 100);
    story.loses(1);
    story.connects(2, leads(1));
    story.hears_of(2, 5, 1, &other(), " of another cluster");
    story.waits(100);
    let said =
        "answer 2 unknown Some((7, 2)): no answer in time; last: m0:1: connection refused; no member can be reached";
    assert!(story.told.contains(said) && story.told.contains("is at this address"), "{}", story.told);
}

#[test]
fn a_client_that_is_told_which_cluster_takes_no_other_even_as_the_first() {
    let mut story = Story::begins(|config| config.cluster = ClusterId(2));
    story.asks(1, 8_000);
    story.connects(1, leads(0));
    story.hears_of(1, 1, 0, &Cluster::new(3), "");
    let why = format!(
        "no member can be reached: m0:1: a member of cluster {} is at this address, and this client is to speak with cluster \
         {} alone",
        ClusterId(1),
        ClusterId(2)
    );
    // Nobody else is known, and nobody is learned from a stranger: to wait does not help.
    assert!(story.told.contains(&format!("answer 1 refused: {why}")), "{}", story.told);
    assert!(!story.told.contains("session") && !story.told.contains("dial 2 m1"), "{}", story.told);
    let mut story = Story::begins(|config| config.cluster = ClusterId(2));
    story.asks(1, 8_000);
    story.connects(1, leads(0));
    story.hears_of(1, 1, 0, &other(), "");
    assert!(story.told.contains("say 1 #2 session"), "{}", story.told);
}

#[test]
fn strangers_are_left_out_and_named_where_others_of_the_right_cluster_are_down() {
    let mut story = Story::begins(|config| {
        config.cluster = ClusterId(2);
        config.endpoints = vec!["m0:1".to_owned(), "m1:1".to_owned()];
    });
    story.asks(1, 1_000);
    let (first, second) = if story.told.contains("dial 1 m0:1") { (0, 1) } else { (1, 0) };
    story.connects(1, leads(first));
    story.hears_of(1, 1, first, &Cluster::new(3), "");
    assert!(!story.told.contains("answer 1"), "the other may be of the right one: {}", story.told);
    assert!(story.told.contains(&format!("dial 2 m{second}:1")), "{}", story.told);
    story.loses(2);
    story.waits(1_000);
    let said = story.told.lines().last().unwrap();
    assert!(said.contains("answer 1 refused: no member can be reached"), "{said}");
    assert!(said.contains("is at this address") && said.contains("connection refused"), "{said}");
}

#[test]
fn a_member_that_names_no_cluster_hears_nothing_of_worth() {
    let mut story = Story::begins(|_| {});
    let unnamed = Cluster { unnamed: [0].into(), leader: None, ..Cluster::new(1) };
    let (request, deadline) = (RequestId(9), story.now + ms(5_000));
    story.connects(1, Some(crate::client::Hint::Nobody));
    story.asks(1, 8_000);
    story.hears_of(1, 1, 0, &unnamed, " and names no cluster");
    story.happens("call 9 for its status", Event::Call { request, demand: Demand::View, deadline });
    story.happens(
        "1 answers #2",
        Event::Heard {
            link: crate::client::LinkId(1),
            answers: vec![(2, Answer::View(Box::new(unnamed.view(0))))],
            hint: None,
        },
    );
    story.hears_hint(1, leads(0).unwrap());
    story.hears_of(1, 3, 0, &Cluster::new(1), "");
    story.hears(1, 4, done(7));
    story.is("
            0 > dial 1 m0:1
            0 < 1 connected, nobody leads
            0 > say 1 #1 view within 5s
            0 < call 1
            0 < 1 answers #1 that it is m0 of three and names no cluster
            0 < call 9 for its status
            0 > say 1 #2 view within 4.75s
            0 < 1 answers #2
            0 > answer 9
            0 < 1 says m0 leads
            0 > say 1 #3 view within 5s
            0 < 1 answers #3 that it is m0 of three
            0 > say 1 #4 session within 3s
            0 > use 1
            0 < 1 answers #4 done 7
            0 > say 1 #5 execute 7/1 from 1 within 7.75s
    ");
}

#[test]
fn a_member_that_changes_its_cluster_is_left() {
    let mut story = Story::begins(|_| {});
    story.goes_well();
    let slot = crate::commands::Slot { session: 7, sequence: 9, unanswered: 1 };
    let demand = Demand::Execute { slot: Some(slot), body: Bytes::from_static(b"x") };
    let deadline = story.now + ms(8_000);
    story.happens("call 2", Event::Call { request: RequestId(2), demand, deadline });
    story.waits(1_000);
    story.hears_of(1, 5, 0, &other(), " of another cluster");
    story.is("
            0 < call 2
            0 > say 1 #4 execute 7/9 from 2 within 7.75s
         1000 > say 1 #5 view within 5s
         1000 < 1 answers #5 that it is m0 of three of another cluster
         1000 > close 1
         1000 > dial 2 m1:1
         1000 > use none
    ");
}
