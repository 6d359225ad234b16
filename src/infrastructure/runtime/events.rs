//! What happened to a node, for those who watch: the newest events, numbered, for any number of readers at their own pace.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use graft_services::Notice;

/// Events that are kept; who is further behind than that has missed some.
const EVENTS_MAX: usize = 8192;

/// One event. Numbers begin at 1 and have no gaps.
#[derive(Clone, Debug)]
pub struct Happening {
    pub sequence: u64,
    pub at: SystemTime,
    /// None: the node has stopped, and nothing follows.
    pub notice: Option<Notice>,
}

/// What a reader gets.
#[derive(Clone, Debug, Default)]
pub struct Happenings {
    pub events: Vec<Happening>,
    /// The oldest that is kept, and the newest; what is before the oldest is lost to a reader that has not got it.
    pub oldest: u64,
    pub newest: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Events {
    state: Mutex<State>,
    some: Condvar,
}

#[derive(Debug, Default)]
struct State {
    kept: VecDeque<Happening>,
    newest: u64,
    ended: bool,
}

impl Events {
    pub(crate) fn push(&self, notices: impl IntoIterator<Item = Notice>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for notice in notices {
            state.push(Some(notice));
        }
        drop(state);
        self.some.notify_all();
    }

    /// The node has stopped; readers get what is left.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.ended {
            state.push(None);
            state.ended = true;
        }
        drop(state);
        self.some.notify_all();
    }

    /// Those after `since`, after waiting for one at most so long.
    pub(crate) fn after(&self, since: u64, timeout: Duration) -> Happenings {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.some.wait_timeout_while(state, timeout, |state| state.newest <= since && !state.ended);
        let state = waited.unwrap_or_else(PoisonError::into_inner).0;
        let oldest = state.kept.front().map_or(state.newest + 1, |event| event.sequence);
        let behind = usize::try_from(since.saturating_add(1).saturating_sub(oldest)).unwrap_or(usize::MAX);
        let events = state.kept.iter().skip(behind).cloned().collect();
        Happenings { events, oldest, newest: state.newest }
    }
}

impl State {
    fn push(&mut self, notice: Option<Notice>) {
        self.newest += 1;
        if self.kept.len() >= EVENTS_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(Happening { sequence: self.newest, at: SystemTime::now(), notice });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(connected: bool) -> Notice {
        let member = graft_domain::NodeId::new("n2").expect("a good id");
        Notice::Link { member, connected, why: None }
    }

    #[test]
    fn readers_go_on_where_they_were() {
        let events = Events::default();
        events.push([link(true), link(false)]);
        let first = events.after(0, Duration::ZERO);
        assert_eq!((first.events.len(), first.oldest, first.newest), (2, 1, 2));
        assert!(events.after(2, Duration::ZERO).events.is_empty());
        events.push([link(true)]);
        assert_eq!(events.after(2, Duration::ZERO).events[0].sequence, 3);
    }

    #[test]
    fn what_is_kept_has_a_limit_and_who_fell_behind_can_tell() {
        let events = Events::default();
        (0..=EVENTS_MAX).for_each(|n| events.push([link(n % 2 == 0)]));
        let all = events.after(0, Duration::ZERO);
        assert_eq!((all.events.len(), all.oldest), (EVENTS_MAX, 2));
        assert_eq!(all.events[0].sequence, 2);
    }

    #[test]
    fn the_end_wakes_who_waits_and_comes_once() {
        let events = std::sync::Arc::new(Events::default());
        let reader = std::sync::Arc::clone(&events);
        let waiting = std::thread::spawn(move || reader.after(0, Duration::from_mins(1)).events);
        events.end();
        events.end();
        let seen = waiting.join().expect("the reader does not panic");
        assert!(seen.len() == 1 && seen[0].notice.is_none());
        assert_eq!(events.after(1, Duration::from_mins(1)).events.len(), 0, "there is nothing to wait for");
    }
}
