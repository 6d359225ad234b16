//! Those who are refused for who they are: all are counted, and of so many it is said who they are that it can be seen, and
//! that a flood of them fills no log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

/// So many are told of one by one in a while; the others are counted.
const TOLD_MAX: u32 = 20;
const WHILE: Duration = Duration::from_secs(10);

/// What is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// A connection on which nobody proved to be one who belongs here.
    Connection,
    /// A connection on which nothing was said in time.
    Silent,
    /// A connection or call for which there is no place.
    Crowded,
    /// A call that takes a higher role, or a membership.
    Call,
    /// A call among members, of a client.
    PeerCall,
    /// A link of another node: of another cluster, say.
    Link,
}

impl Refused {
    const ALL: [Self; 6] = [Self::Connection, Self::Silent, Self::Crowded, Self::Call, Self::PeerCall, Self::Link];

    const fn word(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Silent => "silent",
            Self::Crowded => "crowded",
            Self::Call => "call",
            Self::PeerCall => "peer_call",
            Self::Link => "link",
        }
    }
}

/// What was refused on this port so far.
#[derive(Debug, Default)]
pub struct Complaints {
    counts: [AtomicU64; Refused::ALL.len()],
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    begun: Option<Instant>,
    told: u32,
    untold: u64,
}

impl Complaints {
    /// How many there were of each kind, by its word.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let count = |(what, count): (&Refused, &AtomicU64)| (what.word(), count.load(Ordering::Relaxed));
        Refused::ALL.iter().zip(&self.counts).map(count).collect()
    }

    pub(super) fn count(&self, what: Refused) {
        self.counts[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts it, and says it unless too much was said of late.
    pub(super) fn refuse(&self, what: Refused, say: impl FnOnce()) {
        self.count(what);
        if self.may_say(Instant::now()) {
            say();
        }
    }

    /// Whether it may be said of yet another one that he was refused.
    pub(super) fn may_tell(&self) -> bool {
        self.may_say(Instant::now())
    }

    fn may_say(&self, now: Instant) -> bool {
        // Nothing panics while it holds the lock.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
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
        assert_eq!(complaints.state.lock().unwrap().untold, 1980);
        assert_eq!(told(now + WHILE), 20);
    }

    #[test]
    fn each_kind_is_counted_for_itself() {
        let complaints = Complaints::default();
        for (times, what) in Refused::ALL.iter().enumerate() {
            (0..times).for_each(|_| complaints.refuse(*what, || {}));
        }
        let words = ["connection", "silent", "crowded", "call", "peer_call", "link"];
        assert_eq!(complaints.counts(), words.into_iter().zip(0..).collect::<Vec<_>>());
    }
}
