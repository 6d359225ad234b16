//! The clock of one node: it may run fast or slow, and a turn of its loop may go by the time at which it began.

use core::time::Duration;

use crate::Instant;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// What it shows while a thousand of the world's go by.
    rate: u64,
    /// When it was last set to another rate, by the world's clock and by itself.
    since: (Instant, Instant),
    /// What a turn that takes in events takes for the time.
    pub(crate) turn: Option<Instant>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { rate: 1_000, since: (Instant(0), Instant(0)), turn: None }
    }
}

impl Clock {
    /// What it shows when it is `now` in the world.
    pub(crate) fn shows(&self, now: Instant) -> Instant {
        let (world, own) = self.since;
        own + now.since(world) * u32::try_from(self.rate).expect("a small number") / 1_000
    }

    /// The first moment in the world at which it shows `at` or more.
    pub(crate) fn when(&self, at: Instant) -> Instant {
        let (world, own) = self.since;
        if at == Instant::NEVER {
            return at;
        }
        let ahead = at.since(own).as_nanos() * 1_000;
        world + Duration::from_nanos(u64::try_from(ahead.div_ceil(u128::from(self.rate))).unwrap_or(u64::MAX))
    }

    /// From `now` on it runs at another rate.
    pub(crate) fn set_rate(&mut self, now: Instant, rate: u64) {
        self.since = (now, self.shows(now));
        self.rate = rate;
    }
}
