//! Asking to be let into a cluster, of whoever answers at the addresses that a user gave.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use graft_domain::NodeId;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};
use tracing::debug;

use super::address::Connector;
use super::backoff::Backoff;
use super::convert::{TEXT_BYTES_MAX, within};
use super::convert_ask::decode_members;
use super::event::{JoinTrouble, PeerEvent, RefusedCode};
use super::handshake::{self, Introduction};
use super::http2::{self, NoConnection, Single};
use super::refusal::{Refusal, Side};
use super::transport::{Shared, Transport};
use super::welcome::is_this_node;
use super::wire::join_reply::{NotTaken, State};
use super::{plain, wire};

/// The waits between rounds: short at first, because nodes are often started together.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// More than an answer takes that names as many members, at as long addresses, as it may.
const REPLY_BYTES_MAX: usize = 2 << 20;
/// Addresses of a user that are tried.
const GIVEN_MAX: usize = 1000;

/// The task that asks, if there is one.
#[derive(Debug, Default)]
pub(super) struct Joining(Mutex<Option<CancellationToken>>);

impl Transport {
    /// Asks at these addresses, and at those of the members that are learnt on the way, to be let in, until
    /// [`Transport::stop_joining`]; every answer is a [`PeerEvent::Joining`]. It goes on after this node is a member,
    /// rarely: its answers tell where the others are. Called again, it starts over.
    pub fn join(&self, addresses: Vec<String>) {
        let ended = self.shared.stop.child_token();
        if let Some(earlier) = self.shared.joining.replace(Some(ended.clone())) {
            earlier.cancel();
        }
        let given = addresses
            .into_iter()
            .take(GIVEN_MAX)
            .map(|address| Connector::of_member(address, &self.shared.faults))
            .collect();
        let shared = Arc::clone(&self.shared);
        let joiner = Joiner { shared: Arc::clone(&shared), given, learnt: BTreeMap::new() };
        shared.tasks.spawn(async move { ended.run_until_cancelled(joiner.run()).await });
    }

    /// Asks no more.
    pub fn stop_joining(&self) {
        if let Some(ended) = self.shared.joining.replace(None) {
            ended.cancel();
        }
    }
}

impl Joining {
    fn replace(&self, token: Option<CancellationToken>) -> Option<CancellationToken> {
        // Nothing panics while it holds the lock.
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), token)
    }
}

struct Joiner {
    shared: Arc<Shared>,
    given: Vec<Connector>,
    /// Where the members were, as far as the last ones who said so know.
    learnt: BTreeMap<NodeId, Connector>,
}

/// What came of one attempt.
enum Answer {
    Member(BTreeMap<NodeId, String>),
    /// Not yet, or not at all; the members are known if a member said so.
    Trouble(BTreeMap<NodeId, String>, JoinTrouble),
    /// It is this node that answers.
    ThisNode,
}

impl Joiner {
    async fn run(mut self) {
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_MAX);
        loop {
            if self.round().await {
                backoff.slow();
            }
            sleep(backoff.next()).await;
        }
    }

    /// Asks at one address after the other. True if there is no hurry to ask again.
    async fn round(&mut self) -> bool {
        let mut at = 0;
        while at < self.given.len() {
            let answer = attempt(&self.shared, &mut self.given[at]).await;
            if matches!(answer, Answer::ThisNode) {
                self.given.remove(at);
                continue;
            }
            let address = self.given[at].address().to_owned();
            if self.tell(&address, answer) {
                return true;
            }
            at += 1;
        }
        let learnt: Vec<NodeId> = self.learnt.keys().copied().collect();
        for id in learnt {
            let Some(mut connector) = self.learnt.remove(&id) else { continue };
            let address = connector.address().to_owned();
            let answer = attempt(&self.shared, &mut connector).await;
            // Whoever answered may have said where it is by now.
            self.learnt.entry(id).or_insert(connector);
            if self.tell(&address, answer) {
                return true;
            }
        }
        if self.given.is_empty() && self.learnt.is_empty() {
            let why = "Every address given to join at is this node's own. Give the address of a member.".to_owned();
            let trouble = JoinTrouble { why, fatal: false, code: None };
            let address = self.shared.view.borrow().me.address.clone();
            self.tell(&address, Answer::Trouble(BTreeMap::new(), trouble));
            return true;
        }
        false
    }

    /// Lets the engine know. True if this node is a member.
    fn tell(&mut self, address: &str, answer: Answer) -> bool {
        let (members, answer) = match answer {
            Answer::Member(members) => (members, Ok(())),
            Answer::Trouble(members, trouble) => (members, Err(trouble)),
            Answer::ThisNode => return false,
        };
        self.learn(&members);
        let is_member = answer.is_ok();
        (self.shared.sink)(PeerEvent::Joining { address: address.to_owned(), members, answer });
        is_member
    }

    fn learn(&mut self, members: &BTreeMap<NodeId, String>) {
        if members.is_empty() {
            return;
        }
        // Those whom the newest answer does not name may be gone for good.
        self.learnt.retain(|id, connector| members.get(id).is_some_and(|address| address == connector.address()));
        for (id, address) in members {
            let given = self.given.iter().any(|connector| connector.address() == address);
            if *id != self.shared.me && !given && !self.learnt.contains_key(id) {
                self.learnt.insert(*id, Connector::of_member(address.clone(), &self.shared.faults));
            }
        }
    }
}

/// Asks at one address.
async fn attempt(shared: &Arc<Shared>, connector: &mut Connector) -> Answer {
    let address = connector.address().to_owned();
    match ask(shared, connector).await {
        Ok(reply) => judge(shared, &address, reply),
        Err(trouble) => Answer::Trouble(BTreeMap::new(), trouble),
    }
}

async fn ask(shared: &Arc<Shared>, connector: &mut Connector) -> Result<wire::JoinReply, JoinTrouble> {
    let address = connector.address().to_owned();
    let passing = |why: String| JoinTrouble { why, fatal: false, code: None };
    let connection = Single::open(connector, &shared.config, &shared.tasks, REPLY_BYTES_MAX, None).await;
    let mut connection = connection.map_err(|none| match none {
        NoConnection::Unreachable(why) => passing(format!("{address} cannot be connected to: {why}")),
        NoConnection::Foreign(why) => passing(format!("what listens at {address} is no node: {why}")),
    })?;
    let mut request = Request::new(wire::JoinRequest {});
    let hello = shared.view.borrow().hello_to_anyone();
    handshake::into_metadata(&hello, request.metadata_mut());
    let limit = shared.config.handshake_timeout.saturating_add(shared.config.join_wait);
    match timeout(limit, connection.client.join(request)).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => Err(refused(shared, &address, &status)),
        Err(_) => Err(passing(format!("what listens at {address} does not answer as a node does within {limit:?}"))),
    }
}

/// The other side would not even be asked.
fn refused(shared: &Arc<Shared>, address: &str, status: &Status) -> JoinTrouble {
    let Some(refusal) = Refusal::from_status(status) else {
        debug!(address, %status, "cannot be asked to join");
        let why = match status.code() {
            Code::Unimplemented => format!("what listens at {address} cannot be joined: is it this program?"),
            _ => format!("{address} broke off: {}", http2::words(status)),
        };
        return JoinTrouble { why, fatal: false, code: None };
    };
    shared.refused(None, address, refusal.clone(), Side::There);
    // Without a founding of its own on this side the other is a founder that will know better once there is a cluster.
    let fatal = refusal.code.is_lasting()
        && (refusal.code != RefusedCode::FoundingMismatch || shared.view.borrow().me.membership_hash != 0);
    JoinTrouble { why: refusal.why, fatal, code: Some(refusal.code) }
}

fn judge(shared: &Arc<Shared>, address: &str, reply: wire::JoinReply) -> Answer {
    let trouble = |why, fatal, code| Answer::Trouble(BTreeMap::new(), JoinTrouble { why, fatal, code });
    let malformed = |what: &str| {
        let why = format!("the answer from {address} makes no sense ({what}): run the same version on all nodes");
        trouble(why, false, None)
    };
    let Some(hello) = reply.hello else { return malformed("it has no introduction") };
    let other = match Introduction::parse(hello) {
        Ok(other) => other,
        Err(refusal) => return trouble(refusal.why, refusal.code.is_lasting(), Some(refusal.code)),
    };
    let verdict = {
        let view = shared.view.borrow();
        if is_this_node(&view, &other) {
            return Answer::ThisNode;
        }
        view.judge(&other)
    };
    if let Err(refusal) = verdict {
        shared.refused(Some(other.id), address, refusal.clone(), Side::Here);
        // A founder that waits for those whom it founds with: what became of that is for them to say.
        let waits = refusal.code == RefusedCode::FoundingMismatch && other.founding == 0;
        return trouble(refusal.why, refusal.code.is_lasting() && !waits, Some(refusal.code));
    }
    let members = match decode_members(reply.members) {
        Ok(mut members) => {
            members.retain(|_, address| !plain::has_odd(address));
            members
        }
        Err(bad) => return malformed(&bad.to_string()),
    };
    match reply.state {
        Some(State::IsMember(_)) => Answer::Member(members),
        Some(State::UnderWay(_)) => {
            let why = format!("{} at {address} was asked, and has not got the answer yet", other.id);
            Answer::Trouble(members, JoinTrouble { why, fatal: false, code: None })
        }
        Some(State::NotTaken(NotTaken { why, fatal })) => match within("a reason", why, TEXT_BYTES_MAX) {
            Ok(why) => {
                let why = plain::plain(&why, TEXT_BYTES_MAX);
                Answer::Trouble(members, JoinTrouble { why, fatal, code: None })
            }
            Err(bad) => malformed(&bad.to_string()),
        },
        None => malformed("an answer of no known kind"),
    }
}
