//! Small forms of all searches, and what the model rests on.

use std::collections::HashSet;

use graft_domain::Instant;
use stateright::Model;

use crate::disk::Operation;
use crate::member::{Act, LATER, Member, NOW};
use crate::model::{Action, Cluster, State};
use crate::scenario::{Bounds, Rules, Scenario, all};
use crate::turn::Turn;
use crate::{Report, run};

fn scenario(name: &str) -> Scenario {
    all().into_iter().find(|scenario| scenario.name == name).expect("it is in the list")
}

fn search(name: &str, states: usize) -> Report {
    let report = run(scenario(name), states, 2, |_, _| {});
    let story = report.broken.iter().flat_map(|(_, story)| story).fold(String::new(), |all, line| all + line + "\n");
    assert!(report.broken.is_none(), "{name}: {:?}\n{story}", report.broken.as_ref().map(|(rule, _)| rule));
    assert!(report.complete || report.unique >= states, "{report:?}");
    report
}

#[test]
fn elections_keep_all_rules() {
    search("elections", 20_000);
}

#[test]
fn a_joint_change_keeps_all_rules() {
    search("joint", 20_000);
}

#[test]
fn a_transfer_keeps_all_rules() {
    search("transfer", 20_000);
}

#[test]
fn snapshots_at_any_index_keep_all_rules() {
    search("snapshot", 20_000);
}

#[test]
fn a_promotion_keeps_all_rules() {
    search("promotion", 20_000);
}

#[test]
fn pre_votes_keep_all_rules() {
    search("pre-votes", 20_000);
}

#[test]
fn entries_of_prior_terms_keep_all_rules() {
    search("prior-term", 20_000);
}

#[test]
fn disks_that_lie_are_found_out() {
    for scenario in all() {
        let report = run(scenario.lying(), 20_000, 1, |_, _| {});
        let (rule, story) = report.broken.expect("a promise that is not kept");
        assert_eq!(rule, "promises are durable before they leave", "{story:#?}");
        assert!(story.iter().any(|line| line.starts_with("BROKEN: ")), "{story:#?}");
    }
}

/// All states within a small bound, without any checker.
fn states(cluster: &Cluster) -> HashSet<State> {
    let mut waiting = cluster.init_states();
    let mut seen: HashSet<State> = waiting.iter().cloned().collect();
    let mut actions = Vec::new();
    while let Some(state) = waiting.pop() {
        cluster.actions(&state, &mut actions);
        let next = actions.drain(..).filter_map(|action| cluster.after(&state, &action));
        waiting.extend(next.filter(|state| seen.insert(state.clone())));
    }
    seen
}

#[test]
fn the_checker_sees_as_many_states_as_there_are() {
    let mut small = scenario("elections");
    small.bounds = Bounds { terms: 1, timeouts: 1, ..Bounds::default() };
    let cluster = Cluster::new(small.clone());
    let all = states(&cluster);
    let report = run(small, usize::MAX, 2, |_, _| {});
    assert!(report.complete && report.broken.is_none(), "{report:?}");
    assert_eq!(report.unique, all.len());
}

#[test]
fn what_is_void_can_do_nothing() {
    let bounds = Bounds { terms: 2, timeouts: 2, crashes: 1, ..Bounds::default() };
    let mut small = Scenario { bounds, ..scenario("elections") };
    small.membership.members.pop_last();
    let without = |keeps_void| {
        let scenario = Scenario { rules: Rules { keeps_void, ..Rules::default() }, ..small.clone() };
        let cluster = Cluster::new(scenario);
        let states = states(&cluster);
        let shape = |state: &State| {
            let members: Vec<u64> = state.members.iter().map(|member| member.digest()).collect();
            (members, state.past.digest(), state.spent)
        };
        (states.len(), states.iter().map(shape).collect::<HashSet<_>>())
    };
    let ((all, with_void), (fewer, without_void)) = (without(true), without(false));
    assert!(with_void == without_void, "{} and {}", with_void.len(), without_void.len());
    assert!(fewer < all, "{fewer} of {all} states");
}

/// A member that counts on, from the start of its clock and of its writes.
struct Twin {
    member: Member,
    now: Instant,
}

impl Twin {
    /// The same act, and the same as the member that counts anew each time: all that it says, wants and is.
    fn follows(&mut self, before: &Member, act: &Act, rules: Rules) {
        let (counted, verdict) = Turn::play(before, act, rules);
        let passes = self.member.core.is_leader() && matches!(act, Act::Timeout | Act::Expire(_));
        let now = if passes { self.now + LATER.since(NOW) } else { self.now };
        let (turn, other) = Turn::play_at(&self.member, act, rules, now);
        let said = |turn: &Turn| turn.sends.iter().cloned().collect::<HashSet<_>>();
        assert_eq!((verdict, said(&counted), &counted.commits), (other, said(&turn), &turn.commits));
        assert_eq!((&counted.applies, counted.leads, counted.refused), (&turn.applies, turn.leads, turn.refused));
        assert_eq!((&counted.told, &counted.changes), (&turn.told, &turn.changes));
        (self.member, self.now) = (turn.member, turn.now);
        assert_eq!(self.rebased(), counted.member, "{act:?}");
    }

    fn rebased(&self) -> Member {
        let mut member = self.member.clone();
        let first = member.disk.pending.iter().find_map(|operation| match operation {
            Operation::Write(write) => Some(write.seq),
            Operation::Compact(_) => None,
        });
        member.disk.rebase(first.map_or(0, |seq| seq - 1));
        member.core.rebase(NOW);
        member
    }
}

#[test]
fn a_core_that_is_counted_anew_behaves_as_before() {
    let mut random = graft_domain::Random::new(5);
    let mut acts = 0;
    for scenario in all() {
        let mut generous = scenario.clone();
        generous.bounds = Bounds { terms: 9, timeouts: 20, proposals: 5, beats: 9, ..scenario.bounds };
        let cluster = Cluster::new(generous);
        for _ in 0..20 {
            let mut state = cluster.init_states().remove(0);
            let twin = |member: &crate::kept::Kept<Member>| Twin { now: NOW, member: (**member).clone() };
            let mut twins: Vec<Twin> = state.members.iter().map(twin).collect();
            for _ in 0..120 {
                let mut actions: Vec<Action> = Vec::new();
                cluster.actions(&state, &mut actions);
                let Some(many) = std::num::NonZero::new(actions.len() as u64) else { break };
                let action = actions.swap_remove(usize::try_from(random.next() % many).expect("a small number"));
                twins[action.place].follows(&state.members[action.place], &action.act, cluster.scenario.rules);
                // What changes nothing may still have let time pass.
                state = cluster.after(&state, &action).unwrap_or(state);
                acts += 1;
            }
        }
    }
    assert!(acts > 8_000, "{acts}");
}
