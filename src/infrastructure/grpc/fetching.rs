//! Getting a leader's snapshot: one at a time, on a connection of its own, taken up again where it broke.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{EntryId, NodeId};
use graft_services::ports::{SnapshotFiles, StoreError};
use graft_services::snapshot_meta::SnapshotMeta;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::{Code, Request, Status, Streaming};
use tracing::{debug, info};

use super::address::Connector;
use super::backoff::Backoff;
use super::config::{PART_BYTES_MAX, PeerConfig};
use super::event::PeerEvent;
use super::handshake;
use super::http2::{self, NoConnection, Single};
use super::refusal::{Refusal, Side};
use super::sending::blocking;
use super::transport::{Shared, Transport};
use super::wire;

/// Bytes that may be on their way: they are all that a transfer holds beside the part that is being taken in.
const WINDOW_BYTES: u32 = 2 << 20;
/// A part and what is around it.
const ANSWER_BYTES_MAX: usize = PART_BYTES_MAX + 1024;
/// Attempts in a row without a byte.
const ATTEMPTS_MAX: u32 = 5;
/// Times in a row that a leader may have no place for another follower.
const BUSY_MAX: u32 = 60;
/// How long the present transfer may stand still when there is another one to make.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is told how far a transfer is: after so many bytes, or so long.
const TOLD_EVERY_BYTES: u64 = 8 << 20;
const TOLD_EVERY: Duration = Duration::from_millis(250);

/// What is to be fetched, and from whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Wish {
    leader: NodeId,
    last: EntryId,
}

/// What is known of transfers beside the one task that makes them.
#[derive(Debug, Default)]
pub(super) struct Fetches(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// There while the task runs: the newest wish.
    wish: Option<watch::Sender<Wish>>,
    /// What was begun last, and how many bytes it has in all.
    begun: Option<(EntryId, u64)>,
}

impl Transport {
    /// Fetches the snapshot of `leader` that ends with `last`, or a newer one that it has by then, and says how that
    /// goes in [`PeerEvent`]s. There is one transfer at a time: while it gets on a further call is remembered only, and
    /// taken up if it stands still or breaks.
    pub fn fetch(&self, leader: NodeId, last: EntryId) {
        let (shared, wish) = (Arc::clone(&self.shared), Wish { leader, last });
        let Some(files) = shared.files.clone() else {
            let why = "this node keeps no snapshots".to_owned();
            return (shared.sink)(PeerEvent::SnapshotFetchFailed { last, why });
        };
        let mut state = shared.fetches.lock();
        if let Some(newest) = &state.wish {
            newest.send_if_modified(|newest| std::mem::replace(newest, wish) != wish);
            return;
        }
        let (sender, wishes) = watch::channel(wish);
        state.wish = Some(sender);
        drop(state);
        let fetch = Fetch {
            shared: Arc::clone(&shared),
            files,
            wishes,
            wish,
            superseded: false,
            moved: false,
            connector: None,
        };
        shared.tasks.spawn(fetch.run());
    }
}

impl Fetches {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that fetches, until it is done or gives up.
struct Fetch {
    shared: Arc<Shared>,
    files: Arc<dyn SnapshotFiles>,
    wishes: watch::Receiver<Wish>,
    wish: Wish,
    /// There is another wish by now.
    superseded: bool,
    /// Bytes have come since that was last asked.
    moved: bool,
    /// To where the leader was in the last attempt.
    connector: Option<Connector>,
}

/// Why an attempt brought no snapshot.
enum Trouble {
    /// The next attempt may bring more.
    Broken(String),
    /// The leader has no place yet.
    Busy(String),
    /// Another attempt would end in the same way.
    Lasting(String),
}

/// A leader that sends its snapshot.
struct Source {
    leader: NodeId,
    address: String,
    parts: Streaming<wire::SnapshotPart>,
    _connection: Single,
}

/// How far a transfer is.
struct Taking {
    last: EntryId,
    total: u64,
    offset: u64,
    told_bytes: u64,
    told_at: Instant,
}

impl Fetch {
    fn has_another_wish(&self) -> bool {
        // The other end is kept as long as this task is.
        self.superseded || self.wishes.has_changed().unwrap_or(false)
    }

    async fn run(mut self) {
        let stop = self.shared.stop.clone();
        let end = loop {
            let Some(end) = stop.run_until_cancelled(self.fetch()).await else {
                self.shared.fetches.lock().wish = None;
                return;
            };
            let mut state = self.shared.fetches.lock();
            // Under the lock, so that no wish is lost between the last look and the end.
            if end.is_ok() || !self.has_another_wish() {
                state.wish = None;
                break end;
            }
        };
        let event = match end {
            Ok((meta, bytes)) => {
                info!(last = %meta.last, bytes, "has got the snapshot");
                PeerEvent::SnapshotFetched { meta, bytes }
            }
            Err(why) => PeerEvent::SnapshotFetchFailed { last: self.wish.last, why },
        };
        (self.shared.sink)(event);
    }

    /// Attempt after attempt for one wish.
    async fn fetch(&mut self) -> Result<(SnapshotMeta, u64), String> {
        self.wish = *self.wishes.borrow_and_update();
        self.superseded = false;
        let config = &self.shared.config;
        let mut backoff = Backoff::new(config.backoff_first, config.backoff_max);
        let (mut idle, mut busy) = (0, 0);
        loop {
            let trouble = match self.attempt().await {
                Ok(done) => return Ok(done),
                Err(trouble) => trouble,
            };
            let moved = std::mem::take(&mut self.moved);
            if moved {
                (idle, busy) = (0, 0);
                backoff = Backoff::new(self.shared.config.backoff_first, self.shared.config.backoff_max);
            }
            let why = match trouble {
                Trouble::Lasting(why) => return Err(why),
                Trouble::Broken(why) => {
                    idle += u32::from(!moved);
                    why
                }
                Trouble::Busy(why) => {
                    busy += 1;
                    backoff.slow();
                    why
                }
            };
            debug!(leader = %self.wish.leader, why, "the snapshot is not here yet");
            if idle >= ATTEMPTS_MAX || busy >= BUSY_MAX || self.has_another_wish() {
                return Err(why);
            }
            sleep(backoff.next()).await;
        }
    }

    /// One connection, from where the last one left off.
    async fn attempt(&mut self) -> Result<(SnapshotMeta, u64), Trouble> {
        let (wanted, offset) = match self.begun() {
            Some((last, total)) => (last, self.begin(last, total).await?),
            None => (self.wish.last, 0),
        };
        if let Some((_, total)) = self.begun().filter(|(_, total)| *total == offset) {
            return self.accept(wanted, total).await;
        }
        let leader = self.wish.leader;
        let mut source = self.call(leader, wanted, offset).await?;
        let first = self.part(&mut source).await?;
        let (last, total) = (EntryId::new(first.last_term, first.last_index), first.length);
        self.shared.fetches.lock().begun = Some((last, total));
        let offset = self.begin(last, total).await?;
        let mut taking = Taking { last, total, offset, told_bytes: offset, told_at: Instant::now() };
        self.tell(&taking);
        let mut part = first;
        loop {
            self.take(&mut taking, part).await?;
            if taking.offset >= total {
                return self.accept(last, total).await;
            }
            part = self.part(&mut source).await?;
        }
    }

    /// What was begun, if it is as new as what is wished for.
    fn begun(&self) -> Option<(EntryId, u64)> {
        self.shared.fetches.lock().begun.filter(|(last, _)| *last >= self.wish.last)
    }

    async fn call(&mut self, leader: NodeId, wanted: EntryId, offset: u64) -> Result<Source, Trouble> {
        let shared = Arc::clone(&self.shared);
        let Some(address) = shared.address_of(&leader) else {
            return Err(Trouble::Broken(format!("it is not known where {leader} is")));
        };
        let config = PeerConfig {
            stream_window_bytes: WINDOW_BYTES,
            connection_window_bytes: WINDOW_BYTES,
            ..shared.config.clone()
        };
        let same = self.connector.take().filter(|connector| connector.address() == address);
        let connector =
            self.connector.insert(same.unwrap_or_else(|| Connector::of_member(address.clone(), &shared.faults)));
        let connection = Single::open(connector, &config, &shared.tasks, ANSWER_BYTES_MAX, Some(leader)).await;
        let mut connection = connection.map_err(|none| match none {
            NoConnection::Unreachable(why) | NoConnection::Foreign(why) => {
                Trouble::Broken(format!("{leader} at {address} cannot be connected to: {why}"))
            }
        })?;
        let (last_term, last_index) = (wanted.term.0, wanted.index.0);
        let mut request = Request::new(wire::FetchSnapshotRequest { last_term, last_index, offset });
        let hello = shared.view.borrow().hello(&leader);
        handshake::into_metadata(&hello, request.metadata_mut());
        let limit = shared.config.snapshot_stall_timeout;
        match timeout(limit, connection.client.fetch_snapshot(request)).await {
            Ok(Ok(parts)) => Ok(Source { leader, address, parts: parts.into_inner(), _connection: connection }),
            Ok(Err(status)) => Err(self.status(leader, &address, &status)),
            Err(_) => Err(Trouble::Broken(format!("{leader} at {address} did not answer within {limit:?}"))),
        }
    }

    /// The next part. A transfer may take as long as it takes, and stand still for a while only.
    async fn part(&mut self, source: &mut Source) -> Result<wire::SnapshotPart, Trouble> {
        let leader = source.leader;
        let began = Instant::now();
        let stall = self.shared.config.snapshot_stall_timeout;
        loop {
            let patience = if self.superseded { stall.min(PATIENCE) } else { stall };
            let answer = tokio::select! {
                biased;
                answer = source.parts.message() => answer,
                changed = self.wishes.changed(), if !self.superseded => {
                    self.superseded = changed.is_ok();
                    continue;
                }
                () = sleep_until(began + patience) => {
                    return Err(Trouble::Broken(format!("nothing came from {leader} for {patience:?}")));
                }
            };
            return match answer {
                Ok(Some(part)) => Ok(part),
                Ok(None) => Err(Trouble::Broken(format!("{leader} ended before the snapshot did"))),
                Err(status) => Err(self.status(leader, &source.address, &status)),
            };
        }
    }

    fn status(&self, leader: NodeId, address: &str, status: &Status) -> Trouble {
        if let Some(refusal) = Refusal::from_status(status) {
            self.shared.refused(Some(leader), address, refusal.clone(), Side::There);
            return Trouble::Lasting(refusal.why);
        }
        let why = format!("{leader} does not send it: {}", http2::words(status));
        match status.code() {
            Code::ResourceExhausted => Trouble::Busy(why),
            Code::NotFound | Code::DataLoss | Code::Unimplemented => Trouble::Lasting(why),
            _ => Trouble::Broken(why),
        }
    }

    /// From where on the file is wanted.
    async fn begin(&self, last: EntryId, total: u64) -> Result<u64, Trouble> {
        let files = Arc::clone(&self.files);
        let begun = blocking(move || files.begin(last, total)).await.and_then(|begun| begun);
        begun.map_err(|error| self.local(&error))
    }

    async fn take(&mut self, taking: &mut Taking, part: wire::SnapshotPart) -> Result<(), Trouble> {
        // If more is here than was known when it was asked for, the next attempt asks for the rest.
        let is_next = (part.last_term, part.last_index) == (taking.last.term.0, taking.last.index.0)
            && (part.length, part.offset) == (taking.total, taking.offset)
            && !part.data.is_empty()
            && part.data.len() as u64 <= taking.total - taking.offset;
        if !is_next {
            let leader = self.wish.leader;
            return Err(Trouble::Broken(format!("what {leader} sends is not the next part of {}", taking.last)));
        }
        let (last, offset, data): (_, _, Bytes) = (taking.last, taking.offset, part.data);
        let bytes = data.len() as u64;
        let files = Arc::clone(&self.files);
        let taken = blocking(move || files.take(last, offset, &data)).await.and_then(|taken| taken);
        taken.map_err(|error| self.local(&error))?;
        self.moved = true;
        taking.offset += bytes;
        if taking.offset - taking.told_bytes >= TOLD_EVERY_BYTES || taking.told_at.elapsed() >= TOLD_EVERY {
            (taking.told_bytes, taking.told_at) = (taking.offset, Instant::now());
            self.tell(taking);
        }
        Ok(())
    }

    fn tell(&self, taking: &Taking) {
        let (last, bytes, total) = (taking.last, taking.offset, taking.total);
        (self.shared.sink)(PeerEvent::SnapshotFetching { last, bytes, total });
    }

    async fn accept(&self, last: EntryId, total: u64) -> Result<(SnapshotMeta, u64), Trouble> {
        let files = Arc::clone(&self.files);
        let accepted = blocking(move || files.accept(last)).await.and_then(|accepted| accepted);
        self.shared.fetches.lock().begun = None;
        accepted.map(|meta| (meta, total)).map_err(|error| self.local(&error))
    }

    /// It is this node's disk.
    fn local(&self, error: &StoreError) -> Trouble {
        Trouble::Lasting(match error {
            StoreError::Full { path } => format!(
                "no space is left for {path}: free some. What is here of the snapshot is kept, and the rest is fetched \
                 then"
            ),
            StoreError::Corrupt { .. } => format!(
                "the snapshot from {} arrived damaged and is dropped ({error}): it is fetched anew from its beginning",
                self.wish.leader
            ),
            _ => format!("the snapshot cannot be kept here: {error}"),
        })
    }
}
