//! A limit on bytes in a second, shared by all who wait for it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// What was not used for so long may be used at once.
const SAVED_MAX: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: u64,
    /// When everything that was taken so far is paid for.
    paid_at: Mutex<Option<Instant>>,
}

impl Pace {
    /// `bytes_per_second` is not 0.
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, paid_at: Mutex::default() }
    }

    /// Waits until so many bytes may be sent.
    pub(super) async fn take(&self, bytes: usize) {
        let at = self.reserve(Instant::now(), bytes);
        sleep_until(at).await;
    }

    /// From when on they may.
    fn reserve(&self, now: Instant, bytes: usize) -> Instant {
        // Nothing panics while it holds the lock.
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(SAVED_MAX).unwrap_or(now);
        let begin = paid_at.map_or(earliest, |paid| paid.max(earliest));
        *paid_at = Some(begin + self.cost(bytes));
        begin.max(now)
    }

    fn cost(&self, bytes: usize) -> Duration {
        let nanoseconds = bytes as u128 * 1_000_000_000 / u128::from(self.bytes_per_second.max(1));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_bytes_pass_in_a_second_as_may() {
        let pace = Pace::new(1000);
        let start = Instant::now();
        let last = (0..30).map(|_| pace.reserve(start, 100)).last().unwrap();
        // The first hundred were saved up, and the last hundred need not be waited for.
        assert_eq!(last - start, Duration::from_millis(2800));
    }

    #[test]
    fn what_was_not_used_is_saved_for_a_moment_only() {
        let pace = Pace::new(1000);
        let start = Instant::now();
        pace.reserve(start, 100);
        let later = start + Duration::from_mins(1);
        let waits: Vec<_> = (0..3).map(|_| pace.reserve(later, 100) - later).collect();
        assert_eq!(waits, [0, 0, 100].map(Duration::from_millis));
    }

    #[test]
    fn it_is_shared_evenly_between_those_who_wait() {
        let pace = Pace::new(1000);
        let start = Instant::now();
        let turn = || (pace.reserve(start, 100) - start).as_millis();
        let turns: Vec<_> = (0..6).map(|_| (turn(), turn())).collect();
        assert_eq!(turns, [(0, 0), (100, 200), (300, 400), (500, 600), (700, 800), (900, 1000)]);
    }
}
