//! The model: states, what may happen in them, and what comes of it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use graft_domain::{Envelope, Index, Membership, Message};
use stateright::{Model, Property};

use crate::checks::{Broken, Rule, Scene};
use crate::disk::Snapshot;
use crate::kept::{Kept, Store};
use crate::member::{Act, Member, Outcome};
use crate::past::Past;
use crate::scenario::{Reach, Scenario, id};
use crate::turn::Turn;
use crate::wire;

/// The whole cluster at one moment.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct State {
    pub(crate) members: Box<[Kept<Member>]>,
    pub(crate) wire: Box<[Kept<Envelope>]>,
    pub(crate) past: Kept<Past>,
    pub(crate) spent: Spent,
    pub(crate) broken: Option<Kept<Broken>>,
}

/// What has happened as often as it may.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Spent {
    timeouts: u8,
    proposals: u8,
    crashes: u8,
    beats: u8,
    changes: u8,
    transfers: u8,
    pub(crate) expiries: u8,
    pub(crate) snapshots: u8,
}

/// An act of one member, by its place.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Action {
    pub(crate) place: usize,
    pub(crate) act: Act,
}

/// An act that was played before, with what came of it: a member that is told the same does the same.
type Played = (Kept<Member>, Act, &'static Outcome);

/// One search: a scenario, and whatever is in any of its states.
pub(crate) struct Cluster {
    pub(crate) scenario: Scenario,
    /// What has been reached, so that it is told once.
    pub(crate) reached: Mutex<Vec<Reach>>,
    /// Enough states have been seen.
    pub(crate) enough: AtomicBool,
    /// A rule was broken.
    told: AtomicBool,
    pub(crate) members: Store<Member>,
    envelopes: Store<Envelope>,
    pub(crate) pasts: Store<Past>,
    snapshots: Store<Snapshot>,
    broken: Store<Broken>,
    changes: Vec<Kept<Membership>>,
    /// By hash; each shelf is locked for itself.
    outcomes: Vec<Mutex<HashMap<u64, Vec<Played>>>>,
    /// Terms that were led before the search begins.
    pub(crate) leaders_before: usize,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("scenario", &self.scenario).finish_non_exhaustive()
    }
}

const SHELVES: usize = 64;

impl Cluster {
    pub(crate) fn new(scenario: Scenario) -> Self {
        let memberships = Store::default();
        let changes = scenario.changes.iter().map(|next| memberships.keep(next.clone())).collect();
        let mut cluster = Self {
            scenario,
            reached: Mutex::default(),
            enough: AtomicBool::new(false),
            told: AtomicBool::new(false),
            members: Store::default(),
            envelopes: Store::default(),
            pasts: Store::default(),
            snapshots: Store::default(),
            broken: Store::default(),
            changes,
            outcomes: (0..SHELVES).map(|_| Mutex::default()).collect(),
            leaders_before: 0,
        };
        cluster.leaders_before = cluster.start().past.leaders().len();
        cluster
    }

    /// How many different members, messages and pasts there are in what was seen.
    pub(crate) fn variety(&self) -> (usize, usize, usize) {
        (self.members.len(), self.envelopes.len(), self.pasts.len())
    }

    /// Whether a rule holds in a state. The first in which one does not is told, and no other: no way to one is shorter.
    fn keeps(&self, state: &State, rule: Rule) -> bool {
        state.broken.is_none_or(|broken| broken.rule != rule || self.told.swap(true, Ordering::Relaxed))
    }

    /// What comes of an act; looked up if it was played before.
    fn outcome(&self, before: Kept<Member>, act: &Act) -> &'static Outcome {
        let mut hasher = DefaultHasher::new();
        (before, act).hash(&mut hasher);
        let hash = hasher.finish();
        let place = usize::try_from(hash % SHELVES as u64).unwrap_or(0);
        let played = || self.outcomes[place].lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |(member, other, _): &&Played| *member == before && other == act;
        let known = played().get(&hash).and_then(|alike| alike.iter().find(is_it).map(|(_, _, outcome)| *outcome));
        known.unwrap_or_else(|| {
            let outcome: &'static Outcome = Box::leak(Box::new(self.play(before, act)));
            played().entry(hash).or_default().push((before, act.clone(), outcome));
            outcome
        })
    }

    fn play(&self, before: Kept<Member>, act: &Act) -> Outcome {
        let (turn, verdict) = Turn::play(&before, act, self.scenario.rules);
        Outcome {
            member: self.members.keep(turn.member),
            sends: turn.sends.into_iter().map(|envelope| self.envelopes.keep(envelope)).collect(),
            commits: turn.commits,
            applies: turn.applies,
            changes: turn.changes,
            leads: turn.leads,
            snapshot: turn.snapshot.map(|snapshot| self.snapshots.keep(snapshot)),
            refused: turn.refused,
            broken: verdict.err(),
        }
    }

    /// The state after an act; none if it changes nothing.
    pub(crate) fn after(&self, state: &State, Action { place, act }: &Action) -> Option<State> {
        let before = state.members[*place];
        let outcome = self.outcome(before, act);
        if outcome.refused {
            return None;
        }
        let mut members = state.members.clone();
        members[*place] = outcome.member;
        let matters = |envelope: &Envelope| {
            let to = members.iter().find(|member| member.core.id() == envelope.to);
            to.is_some_and(|to| self.scenario.rules.keeps_void || !wire::is_void(envelope, to))
        };
        let wire = wire::after(&state.wire, &outcome.sends, matters);
        let scene = Scene { members: &members, actor: *place, past: &state.past };
        let (past, broken) = match scene.after(outcome) {
            Ok(past) if past == *state.past => (state.past, None),
            Ok(past) => (self.pasts.keep(past), None),
            Err(broken) => (state.past, Some(self.broken.keep(broken))),
        };
        if outcome.member == before && wire == state.wire && past == state.past && broken.is_none() {
            return None;
        }
        Some(State { members, wire, past, spent: state.spent.and(act), broken })
    }

    /// Everything that may happen to one member.
    fn acts(&self, state: &State, place: usize, actions: &mut Vec<Action>) {
        let (member, bounds, spent) = (state.members[place], &self.scenario.bounds, &state.spent);
        let (core, mut add) = (&member.core, |act| actions.push(Action { place, act }));
        if !member.disk.pending.is_empty() {
            add(Act::Persist);
        }
        // Members that have nothing are all alike: it is no matter which of them is the first.
        let is_first = !self.scenario.blank || spent.timeouts > 0 || place == 0;
        if spent.timeouts < bounds.timeouts && is_first && (core.is_leader() || core.term().0 < bounds.terms) {
            add(Act::Timeout);
        }
        if core.is_leader() {
            if spent.beats < bounds.beats {
                add(Act::Beat);
            }
            if spent.proposals < bounds.proposals {
                add(Act::Propose(spent.proposals + 1));
            }
            if spent.changes < bounds.changes {
                self.changes.iter().for_each(|next| add(Act::Change(*next)));
            }
            if spent.transfers < bounds.transfers {
                let others = (0..state.members.len()).filter(|other| *other != place);
                others.for_each(|other| add(Act::Transfer(id(other))));
            }
        }
        if spent.snapshots < bounds.snapshots {
            (core.snapshot().index.0 + 1..=core.applied().0).for_each(|index| add(Act::Snapshot(Index(index))));
        }
        if let Some(fetch) = member.fetch {
            let offered = state.past.snapshots().iter().filter(|(owner, _)| *owner == fetch.leader);
            let fitting = offered.filter(|(_, snapshot)| snapshot.last.index >= fetch.last.index);
            fitting.for_each(|(_, snapshot)| add(Act::Install(*snapshot)));
        }
        if spent.crashes < bounds.crashes {
            add(Act::Crash);
        }
    }

    /// A message arrives. Nobody is told to stand in a term beyond the last.
    fn deliveries(&self, state: &State, envelope: Kept<Envelope>, actions: &mut Vec<Action>) {
        let Some(place) = state.members.iter().position(|member| member.core.id() == envelope.to) else { return };
        let core = &state.members[place].core;
        let is_told = envelope.message == Message::TimeoutNow;
        if !is_told || core.term().0 < self.scenario.bounds.terms {
            actions.push(Action { place, act: Act::Deliver(envelope) });
        }
        let is_answer = matches!(envelope.message, Message::AppendReply(_)) && envelope.term == core.term();
        let expires = core.transfer_target().is_some() && state.spent.expiries < self.scenario.bounds.expiries;
        if is_answer && expires {
            actions.push(Action { place, act: Act::Expire(envelope) });
        }
    }
}

impl Spent {
    fn and(mut self, act: &Act) -> Self {
        match act {
            Act::Propose(_) => self.proposals += 1,
            Act::Crash => self.crashes += 1,
            Act::Beat => self.beats += 1,
            Act::Change(_) => self.changes += 1,
            Act::Transfer(_) => self.transfers += 1,
            Act::Expire(_) => self.expiries += 1,
            Act::Snapshot(_) => self.snapshots += 1,
            Act::Timeout => self.timeouts += 1,
            Act::Deliver(_) | Act::Persist | Act::Install(_) => {}
        }
        self
    }
}

/// The name under which a search ends when it has seen enough.
pub(crate) const ENOUGH: &str = "enough states";

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.start()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_some() {
            return;
        }
        for place in 0..state.members.len() {
            self.acts(state, place, actions);
        }
        for envelope in &state.wire {
            self.deliveries(state, *envelope, actions);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.after(state, &action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::<Self>::always("election safety", |cluster, state| cluster.keeps(state, Rule::ElectionSafety)),
            Property::<Self>::always("log matching", |cluster, state| cluster.keeps(state, Rule::LogMatching)),
            Property::<Self>::always("leader completeness", |cluster, state| {
                cluster.keeps(state, Rule::LeaderCompleteness)
            }),
            Property::<Self>::always("state-machine safety", |cluster, state| {
                cluster.keeps(state, Rule::StateMachineSafety)
            }),
            Property::<Self>::always("commits are durable on a quorum", |cluster, state| {
                cluster.keeps(state, Rule::DurableCommits)
            }),
            Property::<Self>::always("promises are durable before they leave", |cluster, state| {
                cluster.keeps(state, Rule::Promises)
            }),
            Property::<Self>::always("memberships follow one another", |cluster, state| {
                cluster.keeps(state, Rule::Memberships)
            }),
            Property::<Self>::always("snapshots are of what is committed", |cluster, state| {
                cluster.keeps(state, Rule::Snapshots)
            }),
            Property::<Self>::always("invariants of the core", |cluster, state| cluster.keeps(state, Rule::Invariants)),
            Property::sometimes(ENOUGH, |cluster, _| cluster.enough.load(Ordering::Relaxed)),
        ];
        properties.extend(self.scenario.reaches.iter().map(|reach| reach.property()));
        properties
    }
}
