//! The terms of a log that is cut, goes on and is forgotten, against a plain list of them.

use super::super::state::{HardState, LogState};
use super::disk::Luck;
use super::*;

/// The terms of the entries after `base`.
struct Plain {
    base: EntryId,
    terms: Vec<Term>,
}

impl Plain {
    fn last(&self) -> u64 {
        self.base.index.0 + self.terms.len() as u64
    }

    fn term_at(&self, index: u64) -> Option<Term> {
        match index.checked_sub(self.base.index.0)? {
            0 => Some(self.base.term),
            nth => self.terms.get(usize::try_from(nth).expect("a short log") - 1).copied(),
        }
    }
}

#[test]
fn terms_are_those_of_a_plain_list() {
    for seed in 0..200 {
        let mut luck = Luck(seed);
        let mut state = LogState::default();
        let mut plain = Plain { base: EntryId::ZERO, terms: Vec::new() };
        let mut term = 1;
        for _ in 0..60 {
            term += u64::from(luck.draw().is_multiple_of(3));
            state.advance(HardState { term: Term(term), ..HardState::default() }).expect("terms go on");
            let places = plain.terms.len() as u64;
            match luck.draw() % 5 {
                0 => {
                    let covered = plain.base.index.0 + luck.draw() % (places + 3);
                    let known = plain.term_at(covered);
                    let id = EntryId { term: known.unwrap_or(Term(term)), index: Index(covered) };
                    let base = state.base_for(id);
                    assert_eq!(base.reset, known.is_none());
                    if covered > plain.base.index.0 {
                        state.rebase(base).expect("it is after the last base");
                        let dropped = usize::try_from(covered - plain.base.index.0).expect("a short log");
                        plain.terms.drain(..dropped.min(plain.terms.len()));
                        plain.base = id;
                    }
                }
                choice => {
                    let cut = if choice == 1 { luck.draw() % (places + 1) } else { 0 };
                    let index = plain.last() - cut + 1;
                    plain.terms.truncate(usize::try_from(places - cut).expect("a short log"));
                    state.append(EntryId::new(term, index)).expect("it follows");
                    plain.terms.push(Term(term));
                }
            }
            for index in 0..plain.last() + 3 {
                assert_eq!(state.term_at(Index(index)), plain.term_at(index), "seed {seed}, index {index}");
            }
            assert_eq!((state.base, state.last.index.0), (plain.base, plain.last()));
        }
    }
}
