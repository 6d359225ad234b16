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
    /// In force at the end of the log.
    pub membership: Arc<Membership>,
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
    /// directories know: no majority of voters is missing (thesis §3.6.1, leader completeness).
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
    let cluster = remains[best].cluster;
    if let Some(other) = remains.iter().find(|other| other.cluster != cluster) {
        return Err(format!(
            "they are not of one cluster: {} belongs to {cluster}, and {} to {}",
            remains[best].id, other.id, other.cluster
        ));
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = remains.iter().find(|one| !seen.insert(one.id)) {
        return Err(format!("two of the directories are of {}: give the one that it used last", twice.id));
    }
    let membership = &remains[best].membership;
    let survives = |id: &NodeId| {
        remains.iter().any(|one| {
            let recorded = membership.members.get(id).map_or(Incarnation::UNKNOWN, |member| member.incarnation);
            one.id == *id && (recorded == Incarnation::UNKNOWN || recorded == one.incarnation)
        })
    };
    let voters: BTreeSet<NodeId> = membership.voters().chain(membership.outgoing()).collect();
    Ok(Verdict {
        best,
        missing: voters.into_iter().filter(|id| !survives(id)).collect(),
        is_quorum: membership.is_quorum(survives),
        is_complete: !membership.is_quorum(|id| !survives(id)),
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
            membership: Arc::clone(membership),
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
