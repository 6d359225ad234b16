//! How a search begins.

use crate::member::{Act, Member, NOW};
use crate::model::{Action, Cluster, Spent, State};
use crate::past::Past;
use crate::scenario::{Before, Event, id};
use crate::turn::Turn;

/// What a beginning takes at most.
const STEPS_MAX: usize = 1_000;

impl Cluster {
    /// How it begins.
    pub(crate) fn start(&self) -> State {
        let members = (0..self.scenario.members()).map(|place| {
            let member = Member::new(id(place), self.scenario.disk(place), self.scenario.rules, NOW);
            self.members.keep(Turn::begin(&member, self.scenario.rules))
        });
        let members = members.collect();
        let mut past = Past::default();
        if !self.scenario.blank {
            let founding = self.scenario.founding();
            let term = founding.term;
            past.commit(founding, term);
        }
        let past = self.pasts.keep(past);
        let state = State { members, wire: Box::default(), past, spent: Spent::default(), broken: None };
        self.scenario.before.iter().fold(state, |state, before| {
            let state = self.settle(state, before);
            State { wire: Box::default(), spent: Spent::default(), ..state }
        })
    }

    /// Something happens, and everything that comes of it among some.
    fn settle(&self, state: State, Before { place, event, among }: &Before) -> State {
        let act = match event {
            Event::Campaign | Event::Lead => Some(Act::Timeout),
            Event::Command(number) => Some(Act::Propose(*number)),
            Event::Crash => Some(Act::Crash),
            Event::Wait => None,
        };
        let begun = act.and_then(|act| self.after(&state, &Action { place: *place, act }));
        let mut state = begun.unwrap_or(state);
        // A core that is broken on purpose may have no end of it.
        for _ in 0..STEPS_MAX {
            if *event == Event::Lead && state.members[*place].core.is_leader() {
                return state;
            }
            let persists = among.iter().map(|place| Action { place: *place, act: Act::Persist });
            let delivers = state.wire.iter().filter_map(|envelope| {
                let to = among.iter().find(|place| id(**place) == envelope.to)?;
                Some(Action { place: *to, act: Act::Deliver(*envelope) })
            });
            let Some(next) = persists.chain(delivers).find_map(|action| self.after(&state, &action)) else {
                return state;
            };
            state = next;
        }
        state
    }
}
