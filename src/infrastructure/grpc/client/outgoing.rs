//! What waits to be said on one stream: filled without waiting, drained in batches.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio_stream::Stream;

use super::super::convert_call::{Asked, Numbered};
use super::super::wire;

/// One call, and when its answer is of no use any more.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) number: u64,
    pub(super) asked: Asked,
    pub(super) until: Instant,
}

/// The queue of one stream. The clerk limits what is in it.
#[derive(Debug)]
pub(super) struct Outgoing {
    batch_bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Said>,
    ended: bool,
    /// Of the stream, while it waits for something to send.
    waker: Option<Waker>,
}

/// Calls of one batch: their answers are not waited for with one another, but decoded at once.
const BATCH_CALLS_MAX: usize = 4096;
/// More than any call takes on the wire beside its body.
const CALL_OVERHEAD: usize = 96;

impl Outgoing {
    pub(super) fn new(batch_bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { batch_bytes_max, state: Mutex::default() })
    }

    /// Wakes the stream once, if it waits.
    pub(super) fn push(&self, all: impl IntoIterator<Item = Said>) {
        let mut state = self.lock();
        if state.ended {
            return;
        }
        state.queue.extend(all);
        let waker = if state.queue.is_empty() { None } else { state.waker.take() };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The connection is gone: nothing is said any more.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        state.queue.clear();
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The request half of the stream.
    pub(super) fn batches(self: &Arc<Self>) -> Batches {
        Batches(Arc::clone(self))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything that waits, cut by bytes and by count. One larger call goes alone.
#[derive(Debug)]
pub(super) struct Batches(Arc<Outgoing>);

impl Stream for Batches {
    type Item = wire::CallBatch;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.0.lock();
        if state.ended {
            return Poll::Ready(None);
        }
        if state.queue.is_empty() {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(said) = state.queue.front() {
            let more = said.asked.bytes() + CALL_OVERHEAD;
            let fits = bytes + more <= self.0.batch_bytes_max && taken.len() < BATCH_CALLS_MAX;
            if !taken.is_empty() && !fits {
                break;
            }
            bytes += more;
            taken.extend(state.queue.pop_front());
        }
        drop(state);
        let now = Instant::now();
        let encode = |Said { number, asked, until }| {
            let timeout = Some(until.saturating_duration_since(now));
            Numbered { number, timeout, asked }.encode()
        };
        Poll::Ready(Some(wire::CallBatch { calls: taken.into_iter().map(encode).collect() }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use tokio_stream::StreamExt as _;

    use super::*;

    fn said(number: u64, bytes: usize) -> Said {
        let asked = Asked::Execute { body: Bytes::from(vec![0; bytes]), slot: None };
        Said { number, asked, until: Instant::now() + Duration::from_secs(9) }
    }

    fn numbers(batch: Option<wire::CallBatch>) -> Vec<u64> {
        batch.unwrap().calls.iter().map(|call| call.number).collect()
    }

    #[tokio::test]
    async fn what_waits_is_cut_by_bytes_and_one_large_call_goes_alone() {
        let outgoing = Outgoing::new(1000);
        outgoing.push([said(1, 300), said(2, 300), said(3, 5000), said(4, 900), said(5, 0)]);
        let mut batches = outgoing.batches();
        assert_eq!(numbers(batches.next().await), [1, 2]);
        assert_eq!(numbers(batches.next().await), [3]);
        assert_eq!(numbers(batches.next().await), [4]);
        assert_eq!(numbers(batches.next().await), [5]);
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_a_call_and_by_the_end() {
        let outgoing = Outgoing::new(1000);
        let mut batches = outgoing.batches();
        let reader = tokio::spawn(async move { (numbers(batches.next().await), batches.next().await.is_none()) });
        tokio::task::yield_now().await;
        outgoing.push([said(7, 0)]);
        tokio::task::yield_now().await;
        outgoing.push([]);
        outgoing.end();
        outgoing.push([said(8, 0)]);
        assert_eq!(reader.await.unwrap(), (vec![7], true));
    }

    #[tokio::test]
    async fn a_call_says_what_is_left_of_its_time() {
        let outgoing = Outgoing::new(1000);
        let late = Said { until: Instant::now(), ..said(1, 0) };
        outgoing.push([late, said(2, 0)]);
        let calls = outgoing.batches().next().await.unwrap().calls;
        assert_eq!(calls[0].timeout, 1, "none would be the default");
        assert!(calls[1].timeout > 8_000_000_000 && calls[1].timeout <= 9_000_000_000, "{}", calls[1].timeout);
    }
}
