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
        let Verifies { open, told } = &mut self.verifies;
        let ends = |index: &Index, open: &mut Open| {
            let all = |digests: &Digests| membership.members.keys().all(|id| digests.contains_key(id));
            open.deadline <= now || told.get(index).is_some_and(all)
        };
        let ended: Vec<(Index, Open)> = open.extract_if(.., ends).collect();
        for (index, Open { request, .. }) in ended {
            let digests = self.verifies.told.remove(&index).unwrap_or_default();
            let outcome = if digests.contains_key(&own) {
                Outcome::Compared { index, digests }
            } else {
                Outcome::unknown(format!("it is committed at index {index} and still being applied here"))
            };
            self.answer(request, outcome);
        }
    }

    pub(crate) fn dismiss_verifies(&mut self, why: &str) {
        for Open { request, .. } in std::mem::take(&mut self.verifies).open.into_values() {
            self.answer(request, Outcome::unknown(why));
        }
    }
}
