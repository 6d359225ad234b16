//! Whether all replicas have made the same of the log: each tells its digest as of one entry to the member that asked.

use std::collections::BTreeMap;

use bytes::Bytes;
use graft_domain::{Index, Instant, NodeId};

use crate::change::MEMBERS_MAX;
use crate::error::{Outcome, Refusal};
use crate::ports::PeerMessage;
use crate::replica::{Effect, Replica};
use crate::waiting::{Call, RequestId, Want};

/// Comparisons that go on at the same time; further ones are refused as busy. Each makes every replica look at all it has.
const VERIFIES_MAX: usize = 16;
/// A digest has a few bytes; a longer one of another member is none. Of why there is none so much is kept.
const DIGEST_BYTES_MAX: usize = 1024;

type Digests = BTreeMap<NodeId, Result<Bytes, String>>;

/// A comparison whose entry is committed.
#[derive(Debug)]
struct Open {
    request: RequestId,
    deadline: Instant,
}

/// Comparisons that were asked for here, by their entries, and what replicas have told of entries: some tell before this
/// node knows that the entry is its own.
#[derive(Debug, Default)]
pub(crate) struct Verifies {
    open: BTreeMap<Index, Open>,
    told: BTreeMap<Index, Digests>,
    /// Who differed in the last comparison here that had a digest of it, and as of which entry. It is this run's knowledge:
    /// nobody else is told.
    differing: BTreeMap<NodeId, String>,
}

impl Verifies {
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// The entry of a comparison that was asked for here is committed.
    pub(crate) fn begin(&mut self, index: Index, request: RequestId, deadline: Instant) {
        self.open.insert(index, Open { request, deadline });
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.open.values().map(|open| open.deadline).min().unwrap_or(Instant::NEVER)
    }

    /// Remembers who differs, and who does not any more. Without a state that more than half of them have it is everybody. Of
    /// one of several members that told alone nothing is found.
    fn judge(&mut self, index: Index, digests: &Digests, members: usize) {
        let told = || digests.iter().filter_map(|(id, digest)| digest.as_ref().ok().map(|digest| (id, digest)));
        if told().count() < members.min(2) {
            return;
        }
        let mut counts: BTreeMap<&Bytes, usize> = BTreeMap::new();
        told().for_each(|(_, digest)| *counts.entry(digest).or_default() += 1);
        let most = counts.iter().find(|(_, count)| **count * 2 > told().count()).map(|(digest, _)| *digest);
        let whose = if most.is_some() { "that of most" } else { "others', and none is that of most," };
        for (id, digest) in told() {
            if most == Some(digest) {
                self.differing.remove(id);
            } else {
                let found =
                    format!("its state differs from {whose} as of entry {index}, as the last verify() here found");
                self.differing.insert(*id, found);
            }
        }
    }

    /// Takes note of what a replica tells. Of entries before `handed` only those are of interest that are waited for.
    fn note(&mut self, handed: Index, from: NodeId, index: Index, digest: Result<Bytes, String>) {
        self.told.retain(|told, _| *told > handed || self.open.contains_key(told));
        let is_wanted = self.open.contains_key(&index) || index > handed;
        let is_room = self.told.contains_key(&index) || self.told.len() < 2 * VERIFIES_MAX;
        if is_wanted && is_room {
            let digests = self.told.entry(index).or_default();
            if digests.len() < 2 * MEMBERS_MAX {
                digests.entry(from).or_insert(digest);
            }
        }
    }
}

/// The end of a text that is too long: what went wrong stands in the last line of a traceback.
fn shortened(why: String) -> String {
    const LEFT_OUT: &str = "…";
    if why.len() <= DIGEST_BYTES_MAX {
        return why;
    }
    let from = why.ceil_char_boundary(why.len() + LEFT_OUT.len() - DIGEST_BYTES_MAX);
    format!("{LEFT_OUT}{}", &why[from..])
}

impl Replica {
    /// That a member's state differs, as far as was found out here.
    pub(crate) fn difference_of(&self, id: NodeId) -> Option<&str> {
        self.verifies.differing.get(&id).map(String::as_str)
    }

    /// Somebody wants the replicas compared.
    pub(crate) fn on_verify(&mut self, request: RequestId, deadline: Instant) {
        if let Err(refusal) = self.door(0) {
            return self.answer_refused(request, refusal);
        }
        if self.verifies.len() + self.calls.verifies() >= VERIFIES_MAX {
            let why = format!("{VERIFIES_MAX} comparisons of the replicas go on from this node already");
            return self.answer_refused(request, Refusal::Busy(why));
        }
        self.calls.park(Call::new(Some(request), Want::Verify, deadline));
    }

    /// This replica's digest as of an entry that asked for it.
    pub(crate) fn on_digested(&mut self, index: Index, origin: NodeId, digest: Result<Bytes, String>) {
        let from = self.core.id();
        if origin == from {
            self.verifies.note(self.handed, from, index, digest);
        } else if self.reachable.contains(&origin) {
            self.effects.push(Effect::Send(origin, PeerMessage::Digest { from, to: origin, index, digest }));
        }
    }

    /// Another replica's.
    pub(crate) fn on_digest(&mut self, from: NodeId, index: Index, digest: Result<Bytes, String>) {
        if from == self.core.id() || !self.core.membership().contains(&from) {
            return;
        }
        let digest = match digest {
            Ok(bytes) if bytes.len() > DIGEST_BYTES_MAX => {
                Err(format!("its digest has {} bytes, and {DIGEST_BYTES_MAX} are the most", bytes.len()))
            }
            Err(why) => Err(shortened(why)),
            digest => digest,
        };
        self.verifies.note(self.handed, from, index, digest);
    }

    /// Answers the comparisons for which all members have told, and those whose deadline has come, with those that did.
    pub(crate) fn end_verifies(&mut self) {
        let (now, own, membership) = (self.clock.now, self.core.id(), self.core.membership());
        let Verifies { open, told, .. } = &mut self.verifies;
        let ends = |index: &Index, open: &mut Open| {
            let all = |digests: &Digests| membership.members.keys().all(|id| digests.contains_key(id));
            open.deadline <= now || told.get(index).is_some_and(all)
        };
        let ended: Vec<(Index, Open)> = open.extract_if(.., ends).collect();
        for (index, Open { request, .. }) in ended {
            let digests = self.verifies.told.remove(&index).unwrap_or_default();
            let membership = self.core.membership();
            self.verifies.judge(index, &digests, membership.members.len());
            self.verifies.differing.retain(|id, _| membership.contains(id));
            let outcome = if digests.contains_key(&own) {
                Outcome::Compared { index, digests }
            } else {
                Outcome::unknown(format!("it is committed at index {index} and still being applied here"))
            };
            self.answer(request, outcome);
        }
    }

    pub(crate) fn dismiss_verifies(&mut self, why: &str) {
        self.verifies.told.clear();
        for Open { request, .. } in std::mem::take(&mut self.verifies.open).into_values() {
            self.answer(request, Outcome::unknown(why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_differs_is_remembered_until_it_does_not_any_more() {
        let id = |n: usize| NodeId::new(&format!("n{n}")).expect("a good id");
        let mut verifies = Verifies::default();
        let mut judged = |index, digests: &[&str]| {
            let digest = |(n, digest): (usize, &&str)| match *digest {
                "" => None,
                "?" => Some((id(n + 1), Err("it cannot tell".to_owned()))),
                digest => Some((id(n + 1), Ok(Bytes::copy_from_slice(digest.as_bytes())))),
            };
            verifies.judge(Index(index), &digests.iter().enumerate().filter_map(digest).collect(), 3);
            verifies.differing.iter().map(|(id, words)| format!("{id} {words}")).collect::<Vec<_>>()
        };
        assert_eq!(judged(5, &["a", "a", "a"]), [""; 0]);
        let third = "n3 its state differs from that of most as of entry 6, as the last verify() here found";
        assert_eq!(judged(6, &["a", "a", "b"]), [third]);
        assert_eq!(judged(7, &["a", "a", ""]), [third], "it did not tell");
        assert_eq!(judged(8, &["a", "a", "?"]), [third]);
        assert_eq!(judged(8, &["", "", "b"]), [third], "there is nobody to compare it with");
        assert_eq!(judged(9, &["a", "a", "a"]), [""; 0]);
        let all = judged(10, &["a", "b", "?"]);
        assert_eq!(all.len(), 2, "nobody can say who is right: {all:?}");
        assert!(all.iter().all(|words| words.contains("none is that of most")), "{all:?}");
        assert_eq!(judged(11, &["a", "a", "a"]), [""; 0]);
    }
}
