//! What happened to a node, for those who watch: the newest events, numbered, for any number of readers at their own pace.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use graft_services::Notice;
pub use graft_services::api::Happening;
use graft_services::api::{Reader, Taken, Wake};
use graft_services::error::Refusal;

use super::clock::wall;
use super::wakes::{Wakes, wake};
use crate::infrastructure::metrics::Metrics;

/// Events that are kept; who is further behind than that has missed some. Hours of a quiet cluster, and minutes of one whose
/// links come and go.
const EVENTS_MAX: usize = 8192;
/// Readers at a time.
const READERS_MAX: usize = 16_384;

/// What a reader that waits itself gets.
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
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct State {
    kept: VecDeque<Happening>,
    newest: u64,
    ended: bool,
    wakes: Wakes,
}

impl Events {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..Self::default() }
    }

    pub(crate) fn push(&self, notices: impl IntoIterator<Item = Notice>) {
        let mut state = self.lock();
        for notice in notices {
            self.metrics.noticed(&notice);
            state.push(Some(notice));
        }
        self.wake(state);
    }

    /// The node has stopped; readers get what is left.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        if !state.ended {
            state.push(None);
            state.ended = true;
        }
        self.wake(state);
    }

    /// Reads what comes after number `since`, or from now on.
    pub(crate) fn read(self: &Arc<Self>, since: Option<u64>, wake: Wake) -> Box<dyn Reader<Happening>> {
        let mut state = self.lock();
        // A number that is not given out yet is of another run of the node: all that this run has is new to the reader.
        let since = since.map_or(state.newest, |since| if since > state.newest { 0 } else { since });
        let reader = (state.wakes.len() < READERS_MAX).then(|| state.wakes.add(wake));
        Box::new(EventReader { events: Arc::clone(self), reader, since })
    }

    /// Those after `since`, after waiting for one at most so long.
    pub(crate) fn after(&self, since: u64, timeout: Duration) -> Happenings {
        let waited = self.some.wait_timeout_while(self.lock(), timeout, |state| state.newest <= since && !state.ended);
        let state = waited.unwrap_or_else(PoisonError::into_inner).0;
        Happenings { events: state.from(since).cloned().collect(), oldest: state.oldest(), newest: state.newest }
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let wakes = state.wakes.rouse_all();
        drop(state);
        self.some.notify_all();
        wake(wakes);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, notice: Option<Notice>) {
        self.newest += 1;
        if self.kept.len() >= EVENTS_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(Happening { sequence: self.newest, at: wall(), notice });
    }

    fn oldest(&self) -> u64 {
        self.kept.front().map_or(self.newest + 1, |event| event.sequence)
    }

    /// Those that are kept of what came after `since`.
    fn from(&self, since: u64) -> impl Iterator<Item = &Happening> {
        let seen = usize::try_from(since.saturating_add(1).saturating_sub(self.oldest())).unwrap_or(usize::MAX);
        self.kept.range(seen.min(self.kept.len())..)
    }
}

struct EventReader {
    events: Arc<Events>,
    /// None: there were too many.
    reader: Option<u64>,
    since: u64,
}

impl Reader<Happening> for EventReader {
    fn take(&mut self, max: usize) -> Taken<Happening> {
        let Some(reader) = self.reader else {
            let why = format!("{READERS_MAX} readers follow this node's events already");
            return Taken { items: Vec::new(), ended: Some(Refusal::Busy(why)) };
        };
        let mut state = self.events.lock();
        let items: Vec<Happening> = state.from(self.since).take(max).cloned().collect();
        self.since = items.last().map_or(self.since, |last| last.sequence);
        state.wakes.waits(reader);
        let ended = (state.ended && self.since >= state.newest).then_some(Refusal::Stopped);
        Taken { items, ended }
    }
}

impl Drop for EventReader {
    fn drop(&mut self) {
        if let Some(reader) = self.reader {
            self.events.lock().wakes.remove(reader);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn link(connected: bool) -> Notice {
        let member = graft_domain::NodeId::new("n2").expect("a good id");
        Notice::Link { member, connected, why: None }
    }

    fn numbers(taken: &Taken<Happening>) -> Vec<u64> {
        taken.items.iter().map(|event| event.sequence).collect()
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
        let events = Arc::new(Events::default());
        let mut slow = events.read(Some(0), Arc::new(|| {}));
        (0..=EVENTS_MAX).for_each(|n| events.push([link(n % 2 == 0)]));
        let all = events.after(0, Duration::ZERO);
        assert_eq!((all.events.len(), all.oldest), (EVENTS_MAX, 2));
        assert_eq!(all.events[0].sequence, 2);
        assert_eq!(numbers(&slow.take(3)), [2, 3, 4], "a gap after 0");
    }

    #[test]
    fn the_end_wakes_who_waits_and_comes_once() {
        let events = Arc::new(Events::default());
        let reader = Arc::clone(&events);
        let waiting = std::thread::spawn(move || reader.after(0, Duration::from_mins(1)).events);
        events.end();
        events.end();
        let seen = waiting.join().expect("the reader does not panic");
        assert!(seen.len() == 1 && seen[0].notice.is_none());
        assert_eq!(events.after(1, Duration::from_mins(1)).events.len(), 0, "there is nothing to wait for");
    }

    #[test]
    fn a_reader_is_woken_once_until_it_looks_and_forgotten_when_it_goes() {
        let events = Arc::new(Events::default());
        events.push([link(true)]);
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&woken);
        let wake = move || {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        let mut reader = events.read(None, Arc::new(wake));
        assert_eq!(numbers(&reader.take(9)), [0_u64; 0], "from now on");
        events.push([link(true)]);
        events.push([link(false)]);
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        assert_eq!(numbers(&reader.take(1)), [2]);
        assert_eq!(numbers(&reader.take(9)), [3]);
        events.push([link(true)]);
        events.end();
        assert_eq!(woken.load(Ordering::Relaxed), 2);
        let last = reader.take(1);
        assert_eq!((numbers(&last), last.ended), (vec![4], None), "there is more");
        let end = reader.take(9);
        assert_eq!((numbers(&end), end.ended), (vec![5], Some(Refusal::Stopped)));
        drop(reader);
        assert_eq!(events.lock().wakes.len(), 0);
    }
}
