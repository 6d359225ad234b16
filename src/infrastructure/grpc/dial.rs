//! The link to one peer: dialled, kept, and dialled again.

use std::sync::Arc;

use graft_domain::NodeId;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};
use tracing::debug;

use super::address::Connector;
use super::backoff::Backoff;
use super::event::{PeerEvent, RefusedCode};
use super::handshake::{self, Introduction, View};
use super::outbox::Outbox;
use super::refusal::{Refusal, Side};
use super::tasks::Tasks;
use super::transport::Shared;
use super::{http2, wire};

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
    Refused(Refusal, Side),
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
                    if let End::Refused(refusal, _) = &end {
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
                End::Refused(refusal, side) => {
                    backoff.slow();
                    self.tell_refused(&mut told, refusal, side);
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
        let stream = stream.map_err(|error| End::Unreachable(failed("cannot be connected to", &error)))?;
        let (hello, answers) = timeout(limit, self.call(stream, tasks)).await.map_err(|_| {
            End::Unreachable(failed("does not answer as a node does", &format!("nothing within {limit:?}")))
        })??;
        let mut view = self.shared.view.subscribe();
        let mut judged = |peer: Introduction| {
            self.is_dialled(&peer)?;
            self.shared.admit(&peer)?;
            view.borrow_and_update().judge(&peer).map(|()| peer)
        };
        let peer = Introduction::parse(hello).and_then(&mut judged);
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
        let client = http2::client(stream, &self.shared.config, tasks, ANSWER_BYTES_MAX, Some(self.peer)).await;
        let mut client = client.map_err(|error| End::Unreachable(failed("cannot be linked to", &error)))?;
        // In this order: a cluster that becomes known after the introduction was written is announced on the call.
        let mut request = Request::new(self.outbox.call());
        let hello = self.shared.view.borrow().hello(&self.peer);
        handshake::into_metadata(&hello, request.metadata_mut());
        let mut answers = client.link(request).await.map_err(|status| end_of(&status))?.into_inner();
        match answers.message().await {
            Ok(Some(hello)) => Ok((hello, answers)),
            Ok(None) => Err(End::Unreachable(failed("closed the link", "without a word"))),
            Err(status) => Err(end_of(&status)),
        }
    }

    fn is_dialled(&self, other: &Introduction) -> Result<(), Refusal> {
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
        Ok(())
    }

    /// Lets messages go out until there is a reason not to.
    async fn keep(&mut self, mut link: Link) -> End {
        let ended = self.ended.clone();
        loop {
            tokio::select! {
                biased;
                () = ended.cancelled() => return self.leave(link).await,
                changed = link.view.changed() => {
                    if changed.is_err() {
                        return End::NotWanted;
                    }
                    let verdict = link.view.borrow_and_update().judge(&link.peer);
                    if let Err(refusal) = verdict {
                        return self.send_away(refusal, link.answers).await;
                    }
                }
                answer = link.answers.message() => return match answer {
                    // Nothing that is defined; a newer version may have something to add.
                    Ok(Some(_)) => continue,
                    Ok(None) => End::Unreachable(failed("closed the link", "without a word")),
                    Err(status) => end_of(&status),
                },
            }
        }
    }

    /// The link is not wanted any more. One that was removed is no peer any more either, and hears why.
    async fn leave(&self, mut link: Link) -> End {
        let verdict = link.view.borrow_and_update().judge(&link.peer);
        match verdict {
            Ok(()) => {
                self.outbox.end();
                self.last_words(link.answers).await;
            }
            Err(refusal) => {
                self.send_away(refusal.clone(), link.answers).await;
                self.tell_refused(&mut None, refusal, Side::Here);
            }
        }
        End::NotWanted
    }

    /// Tells the peer why it is refused.
    async fn send_away(&self, refusal: Refusal, answers: Streaming<wire::Hello>) -> End {
        self.outbox.refuse(refusal.clone());
        self.last_words(answers).await;
        End::Refused(refusal, Side::Here)
    }

    /// Waits for what is queued to be taken: the peer ends the call then. A stuck peer is not waited for longer than
    /// one that does not introduce itself.
    async fn last_words(&self, mut answers: Streaming<wire::Hello>) {
        let drained = async { while let Ok(Some(_)) = answers.message().await {} };
        let _ = timeout(self.shared.config.handshake_timeout, drained).await;
    }

    fn tell_unreachable(&self, told: &mut Option<Told>, why: &str) {
        debug!(peer = %self.peer, why, "unreachable");
        if *told != Some(Told::Unreachable) {
            *told = Some(Told::Unreachable);
            (self.shared.sink)(PeerEvent::Unreachable { peer: self.peer, why: why.to_owned() });
        }
    }

    fn tell_refused(&self, told: &mut Option<Told>, refusal: Refusal, side: Side) {
        if *told != Some(Told::Refused(refusal.code)) {
            *told = Some(Told::Refused(refusal.code));
            self.shared.refused(Some(self.peer), self.connector.address(), refusal, side);
        }
    }
}

fn end_of(status: &Status) -> End {
    match Refusal::from_status(status) {
        Some(refusal) => End::Refused(refusal, Side::There),
        None => End::Unreachable(failed("broke the link", &http2::words(status))),
    }
}

/// Words on a peer that whoever tells of it names.
fn failed(what: &str, why: &(impl std::fmt::Display + ?Sized)) -> String {
    format!("it {what}: {why}")
}
