//! What is left of a cluster whose majority is lost, and which of its members' logs to go on with.

use std::collections::BTreeSet;
use std::sync::Arc;

use graft_domain::{ClusterId, EntryId, Incarnation, Index, Membership, NodeId};

/// What one data directory says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remains {
    pub id: NodeId,
    pub incarnation: Incarnation,
    pub cluster: ClusterId,
    /// Where its log ends.
    pub last: EntryId,
    /// So far it is known to be committed.
    pub commit: Index,
    /// In force from there to the end of the log, one after the other; none if the log is empty. The last may have been rolled
    /// back by the others.
    pub memberships: Vec<Arc<Membership>>,
}

/// What to do with them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The place of the directory that has most.
    pub best: usize,
    /// Voters that none of these directories belongs to.
    pub missing: Vec<NodeId>,
    /// Whether these members can go on by themselves: they only have to be started.
    pub is_quorum: bool,
    /// Whether every command that was acknowledged is in the best one, if the membership did not change after what these
    /// directories know: no majority is missing, of whichever membership was in force (thesis §3.6.1, leader completeness).
    pub is_complete: bool,
}

/// Compares what is left of one cluster.
///
/// The best log is the one that ends with the newest term, and then the longest: a candidate with it would win every election
/// among these members (thesis §3.6.1), and it holds whatever a majority of them had.
///
/// # Errors
/// In words: if there are none, if they are of several clusters, or if two are of the same member.
pub fn judge(remains: &[Remains]) -> Result<Verdict, String> {
    let best =
        (0..remains.len()).max_by_key(|at| (remains[*at].last.term, remains[*at].last.index, remains[*at].commit));
    let Some(best) = best else { return Err("no data directory was given".to_owned()) };
    let Remains { cluster, memberships, .. } = &remains[best];
    let Some(membership) = memberships.last() else {
        return Err("their logs are empty: there is nothing to go on with".to_owned());
    };
    let is_strange = |other: &&Remains| other.cluster != *cluster && other.cluster != ClusterId::UNKNOWN;
    if let Some(other) = remains.iter().find(is_strange) {
        return Err(format!(
            "they are not of one cluster: {} belongs to {cluster}, and {} to {}",
            remains[best].id, other.id, other.cluster
        ));
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = remains.iter().find(|one| !seen.insert(one.id)) {
        return Err(format!("two of the directories are of {}: give the one that it used last", twice.id));
    }
    let survives = |membership: &Membership, id: &NodeId| {
        let recorded = membership.members.get(id).map_or(Incarnation::UNKNOWN, |member| member.incarnation);
        let is_it = |one: &Remains| one.id == *id && (recorded == Incarnation::UNKNOWN || recorded == one.incarnation);
        remains.iter().any(is_it)
    };
    let voters: BTreeSet<NodeId> = membership.voters().chain(membership.outgoing()).collect();
    let is_complete = |membership: &Arc<Membership>| !membership.is_quorum(|id| !survives(membership, id));
    Ok(Verdict {
        best,
        missing: voters.into_iter().filter(|id| !survives(membership, id)).collect(),
        is_quorum: membership.is_quorum(|id| survives(membership, id)),
        is_complete: memberships.iter().all(is_complete),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> NodeId {
        NodeId::new(&format!("n{n}")).expect("a good id")
    }

    fn cluster(size: usize) -> Arc<Membership> {
        let mut membership = Membership::founding((1..=size).map(|n| (id(n), "127.0.0.1:7001")));
        membership.cluster = ClusterId(7);
        for (n, member) in membership.members.values_mut().enumerate() {
            member.incarnation = Incarnation(n as u64 + 1);
        }
        Arc::new(membership)
    }

    fn remains(n: usize, last: (u64, u64), membership: &Arc<Membership>) -> Remains {
        Remains {
            id: id(n),
            incarnation: Incarnation(n as u64),
            cluster: membership.cluster,
            last: EntryId::new(last.0, last.1),
            commit: Index::ZERO,
            memberships: vec![Arc::clone(membership)],
        }
    }

    #[test]
    fn the_newest_term_is_better_than_the_longest_log() {
        let five = cluster(5);
        let all = [remains(1, (2, 90), &five), remains(2, (3, 10), &five), remains(3, (3, 9), &five)];
        let verdict = judge(&all).expect("they fit");
        assert_eq!((verdict.best, verdict.missing.as_slice()), (1, [id(4), id(5)].as_slice()));
        assert!(verdict.is_quorum && verdict.is_complete);
        let verdict = judge(&all[..2]).expect("they fit");
        assert!(!verdict.is_quorum && !verdict.is_complete, "three of five may have decided without these two");
        let four = cluster(4);
        let verdict = judge(&[remains(1, (1, 1), &four), remains(2, (1, 2), &four)]).expect("they fit");
        assert!(!verdict.is_quorum && verdict.is_complete, "two of four decide nothing without these two");
    }

    /// a appended {a b c d} and was cut off with d, where it reached nobody else; b and c went on as a majority of {a b c}.
    #[test]
    fn a_membership_that_may_have_been_rolled_back_proves_nothing() {
        let (three, four) = (cluster(3), cluster(4));
        let both =
            |n| Remains { memberships: vec![Arc::clone(&three), Arc::clone(&four)], ..remains(n, (5, 9), &four) };
        let verdict = judge(&[both(1), both(4)]).expect("they fit");
        assert_eq!(verdict.missing, [id(2), id(3)]);
        assert!(!verdict.is_quorum && !verdict.is_complete);
    }

    #[test]
    fn a_founder_that_has_nothing_yet_is_no_missing_voter() {
        let three = cluster(3);
        let blank = Remains { cluster: ClusterId::UNKNOWN, memberships: Vec::new(), ..remains(2, (0, 0), &three) };
        let verdict = judge(&[remains(1, (1, 3), &three), blank.clone()]).expect("they fit");
        assert_eq!(verdict.missing, [id(3)]);
        assert!(verdict.is_quorum);
        assert!(judge(&[blank]).is_err_and(|why| why.contains("logs are empty")));
    }

    #[test]
    fn a_directory_of_another_life_is_no_survivor() {
        let three = cluster(3);
        let wiped = Remains { incarnation: Incarnation(99), ..remains(2, (1, 1), &three) };
        let verdict = judge(&[remains(1, (2, 2), &three), wiped]).expect("they fit");
        assert_eq!(verdict.missing, [id(2), id(3)]);
        assert!(!verdict.is_quorum && !verdict.is_complete);
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let three = cluster(3);
        let other = Remains { cluster: ClusterId(8), ..remains(2, (1, 1), &three) };
        assert!(judge(&[]).is_err());
        assert!(judge(&[remains(1, (1, 1), &three), other]).is_err_and(|why| why.contains("not of one cluster")));
        let twice = [remains(1, (1, 1), &three), remains(1, (1, 2), &three)];
        assert!(judge(&twice).is_err_and(|why| why.contains("two of the directories are of n1")));
    }
}
