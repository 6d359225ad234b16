//! The port: accepts connections and serves every service of the node on them.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::service::Routes;
use tracing::{debug, warn};

use super::address;
use super::service::Service;
use super::transport::Shared;
use super::wire::peer_server::PeerServer;

/// What is known of the connection that a request came on; an extension of the request.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) remote: SocketAddr,
    /// It is beyond the limit, and is only there to be told so.
    pub(super) surplus: bool,
    /// A request came.
    spoken: Arc<AtomicBool>,
}

/// Connections beyond the limit that are still told why they are refused; further ones are closed without a word.
const SURPLUS_MAX: usize = 16;
/// Calls that one connection may have open.
const CALLS_MAX: u32 = 256;
/// Bytes of a single request.
const REQUEST_BYTES_MAX: usize = 4 << 10;
const LINK_PATH: &str = "/graft.v1.Peer/Link";
/// Larger than the default of 16 KiB: bulk then takes fewer system calls.
const HTTP2_FRAME_BYTES: u32 = 256 << 10;
/// How long to leave the port alone after it failed, for want of file descriptors, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often it is logged that connections are turned away.
const WARN_INTERVAL: Duration = Duration::from_secs(1);

/// Every service that the port serves.
///
/// Messages of a link may be large, and are not read before it is known who sends them. Of a single request all is read
/// first, so that a stranger's must be small.
#[derive(Clone, Debug)]
struct Served {
    links: Routes,
    requests: Routes,
}

impl Served {
    fn new(shared: &Arc<Shared>) -> Self {
        let service = Arc::new(Service::new(Arc::clone(shared)));
        let routes = |bytes_max| {
            let peer = PeerServer::from_arc(Arc::clone(&service)).max_decoding_message_size(bytes_max);
            Routes::new(peer).prepare()
        };
        Self { links: routes(shared.config.message_bytes_max), requests: routes(REQUEST_BYTES_MAX) }
    }

    fn routes(&self, path: &str) -> Routes {
        if path == LINK_PATH { self.links.clone() } else { self.requests.clone() }
    }
}

/// Accepts until the transport stops; the port is free when this returns.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let served = Served::new(&shared);
    let regular = Arc::new(Semaphore::new(shared.config.connections_max));
    let surplus = Arc::new(Semaphore::new(SURPLUS_MAX));
    let mut turned_away = Throttle::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, remote) = match accepted.and_then(|(stream, remote)| Ok((address::ready(stream)?, remote))) {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        let permit = |pool: &Arc<Semaphore>| Arc::clone(pool).try_acquire_owned().ok();
        let within = permit(&regular).map(|permit| (permit, false));
        let Some((permit, is_surplus)) = within.or_else(|| permit(&surplus).map(|permit| (permit, true))) else {
            turned_away.warn(remote, shared.config.connections_max);
            continue;
        };
        let connection = Connection { remote, surplus: is_surplus, spoken: Arc::default() };
        shared.tasks.spawn(serve(stream, connection, permit, served.clone(), Arc::clone(&shared)));
    }
}

/// A connection that failed before it was accepted is its own affair; anything else may last, and must not be spun on.
async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput, NotConnected};
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | InvalidInput | NotConnected) {
        debug!(%error, "a connection ended before it was accepted");
        return;
    }
    warn!(%error, "cannot accept connections; is the limit on open files (ulimit -n) reached?");
    sleep(ACCEPT_PAUSE).await;
}

/// Serves one connection until it ends, says nothing for too long, or the transport stops.
async fn serve(
    stream: TcpStream,
    connection: Connection,
    _permit: OwnedSemaphorePermit,
    served: Served,
    shared: Arc<Shared>,
) {
    let config = &shared.config;
    let (tasks, _ended_with_this) = shared.tasks.subgroup();
    let remote = connection.remote;
    let spoken = Arc::clone(&connection.spoken);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        connection.spoken.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(connection.clone());
        served.routes(request.uri().path()).call(request.map(Body::new))
    });
    let http2 = http2::Builder::new(tasks)
        .timer(TokioTimer::new())
        .initial_stream_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .max_concurrent_streams(CALLS_MAX)
        .keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(config.keepalive_timeout)
        .serve_connection(TokioIo::new(stream), service);
    let mut http2 = pin!(http2);
    let mut silence = pin!(sleep(config.handshake_timeout));
    let mut judged = false;
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = &mut http2 => {
                match ended {
                    Ok(()) => debug!(%remote, "connection closed"),
                    Err(error) => debug!(%remote, %error, "connection failed, or is not gRPC"),
                }
                return;
            }
            () = &mut silence, if !judged => {
                judged = true;
                if !spoken.load(Ordering::Relaxed) {
                    debug!(%remote, "connection closed: no call was made on it in time");
                    return;
                }
            }
            () = shared.stop.cancelled(), if !stopping => {
                stopping = true;
                http2.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Logs what may happen very often at most once in a while.
#[derive(Default)]
struct Throttle {
    last: Option<Instant>,
    since: u64,
}

impl Throttle {
    fn warn(&mut self, remote: SocketAddr, connections_max: usize) {
        self.since += 1;
        if self.last.is_none_or(|last| last.elapsed() >= WARN_INTERVAL) {
            warn!(%remote, closed = self.since, "too many connections: more than `connections_max` = {connections_max}");
            self.last = Some(Instant::now());
            self.since = 0;
        }
    }
}
