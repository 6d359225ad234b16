//! Whom this node keeps links to, and what it hears over them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use graft_domain::{ClusterId, Incarnation, NodeId};
use graft_services::change::{Ask, Change};
use graft_services::error::{Outcome, Refusal};
use graft_services::{Clock, Event};

use super::calls::{Caller, Sink};
use super::doubt::Doubt;
use super::engine::{Engine, weight};
use super::store_worker::StoreJob;
use crate::infrastructure::config::NodeConfig;
use crate::infrastructure::grpc::{JoinReply, JoinTrouble, Peer, PeerEvent, RefusedCode};

/// Members of the cluster that the membership here does not know yet.
const GUESTS_MAX: usize = 64;

/// Whom to dial, besides what the membership says.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    /// Where members were told or heard to be, if that is not where the membership has them.
    pub(crate) addresses: BTreeMap<NodeId, String>,
    /// Those of this cluster who dialled this node and whom its membership does not know: they know more than it does, and
    /// have to be answered.
    guests: BTreeMap<NodeId, Peer>,
    /// Whom the transport was last told to keep links to.
    dialled: BTreeMap<NodeId, Peer>,
    /// Those among them who are not in the membership in force.
    lingering: BTreeSet<NodeId>,
    /// The transport still looks for a cluster, or announces this node to it.
    pub(crate) joining: bool,
    /// Whoever expects this node in another cluster is believed: it has founded this one alone, not long ago.
    pub(crate) doubt: Option<Doubt>,
    /// How long a joiner waits for an answer before it asks again: a longer wait here would be for nobody.
    join_wait: Duration,
}

impl Peers {
    pub(crate) fn new(config: &NodeConfig, join_wait: Duration, doubt: Option<Doubt>) -> Self {
        Self {
            addresses: config.members.clone().unwrap_or_default(),
            guests: BTreeMap::new(),
            dialled: BTreeMap::new(),
            lingering: BTreeSet::new(),
            joining: !config.join.is_empty(),
            join_wait,
            doubt,
        }
    }
}

impl Engine {
    pub(crate) fn take_peer(&mut self, clock: Clock, event: PeerEvent) {
        match event {
            PeerEvent::Messages { messages, .. } => {
                let bytes = messages.iter().map(weight).sum();
                self.inbox_bytes.fetch_sub(bytes, Ordering::Relaxed);
                for message in messages {
                    self.replica.handle(clock, Event::Peer(message));
                }
            }
            PeerEvent::Connected { peer, inbound: false, address, incarnation } => {
                tracing::info!(%peer, %address, "connected");
                self.replica.handle(clock, Event::Heard { id: peer, address, incarnation });
                self.replica.handle(clock, Event::Connected(peer));
            }
            PeerEvent::Connected { peer, address, incarnation, .. }
            | PeerEvent::Heard { peer, address, incarnation } => {
                self.heard_at(peer, &address, incarnation);
                self.replica.handle(clock, Event::Heard { id: peer, address, incarnation });
            }
            PeerEvent::Unreachable { peer, why } => {
                tracing::info!(%peer, "unreachable: {why}");
                self.replica.handle(clock, Event::Trouble(peer, why));
                self.replica.handle(clock, Event::Unreachable(peer));
            }
            PeerEvent::Refused { peer: None, code: RefusedCode::Removed, by_peer: true, .. } => {
                self.replica.handle(clock, Event::Removed);
            }
            PeerEvent::Claimed { by, address } => self.claimed(clock, by, &address),
            // The transport has logged the refusal of a stranger.
            PeerEvent::Refused { peer: None, .. } => {}
            PeerEvent::Refused { peer: Some(peer), code, why, by_peer, .. } => {
                self.refused(clock, peer, code, why, by_peer);
            }
            event => self.take_other(clock, event),
        }
    }

    fn take_other(&mut self, clock: Clock, event: PeerEvent) {
        let event = match event {
            PeerEvent::JoinAsked { id, address, incarnation, reply } => {
                return self.let_in(clock, id, address, incarnation, reply);
            }
            PeerEvent::Joining { address, members, answer } => {
                return self.on_joining(clock, &address, members, answer);
            }
            PeerEvent::Probed { id, address, found } => Event::Probed { id, address, found },
            PeerEvent::SnapshotFetching { last, bytes, total } => Event::SnapshotFetching { last, bytes, total },
            PeerEvent::SnapshotFetched { meta, bytes } => Event::SnapshotFetched { meta, bytes },
            PeerEvent::SnapshotFetchFailed { last, why } => Event::SnapshotFetchFailed { last, why },
            PeerEvent::SnapshotSending { to, bytes, total } => Event::SnapshotSending { to, bytes, total },
            PeerEvent::SnapshotUnreadable { why } => Event::SnapshotUnreadable { why },
            _ => return,
        };
        self.replica.handle(clock, event);
    }
}

/// Who is where.
impl Engine {
    /// Keeps a connection to every other member, to those who know more than this node, and, for as long as they have something
    /// to say to one another, to those on their way out.
    pub(crate) fn dial(&mut self) {
        let lingering = self.lingering();
        let core = self.replica.core();
        let membership = core.membership();
        // First, so that whoever was removed hears why its links end.
        let removed = &core.membership_at(core.commit()).removed;
        self.transport.set_removed(&removed.difference(&lingering).copied().collect());
        self.peers.guests.retain(|id, _| !membership.contains(id));
        let others = membership.members.iter().filter(|(id, _)| **id != core.id());
        let peer = |id: &NodeId, member: &graft_domain::Member| Peer {
            address: self.peers.addresses.get(id).cloned().unwrap_or_else(|| member.address.to_string()),
            incarnation: member.incarnation,
            member: true,
        };
        let mut wanted: BTreeMap<NodeId, Peer> = others.map(|(id, member)| (*id, peer(id, member))).collect();
        for id in &lingering {
            if let Some(peer) = self.peers.dialled.get(id) {
                wanted.insert(*id, peer.clone());
            }
        }
        let welcome = self.peers.guests.iter().filter(|(id, _)| !removed.contains(id));
        wanted.extend(welcome.map(|(id, peer)| (*id, peer.clone())));
        self.transport.set_peers(&wanted);
        (self.peers.dialled, self.peers.lingering) = (wanted, lingering);
    }

    /// Those who are not in the membership in force any more, and are still talked to: members until that is committed, the
    /// leader that removes itself, and those whom a leader tells of their removal.
    fn lingering(&self) -> BTreeSet<NodeId> {
        let core = self.replica.core();
        let committed = core.membership_at(core.commit()).members.keys().copied();
        let known = committed.chain(core.leader()).chain(core.followers().map(|follower| follower.id));
        known.filter(|id| *id != core.id() && !core.membership().contains(id)).collect()
    }

    /// Lets go of those to whom there is nothing more to say.
    pub(crate) fn see_leavers_off(&mut self) {
        if !self.peers.lingering.is_empty() && self.lingering() != self.peers.lingering {
            self.dial();
        }
    }

    /// Somebody of this cluster says where it is now: an address is a hint, the newest is the best.
    fn heard_at(&mut self, peer: NodeId, address: &str, incarnation: Incarnation) {
        if !self.replica.core().membership().contains(&peer) {
            return self.welcome(peer, address, incarnation);
        }
        let known = self.peers.addresses.get(&peer).is_some_and(|known| known == address);
        if !known {
            self.peers.addresses.insert(peer, address.to_owned());
            self.dial();
        }
    }

    /// Takes note of a member that the membership here does not have: this node lags behind, or is new.
    fn welcome(&mut self, peer: NodeId, address: &str, incarnation: Incarnation) {
        let guest = Peer { address: address.to_owned(), incarnation, member: false };
        let known = self.peers.guests.get(&peer) == Some(&guest);
        if known || peer == self.replica.core().id() {
            return;
        }
        if self.peers.guests.len() >= GUESTS_MAX {
            self.peers.guests.pop_first();
        }
        self.peers.guests.insert(peer, guest);
        self.dial();
    }

    /// A guest that is gone is not called after.
    fn see_off(&mut self, peer: NodeId) {
        if self.peers.guests.remove(&peer).is_some() {
            self.dial();
        }
    }

    /// Members of a cluster that lives expect this node among them, and it has just founded another one, alone: what it is
    /// given would be lost to those who mean that cluster, and whatever asks it finds an empty state.
    fn claimed(&mut self, clock: Clock, by: NodeId, address: &str) {
        self.settle();
        let Some(doubt) = self.peers.doubt.take() else { return };
        let own = self.replica.core().id();
        let why = format!(
            "{by} at {address} belongs to another cluster and takes this node for its member {own}, but with this data \
             directory {own} has founded a cluster of its own, in which it is alone. If {own} is that member, start it with the data \
             directory that it had; if that is lost, start another node with a new id and join={address}, and remove {own}. If \
             this is meant to be a cluster of its own, stop {by}, or remove {own} from the other one first; then remove {}",
            doubt.path().display()
        );
        doubt.confirm(&why);
        self.replica.handle(clock, Event::Contradicted(why));
    }

    /// A cluster that has members besides this one, or was there for long enough, is nobody's mistake.
    pub(crate) fn settle(&mut self) {
        let Some(doubt) = self.peers.doubt.take() else { return };
        let core = self.replica.core();
        let committed = core.membership_at(core.commit());
        let has_company = committed.members.len() > 1 || !committed.removed.is_empty();
        if has_company || !Doubt::holds(self.clock.now()) {
            _ = self.store.send(StoreJob::Settle(doubt));
        } else {
            self.peers.doubt = Some(doubt);
        }
    }

    /// Whether what others say of clusters is no reason to end: this node knows which one it is a member of.
    fn is_settled(&self) -> bool {
        let core = self.replica.core();
        self.peers.doubt.is_none() && core.cluster() != ClusterId::UNKNOWN && core.membership().contains(&core.id())
    }

    fn refused(&mut self, clock: Clock, peer: NodeId, code: RefusedCode, why: String, by_peer: bool) {
        let event = match code {
            RefusedCode::Removed if by_peer => Some(Event::Removed),
            RefusedCode::IdentityMismatch if by_peer => {
                Some(Event::Outcast { code: outcast_code(Some(code)), why: why.clone() })
            }
            // Somebody else may have taken the peer's address: a settled member is no stranger to its own cluster for that.
            RefusedCode::ClusterMismatch if by_peer && !self.is_settled() => {
                Some(Event::Outcast { code: outcast_code(Some(code)), why: why.clone() })
            }
            _ => None,
        };
        let event_is_lasting = event.is_some();
        self.replica.handle(clock, Event::Trouble(peer, why));
        if let Some(event) = event {
            self.replica.handle(clock, event);
        }
        // One that will not have this node is not called after. One that cannot be reached now is: it may be the leader.
        if by_peer && event_is_lasting {
            self.see_off(peer);
        }
    }
}

/// Joining, from both sides.
impl Engine {
    /// Somebody who is no member asks to be let in: the leader decides, wherever it is.
    fn let_in(&mut self, clock: Clock, id: NodeId, address: String, incarnation: Incarnation, reply: JoinReply) {
        self.inflight.fetch_add(1, Ordering::Relaxed);
        let request = self.callers.admit(Caller { sink: Arc::new(LetIn(reply)), token: 0 });
        let deadline = self.clock.now() + self.peers.join_wait;
        let change = Change::Add { id, address, voter: true, incarnation };
        self.replica.handle(clock, Event::Ask { request, ask: Ask::Change { change, guard: None }, deadline });
    }

    fn on_joining(
        &mut self,
        clock: Clock,
        address: &str,
        members: BTreeMap<NodeId, String>,
        answer: Result<(), JoinTrouble>,
    ) {
        // They may know where others have moved.
        let core = self.replica.core();
        let own = core.id();
        let news: Vec<(NodeId, String)> = members
            .into_iter()
            .filter(|(id, address)| {
                let unheard = !self.peers.addresses.contains_key(id);
                let moved = core.membership().members.get(id).is_some_and(|member| *member.address != **address);
                *id != own && unheard && moved
            })
            .collect();
        if !news.is_empty() {
            self.peers.addresses.extend(news);
            self.dial();
        }
        let event = match answer {
            Ok(()) => return,
            Err(JoinTrouble { code: Some(RefusedCode::Removed), .. }) => Event::Removed,
            Err(JoinTrouble { why, code: Some(RefusedCode::ClusterMismatch), .. }) if self.is_settled() => {
                Event::JoinTrouble(format!("{address}: {why}"))
            }
            Err(JoinTrouble { why, fatal: true, code }) => Event::Outcast { code: outcast_code(code), why },
            Err(JoinTrouble { why, .. }) => Event::JoinTrouble(format!("{address}: {why}")),
        };
        self.replica.handle(clock, event);
    }

    /// Once a leader is followed there is nothing to look for.
    pub(crate) fn stop_joining_when_in(&mut self) {
        let core = self.replica.core();
        if self.peers.joining && core.leader().is_some() && core.membership().contains(&core.id()) {
            self.peers.joining = false;
            self.transport.stop_joining();
        }
    }
}

/// The name that users know a lasting refusal by.
fn outcast_code(code: Option<RefusedCode>) -> &'static str {
    match code {
        Some(RefusedCode::ClusterMismatch | RefusedCode::FoundingMismatch) => "CLUSTER_MISMATCH",
        Some(RefusedCode::IdentityMismatch) => "IDENTITY_MISMATCH",
        Some(RefusedCode::Removed) => "REMOVED",
        _ => "MEMBERSHIP_REFUSED",
    }
}

/// Tells a joiner what the leader says.
struct LetIn(JoinReply);

impl Sink for LetIn {
    fn complete(&self, _token: u64, outcome: Outcome) {
        match outcome {
            Outcome::Done { .. } => self.0.done(),
            Outcome::Refused(Refusal::Membership(why)) => self.0.refuse(why, false),
            // It asks again.
            Outcome::Refused(refusal) => self.0.refuse(refusal.to_string(), false),
            Outcome::Unknown { .. } | Outcome::Compared { .. } => {}
        }
    }
}
