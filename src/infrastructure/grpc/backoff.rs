//! Waits between attempts.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// How long to wait between attempts: doubling, and jittered so that peers do not dial in step.
pub(super) struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
    random: RandomState,
    count: u64,
}

impl Backoff {
    pub(super) fn new(first: Duration, max: Duration) -> Self {
        Self { first: first.min(max), max, next: first.min(max), random: RandomState::new(), count: 0 }
    }

    /// A link stood for so long.
    pub(super) fn stood(&mut self, lasted: Duration) {
        if lasted >= self.max {
            self.next = self.first;
        }
    }

    /// What failed is not going to be better soon.
    pub(super) fn slow(&mut self) {
        self.next = self.max;
    }

    /// Between half of the wait and all of it.
    pub(super) fn next(&mut self) -> Duration {
        self.count += 1;
        // The standard library's hasher is keyed from the system's randomness, and jitter needs no better.
        let random = self.random.hash_one(self.count);
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.max);
        wait.mul_f64(0.5 + f64::from(u16::try_from(random >> 48).unwrap_or(0)) / f64::from(u16::MAX) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_start_over_after_a_lasting_link() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(20), ms(100));
        for full in [20, 40, 80, 100, 100] {
            let wait = backoff.next();
            assert!(wait >= ms(full) / 2 && wait <= ms(full), "{wait:?} of {full} ms");
        }
        backoff.stood(ms(99));
        assert!(backoff.next() >= ms(50));
        backoff.stood(ms(100));
        assert!(backoff.next() <= ms(20));
        backoff.slow();
        assert!(backoff.next() >= ms(50));
    }

    #[test]
    fn waits_differ() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1));
        let waits: Vec<_> = (0..16).map(|_| backoff.next()).collect();
        assert!(waits.iter().any(|wait| *wait != waits[0]), "{waits:?}");
    }
}
