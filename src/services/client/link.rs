//! A connection to a member, as far as the client's decisions need to know it.

use std::time::Duration;

use graft_domain::{Instant, NodeId};

use crate::numbered::Numbered;

/// Names a connection; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

/// Who leads, as a member says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Hint {
    Nobody,
    Leads { id: NodeId, address: String },
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each says a thing of its own")]
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) address: String,
    /// Who answers there, once it has said so.
    pub(super) member: Option<NodeId>,
    /// What was said on it and is not answered, by number.
    pub(super) sent: Numbered<()>,
    /// When it was heard last, or began to owe an answer.
    pub(super) heard: Instant,
    /// Asked how it is, at this time, and not answered yet.
    pub(super) asked: Option<(u64, Instant)>,
    /// When to ask again who the members are.
    pub(super) refresh: Instant,
    pub(super) leader: Option<NodeId>,
    /// Where the leader is, when that is somebody else.
    pub(super) elsewhere: Option<String>,
    /// Since when it knows of no leader.
    pub(super) leaderless: Option<Instant>,
    /// It cannot do what is asked of it.
    pub(super) in_trouble: bool,
    /// It was dialled to look for a better one than what there is.
    pub(super) is_look: bool,
    /// It has been made; whether it is of use is another question.
    pub(super) stands: bool,
    /// When it began to be made, or stood.
    pub(super) since: Instant,
    /// Its member has named the cluster that this client belongs to.
    pub(super) is_named: bool,
    /// How often in a row it was asked and could not.
    pub(super) unnamed: u32,
}

impl Link {
    pub(super) fn new(id: LinkId, address: String, now: Instant, is_look: bool) -> Self {
        Self {
            id,
            address,
            member: None,
            sent: Numbered::default(),
            heard: now,
            asked: None,
            refresh: now,
            leader: None,
            elsewhere: None,
            leaderless: None,
            in_trouble: false,
            is_look,
            stands: false,
            since: now,
            is_named: false,
            unnamed: 0,
        }
    }

    /// It says who leads. Answers whether that is news.
    pub(super) fn hears(&mut self, hint: Hint, now: Instant) -> bool {
        let before = (self.leader, self.elsewhere.clone());
        match hint {
            Hint::Nobody => {
                (self.leader, self.elsewhere) = (None, None);
                self.leaderless = self.leaderless.or(Some(now));
            }
            Hint::Leads { id, address } => {
                let is_here = self.member == Some(id) || address == self.address || address.is_empty();
                (self.leader, self.leaderless) = (Some(id), None);
                self.elsewhere = (!is_here).then_some(address);
            }
        }
        before != (self.leader, self.elsewhere.clone())
    }

    /// Another one had better be looked for, from this time on.
    pub(super) fn troubled_from(&self, patience: Duration) -> Instant {
        match self.leaderless {
            _ if self.in_trouble || !self.is_named => Instant::default(),
            Some(since) => since + patience,
            None => Instant::NEVER,
        }
    }

    /// When it has been silent for too long: asked how it is, or given up if it was.
    pub(super) fn silent_from(&self, quiet: Duration) -> Instant {
        match self.asked {
            Some((_, asked)) => self.heard.max(asked) + quiet,
            None if self.sent.is_empty() => Instant::NEVER,
            None => self.heard + quiet,
        }
    }
}
