//! Who is connected to whom, and what goes beside the messages: greetings, snapshots, and who answers at an address.

use std::collections::VecDeque;

use graft_domain::{Incarnation, NodeId};

use super::disk::Stored;
use super::world::{Fetch, Packet, Probe, World, id};
use crate::Event;
use crate::ports::PeerMessage;

impl World {
    pub(crate) fn connect(&mut self, from: NodeId, to: NodeId) {
        if from != to && self.is_up(from) && self.is_up(to) && !self.nodes[&from].links.contains(&to) {
            if !self.greet(from, to) {
                return;
            }
            self.note(|| format!("{from} is connected to {to}"));
            self.node(from).links.insert(to);
            for (host, guest) in [(from, to), (to, from)] {
                let config = &self.nodes[&guest].config;
                let (address, incarnation) = (config.address.clone(), config.incarnation);
                self.inbox(host, Event::Heard { id: guest, address, incarnation });
            }
            self.inbox(from, Event::Connected(to));
        }
    }

    pub(crate) fn connect_all(&mut self) {
        for from in self.ids() {
            for to in self.ids() {
                self.connect(from, to);
            }
        }
    }

    /// Whether two nodes will have to do with one another. Who is turned away is told why.
    pub(crate) fn greet(&mut self, one: NodeId, other: NodeId) -> bool {
        let cut = self.cuts.contains(&(one, other)) || self.cuts.contains(&(other, one));
        let mut welcome = true;
        for (host, guest) in [(one, other), (other, one)] {
            let Some(replica) = &self.nodes[&host].replica else { return false };
            let core = replica.core();
            let committed = core.membership_at(core.commit());
            let is = self.nodes[&guest].config.incarnation;
            let known = core.membership().members.get(&guest).map(|member| member.incarnation);
            let event = if committed.removed.contains(&guest) {
                Event::Removed
            } else if known.is_some_and(|known| known != Incarnation::UNKNOWN && known != is) {
                Event::Outcast { code: "WIPED", why: "its directory is another one".to_owned() }
            } else {
                continue;
            };
            welcome = false;
            if !cut {
                self.inbox(guest, event);
            }
        }
        welcome
    }

    /// A membership is committed: those who have nothing to do here any more are turned away.
    pub(crate) fn turn_away(&mut self, host: NodeId) {
        for guest in self.ids().into_iter().filter(|guest| *guest != host) {
            let linked = self.nodes[&host].links.contains(&guest) || self.nodes[&guest].links.contains(&host);
            if linked && self.is_up(guest) && !self.greet(host, guest) {
                self.disconnect(host, guest);
                self.disconnect(guest, host);
            }
        }
    }

    /// The connection breaks, and what is on it is lost.
    pub(crate) fn disconnect(&mut self, from: NodeId, to: NodeId) {
        if self.node(from).links.remove(&to) {
            self.note(|| format!("{from} has no connection to {to}"));
            let on_it = |packet: &Packet| (packet.from, packet.to) == (from, to);
            let (lost, kept): (VecDeque<Packet>, _) = self.wire.drain(..).partition(on_it);
            self.wire = kept;
            for packet in &lost {
                self.lost(packet);
            }
            self.inbox(from, Event::Unreachable(to));
        }
    }

    pub(crate) fn lost(&mut self, packet: &Packet) {
        self.note(|| format!("lost: {packet:?}"));
        self.refusals_lost += u64::from(matches!(packet.message, PeerMessage::Refused { .. }));
    }

    /// Cuts a member off: nothing gets to it or from it, and nobody is told.
    pub(crate) fn isolate(&mut self, n: usize) {
        for other in self.ids() {
            self.cuts.extend([(id(n), other), (other, id(n))]);
        }
    }

    /// Nothing gets from one to the other any more, either way, and both notice.
    pub(crate) fn part(&mut self, one: usize, other: usize) {
        for (from, to) in [(id(one), id(other)), (id(other), id(one))] {
            self.cuts.insert((from, to));
            self.disconnect(from, to);
        }
    }

    /// The cuts are gone, with the connections that lost something.
    pub(crate) fn mend(&mut self) {
        for (from, to) in std::mem::take(&mut self.cuts) {
            self.disconnect(from, to);
            self.connect(from, to);
        }
    }

    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        let cut = self.cuts.contains(&(from, to)) || self.cuts.contains(&(to, from));
        cut || !self.is_up(from) || !self.is_up(to)
    }

    /// Gives the next follower that waits for one its leader's snapshot, whole, or tells it that it could not be had.
    pub(crate) fn fetch(&mut self) {
        let Some(Fetch { to, from, last }) = self.fetches.pop_front() else { return };
        let found = if self.is_cut(from, to) { Err("the link broke") } else { self.snapshot_of(from, last) };
        self.note(|| format!("{to} fetches {last} of {from}: {found:?}"));
        match found {
            Ok(stored) => {
                let (meta, bytes) = (stored.meta.clone(), stored.bytes);
                self.inbox(to, Event::SnapshotFetching { last: meta.last, bytes: bytes / 2, total: bytes });
                self.inbox(from, Event::SnapshotSending { to, bytes: bytes / 2, total: bytes });
                if self.is_up(to) {
                    self.node(to).disk.keep(stored);
                    self.inbox(from, Event::SnapshotSending { to, bytes, total: bytes });
                }
                self.inbox(to, Event::SnapshotFetched { meta, bytes });
            }
            Err(why) => self.inbox(to, Event::SnapshotFetchFailed { last, why: why.to_owned() }),
        }
    }

    fn snapshot_of(&mut self, from: NodeId, last: graft_domain::EntryId) -> Result<Stored, &'static str> {
        let disk = &self.nodes[&from].disk;
        if disk.unreadable {
            self.inbox(from, Event::SnapshotUnreadable { why: "a checksum is wrong".to_owned() });
            return Err("it cannot be read");
        }
        disk.snapshot.clone().filter(|stored| stored.meta.last.index >= last.index).ok_or("it has no such snapshot")
    }

    /// Finds out for the next leader that waits for it who answers at an address.
    pub(crate) fn probe(&mut self) {
        let Some(Probe { by, id, address }) = self.probes.pop_front() else { return };
        let at = |(_, node): &(&NodeId, &super::world::Node)| node.config.address == address && node.replica.is_some();
        let found = match self.nodes.iter().find(at).map(|(there, node)| (*there, node.config.incarnation)) {
            Some((there, _)) if self.is_cut(by, there) => Err(format!("nobody answers at {address}")),
            Some((there, incarnation)) if there == id => Ok(incarnation),
            Some((there, _)) => Err(format!("{there} answers at {address}")),
            None => Err(format!("nobody answers at {address}")),
        };
        self.note(|| format!("{by} probes {address} for {id}: {found:?}"));
        self.inbox(by, Event::Probed { id, address, found });
    }
}
