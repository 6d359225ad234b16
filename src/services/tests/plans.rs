//! What each change makes of each kind of membership, as tables; and where every plan ends, by luck.
//!
//! A membership is written as its members: `1` votes, `1l` learns, `1+` learns and is to vote, `1d` votes and is to learn,
//! `1-` votes and is to leave, `1l-` learns and is to leave; `*` marks who votes in the half that a joint one leaves behind,
//! and `x1` who was removed.

use std::collections::BTreeMap;

use graft_domain::{Incarnation, Member, Membership, NodeId, Target};

use super::clients::{add, add_learner, apply, demote, promote, remove, replace};
use super::random::Random;
use super::world::{address, id};
use crate::change::{Change, MEMBERS_MAX, Stage, describe};

fn number(id: NodeId) -> usize {
    id.as_str()[1..].parse().expect("ids here are numbered")
}

pub(super) fn parse(text: &str) -> Membership {
    let mut membership = Membership::default();
    for word in text.split_whitespace() {
        if let Some(removed) = word.strip_prefix('x') {
            membership.removed.insert(id(removed.parse().expect("a number")));
            continue;
        }
        let end = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
        let (n, marks) = (word[..end].parse().expect("a number"), &word[end..]);
        let outgoing = marks.ends_with('*');
        let (voter, target) = match marks.trim_end_matches('*') {
            "" => (true, Target::Voter),
            "l" => (false, Target::Learner),
            "+" => (false, Target::Voter),
            "d" => (!outgoing, Target::Learner),
            "-" => (!outgoing, Target::Gone),
            "l-" => (false, Target::Gone),
            other => panic!("what is {other}?"),
        };
        let incarnation = Incarnation(1_000 + n as u64);
        let member = Member { address: address(n).into(), incarnation, voter, outgoing, target };
        membership.members.insert(id(n), member);
    }
    membership
}

pub(super) fn show(membership: &Membership) -> String {
    let word = |(id, member): (&NodeId, &Member)| {
        let marks = match (member.voter, member.outgoing, member.target) {
            (true, _, Target::Voter) => "",
            (false, false, Target::Learner) => "l",
            (false, _, Target::Voter) => "+",
            (_, _, Target::Learner) => "d",
            (false, false, Target::Gone) => "l-",
            (_, _, Target::Gone) => "-",
        };
        format!("{}{marks}{}", number(*id), if member.outgoing { "*" } else { "" })
    };
    let members = membership.members.iter().map(word);
    members.chain(membership.removed.iter().map(|id| format!("x{}", number(*id)))).collect::<Vec<_>>().join(" ")
}

/// The plan as a membership, or how far the change has come if there is nothing to plan, or the words of the refusal.
fn planned(membership: &str, change: &Change) -> String {
    let current = parse(membership);
    assert_eq!(show(&current), membership, "the notation is plain");
    match change.plan(&current) {
        Ok(planned) if planned == current => format!("{:?}", change.stage(&current)),
        Ok(planned) => show(&planned),
        Err(refused) => refused.to_string(),
    }
}

#[track_caller]
fn check(change: &Change, table: &[(&str, &str)]) {
    for (membership, expected) in table {
        let is = planned(membership, change);
        let holds = is == *expected || (expected.ends_with('…') && is.starts_with(expected.trim_end_matches('…')));
        assert!(holds, "{change:?} of {membership}: {is}");
    }
}

#[test]
fn to_add() {
    check(
        &add(4),
        &[
            ("1 2 3", "1 2 3 4+"),
            ("1", "1 4+"),
            ("1 2l", "1 2l 4+"),
            ("1 4l", "1 4+"),
            ("1 4+", "UnderWay"),
            ("1 4", "Done"),
            ("1 2d* 4", "UnderWay"),
            ("1* 4", "UnderWay"),
            ("1 x4", "the id n4 belonged to a member that was removed, and ids are not used again…"),
            ("1 2+", "another change is under way (n2 catches up and is to vote): wait for it, or cancel it"),
            ("1* 2-* 3", "another change is under way (n2 leaves, n3 becomes a voter): wait for it, or cancel it"),
            ("1 2+ 4l", "another change is under way (n2 catches up and is to vote): wait for it, or cancel it"),
        ],
    );
    check(
        &add_learner(4),
        &[
            ("1 2 3", "1 2 3 4l"),
            ("1 4l", "Done"),
            ("1 4", "n4 is a voter already; demote it to make it a learner"),
            ("1 2+ 4", "n4 is a voter already; demote it to make it a learner"),
            ("1 4+", "another change is under way (n4 catches up and is to vote): wait for it, or cancel it"),
            ("1 x4", "the id n4 belonged to a member that was removed…"),
        ],
    );
}

#[test]
fn whoever_is_added_is_who_he_says() {
    let from = |at: usize, incarnation| Change::Add { id: id(4), address: address(at), voter: true, incarnation };
    let taken = from(2, Incarnation::UNKNOWN);
    check(&taken, &[("1 2", "n2 is the member at host2:7001; each member has an address of its own")]);
    // A member under another address: by its incarnation it is known to have moved.
    let elsewhere = "n4 is a member already, at host4:7001; if it has moved, start it there: it announces itself";
    check(&from(9, Incarnation::UNKNOWN), &[("1 4", elsewhere), ("1 4+", elsewhere), ("1 4l", elsewhere)]);
    // It says so at every start, and stays what it is: nobody asked for a learner to vote.
    check(&from(9, Incarnation(1_004)), &[("1 4", "Done"), ("1 4+", "Done"), ("1 4l", "Done")]);
    // A wiped disk, or a second node of that name, settled or not.
    let wiped = "n4 is a member with another data directory (00000000000003ec is recorded, 0000000000000007 came): it was \
                 wiped or is a copy, and may have forgotten what it promised. Bring the original directory back; if that is \
                 lost, start a node with a new id, an empty directory and --cluster, and then: graft member replace n4 \
                 NEW-ID ADDR";
    check(&from(4, Incarnation(7)), &[("1 4", wiped), ("1 4+", wiped), ("1 4l", wiped), ("1 2+ 4", wiped)]);
}

#[test]
fn a_cluster_has_a_limit() {
    let mut full = parse("1");
    for n in 2..=MEMBERS_MAX {
        full = add_learner(n).plan(&full).expect("there is room");
    }
    let refused = add(MEMBERS_MAX + 1).plan(&full).expect_err("it is full");
    assert_eq!(refused.to_string(), "a cluster has at most 64 members");
}

#[test]
fn to_remove() {
    check(
        &remove(2),
        &[
            ("1 2 3", "1 2- 3"),
            ("1 2l", "1 2l-"),
            ("1 2- 3", "UnderWay"),
            ("1 3 x2", "Done"),
            ("1 3", "there is no member n2; there are n1, n3"),
            ("2", "n2 is the last voter; without one there is no cluster. To end it, stop its nodes"),
            ("1l 2", "n2 is the last voter; without one there is no cluster. To end it, stop its nodes"),
            // A newcomer's removal gives its addition up, and a replacement with it.
            ("1 2+", "1 2l-"),
            ("1- 2+ 3", "1 2l- 3"),
            ("1 2 3+", "another change is under way (n3 catches up and is to vote): wait for it, or cancel it"),
            ("1* 2-* 3", "UnderWay"),
            ("1-* 2* 3", "another change is under way (n1 leaves, n3 becomes a voter): wait for it, or cancel it"),
            ("1* 2 3-*", "another change is under way (n2 becomes a voter, n3 leaves): wait for it, or cancel it"),
            ("1 3+ x2", "Done"),
            ("1 3+", "there is no member n2; there are n1, n3"),
        ],
    );
}

#[test]
fn to_promote_and_demote() {
    check(
        &promote(2),
        &[
            ("1 2l", "1 2+"),
            ("1 2", "Done"),
            ("1 2+", "UnderWay"),
            ("1", "there is no member n2; there are n1"),
            ("1 x2", "n2 was removed from the cluster"),
            ("1 2l 3+", "another change is under way (n3 catches up and is to vote): wait for it, or cancel it"),
        ],
    );
    check(
        &demote(2),
        &[
            ("1 2 3", "1 2d 3"),
            ("1 2l", "Done"),
            ("1 2d", "UnderWay"),
            ("1 2d* 3*", "UnderWay"),
            ("2 3l", "n2 is the last voter…"),
            ("1", "there is no member n2; there are n1"),
            ("1 2 3+", "another change is under way (n3 catches up and is to vote): wait for it, or cancel it"),
        ],
    );
}

#[test]
fn to_replace() {
    check(
        &replace(2, 4),
        &[
            ("1 2 3", "1 2- 3 4+"),
            ("1 2 3 4l", "1 2- 3 4+"),
            ("2", "2- 4+"),
            ("1 2l", "1 2l- 4+"),
            ("1 2- 3 4+", "UnderWay"),
            ("1* 2-* 3* 4", "UnderWay"),
            ("1 3 4 x2", "Done"),
            ("1 2 4", "1 2- 4"),
            ("1 3", "there is no member n2; there are n1, n3"),
            ("1 3 x2", "n2 was removed from the cluster"),
            ("1 2 x4", "the id n4 belonged to a member that was removed…"),
            ("1 2 5+", "another change is under way (n5 catches up and is to vote): wait for it, or cancel it"),
        ],
    );
    let elsewhere = Change::Replace { old: id(2), new: id(3), address: address(7) };
    let why = "n3 is a member at host3:7001, not at host7:7001; if it has moved, start it there: it announces itself";
    check(&elsewhere, &[("1 2 3", why), ("1 2 3l", why)]);
    check(&replace(2, 2), &[("1 2", "n2 cannot replace itself: give the new node an id of its own")]);
}

#[test]
fn to_apply() {
    check(
        &apply(&[1, 2, 3]),
        &[
            ("1", "1 2+ 3+"),
            ("1 2 3", "Done"),
            ("4 5", "1+ 2+ 3+ 4- 5-"),
            ("1 2l 4l", "1 2+ 3+ 4l-"),
            ("1 2+ 3+", "UnderWay"),
            ("1* 2 3", "UnderWay"),
            ("1 2 4+", "another change is under way (n4 catches up and is to vote): wait for it, or cancel it"),
            ("1 2 x3", "the id n3 belonged to a member that was removed…"),
        ],
    );
    check(&apply(&[]), &[("1", "no members are given; without one there is no cluster")]);
    let at = |members: &[(usize, usize)]| Change::Apply {
        members: members.iter().map(|(n, at)| (id(*n), address(*at))).collect::<BTreeMap<_, _>>(),
    };
    check(&at(&[(1, 1), (2, 1)]), &[("1", "two of the members have the same address")]);
    check(
        &at(&[(1, 9)]),
        &[("1", "n1 is a member at host1:7001, not at host9:7001; if it has moved, start it there…")],
    );
    check(&at(&[(1, 1), (3, 2)]), &[("1 2", "n2 is the member at host2:7001; each member has an address of its own")]);
}

#[test]
fn to_cancel() {
    check(
        &Change::Cancel,
        &[
            ("1 2", "Done"),
            ("1 2+ 3l", "1 2l 3l"),
            ("1- 2+", "1 2l"),
            ("1d 2 3", "1 2 3"),
            ("1 2l-", "1 2l"),
            (
                "1* 2",
                "the change is past the point where it can be given up; it ends by itself as soon as a majority of…",
            ),
        ],
    );
}

#[test]
fn a_change_that_was_given_up_is_told_from_one_that_goes_on() {
    let stage = |change: Change, membership: &str| change.stage(&parse(membership));
    assert_eq!(stage(add(2), "1 2l"), Stage::GivenUp, "cancelled");
    assert_eq!(stage(add(2), "1 x2"), Stage::GivenUp, "removed again");
    assert_eq!(stage(remove(2), "1 2"), Stage::GivenUp);
    assert_eq!(stage(replace(1, 2), "1 2l"), Stage::GivenUp);
    assert_eq!(stage(promote(2), "1 2l"), Stage::GivenUp);
    assert_eq!(stage(demote(2), "1 2"), Stage::GivenUp);
    assert_eq!(stage(apply(&[1, 2]), "1 2l"), Stage::GivenUp);
    assert_eq!(stage(add_learner(2), "1 2l"), Stage::Done);
    assert_eq!(stage(add_learner(2), "1 3"), Stage::GivenUp);
}

#[test]
fn what_goes_on_is_told_in_words() {
    for (membership, words) in [
        ("1 2 3l x4", ""),
        ("1 2+", "n2 catches up and is to vote"),
        ("1- 2+ 3", "n1 leaves, n2 catches up and is to vote"),
        ("1* 2 3-* 4d*", "n2 becomes a voter, n3 leaves, n4 becomes a learner"),
        ("1 2l- 3d", "n2 leaves, n3 becomes a learner"),
    ] {
        assert_eq!(describe(&parse(membership)), words);
    }
}

/// Any change, of members and of others.
fn any_change(random: &mut Random) -> Change {
    let (one, other) = (1 + random.size(8), 1 + random.size(8));
    match random.below(9) {
        0 | 1 => add(one),
        2 => add_learner(one),
        3 => remove(one),
        4 => promote(one),
        5 => demote(one),
        6 => replace(one, other),
        7 => apply(&(0..=random.size(5)).map(|_| 1 + random.size(8)).collect::<Vec<_>>()),
        _ => Change::Cancel,
    }
}

fn with_target(membership: &Membership, target: Target) -> Vec<NodeId> {
    membership.members.iter().filter(|(_, member)| member.target == target).map(|(id, _)| *id).collect()
}

/// One step on the way, when everybody has caught up.
fn step(membership: &Membership) -> Option<Membership> {
    if membership.is_joint() { Some(membership.without_outgoing()) } else { membership.next() }
}

/// Whatever else is asked on the way leads nowhere else, but for giving it up.
fn is_left_alone(on_the_way: &Membership, random: &mut Random) {
    let other = any_change(random);
    let Ok(planned) = other.plan(on_the_way) else { return };
    let gives_up = match &other {
        Change::Cancel => true,
        Change::Remove { id } => on_the_way.newcomers().any(|newcomer| newcomer == *id),
        _ => false,
    };
    assert!(planned == *on_the_way || (gives_up && !on_the_way.is_joint()), "{other:?} of {}", show(on_the_way));
    if other == Change::Cancel && !on_the_way.is_joint() {
        assert!(planned.is_settled() && planned.voters().eq(on_the_way.voters()), "{}", show(&planned));
    }
}

#[test]
fn every_plan_ends_where_it_was_to_end() {
    let (mut ended, mut refused) = (0, 0);
    for seed in 0..4_000 {
        let mut random = Random(seed);
        let mut membership = parse(["1", "1 2", "1 2 3", "1 2 3 4l", "1 2 3 4 5"][random.size(5)]);
        for _ in 0..12 {
            let change = any_change(&mut random);
            let Ok(planned) = change.plan(&membership) else {
                refused += 1;
                continue;
            };
            let (voters, learners) = (with_target(&planned, Target::Voter), with_target(&planned, Target::Learner));
            let gone = with_target(&planned, Target::Gone);
            membership = planned;
            let mut steps = 0;
            while !membership.is_settled() {
                assert_eq!(
                    change.stage(&membership),
                    if change == Change::Cancel { Stage::Done } else { Stage::UnderWay }
                );
                assert_eq!(change.plan(&membership).as_ref(), Ok(&membership), "asking again changes nothing");
                is_left_alone(&membership, &mut random);
                membership = step(&membership).unwrap_or_else(|| panic!("{} stands still", show(&membership)));
                steps += 1;
                assert!(steps <= 2 && membership.voters().next().is_some(), "{}", show(&membership));
            }
            assert!(membership.voters().eq(voters.iter().copied()), "{change:?} ends as {}", show(&membership));
            assert_eq!(with_target(&membership, Target::Learner), learners);
            assert!(gone.iter().all(|id| membership.removed.contains(id) && !membership.contains(id)));
            assert_eq!(change.stage(&membership), Stage::Done, "{change:?} of {}", show(&membership));
            assert_eq!(change.plan(&membership).as_ref(), Ok(&membership), "asked again when it is done: {change:?}");
            ended += 1;
        }
    }
    assert!(ended > 10_000 && refused > 10_000, "{ended} ended, {refused} were refused");
}
