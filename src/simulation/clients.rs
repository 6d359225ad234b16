//! What clients and operators ask. A client has a session of its own: it makes a call through any member, and again through
//! others until it has the answer, and sometimes once more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{Incarnation, Index, Instant, Membership, NodeId};
use graft_services::change::{Ask, Change};
use graft_services::commands::Slot;
use graft_services::error::{Outcome, Refusal};
use graft_services::{Consistency, Event, Read, RequestId};

use crate::history::What;
use crate::node::Node;
use crate::world::{Happening, World, address_of, id_of};

/// Calls that a client has open at the most.
const ORDERS_MAX: usize = 8;
/// Nodes that there ever are.
const NODES_MAX: usize = 10;
const MEMBERS_MAX: usize = 7;
const MEMBERS_MIN: usize = 3;

#[derive(Debug, Default)]
pub(crate) struct Client {
    session: Option<u64>,
    opening: Option<RequestId>,
    next: u64,
    orders: BTreeMap<u64, Order>,
}

#[derive(Debug)]
struct Order {
    body: Bytes,
    attempts: Vec<RequestId>,
    is_done: bool,
}

impl Client {
    fn unanswered(&self) -> u64 {
        self.orders.iter().find(|(_, order)| !order.is_done).map_or(self.next, |(sequence, _)| *sequence)
    }
}

impl World {
    fn asked(
        &mut self,
        id: NodeId,
        patience: u64,
        what: What,
        event: impl FnOnce(RequestId, Instant) -> Event,
    ) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        let shown = self.nodes.get(&id).map_or(self.now, |node| node.pace.shows(self.now));
        let deadline = shown + Duration::from_millis(patience);
        let event = event(request, deadline);
        self.note(|| format!("{id} is asked {event:?}"));
        self.history.asks(request, id, deadline, what);
        self.tell(id, event);
        request
    }

    pub(crate) fn execute(&mut self, id: NodeId, slot: Option<Slot>, body: Bytes, patience: u64) -> RequestId {
        let what = What::Command(body.clone());
        self.asked(id, patience, what, |request, deadline| Event::Execute { request, slot, body, deadline })
    }

    pub(crate) fn read(&mut self, id: NodeId, read: Read, patience: u64) -> RequestId {
        let seen = match read.consistency {
            Consistency::Linearizable | Consistency::Lease => self.history.seen,
            Consistency::Stale { max_age: None } => Index::ZERO,
            // By its own clock, which may be slow.
            Consistency::Stale { max_age: Some(max_age) } => {
                let before = u64::try_from((max_age * 20 / 19).as_nanos()).unwrap_or(u64::MAX);
                self.history.seen_at(Instant(self.now.0.saturating_sub(before)))
            }
        };
        if read.consistency == Consistency::Lease {
            self.coverage.saw("a lease read");
        }
        let is_exact = !matches!(read.consistency, Consistency::Stale { .. });
        let (body, what) = (Bytes::from_static(b"?"), What::Query { floor: seen.max(read.at_least), is_exact });
        self.asked(id, patience, what, |request, deadline| Event::Query { request, body, read, deadline })
    }

    /// Somebody asks something, and somebody will again.
    pub(crate) fn call(&mut self) {
        if self.healed {
            return;
        }
        let next = self.dice.below(2 * self.mix.call_every);
        self.later(Duration::from_millis(next), Happening::Call);
        let id = self.any();
        if !self.is_up(id) {
            return;
        }
        if self.dice.chance(self.mix.operate) {
            return self.operate(id);
        }
        let patience = self.dice.below(self.mix.patience);
        match self.dice.below(20) {
            0..=5 => {
                let body = self.body();
                self.execute(id, None, body, patience);
            }
            6..=12 => self.client_calls(id),
            13 => {
                let what = What::Compare;
                self.asked(id, patience, what, |request, deadline| Event::Verify { request, deadline });
            }
            _ => self.reads(id, patience),
        }
    }

    /// No two are the same. Some raise.
    pub(crate) fn body(&mut self) -> Bytes {
        let (raises, long) = (self.dice.chance(60), self.dice.chance(30));
        let filling = "x".repeat(if long { self.dice.size(2_000) } else { 0 });
        let known_to = match self.drawn_version() {
            0 => String::new(),
            version => format!("v{version}"),
        };
        Bytes::from(format!("{known_to}c{}{filling}{}", self.requests, if raises { "!" } else { "" }))
    }

    fn reads(&mut self, id: NodeId, patience: u64) {
        let max_age = Duration::from_millis(self.dice.one_of(&[0, 10, 100, 1_000]));
        let consistency = match self.dice.below(6) {
            0 | 1 => Consistency::Linearizable,
            2 | 3 => Consistency::Lease,
            4 => Consistency::Stale { max_age: None },
            _ => Consistency::Stale { max_age: Some(max_age) },
        };
        let seen = self.history.seen;
        let at_least = match self.dice.below(8) {
            0..=5 => Index::ZERO,
            6 => seen,
            _ => Index(seen.0 + self.dice.below(5)),
        };
        self.read(id, Read { consistency, at_least }, patience);
    }

    fn client_calls(&mut self, id: NodeId) {
        let which = self.dice.size(self.clients.len());
        self.hear(which);
        let patience = self.dice.below(self.mix.patience.max(2_000));
        if self.clients[which].session.is_none() {
            if self.clients[which].opening.is_none() {
                let ttl = Duration::from_millis(self.dice.one_of(&[400, 5_000, 3_600_000]));
                let open = |request, deadline| Event::OpenSession { request, ttl, deadline };
                self.clients[which].opening = Some(self.asked(id, patience, What::Session, open));
            }
            return;
        }
        let count = self.clients[which].orders.len();
        let again = count >= ORDERS_MAX || (count > 0 && self.dice.chance(400));
        let place = self.dice.size(count);
        let known = self.clients[which].orders.keys().nth(place).copied().filter(|_| again);
        let sequence = known.unwrap_or_else(|| {
            let body = self.body();
            let client = &mut self.clients[which];
            let sequence = client.next;
            // Some numbers are never used.
            client.next += 1 + u64::from(sequence.is_multiple_of(7));
            client.orders.insert(sequence, Order { body, attempts: Vec::new(), is_done: false });
            sequence
        });
        self.order(which, sequence, id, patience);
    }

    /// Asks for it, unless there is no such order any more.
    pub(crate) fn order(&mut self, which: usize, sequence: u64, id: NodeId, patience: u64) -> Option<RequestId> {
        let client = &self.clients[which];
        let (session, unanswered) = (client.session?, client.unanswered());
        let order = client.orders.get(&sequence)?;
        if !order.attempts.is_empty() {
            self.coverage.saw("a command is made again");
        }
        let slot = Slot { session, sequence, unanswered };
        let request = self.execute(id, Some(slot), order.body.clone(), patience);
        self.clients[which].orders.get_mut(&sequence)?.attempts.push(request);
        Some(request)
    }

    /// Takes in what one was answered.
    fn hear(&mut self, which: usize) {
        let (history, now) = (&self.history, self.now);
        let client = &mut self.clients[which];
        if let Some(opening) = client.opening {
            match history.answer(opening) {
                Some(Outcome::Done { index, .. }) => {
                    *client = Client { session: Some(index.0), next: 1, ..Client::default() };
                }
                // Or its node has crashed.
                None if history.asked[&opening].deadline > now => {}
                _ => client.opening = None,
            }
        }
        let mut is_over = false;
        for order in client.orders.values_mut() {
            for attempt in &order.attempts {
                match history.answer(*attempt) {
                    Some(Outcome::Done { .. }) => order.is_done = true,
                    Some(Outcome::Refused(Refusal::SessionExpired)) => is_over = true,
                    _ => {}
                }
            }
        }
        if is_over {
            self.coverage.saw("a session expires");
            *client = Client::default();
        }
        let unanswered = client.unanswered();
        client.orders.retain(|sequence, _| *sequence >= unanswered);
    }

    /// What clients have asked for and have no answer to: which client, and which of its orders.
    pub(crate) fn lacking(&mut self) -> Vec<(usize, u64)> {
        let mut lacking = Vec::new();
        for which in 0..self.clients.len() {
            self.hear(which);
            let open = self.clients[which].orders.iter().filter(|(_, order)| !order.is_done);
            lacking.extend(open.map(|(sequence, _)| (which, *sequence)));
        }
        lacking
    }

    pub(crate) fn membership(&self) -> Option<Arc<Membership>> {
        let leader = self.leader()?;
        Some(Arc::clone(self.nodes.get(&leader)?.running.as_ref()?.replica.core().membership()))
    }

    pub(crate) fn change(&mut self, id: NodeId, change: Change, patience: u64) -> RequestId {
        let ask = Ask::Change { change, guard: None };
        self.asked(id, patience, What::Ask, |request, deadline| Event::Ask { request, ask, deadline })
    }

    /// An operator wants something.
    fn operate(&mut self, id: NodeId) {
        let patience = self.dice.within(500, 6_000);
        if self.dice.chance(250) {
            let current = self.dice.chance(500);
            let floor = if current { self.history.seen } else { Index::ZERO };
            self.asked(id, patience, What::Snapshot { floor, current }, |request, deadline| Event::Snapshot {
                request,
                current,
                deadline,
            });
            return;
        }
        if self.dice.chance(300) {
            self.coverage.saw("leadership is handed over");
            let to = self.dice.chance(600).then(|| self.any());
            let ask = Ask::Transfer { to };
            self.asked(id, patience, What::Ask, |request, deadline| Event::Ask { request, ask, deadline });
            return;
        }
        if let Some(change) = self.wanted_change() {
            self.change(id, change, patience);
        }
    }

    /// A cluster between three members and seven.
    pub(crate) fn wanted_change(&mut self) -> Option<Change> {
        let membership = self.membership()?;
        let size = membership.members.len();
        let members: Vec<NodeId> = membership.members.keys().copied().collect();
        let of = self.dice.one_of(&members);
        Some(match self.dice.below(20) {
            0..=6 if size < MEMBERS_MAX => {
                let id = self.newcomer()?;
                let (address, voter) = (self.nodes.get(&id)?.config.address.clone(), self.dice.chance(800));
                Change::Add { id, address, voter, incarnation: Incarnation::UNKNOWN }
            }
            0..=9 if size > MEMBERS_MIN => Change::Remove { id: of },
            10 | 11 => Change::Promote { id: of },
            12 if membership.voters().count() > MEMBERS_MIN => Change::Demote { id: of },
            13..=15 => {
                let new = self.newcomer()?;
                Change::Replace { old: of, new, address: self.nodes.get(&new)?.config.address.clone() }
            }
            16..=18 => {
                let mut these = BTreeMap::new();
                for _ in 0..self.dice.within(3, 5) {
                    let id = if self.dice.chance(250) { self.newcomer()? } else { self.dice.one_of(&members) };
                    these.insert(id, self.nodes.get(&id).map_or_else(|| address_of(id), |n| n.config.address.clone()));
                }
                Change::Apply { members: these }
            }
            _ => Change::Cancel,
        })
    }

    /// A node that was never a member, as far as anyone here knows.
    fn newcomer(&mut self) -> Option<NodeId> {
        let membership = self.membership()?;
        let free =
            |id: &NodeId| !membership.contains(id) && !membership.removed.contains(id) && !self.lost.contains(id);
        let known: Vec<NodeId> = self.nodes.keys().copied().filter(free).collect();
        if !known.is_empty() && (self.nodes.len() >= NODES_MAX || self.dice.chance(500)) {
            return Some(self.dice.one_of(&known));
        }
        if self.nodes.len() >= NODES_MAX {
            return None;
        }
        let id = id_of(self.nodes.len() + 1);
        let mut node = Node::new(id, Arc::default(), &self.mix, &mut self.dice);
        let lying = self.mix.lying;
        node.disk.faults(|faults| faults.lies = lying);
        node.pace.set(self.now, 1_000);
        node.code = self.releases.newest;
        if node.code > 0 && self.dice.chance(300) {
            node.code -= 1;
        }
        node.ran = node.code;
        self.nodes.insert(id, node);
        let after = self.dice.micros(0, 500_000);
        self.later(after, Happening::Start(id));
        Some(id)
    }
}
