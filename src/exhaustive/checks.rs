//! What must hold of the whole cluster, looked at whenever a member has acted.

use graft_domain::{Entry, EntryId, Index, Payload};

use crate::disk::{Disk, Snapshot};
use crate::kept::Kept;
use crate::member::{Commit, Member, Outcome};
use crate::past::Past;
use crate::promises::is_quorum;

/// What is checked, each by its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Rule {
    /// At most one leader a term.
    ElectionSafety,
    /// Logs with an entry in common are the same up to it.
    LogMatching,
    /// A leader has whatever was committed in terms before its own.
    LeaderCompleteness,
    /// What is committed or applied at a place never is anything else.
    StateMachineSafety,
    /// What is committed is durable on a quorum of the membership in force.
    DurableCommits,
    /// Votes and acknowledgements are durable before they leave.
    Promises,
    /// One change at a time, and quorums that meet.
    Memberships,
    /// A snapshot ends with a committed entry, and names the membership there.
    Snapshots,
    /// What always holds of one core: its own invariants, nothing that goes back, no breach seen.
    Invariants,
}

/// A rule that does not hold, and how.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Broken {
    pub(crate) rule: Rule,
    pub(crate) what: String,
}

impl Broken {
    pub(crate) fn new(rule: Rule, what: impl Into<String>) -> Self {
        Self { rule, what: what.into() }
    }
}

pub(crate) fn must(holds: bool, rule: Rule, what: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken::new(rule, what())) }
}

/// The cluster after a member has acted.
pub(crate) struct Scene<'a> {
    pub(crate) members: &'a [Kept<Member>],
    /// Who has acted.
    pub(crate) actor: usize,
    pub(crate) past: &'a Past,
}

impl Scene<'_> {
    /// Takes what has happened into the past, and holds it against that.
    pub(crate) fn after(&self, outcome: &Outcome) -> Result<Past, Broken> {
        let mut past = self.past.clone();
        if let Some(broken) = &outcome.broken {
            return Err(broken.clone());
        }
        let id = self.members[self.actor].core.id();
        if let Some(term) = outcome.leads {
            let first = past.leader_of(term, id);
            must(first == id, Rule::ElectionSafety, || format!("{first} and {id} both lead term {term}"))?;
        }
        for commit in &outcome.commits {
            self.commits(commit, &mut past)?;
        }
        for entry in &outcome.applies {
            let committed = past.committed(entry.index);
            must(committed == Some(entry), Rule::StateMachineSafety, || {
                format!("{id} applies {}, committed is {:?}", entry.id(), committed.map(Entry::id))
            })?;
        }
        for change in &outcome.changes {
            must(change.before <= past.committed_last(), Rule::Memberships, || {
                format!("{id} changes the membership at {} before that of {} is committed", change.index, change.before)
            })?;
        }
        if let Some(snapshot) = outcome.snapshot {
            covers(&snapshot, &past)?;
            past.keep_snapshot(id, snapshot);
        }
        self.logs_match()?;
        self.leaders_are_complete(&past)?;
        Ok(past)
    }

    fn commits(&self, commit: &Commit, past: &mut Past) -> Result<(), Broken> {
        let (entry, id) = (&commit.entry, self.members[self.actor].core.id());
        if let Some(known) = past.committed(entry.index) {
            return must(known == entry, Rule::StateMachineSafety, || {
                format!("committed {known:?} changes to {entry:?} on {id}")
            });
        }
        let Some(term) = commit.by else {
            let what = format!("{id} takes {} for committed before any leader did", entry.id());
            return Err(Broken::new(Rule::StateMachineSafety, what));
        };
        let holds = |other: &graft_domain::NodeId| {
            self.members.iter().any(|member| member.core.id() == *other && member.disk.holds(entry))
        };
        must(is_quorum(&commit.membership, holds), Rule::DurableCommits, || {
            format!("{id} commits {}, which is not durable on a quorum", entry.id())
        })?;
        past.commit(entry.clone(), term);
        Ok(())
    }

    fn leaders_are_complete(&self, past: &Past) -> Result<(), Broken> {
        for core in self.members.iter().map(|member| &member.core).filter(|core| core.is_leader()) {
            let (base, term) = (core.base().index, core.term());
            let lacks =
                past.committed_before(term).find(|entry| entry.index > base && core.entry(entry.index) != Some(*entry));
            must(lacks.is_none(), Rule::LeaderCompleteness, || {
                format!("{} leads term {term} without committed {:?}", core.id(), lacks.map(Entry::id))
            })?;
        }
        Ok(())
    }

    /// The log of who has acted, in memory and on its disk, with those of the others.
    fn logs_match(&self) -> Result<(), Broken> {
        let own = &self.members[self.actor];
        for (place, other) in self.members.iter().enumerate() {
            let alike = logs_agree(&Log::Memory(own), &Log::Memory(other))
                && logs_agree(&Log::Memory(own), &Log::Disk(&other.disk))
                && logs_agree(&Log::Disk(&own.disk), &Log::Memory(other))
                && logs_agree(&Log::Disk(&own.disk), &Log::Disk(&other.disk));
            must(alike, Rule::LogMatching, || {
                let (one, two) = (own.core.id(), other.core.id());
                let (own, other) = (ids(own), ids(&self.members[place]));
                format!("the logs of {one} and {two} have an entry in common, and differ before it: {own} and {other}")
            })?;
        }
        Ok(())
    }
}

fn ids(member: &Member) -> String {
    let ids =
        |entries: &mut dyn Iterator<Item = EntryId>| entries.map(|id| id.to_string()).collect::<Vec<_>>().join(" ");
    let (memory, disk) = (ids(&mut member.log().map(Entry::id)), ids(&mut member.disk.entries.iter().map(Entry::id)));
    format!("[{memory}] on disk [{disk}]")
}

/// A log, wherever it is.
enum Log<'a> {
    Memory(&'a Member),
    Disk(&'a Disk),
}

impl Log<'_> {
    fn entry(&self, index: Index) -> Option<&Entry> {
        match self {
            Self::Memory(member) => member.core.entry(index),
            Self::Disk(disk) => disk.entry(index),
        }
    }

    fn last(&self) -> Index {
        match self {
            Self::Memory(member) => member.core.last().index,
            Self::Disk(disk) => disk.entries.last().map_or(Index::ZERO, |entry| entry.index),
        }
    }
}

/// Where both have an entry of one term they have the same, and so they have before it.
fn logs_agree(one: &Log<'_>, other: &Log<'_>) -> bool {
    let both = (1..=one.last().min(other.last()).0)
        .rev()
        .filter_map(|index| one.entry(Index(index)).zip(other.entry(Index(index))));
    let mut common = both.skip_while(|(one, other)| one.term != other.term);
    common.all(|(one, other)| one == other)
}

/// A snapshot ends with a committed entry and has the membership of that place.
pub(crate) fn covers(snapshot: &Snapshot, past: &Past) -> Result<(), Broken> {
    let last = snapshot.last;
    let known = past.committed(last.index).map(Entry::id);
    must(known == Some(last), Rule::Snapshots, || format!("a snapshot of {last}, committed is {known:?}"))?;
    let in_force = past
        .all_committed()
        .take_while(|entry| entry.index <= last.index)
        .filter_map(|entry| if let Payload::Membership(membership) = &entry.payload { Some(membership) } else { None });
    let in_force = in_force.last();
    must(in_force.is_none_or(|m| **m == *snapshot.membership), Rule::Snapshots, || {
        format!("a snapshot of {last} has {:?}, in force is {in_force:?}", snapshot.membership)
    })
}
