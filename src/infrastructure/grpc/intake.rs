//! Requests that have begun to come in and are not whole yet: all together have a limit in bytes, and each connection a
//! share of it.
//!
//! Whoever sends a part and no more for a while is not waited for. At the limit nothing more is taken in, and of those
//! whose requests hardly come on the one who holds most loses his connection: else a few halves would keep everybody
//! out for ever. What operates the cluster is counted apart from what clients send.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use graft_services::error::Refusal;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::config::PeerConfig;
use super::desk::LAST_WORD_TIMEOUT;

/// What is half here on all connections of a port.
#[derive(Debug)]
pub(super) struct Intake {
    max: usize,
    /// Of one connection.
    share: usize,
    silence: Duration,
    bytes: AtomicUsize,
    shares: AtomicU64,
    begun: Instant,
    halves: Mutex<Halves>,
}

#[derive(Debug, Default)]
struct Halves {
    begun: u64,
    here: BTreeMap<u64, Kept>,
    /// When one that does not come on was last looked for.
    looked: Duration,
}

/// A half of which one look sees whether it has come on since the one before.
#[derive(Debug)]
struct Kept {
    share: Arc<Share>,
    bytes: Arc<AtomicUsize>,
    marked: Duration,
    marked_bytes: usize,
    is_slow: bool,
}

/// What is half here on one connection.
#[derive(Debug)]
pub(super) struct Share {
    intake: Arc<Intake>,
    number: u64,
    bytes: AtomicUsize,
    /// What it holds is needed, and does not come on: the connection is to end.
    end: CancellationToken,
}

/// What is here of one message. Dropped, nothing is.
#[derive(Debug)]
pub(super) struct Half {
    share: Arc<Share>,
    bytes: Arc<AtomicUsize>,
    /// Under which it is looked at; messages that come in one piece never are.
    number: Option<u64>,
    patience: Option<Patience>,
}

/// Ends when the rest is not waited for any longer.
struct Patience(Pin<Box<dyn Future<Output = Refusal> + Send>>);

/// What comes in for the state, and what comes in to change the cluster.
#[derive(Debug)]
pub(super) struct Intakes {
    clients: Arc<Intake>,
    operators: Arc<Intake>,
}

/// What one connection holds of either.
#[derive(Debug)]
pub(super) struct Shares {
    pub(super) clients: Arc<Share>,
    pub(super) operators: Arc<Share>,
}

/// One connection may hold so much of all that may be half here, or one message, if that is more.
const SHARE: usize = 4;
/// How long nothing may come of a message that has begun.
const SILENCE: Duration = Duration::from_secs(10);
/// At the limit a message has to come on: so many bytes a second, seen over so long.
const RATE_MIN: u128 = 64 << 10;
const STALL: Duration = Duration::from_secs(2);
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Changes of the cluster are small and few.
const OPERATORS_BYTES_MAX: usize = 16 << 20;

impl Intakes {
    pub(super) fn new(config: &PeerConfig) -> Self {
        let message_bytes_max = config.message_bytes_max.max(config.request_bytes_max);
        Self {
            clients: Intake::new(config.requests_bytes_max, message_bytes_max),
            operators: Intake::new(OPERATORS_BYTES_MAX, 0),
        }
    }

    /// For a new connection.
    pub(super) fn open(&self) -> Arc<Shares> {
        Arc::new(Shares { clients: self.clients.open(), operators: self.operators.open() })
    }
}

impl Shares {
    /// Waits until the connection has to end, and a moment longer, for those on it to hear why.
    pub(super) async fn ended(&self) {
        tokio::select! {
            () = self.clients.end.cancelled() => {}
            () = self.operators.end.cancelled() => {}
        }
        tokio::time::sleep(LAST_WORD_TIMEOUT).await;
    }
}

impl Intake {
    pub(super) fn new(max: usize, message_bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            share: (max / SHARE).max(message_bytes_max),
            silence: SILENCE,
            bytes: AtomicUsize::new(0),
            shares: AtomicU64::new(0),
            begun: Instant::now(),
            halves: Mutex::default(),
        })
    }

    /// What is counted now.
    #[cfg(feature = "fuzzing")]
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// For a new connection.
    pub(super) fn open(self: &Arc<Self>) -> Arc<Share> {
        Arc::new(Share {
            intake: Arc::clone(self),
            number: self.shares.fetch_add(1, Ordering::Relaxed),
            bytes: AtomicUsize::new(0),
            end: CancellationToken::new(),
        })
    }

    /// Of those whose messages hardly come on, the one who holds most has to go.
    fn relieve(&self) {
        self.relieve_at(self.begun.elapsed());
    }

    fn relieve_at(&self, now: Duration) {
        // Nothing panics while it holds the lock.
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        if now < halves.looked + LOOK_PAUSE {
            return;
        }
        halves.looked = now;
        let mut slow: BTreeMap<u64, (usize, Arc<Share>)> = BTreeMap::new();
        for half in halves.here.values_mut().filter(|half| !half.share.end.is_cancelled()) {
            if half.is_slow_at(now) {
                let held = slow.entry(half.share.number).or_insert_with(|| (0, Arc::clone(&half.share)));
                held.0 += half.bytes.load(Ordering::Relaxed);
            }
        }
        drop(halves);
        if let Some((bytes, share)) = slow.into_values().max_by_key(|(bytes, _)| *bytes) {
            warn!(bytes, "a client's connection is closed: its requests do not come on, and they fill this node");
            share.end.cancel();
        }
    }
}

impl Kept {
    /// What was seen last counts until there was time to see more.
    fn is_slow_at(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.marked);
        if passed >= STALL {
            let bytes = self.bytes.load(Ordering::Relaxed);
            let came = bytes.saturating_sub(self.marked_bytes) as u128;
            self.is_slow = came * 1000 < passed.as_millis() * RATE_MIN;
            (self.marked, self.marked_bytes) = (now, bytes);
        }
        self.is_slow
    }
}

impl Share {
    fn take(&self, bytes: usize) -> Result<(), Refusal> {
        let Intake { max, share, .. } = *self.intake;
        if self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > share {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Refusal::Busy(format!(
                "requests of more than {share} bytes are coming in at once on this connection, which is as much as one may \
                 have: send fewer at a time"
            )));
        }
        if self.intake.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > max {
            self.release(bytes);
            self.intake.relieve();
            return Err(Refusal::Busy(format!(
                "requests of more than {max} bytes are coming in at once on this member: ask again, or ask another member"
            )));
        }
        Ok(())
    }

    fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.intake.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn patience(&self) -> Patience {
        let (end, max, silence) = (self.end.clone(), self.intake.max, self.intake.silence);
        Patience(Box::pin(async move {
            Refusal::Busy(match timeout(silence, end.cancelled_owned()).await {
                Ok(()) => format!(
                    "requests that hardly come on fill this member, up to {max} bytes, and this connection has most of \
                     them: it is closed. Send what you begin at once, over a faster network or in smaller requests"
                ),
                Err(_) => format!(
                    "nothing came for {silence:?} of a message that had begun: send it again, and all of it at once"
                ),
            })
        }))
    }
}

impl Half {
    /// Of the first message of a request.
    pub(super) fn new(share: &Arc<Share>) -> Self {
        Self { share: Arc::clone(share), bytes: Arc::default(), number: None, patience: None }
    }

    /// So much more of it is here.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.share.take(bytes)?;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// It came on, and is not whole.
    pub(super) fn keep(&mut self) {
        self.patience = None;
        if self.number.is_some() || self.bytes.load(Ordering::Relaxed) == 0 {
            return;
        }
        let intake = &self.share.intake;
        let kept = Kept {
            share: Arc::clone(&self.share),
            bytes: Arc::clone(&self.bytes),
            marked: intake.begun.elapsed(),
            marked_bytes: 0,
            is_slow: false,
        };
        let mut halves = intake.halves.lock().unwrap_or_else(PoisonError::into_inner);
        halves.begun += 1;
        let number = halves.begun;
        halves.here.insert(number, kept);
        self.number = Some(number);
    }

    /// It is whole: counted by those who take it. What comes then is another one.
    pub(super) fn whole(&mut self) {
        self.patience = None;
        if let Some(number) = self.number.take() {
            self.share.intake.halves.lock().unwrap_or_else(PoisonError::into_inner).here.remove(&number);
        }
        self.share.release(self.bytes.swap(0, Ordering::Relaxed));
    }

    /// Ready when no more of it is waited for; never if nothing of it is here.
    pub(super) fn poll_given_up(&mut self, context: &mut Context<'_>) -> Poll<Refusal> {
        if self.bytes.load(Ordering::Relaxed) == 0 {
            return Poll::Pending;
        }
        let share = &self.share;
        let refusal = ready!(self.patience.get_or_insert_with(|| share.patience()).0.as_mut().poll(context));
        self.patience = None;
        Poll::Ready(refusal)
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        self.whole();
    }
}

impl fmt::Debug for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Patience")
    }
}

#[cfg(test)]
#[path = "tests/intake.rs"]
mod tests;
