//! One copy of everything that is the same: states share what they have in common, and compare it by where it is.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

/// A value of which there is one copy, with its hash. It copies like a number.
pub(crate) struct Kept<T: 'static>(&'static Hashed<T>);

struct Hashed<T> {
    hash: u64,
    value: T,
}

impl<T> Kept<T> {
    /// By the value alone: the same in every run.
    pub(crate) fn digest(self) -> u64 {
        self.0.hash
    }
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Kept<T> {}

impl<T> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> PartialEq for Kept<T> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl<T> Eq for Kept<T> {}

impl<T> Hash for Kept<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl<T: fmt::Debug> fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.value.fmt(f)
    }
}

const SHELVES: usize = 64;

/// Where the copies are. What is in it stays until the program ends: a state that is looked at last may refer to it.
pub(crate) struct Store<T: 'static> {
    /// By hash; each is locked for itself.
    shelves: Vec<Mutex<HashMap<u64, Vec<Kept<T>>>>>,
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self { shelves: (0..SHELVES).map(|_| Mutex::default()).collect() }
    }
}

impl<T: Hash + Eq> Store<T> {
    /// The copy of this value. Values of the same hash are told apart.
    pub(crate) fn keep(&self, value: T) -> Kept<T> {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        let hash = hasher.finish();
        let place = usize::try_from(hash % SHELVES as u64).unwrap_or(0);
        let mut values = self.shelves[place].lock().unwrap_or_else(PoisonError::into_inner);
        let alike = values.entry(hash).or_default();
        if let Some(kept) = alike.iter().find(|kept| kept.0.value == value) {
            return *kept;
        }
        let kept = Kept(Box::leak(Box::new(Hashed { hash, value })));
        alike.push(kept);
        kept
    }

    pub(crate) fn len(&self) -> usize {
        let count = |shelf: &Mutex<HashMap<u64, Vec<Kept<T>>>>| {
            shelf.lock().unwrap_or_else(PoisonError::into_inner).values().map(Vec::len).sum::<usize>()
        };
        self.shelves.iter().map(count).sum()
    }
}
