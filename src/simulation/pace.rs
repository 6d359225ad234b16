//! What a node's monotonic clock shows.

use std::time::Duration;

use graft_domain::Instant;

/// A monotonic clock that may run fast or slow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// What it shows while a thousand of the world's go by.
    rate: u64,
    since: (Instant, Instant),
}

impl Pace {
    /// It has shown this much when the world begins.
    pub(crate) fn new(ahead: u64) -> Self {
        Self { rate: 1_000, since: (Instant(0), Instant(ahead)) }
    }

    pub(crate) fn shows(&self, now: Instant) -> Instant {
        let (world, own) = self.since;
        own + Duration::from_nanos(now.0.saturating_sub(world.0) * self.rate / 1_000)
    }

    /// The first moment in the world at which it shows `at` or more.
    pub(crate) fn when(&self, at: Instant) -> Instant {
        let (world, own) = self.since;
        if at == Instant::NEVER {
            return at;
        }
        let ahead = u128::from(at.0.saturating_sub(own.0)) * 1_000;
        world + Duration::from_nanos(u64::try_from(ahead.div_ceil(u128::from(self.rate))).unwrap_or(u64::MAX / 4))
    }

    pub(crate) fn set(&mut self, now: Instant, rate: u64) {
        *self = Self { rate, since: (now, self.shows(now)) };
    }
}
