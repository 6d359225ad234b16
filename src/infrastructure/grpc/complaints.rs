//! What is said of those who are refused: enough to see who they are, and never so much that a flood of them fills a log.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

/// So many are told of one by one in a while; the others are counted.
const TOLD_MAX: u32 = 20;
const WHILE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Complaints(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    begun: Option<Instant>,
    told: u32,
    untold: u64,
}

impl Complaints {
    /// Says it, unless too much was said of late.
    pub(super) fn say(&self, say: impl FnOnce()) {
        if self.may_say(Instant::now()) {
            say();
        }
    }

    fn may_say(&self, now: Instant) -> bool {
        // Nothing panics while it holds the lock.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.begun.is_none_or(|begun| now >= begun + WHILE) {
            if state.untold > 0 {
                warn!("{} more were refused in the last while, and not told of one by one", state.untold);
            }
            *state = State { begun: Some(now), told: 0, untold: 0 };
        }
        let may = state.told < TOLD_MAX;
        if may {
            state.told += 1;
        } else {
            state.untold += 1;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_the_next_one_is_told_again() {
        let (complaints, now) = (Complaints::default(), Instant::now());
        let told = |at: Instant| (0..1000).filter(|_| complaints.may_say(at)).count();
        assert_eq!(told(now), 20);
        assert_eq!(told(now + WHILE / 2), 0);
        assert_eq!(complaints.0.lock().unwrap().untold, 1980);
        assert_eq!(told(now + WHILE), 20);
    }
}
