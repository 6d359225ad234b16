//! The time that a node's replica sees: monotonic, and running on while the computer sleeps.

use std::time::{Duration, SystemTime};

use graft_domain::Instant;
use graft_services::Clock;

/// Begins at the start of the node. Copies tell the same time.
///
/// A lease that a sleeping leader held, and a promise that it was given, end by this clock: one that stops with the computer
/// would let it answer reads after another leads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Monotonic {
    origin: source::Moment,
}

impl Monotonic {
    pub(crate) fn start() -> Self {
        Self { origin: source::now() }
    }

    pub(crate) fn now(self) -> Instant {
        Instant(nanoseconds(source::since(self.origin)))
    }

    /// With the time of day, for stamps.
    pub(crate) fn clock(self) -> Clock {
        Clock { now: self.now(), wall: wall() }
    }
}

/// Nanoseconds since the Unix epoch; 0 before it.
pub(crate) fn wall() -> u64 {
    nanoseconds(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn nanoseconds(duration: Duration) -> u64 {
    // Five hundred years fit.
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The monotonic clock of Linux does not count the time in which the computer sleeps; this one does.
#[cfg(target_os = "linux")]
mod source {
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};

    /// Since the computer was switched on.
    pub(super) type Moment = Duration;

    pub(super) fn now() -> Moment {
        let time = clock_gettime(ClockId::Boottime);
        // Neither part is ever negative.
        let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
        Duration::new(seconds.unwrap_or_default(), nanoseconds.unwrap_or_default())
    }

    pub(super) fn since(origin: Moment) -> Duration {
        now().saturating_sub(origin)
    }
}

#[cfg(not(target_os = "linux"))]
mod source {
    use std::time::{Duration, Instant};

    pub(super) type Moment = Instant;

    pub(super) fn now() -> Moment {
        Instant::now()
    }

    pub(super) fn since(origin: Moment) -> Duration {
        Instant::now().saturating_duration_since(origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_and_never_goes_back() {
        let (before, clock, after) = (std::time::Instant::now(), Monotonic::start(), std::time::Instant::now());
        let (mut last, slack) = (clock.now(), Duration::from_millis(1));
        for _ in 0..10_000 {
            let passed_since = after.elapsed();
            let now = clock.now();
            let passed = now.since(Instant(0));
            assert!(now >= last && passed + slack >= passed_since && passed <= before.elapsed() + slack);
            last = now;
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn it_counts_from_when_the_computer_was_switched_on() {
        let uptime = || {
            let text = std::fs::read_to_string("/proc/uptime").expect("Linux tells");
            text.split(' ').next().and_then(|seconds| seconds.parse::<f64>().ok()).expect("seconds come first")
        };
        // Told in hundredths, of the clock that counts sleep.
        let (before, now, after) = (uptime(), source::now().as_secs_f64(), uptime());
        assert!(before - 0.02 <= now && now <= after + 0.02, "{before} {now} {after}");
    }
}
