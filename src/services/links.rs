//! Who is connected to whom, and who works. A leader that cannot reach a voter whom another voter does reach, and that reaches nobody whom the
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
    reports: BTreeMap<NodeId, Report>,
    /// On a leader: since when somebody has been better connected.
    better: Option<(NodeId, Instant)>,
    /// On a follower: what was said to the leader last, and when it is to be said again.
    told: Report,
    tell_at: Instant,
}

/// What a member says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Report {
    connected: BTreeSet<NodeId>,
    /// Why it does not work: one whose machine has halted goes on voting and keeping the log, and one whose disk is full answers
    /// the leader, and nobody would see it.
    failure: Option<String>,
}

impl Replica {
    pub(crate) fn on_links(&mut self, from: NodeId, connected: Vec<NodeId>, failure: Option<String>) {
        let membership = self.core.membership();
        if self.core.is_leader() && membership.contains(&from) {
            let connected = connected.into_iter().filter(|id| membership.contains(id)).collect();
            self.links.reports.insert(from, Report { connected, failure });
        }
    }

    /// Why a member does not work, if it has told this leader so.
    pub(crate) fn failure_of(&self, id: NodeId) -> Option<&str> {
        let report = self.links.reports.get(&id).filter(|_| self.core.is_leader())?;
        report.failure.as_deref()
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
        let leader = self.leader_at_hand();
        if leader.is_none() && !self.tells_everybody() {
            return;
        }
        let failure = self.failure.as_deref().map(first_line).or_else(|| self.trouble());
        let told = &self.links.told;
        if told.connected == self.reachable && told.failure.as_deref() == failure && now < self.links.tell_at {
            return;
        }
        let failure = failure.map(str::to_owned);
        let connected = self.reachable.iter().copied().collect();
        self.links.told = Report { connected: self.reachable.clone(), failure: failure.clone() };
        self.links.tell_at = now + self.config.election_timeout * REPORT_EVERY;
        let links = PeerMessage::Links { from: self.core.id(), connected, failure };
        match leader {
            Some(leader) => self.effects.push(Effect::Send(leader, links)),
            None => self.effects.extend(self.reachable.iter().map(|to| Effect::Send(*to, links.clone()))),
        }
    }

    /// One whose disk has failed takes part in no term that comes, and never hears who leads in it.
    fn tells_everybody(&self) -> bool {
        self.failure.is_some() && self.core.leader().is_none() && !self.reachable.is_empty()
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
        let reaches = |from: &NodeId, to: &NodeId| {
            from == to || self.links.reports.get(from).is_some_and(|r| r.connected.contains(to))
        };
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
        let is_owed = self.leader_at_hand().is_some() || self.tells_everybody();
        if is_owed { self.links.tell_at } else { Instant::NEVER }
    }
}

/// All that others need: below it is where in the code it came about.
fn first_line(why: &str) -> &str {
    why.lines().next().unwrap_or_default()
}
