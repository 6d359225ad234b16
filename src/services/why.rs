//! Why things are as they are, in sentences; and what a change would lead to.

use graft_domain::{Index, Membership, NodeId, Target};

use crate::change::Change;
use crate::error::Refusal;
use crate::replica::Replica;
use crate::status::named;

/// What a change would lead to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WhatIf {
    /// Why it would be refused, if so.
    pub refused: Option<String>,
    pub voters: Vec<NodeId>,
    pub learners: Vec<NodeId>,
    /// Voters that have to be up for anything to be decided.
    pub needed: usize,
    /// Voters that are up, as far as can be told from here. Newcomers count as up.
    pub alive: Vec<NodeId>,
}

impl WhatIf {
    /// How many more voters may fail.
    pub fn tolerates(&self) -> usize {
        self.alive.len().saturating_sub(self.needed)
    }
}

impl Replica {
    /// What stands in the way of work here and now; nothing if all is well.
    pub fn why(&self) -> Vec<String> {
        let mut why = Vec::new();
        if self.removed {
            return vec![format!("{} was removed from the cluster and takes no part in it any more", self.core.id())];
        }
        if let Some(failure) = &self.failure {
            why.push(format!("{} does not work any more: {failure}", self.core.id()));
        }
        if self.core.membership().members.is_empty() {
            why.push(format!("{} waits to be let into a cluster", self.core.id()));
            why.extend(self.join_trouble.clone());
            return why;
        }
        self.why_no_leader(&mut why);
        // At the address to join by there is somebody else.
        why.extend(self.join_trouble.clone().filter(|_| self.core.leader().is_none()));
        self.why_no_commit(&mut why);
        self.why_members_trouble(&mut why);
        if self.storage_full {
            why.push("no space is left on this node's disk; it goes on by itself when there is some".to_owned());
        } else if let Some(stalled) = self.core.storage_stalled(self.clock.now) {
            why.push(format!("this node's disk has not finished a write for {:.1} s", stalled.as_secs_f64()));
        }
        if let Some(stuck) = self.machine_stuck() {
            let (seconds, from) = (stuck.as_secs_f64(), self.core.applied().next());
            why.push(format!(
                "this node's machine has not got on for {seconds:.1} s: it is at the command at index {from} or at one soon behind \
                 it, or at a query or a snapshot before it"
            ));
        }
        if let Some(error) = &self.snapshots.error {
            why.push(format!("the last snapshot failed: {error}"));
        }
        if let Some(change) = self.change_under_way() {
            why.push(format!("a change of the membership is under way: {change}"));
        }
        why
    }

    fn why_no_leader(&self, why: &mut Vec<String>) {
        match self.why_waiting() {
            Refusal::NoQuorum { reachable, needed } => {
                let voters = self.core.membership().voters().count();
                why.push(format!(
                    "no majority: {reachable} of {voters} voters can be reached from here, {needed} have to be"
                ));
            }
            Refusal::NoLeader => {
                let term = self.core.term();
                why.push(format!(
                    "there is no leader in term {term} yet; one is elected within a second or so, unless a member that votes for \
                     nobody is needed for it: each one's why() says whether it is that"
                ));
                why.extend(self.why_no_vote());
            }
            _ => {}
        }
    }

    /// Why this node elects nobody, if so: that may keep a cluster from having a leader though a majority is up (decision 6).
    fn why_no_vote(&self) -> Option<String> {
        let (id, last) = (self.core.id(), self.core.last().index);
        let others = "start the members that are down, for one of them may have what it lacks";
        if self.core.may_have_forgotten() {
            let needed = match self.core.memory_from() {
                Index::LAST => String::new(),
                needed => format!(" of at least {needed}"),
            };
            return Some(format!(
                "{id} once had an empty log and has {last}{needed} entries again: it may have acknowledged what it lacks, and \
                 votes for nobody until a leader has given it the rest; {others}"
            ));
        }
        (self.core.is_blank() && self.core.membership().voters().count() > 1).then(|| {
            format!(
                "the log of {id} is empty: it helps to found a cluster, and votes for nobody in one that has worked before until a \
                 leader has filled its log; {others}"
            )
        })
    }

    fn why_no_commit(&self, why: &mut Vec<String>) {
        let (last, commit) = (self.core.last().index, self.core.commit());
        let waiting = last.0.saturating_sub(commit.0);
        if self.core.is_leader() && waiting > 0 && !self.core.has_quorum() {
            why.push(format!("{waiting} entries wait for a majority of the voters to have them"));
        }
        if self.core.is_log_full() {
            why.push("the log has reached log_bytes_max: commands are refused until a snapshot shortens it".to_owned());
        }
    }

    fn why_members_trouble(&self, why: &mut Vec<String>) {
        for (id, member) in &self.core.membership().members {
            let name = named(*id, &member.address);
            if let Some(failure) = self.failure_of(*id) {
                why.push(format!("{name} does not work: {failure}"));
            }
            if let Some(difference) = self.difference_of(*id) {
                why.push(format!("{name}: {difference}"));
            }
            if *id == self.core.id() || self.reachable.contains(id) {
                continue;
            }
            let trouble = self.troubles.get(id).map_or_else(|| "no connection yet".to_owned(), Clone::clone);
            why.push(format!("{name} cannot be reached: {trouble}"));
        }
    }

    /// What the cluster would be after a change, as this node sees it. Nothing is changed.
    pub fn what_if(&self, change: &Change) -> WhatIf {
        let current = self.core.membership();
        let (planned, refused) = match change.plan(current) {
            Ok(planned) => {
                let dead = self.refuse_a_dead_majority(&planned).err();
                (planned, dead.map(|refusal| refusal.to_string()))
            }
            Err(refused) => ((**current).clone(), Some(refused.0)),
        };
        self.outlook(&planned, refused)
    }

    fn outlook(&self, planned: &Membership, refused: Option<String>) -> WhatIf {
        let current = self.core.membership();
        let those = |target: Target| {
            planned.members.iter().filter(move |(_, member)| member.target == target).map(|(id, _)| *id)
        };
        let voters: Vec<NodeId> = those(Target::Voter).collect();
        let up = |id: &NodeId| !current.contains(id) || self.seems_alive(*id);
        let alive = voters.iter().copied().filter(up).collect();
        WhatIf { refused, learners: those(Target::Learner).collect(), needed: voters.len() / 2 + 1, alive, voters }
    }
}
