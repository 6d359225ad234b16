//! What was, and must stay so. It is part of a state: two that look alike and come of different pasts may be judged
//! differently.

use graft_domain::{Entry, Index, NodeId, Payload, Term};

use crate::disk::Snapshot;
use crate::kept::Kept;

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Past {
    /// Who has led which term, by term.
    leaders: Vec<(Term, NodeId)>,
    /// From index 1 on, with the term of the leader that committed it.
    committed: Vec<(Entry, Term)>,
    /// Durable on whom, in the order they came: whoever fetches may be given any.
    snapshots: Vec<(NodeId, Kept<Snapshot>)>,
}

impl Past {
    /// Who leads a term: who is remembered, or this one from now on.
    pub(crate) fn leader_of(&mut self, term: Term, id: NodeId) -> NodeId {
        if let Some((_, first)) = self.leaders.iter().find(|(led, _)| *led == term) {
            return *first;
        }
        self.leaders.push((term, id));
        self.leaders.sort_unstable();
        id
    }

    pub(crate) fn leaders(&self) -> &[(Term, NodeId)] {
        &self.leaders
    }

    pub(crate) fn committed(&self, index: Index) -> Option<&Entry> {
        let place = usize::try_from(index.0).ok()?.checked_sub(1)?;
        self.committed.get(place).map(|(entry, _)| entry)
    }

    pub(crate) fn committed_last(&self) -> Index {
        Index(self.committed.len() as u64)
    }

    /// In terms before this one.
    pub(crate) fn committed_before(&self, term: Term) -> impl Iterator<Item = &Entry> {
        self.committed.iter().filter(move |(_, by)| *by < term).map(|(entry, _)| entry)
    }

    pub(crate) fn all_committed(&self) -> impl Iterator<Item = &Entry> {
        self.committed.iter().map(|(entry, _)| entry)
    }

    /// The next entry is committed. Leaders commit in order, so there is no gap.
    pub(crate) fn commit(&mut self, entry: Entry, by: Term) {
        debug_assert_eq!(entry.index.0, self.committed.len() as u64 + 1, "entries are committed in order");
        self.committed.push((entry, by));
    }

    pub(crate) fn keep_snapshot(&mut self, of: NodeId, snapshot: Kept<Snapshot>) {
        if !self.snapshots.contains(&(of, snapshot)) {
            self.snapshots.push((of, snapshot));
            self.snapshots.sort_unstable_by_key(|(id, snapshot)| (*id, snapshot.last));
        }
    }

    pub(crate) fn snapshots(&self) -> &[(NodeId, Kept<Snapshot>)] {
        &self.snapshots
    }

    /// How many commands are committed.
    pub(crate) fn commands(&self) -> usize {
        self.all_committed().filter(|entry| matches!(entry.payload, Payload::Command(_))).count()
    }

    /// The memberships that are committed, in order.
    pub(crate) fn memberships(&self) -> impl Iterator<Item = &graft_domain::Membership> {
        self.all_committed().filter_map(|entry| match &entry.payload {
            Payload::Membership(membership) => Some(&**membership),
            _ => None,
        })
    }
}
