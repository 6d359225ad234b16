//! The transport as the runtime holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError, RwLock, mpsc};
use std::time::Duration;

use graft_domain::{ClusterId, NodeId};
use graft_services::api::Api;
use graft_services::ports::{PeerMessage, SnapshotFiles};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::address::Connector;
use super::complaints::{Complaints, Refused};
use super::config::PeerConfig;
use super::dial::Dial;
use super::event::{Health, LinkStatus, LocalHello, Offers, Peer, PeerEvent, PeerSink, RefusedCode};
use super::faults::{Late, LinkFaults};
use super::fetching::Fetches;
use super::handshake::{Introduction, View};
use super::joining::Joining;
use super::outbox::Outbox;
use super::probing::PROBES_MAX;
use super::refusal::{Refusal, Side};
use super::tasks::Tasks;
use super::{convert, server};

/// Links to every other member, and the port at which they reach this one.
///
/// Dropped without [`Transport::shutdown`], it breaks its links and frees the port soon after.
#[derive(Debug)]
pub struct Transport {
    pub(super) shared: Arc<Shared>,
    address: SocketAddr,
}

/// What every task of a transport knows.
pub(super) struct Shared {
    pub(super) config: PeerConfig,
    pub(super) view: watch::Sender<View>,
    pub(super) sink: PeerSink,
    pub(super) tasks: Tasks,
    /// The transport is to end in good order.
    pub(super) stop: CancellationToken,
    links: RwLock<BTreeMap<NodeId, Link>>,
    /// Why each peer was refused when that was last logged.
    told: Mutex<BTreeMap<Option<NodeId>, RefusedCode>>,
    pub(super) me: NodeId,
    /// What clients and operators are served by; none if they are not.
    pub(super) api: Option<Arc<dyn Api>>,
    pub(super) health: watch::Sender<Health>,
    /// This node's snapshots; none if it keeps none.
    pub(super) files: Option<Arc<dyn SnapshotFiles>>,
    pub(super) joining: Joining,
    pub(super) probes: Arc<Semaphore>,
    pub(super) fetches: Fetches,
    pub(super) faults: Arc<LinkFaults>,
    pub(super) complaints: Arc<Complaints>,
}

/// The link to a peer, as seen from outside of its task.
#[derive(Debug)]
struct Link {
    address: String,
    outbox: Arc<Outbox>,
    late: Arc<Late>,
    nudge: Arc<Notify>,
    ended: CancellationToken,
}

/// Peers whose last refusal is remembered.
const TOLD_MAX: usize = 1024;
/// How long tasks that are told to drop everything may take to be scheduled.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

impl Transport {
    /// Serves `listener` on the runtime of `handle`. Peers are dialled once they are set. What is not offered
    /// is refused.
    pub fn start(
        handle: Handle,
        listener: TcpListener,
        hello: LocalHello,
        config: PeerConfig,
        offers: Offers,
        sink: PeerSink,
    ) -> Result<Self, io::Error> {
        let Offers { files, api } = offers;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = {
            let _runtime = handle.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let me = hello.id;
        let shared = Arc::new(Shared {
            config: config.workable(),
            view: watch::Sender::new(View::new(hello)),
            sink,
            tasks: Tasks::new(handle),
            stop: CancellationToken::new(),
            links: RwLock::default(),
            told: Mutex::default(),
            me,
            api,
            health: watch::Sender::new(Health::default()),
            files,
            joining: Joining::default(),
            probes: Arc::new(Semaphore::new(PROBES_MAX)),
            fetches: Fetches::default(),
            faults: Arc::default(),
            complaints: Arc::default(),
        });
        shared.tasks.spawn(server::accept(listener, Arc::clone(&shared)));
        Ok(Self { shared, address })
    }

    /// How this node is, for those who ask the health service.
    pub fn set_health(&self, health: Health) {
        self.shared.health.send_if_modified(|known| std::mem::replace(known, health) != health);
    }

    /// Where it listens, with the port that was taken for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// This node has learned which cluster it belongs to. Peers are told, and links with other clusters end.
    pub fn set_cluster(&self, cluster: ClusterId) {
        self.shared.view.send_modify(|view| view.me.cluster = cluster);
        for link in self.shared.links().values() {
            link.outbox.announce(cluster);
        }
    }

    /// The members to keep links to, this node's own aside, and whoever else is to be answered: a leader that was heard
    /// of before the log told of it. Links to others end, links whose address changed are dialled anew, and links with
    /// another incarnation than the one recorded here end, in both directions. To be called as often as it changes.
    pub fn set_peers(&self, peers: &BTreeMap<NodeId, Peer>) {
        self.shared.view.send_if_modified(|view| {
            let changed = view.peers != *peers;
            if changed {
                view.peers.clone_from(peers);
            }
            changed
        });
        let mut links = self.shared.links.write().unwrap_or_else(PoisonError::into_inner);
        links.retain(|id, link| {
            let wanted = peers.get(id).is_some_and(|peer| peer.address == link.address);
            if !wanted {
                link.ended.cancel();
            }
            wanted
        });
        for (id, peer) in peers {
            if *id != self.shared.me && !links.contains_key(id) {
                links.insert(*id, self.dial(*id, &peer.address));
            }
        }
    }

    /// Former members: their links are refused, with words that say that they were removed. To be called before they
    /// are left out of the peers, so that they hear of it on the links that stand.
    pub fn set_removed(&self, removed: &BTreeSet<NodeId>) {
        self.shared.view.send_if_modified(|view| {
            let changed = view.removed != *removed;
            if changed {
                view.removed.clone_from(removed);
            }
            changed
        });
    }

    /// Queues a message. Never waits. False if it is dropped: there is no link to `to`, its queue is full, the message
    /// is larger than any may be, or it is not one from this node to `to`.
    pub fn send(&self, to: NodeId, message: PeerMessage) -> bool {
        self.send_batch(to, std::iter::once(message)) == 1
    }

    /// Queues messages in order, with at most one wake-up, and answers how many were not dropped.
    pub fn send_batch(&self, to: NodeId, messages: impl IntoIterator<Item = PeerMessage>) -> usize {
        let links = self.shared.links();
        let Some(link) = links.get(&to) else { return 0 };
        let messages = messages.into_iter().filter(|message| addressed(message, self.shared.me, to));
        let faults = &self.shared.faults;
        match faults.at(&link.address) {
            None if !link.late.is_any() => link.outbox.push(messages),
            fault => {
                let fault = fault.unwrap_or_default();
                faults.send(fault, messages, (&self.shared.tasks, &link.late, &link.outbox))
            }
        }
    }

    /// How it stands with the link to a peer; none if it is not one that was set.
    pub fn link(&self, peer: NodeId) -> Option<LinkStatus> {
        self.shared.links().get(&peer).map(|link| link.outbox.status())
    }

    /// What was refused here.
    pub fn complaints(&self) -> &Arc<Complaints> {
        &self.shared.complaints
    }

    /// What may be done to the links on purpose.
    pub fn faults(&self) -> &Arc<LinkFaults> {
        &self.shared.faults
    }

    /// Breaks every connection and drops what is queued, as the end of the process would. Nothing works afterwards.
    pub fn break_off(&self) {
        self.shared.tasks.kill();
    }

    /// Says goodbye, sends what is queued and ends every task, by force after `timeout`. The port is free afterwards.
    /// Blocks; not to be called from a task.
    pub fn shutdown(self, timeout: Duration) {
        let shared = &self.shared;
        shared.stop.cancel();
        let (done, ended) = mpsc::sync_channel(1);
        let tasks = shared.tasks.clone();
        // Not tracked: it would wait for itself.
        shared.tasks.handle().spawn(async move {
            tasks.done().await;
            let _ = done.send(());
        });
        if ended.recv_timeout(timeout) == Err(mpsc::RecvTimeoutError::Timeout) {
            shared.tasks.kill();
            if ended.recv_timeout(KILL_TIMEOUT) == Err(mpsc::RecvTimeoutError::Timeout) {
                warn!("the runtime is too busy to end the transport's tasks; they end when it gets to them");
            }
        }
    }

    fn dial(&self, peer: NodeId, address: &str) -> Link {
        let outbox = Arc::new(Outbox::new(&self.shared.config));
        let nudge = Arc::new(Notify::new());
        let ended = self.shared.stop.child_token();
        let dial = Dial {
            shared: Arc::clone(&self.shared),
            peer,
            connector: Connector::of_member(address.to_owned(), &self.shared.faults),
            outbox: Arc::clone(&outbox),
            nudge: Arc::clone(&nudge),
            ended: ended.clone(),
        };
        self.shared.tasks.spawn(dial.run());
        Link { address: address.to_owned(), outbox, late: Arc::default(), nudge, ended }
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        self.shared.tasks.kill();
    }
}

impl Shared {
    /// Judges a peer that a link is to stand with, and takes its cluster for this node's if that is not known.
    pub(super) fn admit(&self, peer: &Introduction) -> Result<(), Refusal> {
        let mut verdict = Ok(false);
        self.view.send_if_modified(|view| {
            verdict = view.admit(peer);
            matches!(verdict, Ok(true))
        });
        verdict.map(|adopted| {
            if adopted {
                info!(cluster = %peer.cluster, peer = %peer.id, "taken into a cluster");
            }
        })
    }

    /// Where a peer is dialled.
    pub(super) fn address_of(&self, peer: &NodeId) -> Option<String> {
        self.links().get(peer).map(|link| link.address.clone())
    }

    fn links(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<NodeId, Link>> {
        // Nothing panics while it holds the lock.
        self.links.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer lives: dials it now, if it is not connected.
    pub(super) fn nudge(&self, peer: &NodeId) {
        if let Some(link) = self.links().get(peer) {
            link.nudge.notify_one();
        }
    }

    /// Whether this was not the last thing that was said of the peer: who is refused tries again, about twice a second.
    /// Of many who are refused for the first time not all are news: strangers can call themselves anything.
    pub(super) fn is_news(&self, peer: Option<NodeId>, code: RefusedCode) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(&peer) == Some(&code) || !self.complaints.may_tell() {
            return false;
        }
        if told.len() >= TOLD_MAX {
            told.clear();
        }
        told.insert(peer, code);
        true
    }

    pub(super) fn refused(&self, peer: Option<NodeId>, address: &str, refusal: Refusal, side: Side) {
        let Refusal { code, why } = refusal;
        let name = peer.map(|peer| peer.to_string()).unwrap_or_default();
        if self.is_news(peer, code) {
            warn!(peer = name, address, %code, "link refused: {why}");
        } else {
            debug!(peer = name, address, %code, "link refused again: {why}");
        }
        let by_peer = side == Side::There;
        if !by_peer {
            self.complaints.count(Refused::Link);
        }
        (self.sink)(PeerEvent::Refused { peer, address: address.to_owned(), code, why, by_peer });
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("me", &self.me).field("links", &self.links).finish_non_exhaustive()
    }
}

/// The wire carries neither sender nor recipient, so a message of others would arrive as one of these two. What the
/// other side would not take for a message would end the link.
fn addressed(message: &PeerMessage, me: NodeId, to: NodeId) -> bool {
    let right = match message {
        PeerMessage::Raft(envelope) => envelope.from == me && envelope.to == to,
        PeerMessage::Forward { from, .. }
        | PeerMessage::Digest { from, .. }
        | PeerMessage::Ask { from, .. }
        | PeerMessage::Links { from, .. } => *from == me,
        PeerMessage::Refused { to: recipient, .. } | PeerMessage::Answered { to: recipient, .. } => *recipient == to,
    };
    if !right {
        warn!(%to, "dropped a message that is not from {me} to {to}");
        return false;
    }
    let sendable = convert::is_sendable(message);
    if !sendable {
        warn!(%to, "dropped a message that names more members, or longer addresses, than any may");
    }
    sendable
}
