//! The link to one peer: dialled, kept, and dialled again.

use std::error::Error;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use graft_domain::NodeId;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::{Request, Status, Streaming};
use tracing::debug;

use super::address::Connector;
use super::config::PeerConfig;
use super::event::{PeerEvent, RefusedCode};
use super::handshake::{self, Introduction, View};
use super::outbox::Outbox;
use super::refusal::Refusal;
use super::tasks::Tasks;
use super::transport::Shared;
use super::wire;
use super::wire::peer_client::PeerClient;

/// More than an introduction or a goodbye takes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Keeps a link to one peer at one address.
pub(super) struct Dial {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: NodeId,
    pub(super) connector: Connector,
    pub(super) outbox: Arc<Outbox>,
    /// Cuts a wait between two attempts short: the peer was heard of.
    pub(super) nudge: Arc<Notify>,
    /// The link is not wanted any more.
    pub(super) ended: CancellationToken,
}

/// Why there is no link.
enum End {
    NotWanted,
    Unreachable(String),
    Refused(Refusal),
}

/// What was last told of a link that does not stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Unreachable,
    Refused(RefusedCode),
}

/// A link that both sides have accepted.
struct Link {
    since: Instant,
    peer: Introduction,
    /// As `peer` was judged by, and as it changed since.
    view: watch::Receiver<View>,
    answers: Streaming<wire::Hello>,
}

impl Dial {
    pub(super) async fn run(mut self) {
        let ended = self.ended.clone();
        let mut told = None;
        let mut backoff = Backoff::new(self.shared.config.backoff_first, self.shared.config.backoff_max);
        loop {
            let (tasks, attempt_tasks) = self.shared.tasks.subgroup();
            let attempt = tokio::select! {
                biased;
                () = ended.cancelled() => Err(End::NotWanted),
                attempt = self.establish(&tasks) => attempt,
            };
            let end = match attempt {
                Ok(link) => {
                    told = None;
                    let since = link.since;
                    let end = self.keep(link).await;
                    backoff.stood(since.elapsed());
                    if let End::Refused(refusal) = &end {
                        self.tell_unreachable(&mut told, &refusal.why);
                    }
                    end
                }
                Err(end) => end,
            };
            self.outbox.shut();
            drop(attempt_tasks);
            match end {
                End::NotWanted => return,
                End::Unreachable(why) => self.tell_unreachable(&mut told, &why),
                End::Refused(refusal) => {
                    backoff.slow();
                    self.tell_refused(&mut told, refusal);
                }
            }
            tokio::select! {
                biased;
                () = ended.cancelled() => return,
                () = self.nudge.notified() => {}
                () = sleep(backoff.next()) => {}
            }
        }
    }

    /// Connects, introduces this node and judges the other.
    async fn establish(&mut self, tasks: &Tasks) -> Result<Link, End> {
        let limit = self.shared.config.handshake_timeout;
        let stream = self.connector.connect(self.shared.config.connect_timeout).await;
        let stream = stream.map_err(|error| End::Unreachable(self.failed("cannot be connected to", &error)))?;
        let (hello, answers) = timeout(limit, self.call(stream, tasks)).await.map_err(|_| {
            End::Unreachable(self.failed("does not answer as a node does", &format!("nothing within {limit:?}")))
        })??;
        let mut view = self.shared.view.subscribe();
        let judged = |peer| self.judge(&peer, &view.borrow_and_update()).map(|()| peer);
        let peer = Introduction::parse(hello).and_then(judged);
        let peer = match peer {
            Ok(peer) => peer,
            Err(refusal) => return Err(self.send_away(refusal, answers).await),
        };
        self.outbox.open();
        debug!(peer = %self.peer, address = self.connector.address(), "connected");
        (self.shared.sink)(PeerEvent::Connected {
            peer: self.peer,
            address: self.connector.address().to_owned(),
            incarnation: peer.incarnation,
            inbound: false,
        });
        Ok(Link { since: Instant::now(), peer, view, answers })
    }

    /// Makes the call, up to the answer.
    async fn call(&self, stream: TcpStream, tasks: &Tasks) -> Result<(wire::Hello, Streaming<wire::Hello>), End> {
        let client = client(stream, &self.shared.config, tasks).await;
        let mut client = client.map_err(|error| End::Unreachable(self.failed("does not speak HTTP/2", &error)))?;
        // In this order: a cluster that becomes known after the introduction was written is announced on the call.
        let mut request = Request::new(self.outbox.call());
        let hello = self.shared.view.borrow().hello(&self.peer);
        handshake::into_metadata(&hello, request.metadata_mut());
        let mut answers = client.link(request).await.map_err(|status| self.status(&status))?.into_inner();
        match answers.message().await {
            Ok(Some(hello)) => Ok((hello, answers)),
            Ok(None) => Err(End::Unreachable(self.failed("closed the link", "without a word"))),
            Err(status) => Err(self.status(&status)),
        }
    }

    fn judge(&self, other: &Introduction, view: &View) -> Result<(), Refusal> {
        if other.id != self.peer {
            let why = format!(
                "{} was dialled at {}, but {} answered. Correct the address of {} in the membership.",
                self.peer,
                self.connector.address(),
                other.id,
                self.peer
            );
            return Err(Refusal::new(RefusedCode::NotMe, why));
        }
        view.judge(other)
    }

    /// Lets messages go out until there is a reason not to.
    async fn keep(&mut self, mut link: Link) -> End {
        let ended = self.ended.clone();
        loop {
            tokio::select! {
                biased;
                () = ended.cancelled() => {
                    self.outbox.end();
                    self.last_words(link.answers).await;
                    return End::NotWanted;
                }
                changed = link.view.changed() => {
                    if changed.is_err() {
                        return End::NotWanted;
                    }
                    let verdict = self.judge(&link.peer, &link.view.borrow_and_update());
                    if let Err(refusal) = verdict {
                        return self.send_away(refusal, link.answers).await;
                    }
                }
                answer = link.answers.message() => return match answer {
                    // Nothing that is defined; a newer version may have something to add.
                    Ok(Some(_)) => continue,
                    Ok(None) => End::Unreachable(self.failed("closed the link", "without a word")),
                    Err(status) => self.status(&status),
                },
            }
        }
    }

    /// Tells the peer why it is refused.
    async fn send_away(&self, refusal: Refusal, answers: Streaming<wire::Hello>) -> End {
        self.outbox.refuse(refusal.clone());
        self.last_words(answers).await;
        End::Refused(refusal)
    }

    /// Waits for what is queued to be taken: the peer ends the call then. A stuck peer is not waited for longer than
    /// one that does not introduce itself.
    async fn last_words(&self, mut answers: Streaming<wire::Hello>) {
        let drained = async { while let Ok(Some(_)) = answers.message().await {} };
        let _ = timeout(self.shared.config.handshake_timeout, drained).await;
    }

    fn status(&self, status: &Status) -> End {
        if let Some(refusal) = Refusal::from_status(status) {
            return End::Refused(refusal);
        }
        let mut why = status.message().to_owned();
        let mut cause = status.source();
        while let Some(error) = cause {
            why = format!("{why}: {error}");
            cause = error.source();
        }
        End::Unreachable(self.failed("broke the link", &why))
    }

    fn failed(&self, what: &str, why: &(impl std::fmt::Display + ?Sized)) -> String {
        format!("{} at {} {what}: {why}", self.peer, self.connector.address())
    }

    fn tell_unreachable(&self, told: &mut Option<Told>, why: &str) {
        debug!(peer = %self.peer, why, "unreachable");
        if *told != Some(Told::Unreachable) {
            *told = Some(Told::Unreachable);
            (self.shared.sink)(PeerEvent::Unreachable { peer: self.peer, why: why.to_owned() });
        }
    }

    fn tell_refused(&self, told: &mut Option<Told>, refusal: Refusal) {
        if *told != Some(Told::Refused(refusal.code)) {
            *told = Some(Told::Refused(refusal.code));
            self.shared.refused(Some(self.peer), self.connector.address(), refusal);
        }
    }
}

/// The `Peer` service at the other end of a connection.
pub(super) async fn client(
    stream: TcpStream,
    config: &PeerConfig,
    tasks: &Tasks,
) -> Result<PeerClient<Http2>, hyper::Error> {
    // The path is what matters; the authority is a formality of HTTP.
    let origin = http::Uri::from_static("http://graft.invalid");
    Ok(PeerClient::with_origin(http2(stream, config, tasks).await?, origin)
        .max_encoding_message_size(config.message_bytes_max)
        .max_decoding_message_size(ANSWER_BYTES_MAX))
}

/// Speaks HTTP/2 on a connection, with tasks of the group.
pub(super) async fn http2(stream: TcpStream, config: &PeerConfig, tasks: &Tasks) -> Result<Http2, hyper::Error> {
    let (sender, connection) = http2::Builder::new(tasks.clone())
        .timer(TokioTimer::new())
        .initial_stream_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes)
        .keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(config.keepalive_timeout)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(stream))
        .await?;
    tasks.spawn(connection);
    Ok(Http2(sender))
}

/// How long to wait between attempts: doubling, and jittered so that peers do not dial in step.
struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
    random: RandomState,
    count: u64,
}

impl Backoff {
    fn new(first: Duration, max: Duration) -> Self {
        Self { first: first.min(max), max, next: first.min(max), random: RandomState::new(), count: 0 }
    }

    /// A link stood for so long.
    fn stood(&mut self, lasted: Duration) {
        if lasted >= self.max {
            self.next = self.first;
        }
    }

    /// What failed is not going to be better soon.
    fn slow(&mut self) {
        self.next = self.max;
    }

    /// Between half of the wait and all of it.
    fn next(&mut self) -> Duration {
        self.count += 1;
        // The standard library's hasher is keyed from the system's randomness, and jitter needs no better.
        let random = self.random.hash_one(self.count);
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.max);
        wait.mul_f64(0.5 + f64::from(u16::try_from(random >> 48).unwrap_or(0)) / f64::from(u16::MAX) / 2.0)
    }
}

/// One HTTP/2 connection as tonic's client wants it.
#[derive(Debug)]
pub(super) struct Http2(http2::SendRequest<Body>);

impl Service<http::Request<Body>> for Http2 {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_start_over_after_a_lasting_link() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(20), ms(100));
        for full in [20, 40, 80, 100, 100] {
            let wait = backoff.next();
            assert!(wait >= ms(full) / 2 && wait <= ms(full), "{wait:?} of {full} ms");
        }
        backoff.stood(ms(99));
        assert!(backoff.next() >= ms(50));
        backoff.stood(ms(100));
        assert!(backoff.next() <= ms(20));
        backoff.slow();
        assert!(backoff.next() >= ms(50));
    }

    #[test]
    fn waits_differ() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1));
        let waits: Vec<_> = (0..16).map(|_| backoff.next()).collect();
        assert!(waits.iter().any(|wait| *wait != waits[0]), "{waits:?}");
    }
}
