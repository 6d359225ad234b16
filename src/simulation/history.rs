//! Everything that clients asked and were told, everything that machines applied, and what must hold of both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use graft_domain::{EntryId, Index, Instant, Membership, NodeId, Term};

use graft_services::RequestId;
use graft_services::error::Outcome;
use graft_services::ports::Command;

use crate::ledger;
use crate::release::needs;

/// What is broken, if something is.
pub(crate) type Verdict = Result<(), String>;

/// A call of a client.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) node: NodeId,
    pub(crate) deadline: Instant,
    what: What,
    /// The first answer counts.
    pub(crate) answer: Option<Outcome>,
    /// The replica itself has answered.
    told: bool,
    /// Its node crashed: nobody will answer.
    orphan: bool,
}

/// What it is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum What {
    /// To be applied.
    Command(Bytes),
    /// With the oldest state that will do: what had been seen by anyone when it was asked, or as long before as it may be old.
    /// What an exact one shows is seen.
    Query { floor: Index, is_exact: bool },
    /// Something that the replica itself answers, and says again to leaders until it can.
    Ask,
    /// A session to be opened.
    Session,
    /// A snapshot to be taken, at least of this.
    Snapshot { floor: Index, current: bool },
    /// Replicas to be compared.
    Compare,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) asked: BTreeMap<RequestId, Asked>,
    /// Those that wait for an answer, by node.
    open: BTreeSet<(NodeId, RequestId)>,
    /// Everyone who asked for a command: it may be made again.
    by_command: BTreeMap<Bytes, Vec<RequestId>>,
    /// The log that all machines agree on, by what the first one to apply an entry was given.
    pub(crate) log: BTreeMap<Index, (Term, u64, Bytes)>,
    places: BTreeMap<Bytes, Index>,
    /// What the state is after each command.
    digests: BTreeMap<Index, u64>,
    /// What the replicas' digests are, sessions included, as of entries that asked for them.
    compared: BTreeMap<Index, Bytes>,
    /// What is in a snapshot that ends there and was written by code of a version, membership and sessions included.
    snapshots: BTreeMap<(EntryId, u8), u64>,
    /// Where code of a version meets the first command that it does not know.
    stops: BTreeMap<u8, Index>,
    /// For each command what had been seen when it was first asked for: it takes effect later.
    floors: BTreeMap<Bytes, Index>,
    /// The memberships that are committed.
    pub(crate) memberships: BTreeMap<Index, Arc<Membership>>,
    /// The newest state that anyone was shown.
    pub(crate) seen: Index,
    /// The same, since when it was so.
    seen_since: BTreeMap<Instant, Index>,
    /// By the world's clock.
    pub(crate) now: Instant,
}

fn must(holds: bool, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(what()) }
}

impl Asked {
    pub(crate) fn is_command(&self) -> bool {
        matches!(self.what, What::Command(_))
    }

    pub(crate) fn is_current_snapshot(&self) -> bool {
        matches!(self.what, What::Snapshot { current: true, .. })
    }

    /// Of a query, whether it shows the newest state.
    pub(crate) fn is_exact(&self) -> Option<bool> {
        if let What::Query { is_exact, .. } = self.what { Some(is_exact) } else { None }
    }
}

impl History {
    pub(crate) fn asks(&mut self, request: RequestId, node: NodeId, deadline: Instant, what: What) {
        if let What::Command(command) = &what {
            self.by_command.entry(command.clone()).or_default().push(request);
            self.floors.entry(command.clone()).or_insert(self.seen);
        }
        let asked = Asked { node, deadline, what, answer: None, told: false, orphan: false };
        self.asked.insert(request, asked);
        self.open.insert((node, request));
    }

    fn sees(&mut self, state: Index) {
        self.seen = self.seen.max(state);
        self.seen_since.insert(self.now, self.seen);
    }

    /// The newest state that anyone had been shown by then.
    pub(crate) fn seen_at(&self, at: Instant) -> Index {
        self.seen_since.range(..=at).next_back().map_or(Index::ZERO, |(_, seen)| *seen)
    }

    pub(crate) fn answer(&self, request: RequestId) -> Option<&Outcome> {
        self.asked.get(&request)?.answer.as_ref()
    }

    pub(crate) fn crashed(&mut self, node: NodeId) {
        for (_, request) in self.open.extract_if((node, RequestId(0))..=(node, RequestId(u64::MAX)), |_| true) {
            if let Some(asked) = self.asked.get_mut(&request) {
                asked.orphan = true;
            }
        }
    }

    /// The replica answers a call.
    pub(crate) fn tells(&mut self, request: RequestId, outcome: &Outcome) -> Verdict {
        let asked =
            self.asked.get_mut(&request).ok_or_else(|| format!("{request:?} is answered and was never asked"))?;
        must(!asked.told, || format!("{request:?} is answered twice: {outcome:?} after {:?}", asked.answer))?;
        asked.told = true;
        let done = matches!(outcome, Outcome::Done { .. });
        must(!done || matches!(asked.what, What::Ask | What::Session | What::Snapshot { .. }), || {
            format!("{request:?} is done without the machine")
        })?;
        self.counts(request, outcome)
    }

    /// The first answer counts. A late machine may come second to a deadline, never to a refusal.
    pub(crate) fn counts(&mut self, request: RequestId, outcome: &Outcome) -> Verdict {
        let asked =
            self.asked.get_mut(&request).ok_or_else(|| format!("{request:?} is answered and was never asked"))?;
        must(!asked.orphan, || format!("{request:?} is answered from the grave"))?;
        if let Some(first) = &asked.answer {
            let refused = [first, outcome].into_iter().any(|o| matches!(o, Outcome::Refused(_)));
            return must(!refused || !asked.is_command(), || format!("{request:?}: {first:?}, then {outcome:?}"));
        }
        asked.answer = Some(outcome.clone());
        let what = asked.what.clone();
        self.open.remove(&(asked.node, request));
        match (outcome, what) {
            (Outcome::Done { index, term, reply }, What::Command(command)) => {
                let there = self.log.get(index).map(|(term, _, body)| (term, body));
                must(there == Some((term, &command)), || {
                    format!("{request:?} {command:?} is done at {index}: {there:?}")
                })?;
                let first = self.digests.get(index).map(|digest| ledger::reply_to(&command, *digest));
                must(first.as_ref() == Some(reply), || format!("{request:?} is answered {reply:?}, first {first:?}"))?;
                let floor = self.floors.get(&command).copied().unwrap_or_default();
                must(*index > floor, || format!("{request:?} takes effect at {index}, and {floor} was seen before"))?;
                self.sees(*index);
            }
            (Outcome::Done { index, reply, .. }, What::Query { floor, is_exact }) => {
                let digest = self.digests.range(..=*index).next_back().map_or(0, |(_, digest)| *digest);
                must(*reply == ledger::reply(digest), || {
                    format!("{request:?} is answered {reply:?}, and the state at {index} is {digest}")
                })?;
                must(*index >= floor, || format!("{request:?} is answered from {index}, and is to show {floor}"))?;
                if is_exact {
                    self.sees(*index);
                }
            }
            (Outcome::Done { index, .. }, What::Snapshot { floor, .. }) => {
                must(*index >= floor, || format!("{request:?}: a snapshot of {index}, and {floor} had been seen"))?;
            }
            (Outcome::Refused(refusal), What::Command(command)) => {
                let place = self.places.get(&command);
                let all_refused = self.all_refused(&command);
                must(place.is_none() || !all_refused, || {
                    format!("{command:?} is refused, {refusal}, and applied at {place:?}")
                })?;
            }
            (Outcome::Compared { index, digests }, _) => {
                let mut told = digests.values().flatten();
                let first = told.next();
                must(told.all(|digest| Some(digest) == first), || format!("not the same at {index}: {digests:?}"))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// A machine applies a command: the same as all others, once, in time, and not if it was refused.
    pub(crate) fn applies(&mut self, node: NodeId, command: &Command, digest: u64) -> Verdict {
        let Command { index, term, time, body } = command;
        let known = *self.digests.entry(*index).or_insert(digest);
        must(known == digest, || format!("the state of {node} at {index} is not what others have"))?;
        if let Some(there) = self.log.get(index) {
            let same = *there == (*term, *time, body.clone());
            return must(same, || format!("{node} applies {body:?} of {term} at {index}, where others have {there:?}"));
        }
        if let Some((before, (_, earlier, _))) = self.log.last_key_value() {
            must(before < index, || format!("{node} applies {body:?} at {index}, where others passed by"))?;
            must(earlier <= time, || format!("time goes back from {earlier} at {before} to {time} at {index}"))?;
        }
        must(self.by_command.contains_key(body), || format!("{body:?} is applied and nobody asked"))?;
        must(!self.all_refused(body), || format!("{body:?} is applied at {index} after it was refused"))?;
        let place = self.places.insert(body.clone(), *index);
        must(place.is_none(), || format!("{body:?} is applied at {place:?} and at {index}"))?;
        self.log.insert(*index, (*term, *time, body.clone()));
        Ok(())
    }

    /// Code of this version halts at the first command that it does not know: the same entry on every replica.
    pub(crate) fn stops(&mut self, node: NodeId, code: u8, index: Index) -> Verdict {
        let known = *self.stops.entry(code).or_insert(index);
        must(known == index, || format!("{node} halts at {index} with code {code}, others with that at {known}"))?;
        let passed = self.log.range(..index).find(|(_, (_, _, body))| needs(body) > code);
        must(passed.is_none(), || format!("{node} halts at {index} with code {code}, which does not know {passed:?}"))
    }

    /// Whether everyone who asked for it was told that his attempt came to nothing.
    fn all_refused(&self, command: &Bytes) -> bool {
        let attempts = self.by_command.get(command).map_or(&[][..], Vec::as_slice);
        attempts.iter().all(|request| matches!(self.asked[request].answer, Some(Outcome::Refused(_))))
    }

    /// A machine has this state from a snapshot: it is the one that others had after this command.
    pub(crate) fn agrees(&self, node: NodeId, command: Index, digest: u64) -> Verdict {
        let known = self.digests.get(&command).copied().unwrap_or_default();
        must(known == digest, || format!("{node} has digest {digest} after {command}, others had {known}"))
    }

    /// A replica tells its digest as of this entry.
    pub(crate) fn digested(&mut self, node: NodeId, index: Index, digest: &Bytes) -> Verdict {
        let known = self.compared.entry(index).or_insert_with(|| digest.clone());
        must(known == digest, || format!("the state or the sessions of {node} at {index} are not those of others"))
    }

    /// A node has a snapshot with these bytes: it has them in common with all others.
    pub(crate) fn snapshotted(&mut self, node: NodeId, last: EntryId, (code, hash): (u8, u64)) -> Verdict {
        let known = *self.snapshots.entry((last, code)).or_insert(hash);
        must(known == hash, || format!("the snapshot of {node} at {last} has other bytes than that of others"))
    }

    /// A membership is committed: the same everywhere, and whoever is removed stays so.
    pub(crate) fn commits(&mut self, node: NodeId, index: Index, membership: &Arc<Membership>) -> Verdict {
        if let Some(known) = self.memberships.get(&index) {
            return must(known == membership, || format!("{node} commits {membership:?} at {index}, others {known:?}"));
        }
        let before = self.memberships.range(..index).next_back();
        if let Some((_, before)) = before {
            must(before.removed.is_subset(&membership.removed), || format!("{node} brings somebody back at {index}"))?;
        }
        let again = membership.members.keys().find(|id| membership.removed.contains(id));
        must(again.is_none() && membership.voters().next().is_some(), || format!("{node} commits {membership:?}"))?;
        self.memberships.insert(index, Arc::clone(membership));
        Ok(())
    }
}
