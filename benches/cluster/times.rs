//! How long calls took, in little room and at little cost: what keeps millions of times and sorts them shows in what it
//! measures.

use std::time::Duration;

/// So many bits of a time are kept: it is off by less than one in 256.
const BITS: u32 = 7;
const PLACES: usize = place(u64::MAX) + 1;

/// Counts of times, each by its place.
pub(crate) struct Times {
    counts: Vec<u64>,
    all: usize,
}

/// Times that agree in their first bits share a place.
const fn place(nanos: u64) -> usize {
    let dropped = (u64::BITS - nanos.leading_zeros()).saturating_sub(BITS + 1);
    ((dropped as usize) << BITS) + (nanos >> dropped) as usize
}

/// The middle of the times at a place.
const fn middle(place: usize) -> u64 {
    let dropped = ((place >> BITS) as u32).saturating_sub(1);
    let first = ((place - ((dropped as usize) << BITS)) as u64) << dropped;
    first + (1 << dropped) / 2
}

// A bench has no tests: whoever builds it has these held.
const _: () = {
    let (mut nanos, mut before) = (1_u64, 0);
    while nanos < u64::MAX / 2 {
        let (at, found) = (place(nanos), middle(place(nanos)));
        assert!(at > before && place(nanos - 1) + 1 >= at && found.abs_diff(nanos) <= nanos / 128);
        before = at;
        // Every place up to 256, and some of each doubling from there.
        nanos += if nanos < 256 { 1 } else { nanos / 64 };
    }
};

impl Times {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; PLACES], all: 0 }
    }

    pub(crate) fn add(&mut self, time: Duration) {
        self.counts[place(time.as_nanos() as u64)] += 1;
        self.all += 1;
    }

    pub(crate) fn count(&self) -> usize {
        self.all
    }

    /// What so large a share of them does not exceed.
    pub(crate) fn at(&self, share: f64) -> Duration {
        let mut left = ((self.all.max(1) - 1) as f64 * share) as u64;
        for (place, count) in self.counts.iter().enumerate() {
            if left < *count {
                return Duration::from_nanos(middle(place));
            }
            left -= count;
        }
        Duration::ZERO
    }
}
