//! Who is connected to whom, and how messages fare between them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use graft_domain::{Incarnation, Instant, NodeId};
use graft_services::Event;
use graft_services::ports::PeerMessage;

use crate::world::{Happening, Probe, World};

/// How often connections that are not there are tried.
const LINKS_EVERY: Duration = Duration::from_millis(120);

#[derive(Debug, Default)]
pub(crate) struct Network {
    /// Nothing gets from one to the other, and nobody notices.
    pub(crate) cuts: BTreeSet<(NodeId, NodeId)>,
    /// What is sent from one to the other waits until then.
    pub(crate) clogs: BTreeMap<(NodeId, NodeId), Instant>,
    /// When what was sent last from one to the other arrives.
    last: BTreeMap<(NodeId, NodeId), Instant>,
}

impl World {
    pub(crate) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        let cuts = &self.network.cuts;
        cuts.contains(&(from, to)) || cuts.contains(&(to, from)) || !self.is_up(from) || !self.is_up(to)
    }

    pub(crate) fn send(&mut self, from: NodeId, to: NodeId, message: Box<PeerMessage>) {
        let linked = self.nodes.get(&from).is_some_and(|node| node.links.contains(&to));
        if !linked {
            return self.coverage.saw("a message is lost");
        }
        let mut takes = self.message_takes();
        if self.mix.orderly || self.healed {
            let clear = self.network.clogs.get(&(from, to)).copied().unwrap_or_default();
            let last = self.network.last.get(&(from, to)).copied().unwrap_or_default();
            let at = (self.now + takes).max(clear).max(last);
            self.network.last.insert((from, to), at);
            return self.at(at, Happening::Deliver(from, to, message));
        }
        if self.dice.chance(self.mix.lost) {
            return self.coverage.saw("a message is lost");
        }
        if self.dice.chance(self.mix.late) {
            self.coverage.saw("a message is late");
            takes += self.dice.micros(100_000, 3_000_000);
        }
        let clear = self.network.clogs.get(&(from, to)).copied().unwrap_or_default();
        if self.dice.chance(self.mix.twice) {
            self.coverage.saw("a message comes twice");
            let again = self.message_takes() * 3;
            self.at((self.now + again).max(clear), Happening::Deliver(from, to, message.clone()));
        }
        self.at((self.now + takes).max(clear), Happening::Deliver(from, to, message));
    }

    fn message_takes(&mut self) -> Duration {
        let (least, most) = self.mix.delay;
        // Mostly quick.
        let most = if self.dice.chance(800) { least + (most - least) / 8 } else { most };
        self.dice.micros(least, most)
    }

    pub(crate) fn deliver(&mut self, from: NodeId, to: NodeId, message: PeerMessage) {
        if self.network.cuts.contains(&(from, to)) || !self.is_up(to) {
            return self.coverage.saw("a message is lost");
        }
        self.tell(to, Event::Peer(message));
    }

    /// Connections that are not there are tried; where nothing gets through it is noticed, sooner or later.
    pub(crate) fn mind_links(&mut self) {
        let ids = self.ids();
        for from in &ids {
            for to in &ids {
                if from == to || !self.is_up(*from) {
                    continue;
                }
                let is_cut = self.is_cut(*from, *to);
                let linked = self.nodes.get(from).is_some_and(|node| node.links.contains(to));
                match (linked, is_cut) {
                    (true, true) if self.dice.chance(100) => self.disconnect(*from, *to),
                    (false, false) => self.connect(*from, *to),
                    _ => {}
                }
            }
        }
        self.later(LINKS_EVERY, Happening::Links);
    }

    fn connect(&mut self, from: NodeId, to: NodeId) {
        if !self.greet(from, to) {
            return;
        }
        if let Some(node) = self.nodes.get_mut(&from) {
            node.links.insert(to);
        }
        for (host, guest) in [(from, to), (to, from)] {
            let Some(node) = self.nodes.get(&guest) else { return };
            let (address, incarnation) = (node.config.address.clone(), node.config.incarnation);
            self.tell(host, Event::Heard { id: guest, address, incarnation });
        }
        self.tell(from, Event::Connected(to));
    }

    /// Whether two nodes will have to do with one another. Who is turned away is told why.
    fn greet(&mut self, one: NodeId, other: NodeId) -> bool {
        let mut welcome = true;
        for (host, guest) in [(one, other), (other, one)] {
            let (Some(host), Some(is)) = (self.nodes.get(&host), self.nodes.get(&guest).map(|n| n.config.incarnation))
            else {
                return false;
            };
            let Some(running) = &host.running else { return false };
            let core = running.replica.core();
            let known = core.membership().members.get(&guest).map(|member| member.incarnation);
            let event = if core.membership_at(core.commit()).removed.contains(&guest) {
                Event::Removed
            } else if known.is_some_and(|known| known != Incarnation::UNKNOWN && known != is) {
                self.coverage.saw("a wiped member is turned away");
                Event::Outcast { code: "WIPED", why: "its directory is another one".to_owned() }
            } else {
                continue;
            };
            welcome = false;
            self.tell(guest, event);
        }
        welcome
    }

    /// A membership is committed: those who have nothing to do here any more are turned away.
    pub(crate) fn turn_away(&mut self, host: NodeId) {
        for guest in self.ids().into_iter().filter(|guest| *guest != host) {
            let linked = |one: NodeId, other: NodeId| self.nodes.get(&one).is_some_and(|n| n.links.contains(&other));
            let linked = linked(host, guest) || linked(guest, host);
            if linked && !self.is_cut(host, guest) && !self.greet(host, guest) {
                self.disconnect(host, guest);
                self.disconnect(guest, host);
            }
        }
    }

    /// The connection breaks, and who had it notices.
    pub(crate) fn disconnect(&mut self, from: NodeId, to: NodeId) {
        if self.nodes.get_mut(&from).is_some_and(|node| node.links.remove(&to)) {
            self.network.last.remove(&(from, to));
            self.tell(from, Event::Unreachable(to));
        }
    }

    pub(crate) fn cut(&mut self, from: NodeId, to: NodeId, lasts: Duration) {
        if from != to {
            self.network.cuts.insert((from, to));
            self.later(lasts, Happening::Mend(from, to));
        }
    }

    pub(crate) fn mend(&mut self, from: NodeId, to: NodeId) {
        self.network.cuts.remove(&(from, to));
    }

    /// Finds out who answers at an address.
    pub(crate) fn probe(&mut self, Probe { by, id, address, .. }: Probe) {
        let at = self.nodes.values().find(|node| node.config.address == address && node.running.is_some());
        let found = match at.map(|node| (node.id, node.config.incarnation)) {
            Some((there, _)) if self.is_cut(by, there) => Err(format!("nobody answers at {address}")),
            Some((there, incarnation)) if there == id => Ok(incarnation),
            Some((there, _)) => Err(format!("{there} answers at {address}")),
            None => Err(format!("nobody answers at {address}")),
        };
        self.tell(by, Event::Probed { id, address, found });
    }
}
