//! Who is enough: counting in one configuration or in both halves of a joint one (thesis §4.3).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::ids::NodeId;
use crate::membership::{Member, Membership};

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
    let of_half = |votes: fn(&Member) -> bool| {
        let voters = membership.members.iter().filter(move |(_, member)| votes(member));
        reached_by(voters.map(|(id, _)| value(id)))
    };
    let incoming = of_half(|member| member.voter);
    if membership.is_joint() { incoming.min(of_half(|member| member.outgoing)) } else { incoming }
}

/// Voters of whom nothing need be allocated: it is asked with every message.
const FEW_MAX: usize = 9;

fn reached_by<T: Ord + Copy + Default>(all: impl Iterator<Item = T>) -> T {
    let (mut few, mut many, mut count) = ([T::default(); FEW_MAX], Vec::new(), 0);
    for value in all {
        match few.get_mut(count) {
            Some(place) => *place = value,
            None if many.is_empty() => many.extend(few.into_iter().chain([value])),
            None => many.push(value),
        }
        count += 1;
    }
    let values = if many.is_empty() { &mut few[..count] } else { &mut many[..] };
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
    fn so_are_many() {
        for count in 1..40_u64 {
            let ids = (0..count).map(|n| NodeId::new(&format!("n{n}")).expect("a good id"));
            let membership = Membership::founding(ids.map(|id| (id, "a:1")));
            let middle = (count - 1) / 2;
            let value = |id: &NodeId| number(id) as u64 * 7 % 41;
            let mut values: Vec<u64> = (0..count).map(|n| n * 7 % 41).collect();
            values.sort_unstable();
            assert_eq!(reached(&membership, value), values[usize::try_from(middle).expect("small")], "of {count}");
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
