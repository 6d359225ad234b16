//! What a stream has brought and its reader has not taken yet, under limits.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use graft_services::api::{Reader, Taken, Wake};
use graft_services::error::Refusal;
use tokio::sync::Notify;

/// Beyond either, the stream is given up, and taken up again where it was when half of it has been read: a slow reader holds
/// neither memory nor a window of the connection.
const ITEMS_MAX: usize = 4096;
const BYTES_MAX: usize = 8 << 20;

pub(super) struct Feed<T> {
    state: Mutex<State<T>>,
    room: Notify,
    wake: Wake,
}

struct State<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    ended: Option<Refusal>,
    /// The other side has said once that it has no more for now.
    told_all: bool,
    /// Nobody reads any more.
    dropped: bool,
}

impl<T> Feed<T> {
    pub(super) fn new(wake: Wake) -> Arc<Self> {
        let state = State { items: VecDeque::new(), bytes: 0, ended: None, told_all: false, dropped: false };
        Arc::new(Self { state: Mutex::new(state), room: Notify::new(), wake })
    }

    /// Puts down what came, with its bytes. False if there is no room for more, or nobody reads.
    pub(super) fn push(&self, items: Vec<(T, usize)>) -> bool {
        if items.is_empty() {
            return true;
        }
        let mut state = self.lock();
        state.bytes += items.iter().map(|(_, bytes)| bytes).sum::<usize>();
        state.items.extend(items);
        let has_room = state.items.len() < ITEMS_MAX && state.bytes < BYTES_MAX && !state.dropped;
        drop(state);
        (self.wake)();
        has_room
    }

    /// All that the other side keeps has come.
    pub(super) fn tell_all(&self) {
        self.lock().told_all = true;
        (self.wake)();
    }

    /// Nothing follows, and why. The first reason counts.
    pub(super) fn end(&self, why: Refusal) {
        self.lock().ended.get_or_insert(why);
        (self.wake)();
    }

    /// Waits until there is room. False if nobody reads any more.
    pub(super) async fn room(&self) -> bool {
        loop {
            let notified = self.room.notified();
            {
                let state = self.lock();
                if state.dropped {
                    return false;
                }
                if state.items.len() <= ITEMS_MAX / 2 && state.bytes <= BYTES_MAX / 2 {
                    return true;
                }
            }
            notified.await;
        }
    }

    /// Waits until nobody reads any more.
    pub(super) async fn dropped(&self) {
        loop {
            let notified = self.room.notified();
            if self.lock().dropped {
                return;
            }
            notified.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Feed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Feed").field("items", &state.items.len()).field("ended", &state.ended).finish_non_exhaustive()
    }
}

/// The reader's end. Dropping it ends the stream.
#[derive(Debug)]
pub(super) struct FeedReader<T>(pub(super) Arc<Feed<T>>);

impl<T: Send> Reader<T> for FeedReader<T> {
    fn take(&mut self, max: usize) -> Taken<T> {
        let mut state = self.0.lock();
        let count = state.items.len().min(max);
        let taken: Vec<(T, usize)> = state.items.drain(..count).collect();
        state.bytes -= taken.iter().map(|(_, bytes)| bytes).sum::<usize>();
        let ended = if state.items.is_empty() { state.ended.clone() } else { None };
        drop(state);
        if count > 0 {
            // There may be two who wait: the one that reads the stream waits for room or for the end.
            self.0.room.notify_waiters();
        }
        Taken { items: taken.into_iter().map(|(item, _)| item).collect(), ended }
    }

    fn is_current(&self) -> bool {
        let state = self.0.lock();
        state.items.is_empty() && (state.told_all || state.ended.is_some())
    }
}

impl<T> Drop for FeedReader<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.dropped = true;
        state.items.clear();
        drop(state);
        self.0.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_reader_is_not_read_ahead_for() {
        let feed = Feed::new(Arc::new(|| {}));
        let mut reader = FeedReader(Arc::clone(&feed));
        assert!(feed.push(vec![(0, 1)]));
        assert!(!feed.push((1..ITEMS_MAX).map(|n| (n, 1)).collect()), "that is as many as may");
        let waiting = Arc::clone(&feed);
        let room = tokio::spawn(async move { waiting.room().await });
        tokio::task::yield_now().await;
        assert_eq!(reader.take(10).items, (0..10).collect::<Vec<_>>());
        tokio::task::yield_now().await;
        assert!(!room.is_finished(), "half of it must have been read");
        assert_eq!(reader.take(ITEMS_MAX / 2).items.len(), ITEMS_MAX / 2);
        assert!(room.await.unwrap());
        assert!(!feed.push(vec![(0, BYTES_MAX)]), "bytes count as well");
    }

    #[test]
    fn that_nothing_is_there_is_known_when_it_was_said() {
        let feed = Feed::new(Arc::new(|| {}));
        let mut reader = FeedReader(Arc::clone(&feed));
        assert!(!reader.is_current(), "nobody has answered yet");
        feed.push(vec![(1, 0)]);
        reader.take(9);
        assert!(!reader.is_current(), "there may be more of it");
        feed.push(vec![(2, 0)]);
        feed.tell_all();
        assert!(!reader.is_current(), "it is not taken");
        reader.take(9);
        assert!(reader.is_current());
    }

    #[tokio::test]
    async fn the_end_comes_after_all_that_was_there_and_a_dropped_reader_is_noticed() {
        let feed = Feed::new(Arc::new(|| {}));
        let mut reader = FeedReader(Arc::clone(&feed));
        feed.push(vec![(1, 0), (2, 0)]);
        feed.end(Refusal::Stopped);
        feed.end(Refusal::Timeout);
        assert_eq!(reader.take(1), Taken { items: vec![1], ended: None });
        assert_eq!(reader.take(9), Taken { items: vec![2], ended: Some(Refusal::Stopped) });
        let waiting = Arc::clone(&feed);
        let gone = tokio::spawn(async move { waiting.dropped().await });
        tokio::task::yield_now().await;
        drop(reader);
        gone.await.unwrap();
        assert!(!feed.room().await);
        assert!(!feed.push(vec![(3, 0)]));
    }
}
