//! Who is enough: counting in one configuration or in both halves of a joint one (thesis §4.3).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::ids::NodeId;
use crate::membership::Membership;

/// How a count of votes stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tally {
    Won,
    Lost,
    Open,
}

/// The largest value that a quorum has reached: what at least half of the voters plus one are at or beyond, in every half.
/// With no voters nothing is reached.
pub(crate) fn reached<T: Ord + Copy + Default>(membership: &Membership, value: impl Fn(&NodeId) -> T) -> T {
    let incoming = reached_by(membership.voters().map(|id| value(&id)).collect());
    if membership.is_joint() {
        incoming.min(reached_by(membership.outgoing().map(|id| value(&id)).collect()))
    } else {
        incoming
    }
}

fn reached_by<T: Ord + Copy + Default>(mut values: Vec<T>) -> T {
    if values.is_empty() {
        return T::default();
    }
    values.sort_unstable();
    // Ascending, so the quorum's smallest is a strict majority away from the end.
    values[(values.len() - 1) / 2]
}

/// Whether those for whom `holds` are a quorum of every half.
pub(crate) fn is_quorum(membership: &Membership, holds: impl Fn(&NodeId) -> bool) -> bool {
    reached(membership, |id| u8::from(holds(id))) == 1
}

/// Who has won an election so far.
pub(crate) fn tally(membership: &Membership, votes: &BTreeMap<NodeId, bool>) -> Tally {
    if is_quorum(membership, |id| votes.get(id) == Some(&true)) {
        Tally::Won
    } else if is_quorum(membership, |id| votes.get(id) != Some(&false)) {
        Tally::Open
    } else {
        Tally::Lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    /// Members `0..6`, voting as two bit sets say.
    fn membership(incoming: u8, outgoing: u8) -> Membership {
        let mut membership =
            Membership::founding((0..6u8).map(|n| (NodeId::new(&format!("n{n}")).expect("a good id"), "a:1")));
        for (n, member) in membership.members.values_mut().enumerate() {
            (member.voter, member.outgoing) = (incoming >> n & 1 == 1, outgoing >> n & 1 == 1);
        }
        membership
    }

    fn number(id: &NodeId) -> usize {
        id.as_str()[1..].parse().expect("ids here end in a number")
    }

    /// A majority by the definition, not by sorting.
    fn majority(set: u8, of: u8) -> bool {
        of != 0 && (set & of).count_ones() * 2 > of.count_ones()
    }

    #[test]
    fn a_quorum_is_a_majority_of_every_half() {
        for (incoming, outgoing) in (0..64).flat_map(|i| (0..64).map(move |o| (i, o))) {
            let membership = membership(incoming, outgoing);
            for holders in 0..64u8 {
                let expected = majority(holders, incoming) && (outgoing == 0 || majority(holders, outgoing));
                let found = is_quorum(&membership, |id| holders >> number(id) & 1 == 1);
                assert_eq!(found, expected, "{holders:06b} of {incoming:06b} and {outgoing:06b}");
            }
        }
    }

    #[test]
    fn what_is_reached_is_the_largest_value_a_quorum_holds() {
        let mut random = crate::random::Random::new(7);
        for round in 0..20_000u64 {
            let draw = random.once_to_twice(core::time::Duration::from_nanos(1 << 40)).as_nanos();
            let (incoming, outgoing) = ((draw & 63) as u8, if round % 2 == 0 { 0 } else { (draw >> 6 & 63) as u8 });
            let values: [u64; 6] = core::array::from_fn(|n| (draw >> (12 + 3 * n) & 7) as u64);
            let membership = membership(incoming, outgoing);
            let brute = (0..8u64).rev().find(|v| is_quorum(&membership, |id| values[number(id)] >= *v)).unwrap_or(0);
            assert_eq!(
                reached(&membership, |id| values[number(id)]),
                brute,
                "{values:?} {incoming:06b} {outgoing:06b}"
            );
        }
    }

    #[test]
    fn an_election_is_lost_once_it_cannot_be_won() {
        let membership = membership(0b111, 0);
        let ids: Vec<NodeId> = membership.voters().collect();
        let mut votes = BTreeMap::from([(ids[0], true)]);
        assert_eq!(tally(&membership, &votes), Tally::Open);
        votes.insert(ids[1], false);
        assert_eq!(tally(&membership, &votes), Tally::Open);
        votes.insert(ids[2], false);
        assert_eq!(tally(&membership, &votes), Tally::Lost);
        votes.insert(ids[1], true);
        assert_eq!(tally(&membership, &votes), Tally::Won);
    }
}
