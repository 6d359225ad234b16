//! What waits to be sent to one peer: filled by the engine without waiting, drained by the link in batches.

use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use graft_domain::ClusterId;
use graft_services::ports::PeerMessage;
use tokio_stream::Stream;

use super::config::PeerConfig;
use super::event::LinkStatus;
use super::refusal::Refusal;
use super::{convert, handshake, wire};

/// Bytes of a batch beside its frames: its cluster and the like.
const BATCH_OVERHEAD: usize = 64;

/// The queue of one peer. It takes messages only while a link stands.
#[derive(Debug)]
pub(super) struct Outbox {
    queue_bytes_max: usize,
    queue_messages_max: usize,
    batch_bytes_max: usize,
    message_bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// How many links there have been; a stream of an earlier one is at its end.
    link: u64,
    queue: VecDeque<PeerMessage>,
    bytes: usize,
    dropped: u64,
    /// To be told with the next batch.
    cluster: Option<ClusterId>,
    refusal: Option<Refusal>,
    /// Of the link's task, while it waits for something to send.
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Phase {
    /// No link: messages are dropped.
    #[default]
    Shut,
    /// A call is made, but the peer has not been accepted: messages are dropped, the stream waits.
    Calling,
    /// Messages are queued and sent.
    Open,
    /// What is queued is sent, then the stream ends.
    Ending,
}

impl Outbox {
    pub(super) fn new(config: &PeerConfig) -> Self {
        Self {
            queue_bytes_max: config.queue_bytes_max,
            queue_messages_max: config.queue_messages_max,
            batch_bytes_max: config.batch_bytes_max.min(config.message_bytes_max - BATCH_OVERHEAD),
            message_bytes_max: config.message_bytes_max - BATCH_OVERHEAD,
            state: Mutex::default(),
        }
    }

    /// Queues messages as far as they fit, and answers how many. Wakes the link once, if it waits.
    pub(super) fn push(&self, messages: impl IntoIterator<Item = PeerMessage>) -> usize {
        self.push_if(None, messages)
    }

    /// As [`Outbox::push`] as long as this link stands: another one does not carry what was sent over it, for there may be
    /// another life of the peer at its end.
    pub(super) fn push_over(&self, link: u64, messages: impl IntoIterator<Item = PeerMessage>) -> usize {
        self.push_if(Some(link), messages)
    }

    fn push_if(&self, link: Option<u64>, messages: impl IntoIterator<Item = PeerMessage>) -> usize {
        let mut accepted = 0;
        let mut state = self.lock();
        let takes = state.phase == Phase::Open && link.is_none_or(|link| link == state.link);
        for message in messages {
            let bytes = convert::wire_bytes_max(&message);
            let fits = bytes <= self.message_bytes_max
                && state.bytes + bytes <= self.queue_bytes_max
                && state.queue.len() < self.queue_messages_max;
            if takes && fits {
                state.bytes += bytes;
                state.queue.push_back(message);
                accepted += 1;
            } else {
                state.dropped += 1;
            }
        }
        let waker = if accepted > 0 { state.waker.take() } else { None };
        drop(state);
        wake(waker);
        accepted
    }

    /// The request half of a new call. Any stream of an earlier call ends.
    pub(super) fn call(self: &Arc<Self>) -> Batches {
        let mut state = self.lock();
        state.shut(Phase::Calling);
        state.link += 1;
        let link = state.link;
        let waker = state.waker.take();
        drop(state);
        wake(waker);
        Batches { outbox: Arc::clone(self), link, draining: VecDeque::new() }
    }

    /// The peer is accepted: from here on messages are taken.
    pub(super) fn open(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Calling {
            state.phase = Phase::Open;
        }
    }

    /// The number of the link that stands; none if messages are dropped.
    pub(super) fn standing(&self) -> Option<u64> {
        let state = self.lock();
        (state.phase == Phase::Open).then_some(state.link)
    }

    /// Tells the peer, ahead of whatever is queued later, which cluster this node belongs to.
    pub(super) fn announce(&self, cluster: ClusterId) {
        self.change(|state| state.cluster = Some(cluster));
    }

    /// Sends what is queued, then ends the call.
    pub(super) fn end(&self) {
        self.change(|state| state.phase = Phase::Ending);
    }

    /// Drops what is queued, tells the peer why it is refused, and ends the call.
    pub(super) fn refuse(&self, refusal: Refusal) {
        self.change(|state| {
            state.shut(Phase::Ending);
            state.refusal = Some(refusal);
        });
    }

    /// The link is broken: drops what is queued and takes nothing more.
    pub(super) fn shut(&self) {
        let mut state = self.lock();
        state.shut(Phase::Shut);
        let waker = state.waker.take();
        drop(state);
        wake(waker);
    }

    pub(super) fn status(&self) -> LinkStatus {
        let state = self.lock();
        LinkStatus {
            connected: state.phase == Phase::Open,
            queued_messages: state.queue.len(),
            queued_bytes: state.bytes,
            dropped: state.dropped,
        }
    }

    /// Changes the state of a standing call and wakes its task.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        if state.phase == Phase::Shut {
            return;
        }
        change(&mut state);
        let waker = state.waker.take();
        drop(state);
        wake(waker);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and every step leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn shut(&mut self, phase: Phase) {
        self.phase = phase;
        self.dropped += self.queue.len() as u64;
        // A new queue, so that a burst does not keep its memory for ever.
        self.queue = VecDeque::new();
        self.bytes = 0;
        self.cluster = None;
        self.refusal = None;
    }

    /// Moves as much of the queue as one batch takes into `out`, which is empty.
    fn cut(&mut self, out: &mut VecDeque<PeerMessage>, bytes_max: usize) {
        if self.bytes <= bytes_max {
            mem::swap(&mut self.queue, out);
            self.bytes = 0;
            return;
        }
        let mut taken = 0;
        while let Some(message) = self.queue.front() {
            let bytes = convert::wire_bytes_max(message);
            if taken > 0 && taken + bytes > bytes_max {
                break;
            }
            taken += bytes;
            out.extend(self.queue.pop_front());
        }
        self.bytes -= taken;
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The request half of one call: a batch at every poll that finds something queued.
#[derive(Debug)]
pub(super) struct Batches {
    outbox: Arc<Outbox>,
    link: u64,
    /// Empty between polls; swapped with the queue, so that neither allocates in the long run.
    draining: VecDeque<PeerMessage>,
}

impl Stream for Batches {
    type Item = wire::Frames;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<wire::Frames>> {
        let this = self.get_mut();
        let mut state = this.outbox.lock();
        if state.link != this.link || state.phase == Phase::Shut {
            return Poll::Ready(None);
        }
        let cluster = state.cluster.take();
        let goodbye = state.refusal.take();
        if state.queue.is_empty() && cluster.is_none() && goodbye.is_none() {
            if state.phase == Phase::Ending {
                return Poll::Ready(None);
            }
            match &mut state.waker {
                Some(waker) => waker.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
            return Poll::Pending;
        }
        state.cut(&mut this.draining, this.outbox.batch_bytes_max);
        drop(state);
        Poll::Ready(Some(wire::Frames {
            frames: this.draining.drain(..).map(convert::encode).collect(),
            cluster: cluster.map(handshake::encode_cluster).unwrap_or_default(),
            goodbye: goodbye.map(|refusal| refusal.to_wire()),
        }))
    }
}

#[cfg(test)]
#[path = "tests/outbox.rs"]
mod tests;
