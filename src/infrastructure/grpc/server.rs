//! The port: accepts connections and serves every service of the node on them.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use graft_domain::NodeId;
use graft_services::identity::Identity;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::address;
use super::admission::{Admission, Place, Seated};
use super::complaints::{Complaints, Refused};
use super::config::PeerConfig;
use super::handshake::View;
use super::intake::{Intakes, Shares};
use super::owing::{Account, Ledger};
use super::security::Io;
use super::served::Served;
use super::tasks::Tasks;
use super::transport::Shared;
use super::watched::Fault;

/// What is known of the connection that a request came on; an extension of the request.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) remote: SocketAddr,
    pub(super) place: Place,
    /// What its client has not taken.
    pub(super) account: Arc<Account>,
    /// What is half here of its client's requests.
    pub(super) coming: Arc<Shares>,
    /// Who has proved to be there; none if connections are not secured.
    pub(super) identity: Option<Identity>,
}

/// Calls that one connection may have open.
const CALLS_MAX: u32 = 256;
/// Bytes of the headers of one request, as HTTP/2 counts them.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Larger than the default of 16 KiB: bulk then takes fewer system calls.
const HTTP2_FRAME_BYTES: u32 = 256 << 10;
/// How long to leave the port alone after it failed, for want of file descriptors, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long an idle client that is told to go may take, with the calls that it made before it heard of it.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a member that was removed may take to hear of it on its link.
const EXPELLED_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a client may take to get its last answers when this node stops.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);
/// The same of a member, whose link ends by itself.
const STOP_MEMBER_TIMEOUT: Duration = Duration::from_secs(30);

/// Accepts until the transport stops; the port is free when this returns.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let served = Served::new(&shared);
    let admission = Admission::new(shared.config.limits());
    let ledger = Ledger::new(shared.config.answers_bytes_max);
    let intakes = Intakes::new(&shared.config);
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted.and_then(|(stream, remote)| Ok((address::ready(stream)?, remote))) {
            Ok((stream, remote)) => {
                let seat = admission.enter(remote.ip());
                let (place, account, coming) = (seat.0.clone(), ledger.open(), intakes.open());
                let connection = Connection { remote, place, account, coming, identity: None };
                let serve = serve(stream, connection, seat, served.clone(), Arc::clone(&shared));
                shared.tasks.spawn(serve);
            }
            Err(error) => {
                if is_lasting(&error) {
                    admission.make_room();
                }
                pause_after(&error).await;
            }
        }
    }
}

/// A connection that failed before it was accepted is its own affair; anything else may last, and must not be spun on.
fn is_lasting(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput, NotConnected};
    !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | InvalidInput | NotConnected)
}

async fn pause_after(error: &io::Error) {
    if is_lasting(error) {
        warn!(%error, "cannot accept connections; is the limit on open files (ulimit -n) reached?");
        sleep(ACCEPT_PAUSE).await;
    } else {
        debug!(%error, "a connection ended before it was accepted");
    }
}

/// Has whoever connects prove who he is. None if that fails, takes too long, or the place is needed.
async fn secure(
    stream: TcpStream,
    remote: SocketAddr,
    place: &Place,
    shared: &Shared,
) -> Option<(Box<dyn Io>, Option<Identity>, Fault)> {
    let securing = shared.config.security.accept(stream, shared.config.handshake_timeout);
    let secured = tokio::select! {
        secured = securing => secured,
        () = place.end.cancelled() => {
            shared.complaints.count(Refused::Crowded);
            return None;
        }
        () = shared.stop.cancelled() => return None,
    };
    let refused =
        |why: &_| shared.complaints.refuse(Refused::Connection, || warn!(%remote, "connection refused: {why}"));
    let (stream, identity, fault) = secured.inspect_err(refused).ok()?;
    if let Some(identity) = &identity {
        place.identify(identity);
    }
    Some((stream, identity, fault))
}

/// Serves one connection until it ends, says nothing for too long, its place is needed, or the transport stops.
async fn serve(stream: TcpStream, mut connection: Connection, _seat: Seated, served: Served, shared: Arc<Shared>) {
    let config = &shared.config;
    let (tasks, _ended_with_this) = shared.tasks.subgroup();
    let Connection { remote, place, account, coming, .. } = connection.clone();
    let Some((stream, identity, fault)) = secure(stream, remote, &place, &shared).await else { return };
    let member = identity.as_ref().and_then(Identity::member);
    let windows = windows(config, identity.as_ref());
    connection.identity = identity;
    let service = service_fn(move |request| {
        let answer = served.clone().call(connection.clone(), request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut http2 = pin!(speaking(config, windows, tasks).serve_connection(TokioIo::new(stream), service));
    let mut expelled = pin!(expelled(shared.view.subscribe(), member, config.handshake_timeout));
    let mut stage = Stage::New;
    let mut timer = pin!(sleep(config.handshake_timeout));
    loop {
        tokio::select! {
            ended = &mut http2 => {
                match ended {
                    Ok(()) => debug!(%remote, "connection closed"),
                    Err(error) => why_failed(&shared, remote, &error, &fault),
                }
                return;
            }
            why = unwanted(&place, &account, &coming, &shared.complaints) => {
                debug!(%remote, "connection closed: {why}");
                return;
            }
            () = &mut timer, if stage != Stage::Standing => {
                if let Some(why) = overdue(stage, &place, &shared.complaints) {
                    debug!(%remote, "connection closed: {why}");
                    return;
                }
                stage = Stage::Standing;
            }
            () = place.leave.cancelled(), if stage != Stage::Leaving => {
                debug!(%remote, "an idle client is told to go: its place is needed");
                stage = Stage::Leaving;
                http2.as_mut().graceful_shutdown();
                timer.as_mut().reset(Instant::now() + LEAVE_TIMEOUT);
            }
            () = &mut expelled, if stage != Stage::Leaving => {
                debug!(%remote, "a member that was removed has to go");
                if !place.is_member() {
                    return;
                }
                stage = Stage::Leaving;
                http2.as_mut().graceful_shutdown();
                timer.as_mut().reset(Instant::now() + EXPELLED_TIMEOUT);
            }
            () = shared.stop.cancelled(), if stage != Stage::Leaving => {
                let patience = if place.is_member() { STOP_MEMBER_TIMEOUT } else { STOP_TIMEOUT };
                stage = Stage::Leaving;
                http2.as_mut().graceful_shutdown();
                timer.as_mut().reset(Instant::now() + patience);
            }
        }
    }
}

/// Bytes of a call and of the connection that may come ahead of being read: they are here outside of every other limit.
/// A client may have as many as fill most networks; a member sends bulk. Without certificates nobody knows who is there
/// before HTTP/2 has begun, and windows are not made larger afterwards, so that everybody has those of a member: 16 MiB
/// on each of `clients_max` connections is then the price of replication at full speed, on networks that are trusted.
fn windows(config: &PeerConfig, identity: Option<&Identity>) -> (u32, u32) {
    match identity {
        Some(identity) if identity.member().is_none() => {
            (config.client_stream_window_bytes, config.client_connection_window_bytes)
        }
        _ => (config.stream_window_bytes, config.connection_window_bytes),
    }
}

fn speaking(config: &PeerConfig, (of_stream, of_connection): (u32, u32), tasks: Tasks) -> http2::Builder<Tasks> {
    let mut builder = http2::Builder::new(tasks);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(of_stream)
        .initial_connection_window_size(of_connection)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .max_concurrent_streams(CALLS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(config.keepalive_timeout);
    builder
}

/// Waits until the member whose certificate was shown is removed. Who comes when it is already has `patience` to hear that:
/// it was away when it happened.
async fn expelled(mut view: watch::Receiver<View>, member: Option<NodeId>, patience: Duration) {
    let Some(id) = member else { return pending().await };
    if view.borrow().removed.contains(&id) {
        return sleep(patience).await;
    }
    if view.wait_for(|view| view.removed.contains(&id)).await.is_err() {
        // The transport ends by itself.
        pending::<()>().await;
    }
}

fn why_failed(shared: &Shared, remote: SocketAddr, error: &hyper::Error, fault: &Fault) {
    if let Some(distrust) = fault.get() {
        shared.complaints.refuse(Refused::Connection, || warn!(%remote, "connection refused: {distrust}"));
    } else {
        debug!(%remote, %error, "connection failed, or is not gRPC");
    }
}

/// Waits until there is a reason to close the connection at once.
async fn unwanted(place: &Place, account: &Account, coming: &Shares, complaints: &Complaints) -> &'static str {
    tokio::select! {
        () = place.end.cancelled() => {
            if place.leave.is_cancelled() {
                return "it was told to go, and its file is needed";
            }
            complaints.count(Refused::Crowded);
            "newer ones came before it said what it is for"
        }
        () = account.end.cancelled() => "its client does not take what it is owed",
        () = coming.ended() => "its client does not send what it has begun",
    }
}

/// Why a connection whose time is up is closed, if it is.
fn overdue(stage: Stage, place: &Place, complaints: &Complaints) -> Option<&'static str> {
    if stage == Stage::Leaving {
        return Some("it was told to go");
    }
    place.is_silent().then(|| {
        complaints.count(Refused::Silent);
        "no call was made on it in time"
    })
}

/// How a connection stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It has not been seen yet whether it says anything in time.
    New,
    Standing,
    /// It is told to go.
    Leaving,
}
