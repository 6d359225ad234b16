//! The `Peer` service: who may call what.

use std::sync::Arc;

use graft_domain::NodeId;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::warn;

use super::admission::Full;
use super::complaints::Refused;
use super::event::{PeerEvent, RefusedCode};
use super::handshake::{self, Introduction, View};
use super::inbound::{self, Standing};
use super::refusal::{Refusal, Side};
use super::sending::Sending;
use super::server::Connection;
use super::transport::Shared;
use super::welcome::Welcome;
use super::wire;
use super::wire::peer_server::Peer;

#[derive(Debug)]
pub(super) struct Service {
    shared: Arc<Shared>,
    standing: Arc<Standing>,
    welcome: Welcome,
    sending: Sending,
}

/// A peer that may talk.
pub(super) struct Accepted {
    pub(super) peer: Introduction,
    /// This node's answer.
    pub(super) hello: wire::Hello,
    /// As the peer was judged by, and as it changes.
    pub(super) view: watch::Receiver<View>,
}

/// Whether the caller must know whom it calls.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    ThisNode,
    Anyone,
}

impl Service {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let sending = Sending::new(&shared.config);
        Self { shared, standing: Arc::default(), welcome: Welcome::default(), sending }
    }

    /// Who calls, as far as it says so in a form that can be relied on.
    fn introduced<T>(&self, request: &Request<T>, to: To) -> Result<Introduction, Status> {
        let connection = request.extensions().get::<Connection>();
        let remote = connection.map_or_else(String::new, |connection| connection.remote.to_string());
        let hello =
            handshake::from_metadata(request.metadata()).map_err(|refusal| self.refuse(None, &remote, refusal))?;
        // Before it is parsed, for the words: what an incompatible version calls itself may not be an id here.
        let claimed = NodeId::new(&hello.id).ok();
        let parsed = match to {
            To::ThisNode => Introduction::parse(hello),
            To::Anyone => Introduction::parse_open(hello, self.shared.me),
        };
        let parsed = parsed.map_err(|refusal| self.refuse(claimed, &remote, refusal))?;
        let identity = connection.and_then(|connection| connection.identity.as_ref());
        match identity {
            Some(identity) if identity.member() != Some(parsed.id) => {
                let why = format!(
                    "it says that it is {}, and its certificate that it is {identity}. Start {} with its own certificate.",
                    parsed.id, parsed.id
                );
                let refusal = Refusal::new(RefusedCode::IdentityMismatch, why);
                let tell = || warn!(%remote, "link refused: {}", refusal.why);
                self.shared.complaints.refuse(Refused::Link, tell);
                Err(refusal.to_status())
            }
            _ => Ok(parsed),
        }
    }

    /// Judges a peer that says whom it calls. What it calls on is a member's connection from then on.
    fn accept<T>(&self, request: &Request<T>) -> Result<Accepted, Status> {
        let peer = self.introduced(request, To::ThisNode)?;
        let mut view = self.shared.view.subscribe();
        let judged = {
            let view = view.borrow_and_update();
            view.judge(&peer).map(|()| view.hello(&peer.id))
        };
        let placed = judged.and_then(|hello| placed(request, &peer).map(|()| hello));
        let hello = placed.map_err(|refusal| {
            if refusal.code == RefusedCode::ClusterMismatch {
                (self.shared.sink)(PeerEvent::Claimed { by: peer.id, address: peer.address.clone() });
            }
            self.refuse(Some(peer.id), &peer.address, refusal)
        })?;
        Ok(Accepted { peer, hello, view })
    }

    fn refuse(&self, peer: Option<NodeId>, address: &str, refusal: Refusal) -> Status {
        let status = refusal.to_status();
        self.shared.refused(peer, address, refusal, Side::Here);
        status
    }
}

fn placed<T>(request: &Request<T>, peer: &Introduction) -> Result<(), Refusal> {
    let connection = request.extensions().get::<Connection>();
    let placed = connection.map_or(Ok(()), |connection| connection.place.become_member());
    placed.map_err(|Full { max, .. }| {
        let why = format!(
            "{} has {max} connections of members, which is as many as it may. Stop what connects as a member and is \
             none, or raise `connections_max`.",
            peer.to
        );
        Refusal::new(RefusedCode::TooMany, why)
    })
}

#[tonic::async_trait]
impl Peer for Service {
    type LinkStream = ReceiverStream<Result<wire::Hello, Status>>;
    type FetchSnapshotStream = ReceiverStream<Result<wire::SnapshotPart, Status>>;

    async fn link(&self, request: Request<Streaming<wire::Frames>>) -> Result<Response<Self::LinkStream>, Status> {
        let accepted = self.accept(&request)?;
        inbound::begin(&self.shared, &self.standing, accepted, request.into_inner()).map(Response::new)
    }

    async fn join(&self, request: Request<wire::JoinRequest>) -> Result<Response<wire::JoinReply>, Status> {
        let peer = self.introduced(&request, To::Anyone)?;
        let reply = self.welcome.join(&self.shared, &peer).await;
        reply.map(Response::new).map_err(|refusal| self.refuse(Some(peer.id), &peer.address, refusal))
    }

    async fn greet(&self, request: Request<wire::GreetRequest>) -> Result<Response<wire::GreetReply>, Status> {
        let peer = self.introduced(&request, To::Anyone)?;
        let hello = self.shared.view.borrow().hello(&peer.id);
        Ok(Response::new(wire::GreetReply { hello: Some(hello) }))
    }

    async fn fetch_snapshot(
        &self,
        request: Request<wire::FetchSnapshotRequest>,
    ) -> Result<Response<Self::FetchSnapshotStream>, Status> {
        let accepted = self.accept(&request)?;
        self.sending.begin(&self.shared, accepted, *request.get_ref()).await.map(Response::new)
    }
}
