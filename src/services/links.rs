//! Who is connected to whom. A leader that cannot reach a voter whom another voter does reach, and that reaches nobody whom the
//! other does not, hands over: the cluster is then served where it hangs together best.

use std::collections::{BTreeMap, BTreeSet};

use graft_domain::{Input, Instant, NodeId, Term};

use crate::ports::PeerMessage;
use crate::replica::{Effect, Replica};

/// Election timeouts between two reports to a leader that has heard the same before.
const REPORT_EVERY: u32 = 4;
/// Election timeouts for which another one has to be better connected before it is handed over to: links come and go.
const PATIENCE: u32 = 4;

/// What members say of their connections, in this term.
#[derive(Debug, Default)]
pub(crate) struct Links {
    term: Term,
    /// On a leader: what its followers said last.
    reports: BTreeMap<NodeId, BTreeSet<NodeId>>,
    /// On a leader: since when somebody has been better connected.
    better: Option<(NodeId, Instant)>,
    /// On a follower: what was said to the leader last, and when it is to be said again.
    told: BTreeSet<NodeId>,
    tell_at: Instant,
}

impl Replica {
    pub(crate) fn on_links(&mut self, from: NodeId, connected: Vec<NodeId>) {
        let membership = self.core.membership();
        if self.core.is_leader() && membership.contains(&from) {
            let known = connected.into_iter().filter(|id| membership.contains(id));
            self.links.reports.insert(from, known.collect());
        }
    }

    /// Tells the leader whom this member reaches, or, as the leader, gives way to a better connected one.
    pub(crate) fn mind_links(&mut self) {
        let term = self.core.term();
        if self.links.term != term {
            self.links = Links { term, ..Links::default() };
        }
        if self.core.is_leader() {
            self.give_way();
        } else {
            self.report_links();
        }
    }

    fn report_links(&mut self) {
        let now = self.clock.now;
        let Some(leader) = self.leader_at_hand() else { return };
        if self.links.told == self.reachable && now < self.links.tell_at {
            return;
        }
        self.links.told.clone_from(&self.reachable);
        self.links.tell_at = now + self.config.election_timeout * REPORT_EVERY;
        let connected = self.reachable.iter().copied().collect();
        let links = PeerMessage::Links { from: self.core.id(), connected };
        self.effects.push(Effect::Send(leader, links));
    }

    fn give_way(&mut self) {
        let now = self.clock.now;
        let Some(successor) = self.better_connected() else {
            self.links.better = None;
            return;
        };
        let since = match self.links.better {
            Some((known, since)) if known == successor => since,
            _ => now,
        };
        self.links.better = Some((successor, since));
        if now.since(since) >= self.config.election_timeout * PATIENCE {
            tracing::info!(to = %successor, "hands over to a member that reaches more of the voters");
            self.links.better = None;
            self.step(Input::TransferLeadership(Some(successor)));
        }
    }

    /// A voter in touch with this leader that reaches every voter that this leader reaches, and one more.
    fn better_connected(&self) -> Option<NodeId> {
        let (own, membership) = (self.core.id(), self.core.membership());
        let voters = || membership.voters().filter(|id| *id != own);
        // Connections are compared with connections: a voter that fell silent is as silent to the others, and would be handed
        // back and forth until their links break too.
        let lost: Vec<NodeId> = voters().filter(|id| !self.reachable.contains(id)).collect();
        if lost.is_empty() {
            return None;
        }
        let in_touch: Vec<NodeId> = voters().filter(|id| self.is_alive(*id)).collect();
        let reaches =
            |from: &NodeId, to: &NodeId| from == to || self.links.reports.get(from).is_some_and(|r| r.contains(to));
        let better = |from: &&NodeId| {
            reaches(from, &own)
                && in_touch.iter().all(|to| reaches(from, to))
                && lost.iter().any(|to| reaches(from, to))
        };
        in_touch.iter().find(better).copied()
    }

    /// When the links are to be looked at again.
    pub(crate) fn links_deadline(&self) -> Instant {
        if self.core.is_leader() {
            let wait = self.config.election_timeout * PATIENCE;
            return self.links.better.map_or(Instant::NEVER, |(_, since)| since + wait);
        }
        if self.leader_at_hand().is_some() { self.links.tell_at } else { Instant::NEVER }
    }
}
