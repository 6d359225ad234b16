//! Answers to nodes that ask to be let in.

use std::collections::BTreeMap;

use graft_domain::{Incarnation, NodeId};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;

use super::convert::MEMBERS_MAX;
use super::convert_ask::encode_members;
use super::event::PeerEvent;
use super::handshake::{ADDRESS_BYTES_MAX, Introduction, View};
use super::join_reply::JoinReply;
use super::refusal::Refusal;
use super::transport::Shared;
use super::wire;
use super::wire::join_reply::{IsMember, NotTaken, State, UnderWay};

/// Questions that may wait for the engine; who comes later is told to ask again.
const ASKING_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Welcome {
    asking: Semaphore,
}

impl Default for Welcome {
    fn default() -> Self {
        Self { asking: Semaphore::new(ASKING_MAX) }
    }
}

impl Welcome {
    /// A member is told so at once, and of anyone else the engine is asked. An error if it may not talk here at all.
    pub(super) async fn join(&self, shared: &Shared, peer: &Introduction) -> Result<wire::JoinReply, Refusal> {
        let (hello, members, known) = {
            let view = shared.view.borrow();
            let known = if is_this_node(&view, peer) {
                Known::ThisNode
            } else {
                view.judge(peer)?;
                if view.peers.get(&peer.id).is_some_and(|known| known.member) { Known::Member } else { Known::Not }
            };
            (view.hello(&peer.id), members(&view), known)
        };
        let state = match known {
            Known::ThisNode => State::IsMember(IsMember {}),
            Known::Member => {
                heard(shared, peer);
                State::IsMember(IsMember {})
            }
            Known::Not => self.ask(shared, peer).await,
        };
        Ok(wire::JoinReply { hello: Some(hello), members: encode_members(members), state: Some(state) })
    }

    async fn ask(&self, shared: &Shared, peer: &Introduction) -> State {
        let Ok(_place) = self.asking.try_acquire() else { return State::UnderWay(UnderWay {}) };
        let (reply, answer) = JoinReply::new();
        debug!(peer = %peer.id, address = peer.address, "asks to be let in");
        (shared.sink)(PeerEvent::JoinAsked {
            id: peer.id,
            address: peer.address.clone(),
            incarnation: peer.incarnation,
            reply,
        });
        let answer = tokio::select! {
            biased;
            answer = timeout(shared.config.join_wait, answer) => answer,
            () = shared.stop.cancelled() => return State::UnderWay(UnderWay {}),
        };
        match answer {
            Ok(Ok(Ok(()))) => State::IsMember(IsMember {}),
            Ok(Ok(Err(trouble))) => State::NotTaken(NotTaken { why: trouble.why, fatal: trouble.fatal }),
            // There was none, or not in time.
            Ok(Err(_)) | Err(_) => State::UnderWay(UnderWay {}),
        }
    }
}

enum Known {
    /// A node's list of addresses may well have its own.
    ThisNode,
    Member,
    Not,
}

/// An id alone would not do: two nodes of one id must hear of it.
pub(super) fn is_this_node(view: &View, other: &Introduction) -> bool {
    let me = &view.me;
    other.id == me.id && other.incarnation == me.incarnation && me.incarnation != Incarnation::UNKNOWN
}

fn heard(shared: &Shared, peer: &Introduction) {
    (shared.sink)(PeerEvent::Heard { peer: peer.id, address: peer.address.clone(), incarnation: peer.incarnation });
    shared.nudge(&peer.id);
}

/// This node and the members that it knows, as far as one answer may name them.
fn members(view: &View) -> BTreeMap<NodeId, String> {
    let me = (view.me.id, view.me.address.clone());
    let others = view.peers.iter().filter(|(_, peer)| peer.member && peer.address.len() <= ADDRESS_BYTES_MAX);
    let others = others.map(|(id, peer)| (*id, peer.address.clone()));
    std::iter::once(me).chain(others).take(MEMBERS_MAX).collect()
}
