//! What a search must come by to mean anything.

use std::sync::PoisonError;

use graft_domain::{Envelope, Membership, Message};
use stateright::Property;

use crate::model::{Cluster, State};
use crate::scenario::{Event, Reach};

impl Cluster {
    /// Whether this state is the first to show something that a search must come by.
    fn reaches(&self, state: &State, reach: Reach) -> bool {
        if !self.shows(state, reach) {
            return false;
        }
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = !reached.contains(&reach);
        if is_news {
            reached.push(reach);
        }
        is_news
    }

    fn shows(&self, state: &State, reach: Reach) -> bool {
        let past = &state.past;
        match reach {
            Reach::Chosen => {
                let history = self.scenario.before.iter().filter(|before| matches!(before.event, Event::Command(_)));
                past.commands() > history.count()
            }
            Reach::SecondLeader => past.leaders().len() > self.leaders_before.max(1),
            Reach::Cut => state.members.iter().any(|member| {
                let gone = |entry: &&graft_domain::Entry| member.core.entry(entry.index).is_some_and(|e| e != *entry);
                member.disk.entries.iter().any(|entry| gone(&entry))
            }),
            Reach::Joint => past.memberships().any(Membership::is_joint),
            Reach::JointLeft => {
                past.memberships().skip_while(|membership| !membership.is_joint()).any(|m| !m.is_joint())
            }
            Reach::Handed => {
                let asks = |envelope: &Envelope| match &envelope.message {
                    Message::Vote(request) if request.transfer => Some((request.term, envelope.from)),
                    _ => None,
                };
                state.wire.iter().filter_map(|envelope| asks(envelope)).any(|led| past.leaders().contains(&led))
            }
            Reach::GivenUp => state.spent.expiries > 0 && state.members.iter().any(|m| m.core.is_leader()),
            Reach::Installed => {
                let spent = usize::from(state.spent.snapshots);
                past.snapshots().len() > spent
            }
            Reach::Promoted => past.memberships().skip(1).any(|m| m.voters().count() > 2),
        }
    }
}

impl Reach {
    pub(crate) fn property(self) -> Property<Cluster> {
        match self {
            Self::Chosen => Property::sometimes("a command is chosen", |c, s| c.reaches(s, Self::Chosen)),
            Self::SecondLeader => Property::sometimes("a second leader", |c, s| c.reaches(s, Self::SecondLeader)),
            Self::Cut => Property::sometimes("a log is cut", |c, s| c.reaches(s, Self::Cut)),
            Self::Joint => Property::sometimes("a joint membership", |c, s| c.reaches(s, Self::Joint)),
            Self::JointLeft => Property::sometimes("a joint membership is left", |c, s| c.reaches(s, Self::JointLeft)),
            Self::Handed => Property::sometimes("leadership is handed over", |c, s| c.reaches(s, Self::Handed)),
            Self::GivenUp => Property::sometimes("a transfer is given up", |c, s| c.reaches(s, Self::GivenUp)),
            Self::Installed => Property::sometimes("a snapshot is installed", |c, s| c.reaches(s, Self::Installed)),
            Self::Promoted => Property::sometimes("a learner is given a vote", |c, s| c.reaches(s, Self::Promoted)),
        }
    }
}
