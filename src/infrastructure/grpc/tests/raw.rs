//! Peers that do not keep the rules: a caller and a server that say what the test tells them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::{Service as _, http};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use super::super::refusal::Refusal;
use super::super::tasks::Tasks;
use super::super::wire::{self, peer_server};
use super::super::{PeerConfig, handshake, http2 as calling};
use super::DEADLINE;

pub(super) fn hello(from: &str, to: &str) -> wire::Hello {
    wire::Hello {
        version: 1,
        version_min: 1,
        id: from.to_owned(),
        to: to.to_owned(),
        address: format!("{from}.example:7000"),
        ..wire::Hello::default()
    }
}

/// A call that has been accepted. Dropped, its connection closes.
pub(super) struct Call {
    pub(super) batches: Sender<wire::Frames>,
    pub(super) answers: Streaming<wire::Hello>,
    _ended_with_this: tokio_util::sync::DropGuard,
}

impl Call {
    pub(super) async fn make(address: SocketAddr, hello: Option<&wire::Hello>) -> Result<Self, Status> {
        let (tasks, guard) = Tasks::new(tokio::runtime::Handle::current()).subgroup();
        let stream = TcpStream::connect(address).await.expect("a connection");
        let config = PeerConfig::default();
        let mut client = calling::client(stream, &config, &tasks, 1 << 20, None).await.expect("HTTP/2");
        let (batches, receiver) = mpsc::channel(16);
        let mut request = Request::new(ReceiverStream::new(receiver));
        if let Some(hello) = hello {
            handshake::into_metadata(hello, request.metadata_mut());
        }
        let answers = timeout(DEADLINE, client.link(request)).await.expect("an answer in time")?.into_inner();
        Ok(Self { batches, answers, _ended_with_this: guard })
    }

    pub(super) async fn accepted(address: SocketAddr, hello: &wire::Hello) -> Self {
        let mut call = Self::make(address, Some(hello)).await.expect("to be accepted");
        assert!(call.answer().await.expect("an introduction").is_some());
        call
    }

    pub(super) async fn answer(&mut self) -> Result<Option<wire::Hello>, Status> {
        timeout(DEADLINE, self.answers.message()).await.expect("an answer in time")
    }

    /// What ends the call.
    pub(super) async fn end(&mut self) -> Status {
        self.answer().await.expect_err("the call to be ended")
    }

    pub(super) async fn send(&self, frames: Vec<wire::Frame>) {
        let batch = wire::Frames { frames, ..wire::Frames::default() };
        timeout(DEADLINE, self.batches.send(batch)).await.expect("to be read in time").expect("a standing call");
    }
}

pub(super) fn refusal(status: &Status) -> Refusal {
    Refusal::from_status(status).unwrap_or_else(|| panic!("not a refusal: {status:?}"))
}

/// A server that answers every call as it is told, and hands over links unread.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    calls: Receiver<Received>,
    service: Arc<Service>,
    _ended_with_this: tokio_util::sync::DropGuard,
}

/// A call that the server has answered. Dropped, it is ended.
pub(super) struct Received {
    batches: Streaming<wire::Frames>,
    _answers: Sender<Result<wire::Hello, Status>>,
}

struct Service {
    hello: wire::Hello,
    calls: Sender<Received>,
    /// What to say to those who ask to be let in.
    join: Mutex<Option<wire::JoinReply>>,
    /// What to send of a snapshot, call after call. What comes after that never comes.
    snapshots: Mutex<VecDeque<Vec<Result<wire::SnapshotPart, Status>>>>,
    /// What of a snapshot was asked for.
    fetches: Mutex<Vec<wire::FetchSnapshotRequest>>,
}

#[tonic::async_trait]
impl peer_server::Peer for Service {
    type LinkStream = ReceiverStream<Result<wire::Hello, Status>>;
    type FetchSnapshotStream = ReceiverStream<Result<wire::SnapshotPart, Status>>;

    async fn link(&self, request: Request<Streaming<wire::Frames>>) -> Result<Response<Self::LinkStream>, Status> {
        let (answer, answers) = mpsc::channel(1);
        answer.send(Ok(self.hello.clone())).await.expect("room for one");
        let received = Received { batches: request.into_inner(), _answers: answer };
        self.calls.send(received).await.map_err(|_| Status::cancelled("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn join(&self, _: Request<wire::JoinRequest>) -> Result<Response<wire::JoinReply>, Status> {
        let reply = self.join.lock().unwrap().clone();
        reply.map(Response::new).ok_or_else(|| Status::unimplemented("nobody joins here"))
    }

    async fn greet(&self, _: Request<wire::GreetRequest>) -> Result<Response<wire::GreetReply>, Status> {
        Ok(Response::new(wire::GreetReply { hello: Some(self.hello.clone()) }))
    }

    async fn fetch_snapshot(
        &self,
        request: Request<wire::FetchSnapshotRequest>,
    ) -> Result<Response<Self::FetchSnapshotStream>, Status> {
        self.fetches.lock().unwrap().push(request.into_inner());
        let script = self.snapshots.lock().unwrap().pop_front();
        let (parts, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            for part in script.into_iter().flatten() {
                if parts.send(part).await.is_err() {
                    return;
                }
            }
            parts.closed().await;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl Server {
    pub(super) fn say_to_joiners(&self, reply: wire::JoinReply) {
        *self.service.join.lock().unwrap() = Some(reply);
    }

    pub(super) fn send_of_snapshots(&self, parts: Vec<Result<wire::SnapshotPart, Status>>) {
        self.service.snapshots.lock().unwrap().push_back(parts);
    }

    pub(super) fn fetches(&self) -> Vec<wire::FetchSnapshotRequest> {
        self.service.fetches.lock().unwrap().clone()
    }

    pub(super) fn start(runtime: &Runtime, hello: wire::Hello) -> Self {
        let (tasks, guard) = Tasks::new(runtime.handle().clone()).subgroup();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (sender, calls) = mpsc::channel(16);
        let (join, snapshots, fetches) = Default::default();
        let service = Arc::new(Service { hello, calls: sender, join, snapshots, fetches });
        let routes = Routes::new(peer_server::PeerServer::from_arc(Arc::clone(&service))).prepare();
        let serving = tasks.clone();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let routes = routes.clone();
                let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                    routes.clone().call(request.map(Body::new))
                });
                let http2 = http2::Builder::new(serving.clone()).serve_connection(TokioIo::new(stream), service);
                serving.spawn(async move {
                    let _ = pin!(http2).await;
                });
            }
        });
        Self { address, calls, service, _ended_with_this: guard }
    }

    pub(super) fn call(&mut self, runtime: &Runtime) -> Received {
        let call = async { timeout(DEADLINE, self.calls.recv()).await.expect("a call in time") };
        runtime.block_on(call).expect("a server that runs")
    }
}

impl Received {
    pub(super) async fn batch(&mut self) -> Option<wire::Frames> {
        let batch = timeout(DEADLINE, self.batches.message()).await.expect("a batch, or the end, in time");
        batch.expect("a call in good order")
    }
}

/// Asks to join with a request of a mebibyte, and answers how that ends.
pub(super) async fn large_request(address: SocketAddr) -> Status {
    let (tasks, _guard) = Tasks::new(tokio::runtime::Handle::current()).subgroup();
    let stream = TcpStream::connect(address).await.expect("a connection");
    let client = calling::http2(stream, &PeerConfig::default(), &tasks).await.expect("HTTP/2");
    let mut client = tonic::client::Grpc::with_origin(client, http::Uri::from_static("http://graft.invalid"));
    client.ready().await.expect("a connection");
    let mut request = Request::new(bytes::Bytes::from(vec![0; 1 << 20]));
    handshake::into_metadata(&hello("n2", ""), request.metadata_mut());
    let codec = tonic_prost::ProstCodec::<bytes::Bytes, wire::JoinReply>::default();
    let path = http::uri::PathAndQuery::from_static("/graft.v1.Peer/Join");
    let answer = timeout(DEADLINE, client.unary(request, path, codec)).await.expect("an answer in time");
    answer.expect_err("too large a request")
}

/// A transfer of a snapshot that has begun, and of which nothing is read.
pub(super) struct Fetch {
    _parts: Streaming<wire::SnapshotPart>,
    _ended_with_this: tokio_util::sync::DropGuard,
}

impl Fetch {
    pub(super) async fn begin(address: SocketAddr, from: &str) -> Result<Self, Status> {
        let (tasks, guard) = Tasks::new(tokio::runtime::Handle::current()).subgroup();
        let stream = TcpStream::connect(address).await.expect("a connection");
        let config =
            PeerConfig { stream_window_bytes: 1 << 16, connection_window_bytes: 1 << 16, ..PeerConfig::default() };
        let mut client = calling::client(stream, &config, &tasks, 8 << 20, None).await.expect("HTTP/2");
        let wanted = wire::FetchSnapshotRequest { last_term: 3, last_index: 900, offset: 0 };
        let mut request = Request::new(wanted);
        handshake::into_metadata(&hello(from, "n1"), request.metadata_mut());
        let parts = timeout(DEADLINE, client.fetch_snapshot(request)).await.expect("an answer in time")?.into_inner();
        Ok(Self { _parts: parts, _ended_with_this: guard })
    }
}
