//! Clients that have sessions of their own: they make a call through any member, and again through others until they have its
//! answer, and sometimes once more. And callers of a node that make a call again whose end they do not know.

use std::collections::BTreeMap;
use std::time::Duration;

use super::chaos::Chaos;
use super::world::id;
use crate::RequestId;
use crate::commands::Slot;
use crate::error::{Outcome, Refusal};

/// Calls that a client has open at the most.
const ORDERS_MAX: usize = 12;

#[derive(Debug, Default)]
pub(super) struct Customer {
    session: Option<u64>,
    opening: Option<RequestId>,
    next: u64,
    orders: BTreeMap<u64, Order>,
}

#[derive(Debug)]
struct Order {
    body: String,
    attempts: Vec<RequestId>,
    is_done: bool,
}

impl Customer {
    fn unanswered(&self) -> u64 {
        self.orders.iter().find(|(_, order)| !order.is_done).map_or(self.next, |(sequence, _)| *sequence)
    }
}

impl Chaos {
    /// One of the clients does something, through a member that is up.
    pub(super) fn customer(&mut self) {
        let n = 1 + self.random.size(self.world.nodes.len());
        let which = self.random.size(self.customers.len());
        self.hear(which);
        if !self.world.is_up(id(n)) {
            return;
        }
        let patience = self.random.below(self.luck.patience_ms.max(2_000));
        if self.customers[which].session.is_none() {
            if self.customers[which].opening.is_none() {
                let ttl = Duration::from_millis(self.random.one_of(&[200, 5_000, 3_600_000_000]));
                self.customers[which].opening = Some(self.world.open_session(n, ttl, patience));
            }
            return;
        }
        let count = self.customers[which].orders.len();
        let sequence = if count >= ORDERS_MAX || (count > 0 && self.random.chance(500)) {
            let place = self.random.size(count);
            *self.customers[which].orders.keys().nth(place).expect("there are so many")
        } else {
            let customer = &mut self.customers[which];
            let (sequence, body) = (customer.next, format!("c{}", self.world.requests));
            // Some numbers are never used.
            customer.next += 1 + u64::from(sequence.is_multiple_of(7));
            customer.orders.insert(sequence, Order { body, attempts: Vec::new(), is_done: false });
            sequence
        };
        self.order(which, sequence, n, patience);
    }

    fn order(&mut self, which: usize, sequence: u64, n: usize, patience: u64) {
        let customer = &mut self.customers[which];
        let (Some(session), unanswered) = (customer.session, customer.unanswered()) else { return };
        let Some(order) = customer.orders.get_mut(&sequence) else { return };
        let slot = Slot { session, sequence, unanswered };
        order.attempts.push(self.world.execute_in(n, slot, &order.body, patience));
    }

    /// Takes in what one was answered.
    fn hear(&mut self, which: usize) {
        let (history, now) = (&self.world.history, self.world.now);
        let customer = &mut self.customers[which];
        if let Some(opening) = customer.opening {
            match history.answer(opening) {
                Some(Outcome::Done { index, .. }) => {
                    *customer = Customer { session: Some(index.0), next: 1, ..Customer::default() };
                }
                // Or its node has crashed.
                None if history.asked[&opening].deadline > now => {}
                _ => customer.opening = None,
            }
        }
        let mut is_over = false;
        for order in customer.orders.values_mut() {
            for attempt in &order.attempts {
                match history.answer(*attempt) {
                    Some(Outcome::Done { .. }) => order.is_done = true,
                    Some(Outcome::Refused(Refusal::SessionExpired)) => is_over = true,
                    _ => {}
                }
            }
        }
        if is_over {
            *customer = Customer::default();
        }
        let unanswered = customer.unanswered();
        customer.orders.retain(|sequence, _| *sequence >= unanswered);
    }

    /// Somebody makes a call again of which he was told that its end is not known, mostly where he made it.
    pub(super) fn resolve(&mut self) {
        let unknown = |(request, asked): (&RequestId, &super::history::Asked)| match &asked.answer {
            Some(Outcome::Unknown { slot: Some(slot), .. }) => Some((*request, asked.node, *slot)),
            _ => None,
        };
        let unknown: Vec<_> = self.world.history.asked.iter().filter_map(unknown).collect();
        if unknown.is_empty() {
            return;
        }
        let (request, node, slot) = self.random.one_of(&unknown);
        let node = if self.random.chance(800) { node } else { self.any() };
        let n = node.as_str()[1..].parse().expect("ids here are numbered");
        if let Some(body) = self.world.history.command(request)
            && self.world.is_up(node)
        {
            let patience = self.random.below(self.luck.patience_ms.max(2_000));
            let request = self.world.execute_in(n, slot, &body, patience);
            self.resolves.push(request);
        }
    }

    /// All is well: every client gets the answers that it lacks, or hears that its session is gone.
    pub(super) fn everyone_gets_his_answers(&mut self, members: &[usize]) -> Result<(), String> {
        let mut asked = Vec::new();
        for which in 0..self.customers.len() {
            self.hear(which);
            let open = self.customers[which].orders.iter().filter(|(_, order)| !order.is_done);
            let open: Vec<u64> = open.map(|(sequence, _)| *sequence).collect();
            for sequence in open {
                let n = self.random.one_of(members);
                self.order(which, sequence, n, 20_000);
                asked.push(RequestId(self.world.requests));
            }
        }
        let verifies: Vec<_> = members.iter().map(|n| self.world.verify(*n, 20_000)).collect();
        self.world.run(2_000);
        for request in asked {
            match self.world.answer(request) {
                Some(
                    Outcome::Done { .. }
                    | Outcome::Refused(Refusal::SessionExpired | Refusal::Busy(_) | Refusal::TooLarge { .. }),
                ) => {}
                // A machine on its own disk has the command, and nobody has its answer.
                Some(Outcome::Unknown { why, slot: None }) if why.contains("Some(") => {}
                other => return Err(format!("{request:?} is answered {other:?} though all is well")),
            }
        }
        for request in verifies {
            match self.world.answer(request) {
                Some(Outcome::Compared { digests, .. }) if members.iter().all(|n| digests.contains_key(&id(*n))) => {}
                Some(Outcome::Refused(Refusal::Busy(_))) => {}
                other => return Err(format!("{request:?} is answered {other:?} though all is well")),
            }
        }
        Ok(())
    }
}
