//! How fast members talk: messages echoed between two transports of one process, and beside it the same over a bare
//! bidirectional stream of tonic, one gRPC message each. Run with `cargo bench --bench transport`.
//!
//! CPU is that of the whole process, both ends counted, for each message that went there and came back.

// Counts of messages are far below what an f64 holds exactly.
#![allow(clippy::cast_precision_loss)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::io::{Write, stdout};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use graft::domain::{
    Append, ClusterId, Entry, EntryId, Envelope, Incarnation, Index, Message, NodeId, Payload, ReadId, Term,
};
use graft::infrastructure::grpc::{LocalHello, Offers, Peer, PeerConfig, PeerEvent, PeerSink, Transport, bind};
use graft::services::ports::PeerMessage;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::unbounded_channel;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{NamedService, StreamingService};
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

type Failure = Box<dyn Error + Send + Sync>;

/// As many bytes as a small message of the transport has on the wire.
const SMALL_BYTES: usize = 16;
const BULK_BYTES: usize = 256 << 10;

/// What one run is like.
#[derive(Clone, Copy)]
struct Load {
    depth: u64,
    messages: u64,
    body: Option<usize>,
}

/// What one run took.
struct Taken {
    messages: u64,
    elapsed: Duration,
    cpu: Option<Duration>,
}

impl Taken {
    fn per_second(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64()
    }

    fn cpu_micros(&self) -> f64 {
        self.cpu.map_or(f64::NAN, |cpu| cpu.as_secs_f64() * 1e6 / self.messages as f64)
    }
}

fn main() -> Result<(), Failure> {
    let mut out = stdout();
    let load = |depth, messages, body| Load { depth, messages, body };
    writeln!(out, "echo                  graft msg/s   µs CPU |  tonic msg/s   µs CPU |   rate    CPU")?;
    for (name, load) in [
        ("small, depth 1", load(1, 40_000, None)),
        ("small, depth 64", load(64, 1_500_000, None)),
        ("small, depth 1024", load(1024, 6_000_000, None)),
        ("256 KiB, depth 16", load(16, 6_000, Some(BULK_BYTES))),
    ] {
        let (graft, tonic) = (transports(load)?, bare(load)?);
        writeln!(
            out,
            "{name:<20} {:>12.0} {:>8.2} | {:>12.0} {:>8.2} | {:>5.2}x {:>5.2}x",
            graft.per_second(),
            graft.cpu_micros(),
            tonic.per_second(),
            tonic.cpu_micros(),
            graft.per_second() / tonic.per_second(),
            graft.cpu_micros() / tonic.cpu_micros(),
        )?;
    }
    Ok(())
}

/// Runs `work`, and measures it.
fn measured(messages: u64, work: impl FnOnce() -> Result<(), Failure>) -> Result<Taken, Failure> {
    let (started, cpu) = (Instant::now(), cpu_time());
    work()?;
    let cpu = cpu_time().zip(cpu).map(|(after, before)| after.saturating_sub(before));
    Ok(Taken { messages, elapsed: started.elapsed(), cpu })
}

/// What this process has run, threads that ended included, where the system tells.
fn cpu_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // After the program's name, which may hold anything, user and system time are the 12th and 13th, in 1/100 s.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(|field| field.parse().unwrap_or(0)).sum();
    Some(Duration::from_millis(ticks * 10))
}

// ---- over the transport ------------------------------------------------------------------------------------------

/// One end: what it gets it sends back, and the asking end counts.
struct End {
    transport: OnceLock<Arc<Transport>>,
    me: NodeId,
    other: NodeId,
    /// Of the asking end: messages still to be sent, and still to come back.
    asking: Option<(AtomicU64, AtomicU64)>,
    told: mpsc::Sender<()>,
}

impl End {
    fn on(&self, event: PeerEvent) {
        match event {
            PeerEvent::Connected { inbound: false, .. } => {
                let _ = self.told.send(());
            }
            PeerEvent::Messages { messages, .. } => self.answer(messages),
            _ => {}
        }
    }

    fn answer(&self, messages: Vec<PeerMessage>) {
        let (Some(transport), count) = (self.transport.get(), messages.len() as u64) else { return };
        let mut send = count;
        if let Some((unsent, missing)) = &self.asking {
            let take = |left: u64| Some(left.saturating_sub(count));
            send = unsent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).unwrap_or(0).min(count);
            if missing.fetch_sub(count, Ordering::Relaxed) == count {
                let _ = self.told.send(());
            }
        }
        let back =
            messages.into_iter().take(usize::try_from(send).unwrap_or(usize::MAX)).map(|message| match message {
                PeerMessage::Raft(envelope) => {
                    PeerMessage::Raft(Envelope { from: self.me, to: self.other, ..envelope })
                }
                other => other,
            });
        transport.send_batch(self.other, back);
    }
}

fn transports(load: Load) -> Result<Taken, Failure> {
    let runtime = Runtime::new()?;
    let (n1, n2) = (NodeId::new("n1")?, NodeId::new("n2")?);
    let (told, tells) = mpsc::channel();
    let end = |me, other, asking| Arc::new(End { transport: OnceLock::new(), me, other, asking, told: told.clone() });
    let counters = (AtomicU64::new(load.messages - load.depth), AtomicU64::new(load.messages));
    let ends = [end(n1, n2, Some(counters)), end(n2, n1, None)];
    let mut transports = Vec::new();
    for end in &ends {
        let sink: PeerSink = {
            let end = Arc::clone(end);
            Arc::new(move |event| end.on(event))
        };
        let hello = LocalHello {
            id: end.me,
            incarnation: Incarnation::UNKNOWN,
            cluster: ClusterId::UNKNOWN,
            address: "127.0.0.1:0".to_owned(),
            membership_hash: 0,
        };
        let listener = bind("127.0.0.1:0")?;
        let config = PeerConfig::default();
        transports.push(Arc::new(Transport::start(
            runtime.handle().clone(),
            listener,
            hello,
            config,
            Offers::default(),
            sink,
        )?));
    }
    for (end, (mine, other)) in ends.iter().zip([(0, 1), (1, 0)]) {
        let _ = end.transport.set(Arc::clone(&transports[mine]));
        let address = transports[other].local_addr().to_string();
        let peer = Peer { address, incarnation: Incarnation::UNKNOWN, member: true };
        transports[mine].set_peers(&BTreeMap::from([(end.other, peer)]));
    }
    for _ in &ends {
        tells.recv()?;
    }
    let taken = measured(load.messages, || {
        let first = (0..load.depth).map(|number| asked(n1, n2, number, load.body));
        transports[0].send_batch(n2, first);
        Ok(tells.recv()?)
    });
    runtime.shutdown_background();
    taken
}

fn asked(from: NodeId, to: NodeId, number: u64, body: Option<usize>) -> PeerMessage {
    let message = match body {
        None => Message::Read { read: ReadId(number), lease: false },
        Some(bytes) => {
            let payload = Payload::Command(Bytes::from(vec![7; bytes]));
            let entries = vec![Entry { index: Index(number), term: Term(1), payload }];
            Message::Append(Append { session: 1, round: 1, prev: EntryId::ZERO, entries, commit: Index(0) })
        }
    };
    PeerMessage::Raft(Envelope { from, to, term: Term(1), message })
}

// ---- over a bare stream ------------------------------------------------------------------------------------------

#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Bytes, Bytes>::default());
            Ok(grpc.streaming(Echo, request).await)
        })
    }
}

impl StreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = Streaming<Bytes>;
    type Future = std::future::Ready<Result<Response<Streaming<Bytes>>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        std::future::ready(Ok(Response::new(request.into_inner())))
    }
}

fn bare(load: Load) -> Result<Taken, Failure> {
    let runtime = Runtime::new()?;
    let windows = PeerConfig::default();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    let server = Server::builder()
        .initial_stream_window_size(windows.stream_window_bytes)
        .initial_connection_window_size(windows.connection_window_bytes)
        .add_service(Echo)
        .serve_with_incoming(
            TcpListenerStream::new(listener)
                .map(|stream| stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream))),
        );
    runtime.spawn(server);
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .initial_stream_window_size(windows.stream_window_bytes)
        .initial_connection_window_size(windows.connection_window_bytes)
        .tcp_nodelay(true);
    let channel = runtime.block_on(endpoint.connect())?;
    let (sender, receiver) = unbounded_channel();
    let taken = measured(load.messages, || {
        let asking = async move {
            let body = Bytes::from(vec![7; load.body.unwrap_or(SMALL_BYTES)]);
            (0..load.depth).try_for_each(|_| sender.send(body.clone()))?;
            let mut grpc = tonic::client::Grpc::new(channel);
            grpc.ready().await?;
            let path = http::uri::PathAndQuery::from_static("/bench.Echo/Echo");
            let request = Request::new(UnboundedReceiverStream::new(receiver));
            let codec = ProstCodec::<Bytes, Bytes>::default();
            let mut echoes = grpc.streaming(request, path, codec).await?.into_inner();
            for number in 1..=load.messages {
                let Some(echo) = echoes.message().await? else { return Err("the stream ended".into()) };
                if number + load.depth <= load.messages {
                    sender.send(echo)?;
                }
            }
            Ok::<_, Failure>(())
        };
        // On a worker, where a wake-up costs what it costs the transport.
        runtime.block_on(runtime.spawn(asking))?
    });
    runtime.shutdown_background();
    taken
}
