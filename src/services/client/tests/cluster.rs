//! A model of a cluster as a client sees it: what it has applied, who leads, and how its members behave.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use graft_domain::{ClusterId, Incarnation, Index, NodeId, Target, Term};

use crate::api::View;
use crate::change::{Ask, Change};
use crate::commands::Slot;
use crate::error::{Outcome, Refusal};
use crate::ports::Reply;
use crate::{MemberStatus, Status};

/// How one member is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mood {
    Well,
    /// Its process is stopped: it takes everything in and does nothing.
    Hung,
    Down,
    /// Says whatever comes to its mind, but never that something was done.
    Liar,
    /// A member of another cluster has its address.
    Strange,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) name: ClusterId,
    /// Members that started and have not heard of a leader since.
    pub(crate) unnamed: BTreeSet<usize>,
    pub(crate) moods: Vec<Mood>,
    pub(crate) leader: Option<usize>,
    pub(crate) term: u64,
    pub(crate) index: u64,
    /// Of each session what its commands answered, as far as it is kept, and up to where it is not.
    pub(super) sessions: BTreeMap<u64, (u64, BTreeMap<u64, Outcome>)>,
    /// How often each body was applied, and the first answer.
    pub(crate) applied: BTreeMap<Bytes, (u32, Outcome)>,
    /// How often each change was made.
    pub(crate) changed: BTreeMap<NodeId, u32>,
}

pub(crate) fn address(n: usize) -> String {
    format!("m{n}:1")
}

pub(crate) fn id(n: usize) -> NodeId {
    NodeId::new(&format!("m{n}")).unwrap()
}

impl Cluster {
    pub(crate) fn new(size: usize) -> Self {
        Self { name: ClusterId(1), moods: vec![Mood::Well; size], leader: Some(0), term: 1, ..Self::default() }
    }

    /// What comes of a backup of this one: another cluster, with one member, that knows what this one knows.
    pub(crate) fn restored(&self, member: usize) -> Self {
        let mut moods = vec![Mood::Down; self.moods.len()];
        moods[member] = Mood::Well;
        Self { name: ClusterId(2), moods, leader: Some(member), unnamed: BTreeSet::new(), ..self.clone() }
    }

    /// What is at this member's address when it lost its disk and founded a cluster of its own.
    pub(crate) fn founded(size: usize, member: usize) -> Self {
        Self { index: 0, ..Self::new(size).restored(member) }
    }

    /// A leader that can commit.
    pub(crate) fn leads(&self) -> Option<usize> {
        let well = self.moods.iter().filter(|mood| **mood == Mood::Well).count();
        self.leader.filter(|n| self.moods[*n] == Mood::Well && well > self.moods.len() / 2)
    }

    fn commit(&mut self) -> (Index, Term) {
        self.index += 1;
        (Index(self.index), Term(self.term))
    }

    pub(crate) fn open_session(&mut self) -> Outcome {
        let (index, term) = self.commit();
        self.sessions.insert(index.0, (1, BTreeMap::new()));
        Outcome::Done { index, term, reply: Reply::Value(Bytes::new()) }
    }

    pub(crate) fn expire_sessions(&mut self) {
        self.sessions.clear();
    }

    pub(crate) fn execute(&mut self, slot: Option<Slot>, body: &Bytes) -> Outcome {
        let (index, term) = self.commit();
        if let Some(slot) = slot {
            let Some((unanswered, answers)) = self.sessions.get_mut(&slot.session) else {
                return Outcome::Refused(Refusal::SessionExpired);
            };
            *unanswered = slot.unanswered.max(*unanswered);
            *answers = answers.split_off(unanswered);
            if let Some(answer) = answers.get(&slot.sequence) {
                return answer.clone();
            }
            if slot.sequence < *unanswered {
                return Outcome::unknown("its answer is not kept any more");
            }
            assert!(slot.sequence < *unanswered + super::super::session::WINDOW, "beyond the window: {slot:?}");
        }
        let first = Outcome::Done { index, term, reply: Reply::Value(body.clone()) };
        if let Some(slot) = slot {
            let kept = self.sessions.get_mut(&slot.session).unwrap();
            kept.1.insert(slot.sequence, first.clone());
        }
        let applied = self.applied.entry(body.clone()).or_insert_with(|| (0, first.clone()));
        applied.0 += 1;
        first
    }

    pub(crate) fn change(&mut self, ask: &Ask) -> Outcome {
        let (index, term) = self.commit();
        if let Ask::Change { change: Change::Remove { id }, .. } = ask {
            *self.changed.entry(*id).or_insert(0) += 1;
        }
        Outcome::Done { index, term, reply: Reply::Value(Bytes::new()) }
    }

    /// As of this entry.
    pub(crate) fn query(&self, body: &Bytes, index: u64) -> Outcome {
        Outcome::Done { index: Index(index), term: Term(self.term), reply: Reply::Value(body.clone()) }
    }

    pub(crate) fn view(&self, n: usize) -> View {
        let member = |n: usize| MemberStatus {
            id: id(n),
            address: address(n),
            voter: true,
            target: Target::Voter,
            incarnation: Incarnation(1),
            installing: false,
            sent: None,
            matched: None,
            last_contact: None,
            reachable: None,
            trouble: None,
            difference: None,
        };
        // Of another cluster each has nobody but himself.
        let members = (0..self.moods.len()).filter(|m| self.name == ClusterId(1) || *m == n).map(member).collect();
        let status = Status {
            id: id(n),
            role: "follower",
            term: Term(self.term),
            leader: self.leader.map(id),
            last: Index(self.index),
            commit: Index(self.index),
            applied: Index(self.index),
            snapshot: Index::ZERO,
            cluster: if self.unnamed.contains(&n) { ClusterId::UNKNOWN } else { self.name },
            members,
            has_quorum: self.leads().is_some(),
            error: None,
            error_code: None,
            trouble: None,
            membership_index: Index::ZERO,
            former: Vec::new(),
            change: None,
            log_bytes: 0,
            snapshot_bytes: None,
            snapshot_phase: None,
            snapshot_error: None,
            certificate: None,
        };
        View { status, why: Vec::new() }
    }
}
