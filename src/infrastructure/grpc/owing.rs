//! Answers that clients have not taken yet: all together have a limit in bytes, and each connection a share of it.
//!
//! At the limit nothing new is begun, queries that were begun are answered with a word, and who has taken nothing for a while
//! loses his connection. What a command answered is given up last: the state has changed, and a session still has it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use graft_services::error::{Outcome, Refusal};
use graft_services::ports::Reply;
use prost::Message;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Extensions;
use tracing::warn;

/// What is owed on all connections of a port.
#[derive(Debug)]
pub(super) struct Ledger {
    max: usize,
    bytes: AtomicUsize,
    begun: Instant,
    room: Notify,
    accounts: Mutex<Accounts>,
}

#[derive(Debug, Default)]
struct Accounts {
    opened: u64,
    open: BTreeMap<u64, Weak<Account>>,
    /// When one that takes nothing was last looked for.
    looked: Duration,
}

/// What is owed on one connection.
#[derive(Debug)]
pub(super) struct Account {
    ledger: Arc<Ledger>,
    number: u64,
    bytes: AtomicUsize,
    /// Milliseconds of the ledger's time: when something was last taken, or nothing was owed before.
    taken: AtomicU64,
    /// Its client takes nothing, and what it is owed is needed: it is to end.
    pub(super) end: CancellationToken,
}

/// What is owed in answer to one request; an extension of it. Dropped, nothing is.
#[derive(Debug)]
pub(super) struct Owed {
    account: Arc<Account>,
    bytes: AtomicUsize,
}

/// One connection may be owed so much of all that may be owed.
const SHARE: usize = 4;
/// Who takes nothing for so long may have to go.
const STALL: Duration = Duration::from_secs(2);
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// How often one who waits for room looks for himself.
const ROOM_PAUSE: Duration = Duration::from_millis(250);
/// What is before every message on the wire.
const PREFIX_BYTES: usize = 5;
/// What an answer takes beside its reply, about.
pub(super) const ANSWER_OVERHEAD: usize = 64;

impl Ledger {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            bytes: AtomicUsize::new(0),
            begun: Instant::now(),
            room: Notify::new(),
            accounts: Mutex::default(),
        })
    }

    /// For a new connection.
    pub(super) fn open(self: &Arc<Self>) -> Arc<Account> {
        // Nothing panics while it holds the lock.
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.opened += 1;
        let number = accounts.opened;
        let account = Arc::new(Account {
            ledger: Arc::clone(self),
            number,
            bytes: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
            end: CancellationToken::new(),
        });
        accounts.open.insert(number, Arc::downgrade(&account));
        account
    }

    fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.max
    }

    /// Of those who take nothing, the one who is owed most has to go.
    fn relieve(&self) {
        self.relieve_at(self.begun.elapsed());
    }

    fn relieve_at(&self, now: Duration) {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if now < accounts.looked + LOOK_PAUSE {
            return;
        }
        accounts.looked = now;
        let open: Vec<_> = accounts.open.values().filter_map(Weak::upgrade).collect();
        // An account that ends here takes the lock.
        drop(accounts);
        let stalled = open.iter().filter(|account| !account.end.is_cancelled() && account.is_stalled(now));
        if let Some(account) = stalled.max_by_key(|account| account.bytes.load(Ordering::Relaxed)) {
            let bytes = account.bytes.load(Ordering::Relaxed);
            warn!(bytes, "a client's connection is closed: it does not take its answers, and they fill this node");
            account.end.cancel();
        }
    }
}

impl Account {
    /// For a request that comes on the connection.
    pub(super) fn owed(self: &Arc<Self>) -> Arc<Owed> {
        Arc::new(Owed { account: Arc::clone(self), bytes: AtomicUsize::new(0) })
    }

    /// What there is to say if nothing new may begin.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        if self.is_full() {
            self.ledger.relieve();
            return Err(too_much(self.ledger.max));
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.ledger.is_full() || self.bytes.load(Ordering::Relaxed) >= self.ledger.max / SHARE
    }

    fn is_stalled(&self, now: Duration) -> bool {
        let taken = Duration::from_millis(self.taken.load(Ordering::Relaxed));
        self.bytes.load(Ordering::Relaxed) > 0 && now > taken + STALL
    }

    fn note_taken(&self) {
        let now = u64::try_from(self.ledger.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.taken.store(now, Ordering::Relaxed);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let mut accounts = self.ledger.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.open.remove(&self.number);
    }
}

impl Owed {
    /// By whom a request came; nobody else counts what is owed for one that came another way.
    pub(super) fn of(extensions: &Extensions) -> Arc<Self> {
        let counted = extensions.get::<Arc<Self>>().map(Arc::clone);
        counted.unwrap_or_else(|| Ledger::new(usize::MAX).open().owed())
    }

    /// So much more is here for the client.
    pub(super) fn add(&self, bytes: usize) {
        let account = &self.account;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if account.bytes.fetch_add(bytes, Ordering::Relaxed) == 0 {
            account.note_taken();
        }
        account.ledger.bytes.fetch_add(bytes, Ordering::Relaxed);
        if account.ledger.is_full() {
            account.ledger.relieve();
        }
    }

    /// So much of it is not here any more, or on its way in another form.
    pub(super) fn remove(&self, bytes: usize) {
        let before =
            self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |owed| Some(owed.saturating_sub(bytes)));
        let bytes = bytes.min(before.unwrap_or_else(|owed| owed));
        if bytes == 0 {
            return;
        }
        let (account, ledger) = (&self.account, &self.account.ledger);
        account.bytes.fetch_sub(bytes, Ordering::Relaxed);
        ledger.bytes.fetch_sub(bytes, Ordering::Relaxed);
        ledger.room.notify_waiters();
    }

    /// What was counted as so many bytes is on its way as this message.
    pub(super) fn send(&self, bytes: usize, message: &impl Message) {
        self.add(PREFIX_BYTES + message.encoded_len());
        self.remove(bytes);
    }

    /// The client has taken so much.
    pub(super) fn take(&self, bytes: usize) {
        self.account.note_taken();
        self.remove(bytes);
    }

    /// Whether nothing new may begin.
    pub(super) fn is_full(&self) -> bool {
        self.account.is_full()
    }

    /// Waits for a change for the better, for a moment.
    pub(super) async fn room(&self) {
        let ledger = &self.account.ledger;
        ledger.relieve();
        let _ = timeout(ROOM_PAUSE, ledger.room.notified()).await;
    }

    /// An answer, owed from now on, or in its place why there is none: for queries at the limit, for commands at twice that.
    pub(super) fn owe(&self, outcome: Outcome, is_harmless: bool) -> (Outcome, usize) {
        let outcome = self.affordable(outcome, is_harmless);
        let bytes = ANSWER_OVERHEAD + reply_bytes(&outcome);
        self.add(bytes);
        (outcome, bytes)
    }

    fn affordable(&self, outcome: Outcome, is_harmless: bool) -> Outcome {
        let Outcome::Done { index, .. } = outcome else { return outcome };
        let ledger = &self.account.ledger;
        let bytes = ledger.bytes.load(Ordering::Relaxed).saturating_add(reply_bytes(&outcome));
        if bytes <= ledger.max {
            outcome
        } else if is_harmless {
            Outcome::Refused(too_much(ledger.max))
        } else if bytes <= ledger.max.saturating_mul(2) {
            outcome
        } else {
            Outcome::unknown(format!(
                "the command was applied at index {index}, but its answer is not kept: clients have not taken {} bytes \
                 of answers",
                ledger.max
            ))
        }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.remove(self.bytes.load(Ordering::Relaxed));
    }
}

fn too_much(max: usize) -> Refusal {
    Refusal::Busy(format!(
        "clients have not taken the answers that they are owed, up to {max} bytes on this member and a quarter of that on \
         one connection: take them before asking for more"
    ))
}

/// Bytes of what an outcome says.
pub(super) fn reply_bytes(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Done { reply: Reply::Value(value), .. } => value.len(),
        Outcome::Done { reply: Reply::Raised(raised), .. } => {
            raised.type_name.len() + raised.message.len() + raised.traceback.len()
        }
        Outcome::Refused(refusal) => refusal.to_string().len(),
        Outcome::Unknown { why, .. } => why.len(),
        Outcome::Compared { .. } => 0,
    }
}

#[cfg(test)]
#[path = "tests/owing.rs"]
mod tests;
