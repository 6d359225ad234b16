//! What ends when: nearly always in the order it came, and hardly ever by its deadline.

use std::collections::{BTreeSet, VecDeque};

use graft_domain::Instant;

/// Of those in line, so many may be gone beside half of all.
const GONE_MAX: usize = 64;

/// Deadlines with the numbers of what they are for.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    /// Those that came in the order of their deadlines, and whether each is there still. The first is.
    line: VecDeque<((Instant, u64), bool)>,
    gone: usize,
    /// All others.
    others: BTreeSet<(Instant, u64)>,
}

impl Deadlines {
    pub(crate) fn insert(&mut self, deadline: Instant, number: u64) {
        let new = (deadline, number);
        if self.line.back().is_none_or(|(last, _)| *last < new) {
            self.line.push_back((new, true));
        } else {
            self.others.insert(new);
        }
    }

    pub(crate) fn remove(&mut self, deadline: Instant, number: u64) {
        let old = (deadline, number);
        let is_first = self.line.front().is_some_and(|(first, _)| *first == old);
        let place = if is_first { Ok(0) } else { self.line.binary_search_by_key(&old, |(at, _)| *at) };
        let Some((_, is_there)) = place.ok().and_then(|place| self.line.get_mut(place)).filter(|(_, there)| *there)
        else {
            self.others.remove(&old);
            return;
        };
        *is_there = false;
        self.gone += 1;
        while self.line.pop_front_if(|(_, is_there)| !*is_there).is_some() {
            self.gone -= 1;
        }
        if self.gone > GONE_MAX + self.line.len() / 2 {
            self.line.retain(|(_, is_there)| *is_there);
            self.line.shrink_to(2 * self.line.len());
            self.gone = 0;
        }
    }

    /// The earliest.
    pub(crate) fn first(&self) -> Option<(Instant, u64)> {
        let in_line = self.line.front().map(|(first, _)| *first);
        [in_line, self.others.first().copied()].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use graft_domain::Random;

    use super::*;

    #[test]
    fn the_earliest_is_known_in_whatever_order_they_come_and_go() {
        for seed in 0..40 {
            let (mut random, mut deadlines, mut expected) = (Random::new(seed), Deadlines::default(), BTreeSet::new());
            for number in 0..2_000 {
                // Of some seeds all come in order, of others hardly any.
                let at = Instant(number + random.next() % (1 + seed * seed));
                deadlines.insert(at, number);
                expected.insert((at, number));
                for _ in 0..random.next() % 3 {
                    let first = expected.first().copied();
                    let any = expected.iter().nth(usize::try_from(random.next() % 50).expect("small")).copied();
                    let Some((at, number)) = any.filter(|_| random.next().is_multiple_of(2)).or(first) else { break };
                    deadlines.remove(at, number);
                    expected.remove(&(at, number));
                    // Once more does nothing.
                    deadlines.remove(at, number);
                }
                assert_eq!(deadlines.first(), expected.first().copied());
                assert!(deadlines.line.len() + deadlines.others.len() <= 2 * (expected.len() + GONE_MAX) + 1);
            }
        }
    }
}
