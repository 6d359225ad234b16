//! What is searched: who there is, how it begins, and how often what may happen.

use std::sync::Arc;

use graft_domain::{ClusterId, Entry, Index, Membership, NodeId, Payload, Target, Term};

use crate::disk::{Disk, Snapshot};

/// How often something may happen on one way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Bounds {
    /// The last term that anybody may stand in.
    pub terms: u64,
    /// Campaigns, and leaders that step down because they hear nobody.
    pub timeouts: u8,
    pub proposals: u8,
    pub crashes: u8,
    /// Heartbeats beyond those that a leader begins with.
    pub beats: u8,
    pub changes: u8,
    pub transfers: u8,
    /// Transfers given up for lack of time.
    pub expiries: u8,
    pub snapshots: u8,
}

/// How the cores are run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a rule of its own")]
pub(crate) struct Rules {
    /// Campaigns begin with pre-votes; if not, it is as if everybody had said yes.
    pub(crate) pre_votes: bool,
    /// An append carries one entry at most.
    pub(crate) one_by_one: bool,
    /// Disks report writes that they do not keep: this has to be found out.
    pub(crate) lying: bool,
    /// Messages that are nothing to anybody any more stay on the wire.
    pub(crate) keeps_void: bool,
}

/// Something that has happened before a search begins, and all that came of it among some; whatever else was said is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Before {
    pub(crate) place: usize,
    pub(crate) event: Event,
    /// Whose disks have done everything, and who has heard everything.
    pub(crate) among: &'static [usize],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    Campaign,
    /// The same, up to where it leads.
    Lead,
    Command(u8),
    Crash,
    /// Nothing but that disks go on.
    Wait,
}

const fn before(place: usize, event: Event, among: &'static [usize]) -> Before {
    Before { place, event, among }
}

/// One search.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    /// The membership to begin with.
    pub(crate) membership: Membership,
    /// Nothing is on any disk but who founds the cluster. If not, that is the first entry on every disk, committed.
    pub(crate) blank: bool,
    pub(crate) before: Vec<Before>,
    /// Members that have never heard anything: nothing is on their disks.
    pub(crate) newcomers: &'static [usize],
    /// What a leader may be asked to make of the membership.
    pub(crate) changes: Vec<Membership>,
    pub(crate) rules: Rules,
    pub bounds: Bounds,
    /// What must be reached for the search to mean anything.
    pub(crate) reaches: &'static [Reach],
}

/// Something that is seen to happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reach {
    Chosen,
    SecondLeader,
    Cut,
    Joint,
    JointLeft,
    Handed,
    GivenUp,
    Installed,
    Promoted,
}

pub(crate) fn id(place: usize) -> NodeId {
    const NAMES: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];
    let name = NAMES.get(place).copied().unwrap_or(NAMES[0]);
    #[expect(clippy::unwrap_used, reason = "a constant")]
    NodeId::new(name).unwrap() // The names above are good ones, as every search shows at once.
}

/// Voters and learners, by their places.
fn membership(voters: &[usize], learners: &[usize]) -> Membership {
    let all = voters.iter().chain(learners);
    let mut membership = Membership::founding(all.map(|place| (id(*place), "")));
    membership.cluster = ClusterId(1);
    for place in learners {
        if let Some(member) = membership.members.get_mut(&id(*place)) {
            (member.voter, member.target) = (false, Target::Learner);
        }
    }
    membership
}

/// The next configuration on the way to one in which some vote, some do not, and some are gone.
fn towards(from: &Membership, votes: &[(usize, Target)]) -> Membership {
    let mut wanted = from.clone();
    for (place, target) in votes {
        if let Some(member) = wanted.members.get_mut(&id(*place)) {
            member.target = *target;
        }
    }
    wanted.next().unwrap_or(wanted)
}

impl Scenario {
    /// The same with disks that lie.
    #[must_use]
    pub fn lying(mut self) -> Self {
        self.rules.lying = true;
        self
    }

    pub(crate) fn members(&self) -> usize {
        self.membership.members.len()
    }

    /// What is on a member's disk before anything happens.
    pub(crate) fn disk(&self, place: usize) -> Disk {
        let mut founding = self.membership.clone();
        founding.cluster = ClusterId::UNKNOWN;
        let is_newcomer = self.newcomers.contains(&place);
        let founding = if is_newcomer { Arc::default() } else { Arc::new(founding) };
        let mut disk = Disk { snapshot: Snapshot { membership: founding, ..Snapshot::default() }, ..Disk::default() };
        if !self.blank && !is_newcomer {
            (disk.term, disk.commit) = (Term(1), Index(1));
            disk.entries = vec![self.founding()];
        }
        disk
    }

    /// The entry that a cluster begins with.
    pub(crate) fn founding(&self) -> Entry {
        Entry { index: Index(1), term: Term(1), payload: Payload::Membership(Arc::new(self.membership.clone())) }
    }
}

/// All of them.
pub fn all() -> Vec<Scenario> {
    vec![elections(), joint(), transfer(), snapshot(), promotion(), pre_votes(), prior_term()]
}

fn elections() -> Scenario {
    let mut membership = membership(&[0, 1, 2], &[]);
    membership.cluster = ClusterId::UNKNOWN;
    Scenario {
        name: "elections",
        about: "3 members with empty disks, up to term 3, 2 commands, 1 crash",
        membership,
        blank: true,
        before: Vec::new(),
        newcomers: &[],
        changes: Vec::new(),
        rules: Rules::default(),
        bounds: Bounds { terms: 3, timeouts: 3, proposals: 2, crashes: 1, ..Bounds::default() },
        reaches: &[Reach::Chosen, Reach::SecondLeader],
    }
}

fn joint() -> Scenario {
    let membership = membership(&[0, 1, 2], &[3]);
    let exchanges = [(2, 3), (0, 3)];
    let changes = exchanges.map(|(out, new)| towards(&membership, &[(out, Target::Gone), (new, Target::Voter)]));
    Scenario {
        name: "joint",
        about: "n1 leads n1 n2 n3 and the learner n4: n4 takes the place of n3 or of n1 in one step, 1 crash",
        changes: changes.to_vec(),
        membership,
        blank: false,
        before: vec![before(0, Event::Campaign, &[0, 1, 2, 3])],
        newcomers: &[],
        rules: Rules::default(),
        bounds: Bounds { terms: 3, timeouts: 2, crashes: 1, changes: 1, ..Bounds::default() },
        reaches: &[Reach::SecondLeader, Reach::Joint, Reach::JointLeft],
    }
}

fn transfer() -> Scenario {
    Scenario {
        name: "transfer",
        about: "n1 leads n1 n2 n3 and is told twice to hand over; 1 command, 1 crash, 1 transfer that takes too long",
        membership: membership(&[0, 1, 2], &[]),
        blank: false,
        before: vec![before(0, Event::Campaign, &[0, 1, 2])],
        newcomers: &[],
        changes: Vec::new(),
        rules: Rules::default(),
        bounds: Bounds {
            terms: 4,
            timeouts: 2,
            proposals: 1,
            crashes: 1,
            beats: 1,
            transfers: 2,
            expiries: 1,
            ..Bounds::default()
        },
        reaches: &[Reach::Chosen, Reach::SecondLeader, Reach::Handed, Reach::GivenUp],
    }
}

fn snapshot() -> Scenario {
    Scenario {
        name: "snapshot",
        about: "n1 leads n1 n2 n3, n3 lacks all but the first entry: 2 snapshots at any index of anyone, 1 command, 1 crash",
        membership: membership(&[0, 1, 2], &[]),
        blank: false,
        before: vec![before(0, Event::Campaign, &[0, 1]), before(0, Event::Command(9), &[0, 1])],
        newcomers: &[],
        changes: Vec::new(),
        rules: Rules::default(),
        bounds: Bounds { terms: 3, timeouts: 2, proposals: 1, crashes: 1, beats: 1, snapshots: 2, ..Bounds::default() },
        reaches: &[Reach::Chosen, Reach::SecondLeader, Reach::Installed],
    }
}

fn promotion() -> Scenario {
    let membership = membership(&[0, 1], &[2]);
    let promoted = towards(&membership, &[(2, Target::Voter)]);
    let demoted = towards(&promoted, &[(1, Target::Learner)]);
    Scenario {
        name: "promotion",
        about: "n1 leads n1 n2, the learner n3 has nothing yet: it is filled and given a vote, n2 may lose its own; 1 crash",
        changes: vec![promoted, demoted],
        membership,
        blank: false,
        before: vec![before(0, Event::Campaign, &[0, 1])],
        newcomers: &[2],
        rules: Rules::default(),
        bounds: Bounds { terms: 3, timeouts: 2, crashes: 1, changes: 2, beats: 1, ..Bounds::default() },
        reaches: &[Reach::SecondLeader, Reach::Promoted],
    }
}

fn pre_votes() -> Scenario {
    Scenario {
        name: "pre-votes",
        about: "as elections, from term 1 on, and every campaign begins with pre-votes",
        membership: membership(&[0, 1, 2], &[]),
        blank: false,
        before: vec![before(0, Event::Campaign, &[0, 1, 2])],
        newcomers: &[],
        changes: Vec::new(),
        rules: Rules { pre_votes: true, ..Rules::default() },
        bounds: Bounds { terms: 3, timeouts: 2, proposals: 1, crashes: 1, ..Bounds::default() },
        reaches: &[Reach::Chosen, Reach::SecondLeader],
    }
}

/// Figure 3.7 of the thesis, after its part b: an entry of term 2 is on n1 alone, and one of term 3 in its place on n2 alone.
fn prior_term() -> Scenario {
    Scenario {
        name: "prior-term",
        about: "n1 leads term 4 with an entry of term 2, n2 has one of term 3 in its place, n3 neither; up to term 5",
        membership: membership(&[0, 1, 2], &[]),
        blank: false,
        before: vec![
            before(0, Event::Campaign, &[0, 1, 2]),
            before(0, Event::Command(9), &[0]),
            before(0, Event::Crash, &[]),
            before(0, Event::Campaign, &[0]),
            before(1, Event::Lead, &[1, 2]),
            before(1, Event::Wait, &[1]),
            before(1, Event::Crash, &[]),
            before(0, Event::Lead, &[0, 2]),
        ],
        newcomers: &[],
        changes: Vec::new(),
        rules: Rules { one_by_one: true, ..Rules::default() },
        bounds: Bounds { terms: 5, timeouts: 2, beats: 1, ..Bounds::default() },
        reaches: &[Reach::SecondLeader, Reach::Cut],
    }
}
