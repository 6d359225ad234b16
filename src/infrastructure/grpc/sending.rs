//! Giving this node's snapshot to followers, part by part, on connections of their own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{EntryId, NodeId};
use graft_services::ports::{SnapshotFiles, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::{debug, info};

use super::config::PeerConfig;
use super::event::PeerEvent;
use super::handshake::{Introduction, View};
use super::pace::Pace;
use super::refusal::Side;
use super::service::Accepted;
use super::transport::Shared;
use super::wire;

/// Transfers at a time; who comes later is told to come again.
const TRANSFERS_MAX: usize = 4;
/// How often it is told how far a transfer is: after so many bytes, or so long.
const TOLD_EVERY_BYTES: u64 = 8 << 20;
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// What all transfers share.
#[derive(Debug)]
pub(super) struct Sending {
    places: Arc<Semaphore>,
    pace: Arc<Pace>,
    part_bytes_max: usize,
}

/// One transfer, as its task drives it.
struct Transfer {
    shared: Arc<Shared>,
    files: Arc<dyn SnapshotFiles>,
    pace: Arc<Pace>,
    to: Introduction,
    /// As `to` was judged by, and as it changed since.
    view: watch::Receiver<View>,
    last: EntryId,
    total: u64,
    offset: u64,
    part_bytes_max: usize,
    /// One part waits here while the next one is read.
    parts: mpsc::Sender<Result<wire::SnapshotPart, Status>>,
    _place: OwnedSemaphorePermit,
}

impl Sending {
    pub(super) fn new(config: &PeerConfig) -> Self {
        let rate = config.snapshot_bytes_per_second;
        // A part is paid for within a second, however many transfers share the rate.
        let within_a_second = usize::try_from(rate / TRANSFERS_MAX as u64).unwrap_or(usize::MAX);
        Self {
            places: Arc::new(Semaphore::new(TRANSFERS_MAX)),
            pace: Arc::new(Pace::new(rate)),
            part_bytes_max: config.snapshot_part_bytes_max.min(within_a_second),
        }
    }

    /// Begins to send the wanted snapshot from the wanted offset on, or the newest one if that is another.
    pub(super) async fn begin(
        &self,
        shared: &Arc<Shared>,
        accepted: Accepted,
        wanted: wire::FetchSnapshotRequest,
    ) -> Result<ReceiverStream<Result<wire::SnapshotPart, Status>>, Status> {
        let Accepted { peer, hello: _, view } = accepted;
        let me = shared.me;
        if !is_member(&view.borrow(), &peer) {
            let why = format!("{} is no member that {me} knows of: it may be let in, or told of, soon", peer.id);
            return Err(Status::permission_denied(why));
        }
        let Some(files) = shared.files.clone() else {
            return Err(Status::not_found(format!("{me} keeps no snapshots")));
        };
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let why =
                format!("{me} sends its snapshot to {TRANSFERS_MAX} others, which is as many as it does at a time");
            return Err(Status::resource_exhausted(why));
        };
        let newest = {
            let files = Arc::clone(&files);
            blocking(move || files.newest()).await.map_err(|why| Status::internal(why.to_string()))?
        };
        let Some((last, total)) = newest else {
            return Err(Status::not_found(format!("{me} has no snapshot")));
        };
        let goes_on = last == EntryId::new(wanted.last_term, wanted.last_index) && wanted.offset < total;
        let offset = if goes_on { wanted.offset } else { 0 };
        info!(to = %peer.id, %last, total, offset, "sends its snapshot");
        let (parts, receiver) = mpsc::channel(1);
        let transfer = Transfer {
            shared: Arc::clone(shared),
            files,
            pace: Arc::clone(&self.pace),
            to: peer,
            view,
            last,
            total,
            offset,
            part_bytes_max: self.part_bytes_max,
            parts,
            _place: place,
        };
        shared.tasks.spawn(transfer.run());
        Ok(ReceiverStream::new(receiver))
    }
}

impl Transfer {
    async fn run(mut self) {
        let (stop, view) = (self.shared.stop.clone(), self.view.clone());
        let (shared, to) = (Arc::clone(&self.shared), self.to.clone());
        let parts = self.parts.clone();
        let end = tokio::select! {
            biased;
            () = stop.cancelled() => Err(Status::unavailable(format!("{} is stopping", shared.me))),
            status = fault(&shared, &to, view) => Err(status),
            sent = self.send() => sent,
        };
        if let Err(status) = end {
            debug!(to = %to.id, %status, "the snapshot is not sent to its end");
            // If the place is taken by a part the follower finds the stream cut, and asks again.
            let _ = parts.try_send(Err(status));
        }
    }

    async fn send(&mut self) -> Result<(), Status> {
        let stall: Duration = self.shared.config.snapshot_stall_timeout;
        let (mut told, mut told_at) = (self.offset, Instant::now());
        self.tell();
        while self.offset < self.total {
            let left = usize::try_from(self.total - self.offset).unwrap_or(usize::MAX);
            let bytes = left.min(self.part_bytes_max);
            self.shared.faults.passage(&self.to.address).await;
            self.pace.take(bytes).await;
            let data = match self.read(bytes).await {
                Ok(data) => data,
                Err(error) => return Err(self.unreadable(&error).await),
            };
            let part = wire::SnapshotPart {
                last_term: self.last.term.0,
                last_index: self.last.index.0,
                length: self.total,
                offset: self.offset,
                data,
            };
            self.offset += part.data.len() as u64;
            let sent = timeout(stall, self.parts.send(Ok(part))).await;
            let sent =
                sent.map_err(|_| Status::deadline_exceeded(format!("{} took nothing for {stall:?}", self.to.id)))?;
            sent.map_err(|_| Status::cancelled(format!("{} is gone", self.to.id)))?;
            let due = self.offset - told >= TOLD_EVERY_BYTES || told_at.elapsed() >= TOLD_EVERY;
            if due || self.offset >= self.total {
                (told, told_at) = (self.offset, Instant::now());
                self.tell();
            }
        }
        Ok(())
    }

    fn tell(&self) {
        let (to, bytes, total) = (self.to.id, self.offset, self.total);
        (self.shared.sink)(PeerEvent::SnapshotSending { to, bytes, total });
    }

    /// The next bytes of the file: exactly so many.
    async fn read(&self, bytes: usize) -> Result<Bytes, StoreError> {
        let (files, last, offset) = (Arc::clone(&self.files), self.last, self.offset);
        let read = move || {
            let mut data = vec![0; bytes];
            let mut filled = 0;
            while filled < bytes {
                match files.send(last, offset + filled as u64, &mut data[filled..])? {
                    0 => return Err(cut_short(last, offset + filled as u64)),
                    more => filled += more.min(bytes - filled),
                }
            }
            Ok(Bytes::from(data))
        };
        blocking(read).await.and_then(|read| read)
    }

    /// A file that a newer one has replaced may be gone; any other must be there.
    async fn unreadable(&self, error: &StoreError) -> Status {
        let files = Arc::clone(&self.files);
        let newest = blocking(move || files.newest()).await;
        if newest.is_ok_and(|newest| newest.is_some_and(|(last, _)| last != self.last)) {
            return Status::aborted(format!("a newer snapshot has replaced {}", self.last));
        }
        let why = format!("the snapshot {} cannot be read: {error}", self.last);
        (self.shared.sink)(PeerEvent::SnapshotUnreadable { why: why.clone() });
        Status::data_loss(why)
    }
}

/// All of the state is for members only, learners among them. Those who merely dialled this node have links, to be
/// asked what they know; whoever leads a newcomer has it in its membership before it sends it anything.
fn is_member(view: &View, peer: &Introduction) -> bool {
    view.peers.get(&peer.id).is_some_and(|known| known.member)
}

/// Ready when the follower may not have it any more.
async fn fault(shared: &Shared, to: &Introduction, mut view: watch::Receiver<View>) -> Status {
    while view.changed().await.is_ok() {
        let (verdict, known) = {
            let view = view.borrow_and_update();
            (view.judge(to), is_member(&view, to))
        };
        if let Err(refusal) = verdict {
            let status = refusal.to_status();
            shared.refused(Some(to.id), &to.address, refusal, Side::Here);
            return status;
        }
        if !known {
            return Status::permission_denied(gone(to.id));
        }
    }
    Status::unavailable("the node is stopping")
}

fn gone(id: NodeId) -> String {
    format!("{id} is no member any more")
}

fn cut_short(last: EntryId, offset: u64) -> StoreError {
    StoreError::Corrupt {
        file: format!("the snapshot {last}"),
        offset,
        what: "it ends before its length says".to_owned(),
    }
}

/// Files block, and tasks must not.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    let lost = |error: tokio::task::JoinError| StoreError::Io { path: "snapshot".to_owned(), what: error.to_string() };
    tokio::task::spawn_blocking(work).await.map_err(lost)
}
