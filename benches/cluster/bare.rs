//! The floor: what the same hardware does when nothing is decided. A leader's process writes whatever has queued, in one
//! piece and with one sync, while the same bytes go over streams of gRPC to followers' processes, which do the same and
//! say so; done is what a majority has. No terms, no log, no sessions, no machine.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{NamedService, StreamingService};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::Subject;
use super::disk::{self, Disk};
use super::load::{self, Counts, Kind, Load, Sample};
use super::processes::Process;
use super::times::Times;

const WINDOW_BYTES: u32 = 4 << 20;
/// A batch of the largest commands at the greatest depth.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
const STREAM: &str = "/bench.Bare/Stream";
const CALL: &str = "/bench.Bare/Call";

// ---- disk ------------------------------------------------------------------------------------------------------------

/// A thread that writes what has queued in one piece and then says how far it is: pieces begin with that number.
fn disk_thread(directory: &Path, pieces: Receiver<Bytes>, mut told: impl FnMut(u64) + Send + 'static) {
    let mut disk = Disk::new(directory);
    std::thread::spawn(move || {
        while let Ok(first) = pieces.recv() {
            let batch: Vec<Bytes> = std::iter::once(first).chain(pieces.try_iter()).collect();
            disk.append(&batch);
            told(number(batch.last().unwrap()));
        }
    });
}

fn number(piece: &Bytes) -> u64 {
    u64::from_le_bytes(piece[..8].try_into().unwrap())
}

fn numbered(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}

// ---- a stream ------------------------------------------------------------------------------------------------------

type Replies = UnboundedReceiverStream<Result<Bytes, Status>>;

/// Takes a stream of pieces and gives one back: the same pieces, or how far this one's disk is.
#[derive(Clone)]
enum Bare {
    Echo,
    Disk(PathBuf),
}

impl NamedService for Bare {
    const NAME: &'static str = "bench.Bare";
}

impl Service<http::Request<Body>> for Bare {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let bare = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Bytes, Bytes>::default())
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX);
            match request.uri().path() {
                CALL => Ok(grpc.unary(Back, request).await),
                _ => Ok(grpc.streaming(bare, request).await),
            }
        })
    }
}

/// Gives back what it is called with.
struct Back;

impl Service<Request<Bytes>> for Back {
    type Response = Response<Bytes>;
    type Error = Status;
    type Future = std::future::Ready<Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        std::future::ready(Ok(Response::new(request.into_inner())))
    }
}

impl StreamingService<Bytes> for Bare {
    type Response = Bytes;
    type ResponseStream = Replies;
    type Future = std::future::Ready<Result<Response<Replies>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let (reply, replies) = unbounded_channel();
        let mut pieces = request.into_inner();
        let mut give: Box<dyn FnMut(Bytes) + Send> = match self {
            Self::Echo => Box::new(move |piece| drop(reply.send(Ok(piece)))),
            Self::Disk(directory) => {
                let (to_disk, queued) = channel();
                disk_thread(directory, queued, move |upto| drop(reply.send(Ok(numbered(upto)))));
                Box::new(move |piece| to_disk.send(piece).unwrap())
            }
        };
        tokio::spawn(async move {
            while let Ok(Some(piece)) = pieces.message().await {
                give(piece);
            }
        });
        std::future::ready(Ok(Response::new(UnboundedReceiverStream::new(replies))))
    }
}

/// Serves, and says where.
fn serve(runtime: &Runtime, bare: Bare) -> String {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let incoming = TcpListenerStream::new(listener)
        .map(|stream| stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream)));
    let server = Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .add_service(bare)
        .serve_with_incoming(incoming);
    runtime.spawn(server);
    address
}

pub(crate) fn dial(runtime: &Runtime, address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .tcp_nodelay(true);
    runtime.block_on(endpoint.connect()).unwrap()
}

/// A call of its own, answered with the same piece.
pub(crate) async fn call(channel: &Channel, piece: Bytes) -> Bytes {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let (path, codec) = (http::uri::PathAndQuery::from_static(CALL), ProstCodec::<Bytes, Bytes>::default());
    grpc.unary(Request::new(piece), path, codec).await.unwrap().into_inner()
}

/// Opens a stream: what to send by, after `told` was promised every piece that comes back.
pub(crate) fn connect(
    runtime: &Runtime,
    address: &str,
    mut told: impl FnMut(Bytes) + Send + 'static,
) -> UnboundedSender<Bytes> {
    let (sender, pieces) = unbounded_channel();
    let channel = dial(runtime, address);
    runtime.spawn(async move {
        let mut grpc = tonic::client::Grpc::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        grpc.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static(STREAM);
        let request = Request::new(UnboundedReceiverStream::new(pieces));
        let codec = ProstCodec::<Bytes, Bytes>::default();
        let mut replies = grpc.streaming(request, path, codec).await.unwrap().into_inner();
        while let Ok(Some(piece)) = replies.message().await {
            told(piece);
        }
    });
    sender
}

// ---- the processes -------------------------------------------------------------------------------------------------

/// The life of a follower, `DIRECTORY`, or without one of somebody who gives back what comes: it says where it listens,
/// and ends with its parent.
pub(crate) fn follower(mut arguments: impl Iterator<Item = String>) {
    let runtime = Runtime::new().unwrap();
    let bare = arguments.next().map_or(Bare::Echo, |directory| Bare::Disk(directory.into()));
    println!("{}", serve(&runtime, bare));
    std::io::stdout().flush().unwrap();
    load::serve(|_| panic!("a follower takes no load"), disk::counts);
}

enum Event {
    Proposed { number: u64, piece: Bytes },
    Has { member: usize, upto: u64 },
}

/// The life of the leader: `DIRECTORY`, `ADDRESS…` of its followers.
pub(crate) fn leader(mut arguments: impl Iterator<Item = String>) {
    let runtime = Runtime::new().unwrap();
    let directory = arguments.next().unwrap();
    let (events, happened) = channel();
    let (commits, committed) = channel();
    let has = |member: usize| {
        let events = events.clone();
        move |upto: u64| drop(events.send(Event::Has { member, upto }))
    };
    let (to_disk, queued) = channel();
    disk_thread(Path::new(&directory), queued, has(0));
    let streams: Vec<_> = arguments
        .enumerate()
        .map(|(follower, address)| {
            let has = has(follower + 1);
            connect(&runtime, &address, move |piece| has(number(&piece)))
        })
        .collect();
    println!("ready");
    std::io::stdout().flush().unwrap();
    std::thread::spawn(move || lead(&happened, &to_disk, &streams, &commits));
    load::serve(|load| run(load, &events, &committed), disk::counts);
}

fn lead(happened: &Receiver<Event>, disk: &Sender<Bytes>, streams: &[UnboundedSender<Bytes>], commits: &Sender<u64>) {
    let (mut last, mut commit) = (0, 0);
    let mut matched = vec![0; streams.len() + 1];
    while let Ok(first) = happened.recv() {
        let mut body = BytesMut::new();
        let before = last;
        for event in std::iter::once(first).chain(happened.try_iter()) {
            match event {
                Event::Has { member, upto } => matched[member] = upto,
                Event::Proposed { number, piece } => {
                    last += number;
                    for _ in 0..number {
                        body.put_slice(&piece);
                    }
                }
            }
        }
        if last > before {
            let mut batch = BytesMut::with_capacity(8 + body.len());
            batch.put_u64_le(last);
            batch.put_slice(&body);
            let batch = batch.freeze();
            for stream in streams {
                stream.send(batch.clone()).unwrap();
            }
            disk.send(batch).unwrap();
        }
        let mut sorted = matched.clone();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        let majority = sorted[sorted.len() / 2];
        if majority > commit {
            commits.send(majority - commit).unwrap();
            commit = majority;
        }
    }
}

fn run(load: Load, events: &Sender<Event>, committed: &Receiver<u64>) -> Sample {
    let piece = Bytes::from(vec![7; load.bytes]);
    let start = Instant::now();
    let mut begun = VecDeque::new();
    let mut times = Times::new();
    let mut next = load.depth as u64;
    loop {
        if next > 0 {
            let now = Instant::now();
            begun.extend((0..next).map(|_| now));
            events.send(Event::Proposed { number: next, piece: piece.clone() }).unwrap();
        }
        if begun.is_empty() {
            return Sample::of(&times, start.elapsed());
        }
        let done = committed.recv().unwrap() + committed.try_iter().sum::<u64>();
        let now = Instant::now();
        begun.drain(..done as usize).for_each(|begun| times.add(now - begun));
        next = if start.elapsed() < load.time { done } else { 0 };
    }
}

pub(crate) struct Bared {
    leader: Process,
    followers: Vec<Process>,
}

impl Bared {
    pub(crate) fn start(members: usize, directory: &Path) -> Self {
        let directory = directory.to_str().unwrap().to_owned();
        let follower = |_| Process::start(&["bare-follower".to_owned(), directory.clone()]);
        let mut followers: Vec<Process> = (1..members).map(follower).collect();
        let mut arguments = vec!["bare-leader".to_owned(), directory.clone()];
        arguments.extend(followers.iter_mut().map(Process::first_line));
        let mut leader = Process::start(&arguments);
        leader.first_line();
        Self { leader, followers }
    }
}

impl Subject for Bared {
    fn name(&self) -> String {
        "floor".to_owned()
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Command]
    }

    fn run(&mut self, load: Load) -> Sample {
        self.leader.run(load)
    }

    fn processes(&self) -> Vec<u32> {
        self.followers.iter().chain([&self.leader]).map(Process::id).collect()
    }

    fn counts(&mut self) -> Option<Counts> {
        Some(Process::counts(self.followers.iter_mut().chain([&mut self.leader])))
    }
}
