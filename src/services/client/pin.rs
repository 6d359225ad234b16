//! Which cluster this client belongs to: the one that it is told, or the first that a member names, for its whole life.
//!
//! Sessions and slots are copied by a backup, so two clusters may know the same ones: a command whose fate in the one is unclear
//! must never be said to the other. So a connection is of use once its member has named this cluster.

use graft_domain::ClusterId;

use super::demand::{Again, Answer};
use super::link::{Link, LinkId};
use super::{Clerk, Effect};
use crate::error::Outcome;

/// Such a member waits to be let in, or started and has heard of no leader since.
const UNNAMED: &str = "it cannot say yet which cluster it belongs to, as it has not heard of a leader since it started";

/// What a member is to this client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    Ours,
    /// It has not named a cluster yet.
    Unnamed,
    /// Of another cluster: its connection is closed.
    Strange,
}

impl Clerk {
    /// A member says which cluster it belongs to.
    pub(super) fn recognize(&mut self, id: LinkId, cluster: ClusterId) -> Standing {
        let Some(link) = self.link(id) else { return Standing::Strange };
        // No member forgets while its connection stands.
        if cluster == ClusterId::UNKNOWN && !link.is_named {
            return Standing::Unnamed;
        }
        if self.cluster == ClusterId::UNKNOWN {
            self.cluster = cluster;
        }
        if cluster != self.cluster {
            self.disown(id, cluster);
            return Standing::Strange;
        }
        if let Some(link) = self.link(id)
            && !std::mem::replace(&mut link.is_named, true)
            && std::mem::take(&mut link.unnamed) > 0
        {
            link.in_trouble = false;
            let address = link.address.clone();
            self.endpoints.good(&address);
        }
        Standing::Ours
    }

    /// What it was told before may have been done by this client's own cluster, and is asked for there.
    fn disown(&mut self, id: LinkId, cluster: ClusterId) {
        let Some(address) = self.link(id).map(|link| link.address.clone()) else { return };
        let theirs = match cluster {
            ClusterId::UNKNOWN => "no cluster".to_owned(),
            other => format!("cluster {other}"),
        };
        let ours = self.cluster;
        let belongs = if self.config.cluster == ClusterId::UNKNOWN {
            format!(
                "belongs to cluster {ours}: stop that member or correct the endpoints; after a restore or a recovery make a \
                 new client"
            )
        } else {
            format!(
                "is to speak with cluster {ours} alone: stop that member, correct the endpoints, or name its cluster"
            )
        };
        let why = format!("a member of {theirs} is at this address, and this client {belongs}");
        self.effects.push(Effect::Close(id));
        self.lost(id, &why.into());
        self.endpoints.estrange(&address);
        if self.current.is_none() && self.endpoints.all_are_strange() {
            self.end_all_unsent();
        }
    }

    /// Nothing of worth is said to it; it is asked again, and others are looked for. It is better than nobody, since it can be
    /// asked how it is.
    pub(super) fn leave_unnamed(&mut self, id: LinkId, has_news: bool) {
        if let Some(next) = self.next.take_if(|next| next.id == id) {
            if self.current.is_some() {
                self.endpoints.strike(&next.address, UNNAMED, self.now, &mut self.random);
                return self.effects.push(Effect::Close(id));
            }
            self.current = Some(next);
        }
        if let Some(link) = self.link(id)
            && has_news
        {
            link.unnamed = 0;
        }
        self.blame(id, UNNAMED);
        self.ask_later(id);
    }

    fn ask_later(&mut self, id: LinkId) {
        let Some(link) = self.link(id) else { return };
        link.unnamed = link.unnamed.saturating_add(1);
        let failures = link.unnamed;
        let at = self.now + self.pause(failures);
        if let Some(link) = self.link(id) {
            link.refresh = at;
        }
    }

    /// It was asked how it is, and did not say.
    pub(super) fn said_something_else(&mut self, id: LinkId, answer: &Answer) {
        if self.link(id).is_none_or(|link| link.is_named) {
            return;
        }
        let why = match answer {
            Answer::Outcome(Outcome::Refused(refusal)) if Again::after(refusal) == Again::Later => None,
            Answer::Outcome(Outcome::Refused(refusal)) => Some(refusal.to_string()),
            Answer::Outcome(Outcome::Unknown { why, .. }) | Answer::Unclear(why) => Some(why.clone()),
            _ => Some("it answered something else than it was asked: is it a member of a Graft cluster?".to_owned()),
        };
        match why {
            Some(why) if self.next.as_ref().is_some_and(|next| next.id == id) => {
                self.effects.push(Effect::Close(id));
                self.lost(id, &format!("asked which cluster it belongs to: {why}").into());
            }
            _ => self.ask_later(id),
        }
    }

    /// The connection that calls can go to.
    pub(super) fn usable(&self) -> Option<&Link> {
        self.current.as_ref().filter(|link| link.is_named)
    }
}
