//! The links that others dial: judged, read and handed to the engine.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};

use graft_domain::{ClusterId, NodeId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tracing::{debug, info};

use super::convert;
use super::event::{PeerEvent, RefusedCode};
use super::handshake::{self, Introduction, View};
use super::refusal::{Refusal, Side};
use super::service::Accepted;
use super::transport::Shared;
use super::wire;

/// The link that stands for each peer: the newest, because an older one may be half-open.
#[derive(Debug, Default)]
pub(super) struct Standing(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    count: u64,
    /// The number of the link, and what to drop to end it.
    links: BTreeMap<NodeId, (u64, oneshot::Sender<()>)>,
}

/// One link, as its task reads it.
struct Link {
    shared: Arc<Shared>,
    standing: Arc<Standing>,
    number: u64,
    /// Ready when a newer link took over.
    superseded: oneshot::Receiver<()>,
    peer: Introduction,
    /// Both sides have accepted one another.
    admitted: bool,
    /// As `peer` was judged by, and as it changed since.
    view: watch::Receiver<View>,
    batches: Streaming<wire::Frames>,
    /// The end of the response half, where the reason goes if there is one.
    answer: mpsc::Sender<Result<wire::Hello, Status>>,
}

/// Why a link is not read any more.
enum End {
    Closed,
    Broken(Status),
    Stopping,
    Superseded,
    /// This side found fault with the peer.
    Refused(Refusal),
    /// The peer found fault with this side.
    RefusedByPeer(Refusal),
}

/// Begins to read a link that `peer` dialled, and answers the response half of its call.
pub(super) fn begin(
    shared: &Arc<Shared>,
    standing: &Arc<Standing>,
    accepted: Accepted,
    batches: Streaming<wire::Frames>,
) -> Result<ReceiverStream<Result<wire::Hello, Status>>, Status> {
    let Accepted { peer, hello, view } = accepted;
    // Two places: the introduction, and the reason why the link ends.
    let (answer, answers) = mpsc::channel(2);
    answer.try_send(Ok(hello)).map_err(|_| Status::internal("an empty queue is full"))?;
    let (number, superseded) = standing.begin(peer.id);
    debug!(peer = %peer.id, address = peer.address, "a peer connected");
    (shared.sink)(PeerEvent::Connected {
        peer: peer.id,
        address: peer.address.clone(),
        incarnation: peer.incarnation,
        inbound: true,
    });
    shared.nudge(&peer.id);
    let (shared, standing) = (Arc::clone(shared), Arc::clone(standing));
    let link = Link {
        shared: Arc::clone(&shared),
        standing,
        number,
        superseded,
        peer,
        admitted: false,
        view,
        batches,
        answer,
    };
    shared.tasks.spawn(link.run());
    Ok(ReceiverStream::new(answers))
}

impl Standing {
    /// Puts a new link in the place of the peer's older one, whose receiver becomes ready.
    fn begin(&self, peer: NodeId) -> (u64, oneshot::Receiver<()>) {
        let (end, superseded) = oneshot::channel();
        // Nothing panics while it holds the lock.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.count += 1;
        let number = state.count;
        state.links.insert(peer, (number, end));
        (number, superseded)
    }

    fn end(&self, peer: &NodeId, number: u64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.links.get(peer).is_some_and(|(standing, _)| *standing == number) {
            state.links.remove(peer);
        }
    }
}

impl Link {
    async fn run(mut self) {
        let end = self.read().await;
        self.standing.end(&self.peer.id, self.number);
        let (id, address) = (self.peer.id, &self.peer.address);
        let reason = match end {
            End::Closed => {
                debug!(peer = %id, "a peer closed its link");
                return;
            }
            End::Broken(status) => {
                debug!(peer = %id, %status, "a peer's link broke");
                return;
            }
            End::Stopping => Status::unavailable(format!("{} is stopping", self.peer.to)),
            End::Superseded => {
                info!(peer = %id, address, "a newer link of the peer replaces this one");
                Status::aborted(format!(
                    "{} accepted a newer link of {id}. If this happens again and again, two nodes run as {id}: stop one.",
                    self.peer.to
                ))
            }
            End::Refused(refusal) => {
                let status = refusal.to_status();
                self.shared.refused(Some(id), address, refusal, Side::Here);
                status
            }
            End::RefusedByPeer(refusal) => {
                self.shared.refused(Some(id), address, refusal, Side::There);
                return;
            }
        };
        // There is room, and if the peer is gone nobody misses it.
        let _ = self.answer.try_send(Err(reason));
    }

    /// Hands over batch after batch until there is a reason not to.
    async fn read(&mut self) -> End {
        let stop = self.shared.stop.clone();
        loop {
            // What ends a link comes first, so that no batch is delivered past it.
            let batch = tokio::select! {
                biased;
                () = stop.cancelled() => return End::Stopping,
                _ = &mut self.superseded => return End::Superseded,
                changed = self.view.changed() => {
                    if changed.is_err() {
                        return End::Stopping;
                    }
                    match self.view.borrow_and_update().judge(&self.peer) {
                        Ok(()) => continue,
                        Err(refusal) => return End::Refused(refusal),
                    }
                }
                batch = self.batches.message() => batch,
            };
            match batch {
                Ok(Some(frames)) => {
                    if let Err(end) = self.deliver(frames) {
                        return end;
                    }
                }
                Ok(None) => return End::Closed,
                Err(status) => return classify(status),
            }
        }
    }

    fn deliver(&mut self, batch: wire::Frames) -> Result<(), End> {
        if let Some(goodbye) = batch.goodbye {
            return Err(End::RefusedByPeer(Refusal::from_wire(&goodbye)));
        }
        if !batch.cluster.is_empty() {
            self.judge_anew(&batch.cluster)?;
        }
        if batch.frames.is_empty() {
            return Ok(());
        }
        let messages = convert::decode_batch(batch.frames, self.peer.id, self.peer.to)
            .map_err(|bad| End::Refused(malformed(&self.peer, &bad.to_string())))?;
        if !self.admitted {
            // Whoever sends messages has accepted this node in turn. A cluster that once had another node at this
            // address dials, finds fault, and must not be taken for this node's.
            self.shared.admit(&self.peer).map_err(End::Refused)?;
            self.admitted = true;
        }
        (self.shared.sink)(PeerEvent::Messages { from: self.peer.id, messages });
        Ok(())
    }

    /// The peer's cluster became known after it introduced itself.
    fn judge_anew(&mut self, cluster: &[u8]) -> Result<(), End> {
        match handshake::decode_cluster(cluster) {
            None | Some(ClusterId::UNKNOWN) => Err(End::Refused(malformed(&self.peer, "a bad cluster id"))),
            Some(cluster) => {
                self.peer.cluster = cluster;
                self.admitted = false;
                self.shared.view.borrow().judge(&self.peer).map_err(End::Refused)
            }
        }
    }
}

fn malformed(peer: &Introduction, what: &str) -> Refusal {
    let why = format!(
        "{} sent {} what is no message of protocol version {}: {what}. Run the same version of this program on both.",
        peer.id,
        peer.to,
        handshake::VERSION
    );
    Refusal::new(RefusedCode::Malformed, why)
}

/// Tells bytes that make no sense from a connection that failed, which has a cause below gRPC.
fn classify(status: Status) -> End {
    let undecodable = status.code() == Code::OutOfRange || status.code() == Code::Internal;
    if !undecodable || status.source().is_some() {
        return End::Broken(status);
    }
    debug!(%status, "a peer sent what cannot be decoded");
    End::Refused(Refusal::new(
        RefusedCode::Malformed,
        format!(
            "What was sent cannot be decoded: {}. Run the same version of this program, with the same limits on \
             message sizes, on both nodes.",
            status.message()
        ),
    ))
}
