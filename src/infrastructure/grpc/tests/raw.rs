//! Peers that do not keep the rules: a caller and a server that say what the test tells them.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use super::super::refusal::Refusal;
use super::super::tasks::Tasks;
use super::super::wire::{self, peer_server};
use super::super::{PeerConfig, dial, handshake};
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
        let mut client = dial::client(stream, &config, &tasks).await.expect("HTTP/2");
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

/// A server that answers every call with one introduction and hands over the calls unread.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    calls: Receiver<Received>,
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
}

#[tonic::async_trait]
impl peer_server::Peer for Service {
    type LinkStream = ReceiverStream<Result<wire::Hello, Status>>;

    async fn link(&self, request: Request<Streaming<wire::Frames>>) -> Result<Response<Self::LinkStream>, Status> {
        let (answer, answers) = mpsc::channel(1);
        answer.send(Ok(self.hello.clone())).await.expect("room for one");
        let received = Received { batches: request.into_inner(), _answers: answer };
        self.calls.send(received).await.map_err(|_| Status::cancelled("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

impl Server {
    pub(super) fn start(runtime: &Runtime, hello: wire::Hello) -> Self {
        let (tasks, guard) = Tasks::new(runtime.handle().clone()).subgroup();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (sender, calls) = mpsc::channel(16);
        let service = Service { hello, calls: sender };
        let routes = Routes::new(peer_server::PeerServer::from_arc(Arc::new(service))).prepare();
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
        Self { address, calls, _ended_with_this: guard }
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
