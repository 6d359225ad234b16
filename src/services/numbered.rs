//! A map by numbers that are given out one after the other, and mostly come back in that order.

use std::collections::{BTreeMap, VecDeque};

/// Places for one that is taken, beyond which those that stay longest make way.
const SPARSE: usize = 4;
/// So many places may be empty in any case.
const EMPTY_MAX: usize = 64;
/// Room that is kept once it was needed.
const ROOM_KEPT: usize = 4096;

/// A ring of places, one for each number; the few that stay when all around them have gone are kept apart.
#[derive(Debug)]
pub struct Numbered<T> {
    /// Below all that have places.
    early: BTreeMap<u64, T>,
    /// The number of the first place, which is never empty.
    first: u64,
    places: VecDeque<Option<T>>,
    /// Places that are not empty.
    taken: usize,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { early: BTreeMap::new(), first: 0, places: VecDeque::new(), taken: 0 }
    }
}

impl<T> Numbered<T> {
    /// Puts in what has a number greater than all before it; others have their place too, only not so cheaply.
    pub fn insert(&mut self, number: u64, value: T) {
        if self.places.is_empty() {
            self.first = self.first.max(number);
        }
        let next = self.first.saturating_add(self.places.len() as u64);
        if number == next {
            self.places.push_back(Some(value));
            self.taken += 1;
        } else if number > next {
            self.retire(0);
            self.insert(number, value);
        } else if let Some(place) = self.place(number).and_then(|place| self.places.get_mut(place)) {
            self.taken += usize::from(place.is_none());
            *place = Some(value);
        } else {
            self.early.insert(number, value);
        }
    }

    fn place(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }

    pub fn get(&self, number: u64) -> Option<&T> {
        match self.place(number) {
            Some(place) => self.places.get(place)?.as_ref(),
            None => self.early.get(&number),
        }
    }

    pub fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        match self.place(number) {
            Some(place) => self.places.get_mut(place)?.as_mut(),
            None => self.early.get_mut(&number),
        }
    }

    pub fn remove(&mut self, number: u64) -> Option<T> {
        let Some(place) = self.place(number) else { return self.early.remove(&number) };
        let value = self.places.get_mut(place)?.take()?;
        self.taken -= 1;
        while self.places.pop_front_if(|place| place.is_none()).is_some() {
            self.first += 1;
        }
        if self.places.len() > EMPTY_MAX && self.places.len() / SPARSE > self.taken {
            self.retire(EMPTY_MAX.max(SPARSE * self.taken));
        }
        if self.places.capacity() > ROOM_KEPT && self.places.len() < self.places.capacity() / 8 {
            self.places.shrink_to(ROOM_KEPT.max(2 * self.places.len()));
        }
        Some(value)
    }

    /// Takes the first places away until no more than so many are left, and the first of those is not empty.
    fn retire(&mut self, left: usize) {
        while self.places.len() > left || self.places.front().is_some_and(Option::is_none) {
            if let Some(value) = self.places.pop_front().flatten() {
                self.early.insert(self.first, value);
                self.taken -= 1;
            }
            self.first += 1;
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    pub fn len(&self) -> usize {
        self.early.len() + self.taken
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// In the order of their numbers.
    pub fn into_pairs(self) -> impl Iterator<Item = (u64, T)> {
        let placed = (self.first..).zip(self.places).filter_map(|(number, place)| Some((number, place?)));
        self.early.into_iter().chain(placed)
    }

    /// The lowest.
    pub fn first(&self) -> Option<(u64, &T)> {
        self.iter().next()
    }

    /// In the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        let placed = (self.first..).zip(&self.places).filter_map(|(number, place)| Some((number, place.as_ref()?)));
        self.early.iter().map(|(number, value)| (*number, value)).chain(placed)
    }
}

#[cfg(test)]
mod tests {
    use graft_domain::Random;

    use super::*;

    /// All that can be asked of it.
    fn assert_same(numbered: &Numbered<u64>, expected: &BTreeMap<u64, u64>) {
        assert!(numbered.iter().eq(expected.iter().map(|(number, value)| (*number, value))));
        assert_eq!(numbered.first().map(|(number, _)| number), expected.keys().next().copied());
        assert_eq!((numbered.len(), numbered.is_empty()), (expected.len(), expected.is_empty()));
        assert_eq!(numbered.taken, numbered.places.iter().flatten().count());
        assert!(numbered.places.len() <= SPARSE * (numbered.taken + 1) + EMPTY_MAX, "places pile up");
    }

    #[test]
    fn it_is_a_map_in_whatever_order_numbers_come_and_go() {
        for seed in 0..40 {
            let (mut random, mut numbered, mut expected) = (Random::new(seed), Numbered::default(), BTreeMap::new());
            let mut next = random.next() % 3;
            for _ in 0..2_000 {
                let any = random.next() % (next + 2);
                match random.next() % 16 {
                    0..8 => {
                        numbered.insert(next, next);
                        expected.insert(next, next);
                        next += 1;
                    }
                    8..13 => {
                        // Mostly the oldest goes; of some seeds it is any.
                        let oldest = expected.keys().next().copied().filter(|_| seed % 3 > 0);
                        let number = oldest.unwrap_or(any);
                        assert_eq!(numbered.remove(number), expected.remove(&number));
                    }
                    13 => assert_eq!(numbered.get(any), expected.get(&any)),
                    14 => assert_eq!(numbered.get_mut(any), expected.get_mut(&any)),
                    _ if random.next().is_multiple_of(50) => next += random.next() % 100,
                    _ if random.next().is_multiple_of(200) => {
                        numbered.clear();
                        expected.clear();
                        next = 1;
                    }
                    _ => {
                        numbered.insert(any, any + 7);
                        expected.insert(any, any + 7);
                        next = next.max(any + 1);
                    }
                }
                assert_same(&numbered, &expected);
            }
            assert!(numbered.into_pairs().eq(expected));
        }
    }

    #[test]
    fn one_that_stays_keeps_no_places_empty_behind_it() {
        let mut numbered = Numbered::default();
        numbered.insert(1, 0);
        for number in 2..100_000 {
            numbered.insert(number, 0);
            numbered.remove(number);
            assert!(numbered.places.len() <= EMPTY_MAX + 1);
        }
        assert_eq!((numbered.first(), numbered.iter().count()), (Some((1, &0)), 1));
    }

    #[test]
    fn room_is_given_back() {
        let mut numbered = Numbered::default();
        (0..100_000).for_each(|number| numbered.insert(number, number));
        (0..99_999).for_each(|number| assert_eq!(numbered.remove(number), Some(number)));
        assert!(numbered.places.capacity() <= 2 * ROOM_KEPT && numbered.get(99_999) == Some(&99_999));
    }
}
