//! The calls that this node owes an answer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use graft_domain::{Index, Instant, NodeId, Term};

/// Calls that may be on their way to another member's leader; further ones stay parked, so that what the link cannot take
/// is refused for certain and not lost on it.
pub(crate) const FORWARDS_MAX: usize = 4096;
/// Their bytes; one larger call still goes alone.
pub(crate) const FORWARD_BYTES_MAX: usize = 16 << 20;

/// Names a call to whoever made it; opaque here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// A command that someone here waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Call {
    pub(crate) request: RequestId,
    pub(crate) deadline: Instant,
    pub(crate) body: Bytes,
    pub(crate) stage: Stage,
}

/// How far a call has come. Only what was handed to a leader can ever be applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Waits for a leader.
    Parked,
    /// Handed to the leader of this term, for this term only: it is in the log at this term or nowhere.
    Sent { leader: NodeId, term: Term },
    /// Committed and with the machine.
    Applying { index: Index },
}

/// Every call by its sequence number, and in the order of their deadlines.
///
/// A sequence number is good for one handing-over. A call that is parked again gets a new one, so that whatever is still
/// said of the old one, late or twice, is said of nobody.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    by_sequence: BTreeMap<u64, Call>,
    deadlines: BTreeSet<(Instant, u64)>,
    parked: BTreeSet<u64>,
    applying: VecDeque<(Index, u64)>,
    bytes: usize,
    /// Calls that are sent, and their bytes.
    sent: usize,
    sent_bytes: usize,
    sequence: u64,
}

impl Calls {
    pub(crate) fn len(&self) -> usize {
        self.by_sequence.len()
    }

    /// Bytes of commands that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn park(&mut self, request: RequestId, body: Bytes, deadline: Instant) {
        self.sequence += 1;
        self.bytes += body.len();
        self.deadlines.insert((deadline, self.sequence));
        self.by_sequence.insert(self.sequence, Call { request, deadline, body, stage: Stage::Parked });
        self.parked.insert(self.sequence);
    }

    pub(crate) fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Whether one may be passed to another member's leader now.
    pub(crate) fn may_forward(&self) -> bool {
        let next = self.parked.first().and_then(|sequence| self.by_sequence.get(sequence));
        let fits = |call: &Call| self.sent == 0 || self.sent_bytes + call.body.len() <= FORWARD_BYTES_MAX;
        self.sent < FORWARDS_MAX && next.is_some_and(fits)
    }

    /// Hands the parked call that came first to a leader: its sequence and body.
    pub(crate) fn send_next(&mut self, leader: NodeId, term: Term) -> Option<(u64, Bytes)> {
        let sequence = self.parked.pop_first()?;
        let call = self.by_sequence.get_mut(&sequence)?;
        call.stage = Stage::Sent { leader, term };
        self.sent += 1;
        self.sent_bytes += call.body.len();
        Some((sequence, call.body.clone()))
    }

    /// What was handed to this leader and has not been seen since, in the order it was.
    pub(crate) fn sent_to(&self, leader: NodeId, term: Term) -> impl Iterator<Item = (u64, Bytes)> + '_ {
        let to_it = move |call: &Call| call.stage == Stage::Sent { leader, term };
        self.by_sequence.iter().filter(move |(_, call)| to_it(call)).map(|(s, call)| (*s, call.body.clone()))
    }

    /// It was certainly not proposed: wait for a leader again, behind those that wait already. False if nobody waits for it.
    pub(crate) fn park_again(&mut self, sequence: u64) -> bool {
        let Some(Call { request, deadline, body, .. }) = self.take_sent(sequence) else { return false };
        self.park(request, body, deadline);
        true
    }

    /// Takes out a call that was handed to a leader under this number and not seen since.
    pub(crate) fn take_sent(&mut self, sequence: u64) -> Option<Call> {
        let is_sent = matches!(self.by_sequence.get(&sequence)?.stage, Stage::Sent { .. });
        if is_sent { self.remove(sequence) } else { None }
    }

    /// An entry of `term` is committed: what an earlier term's leader was given and is not in the log by now never will be.
    pub(crate) fn park_overtaken(&mut self, term: Term) {
        if self.sent == 0 {
            return;
        }
        let overtaken = |call: &Call| matches!(call.stage, Stage::Sent { term: sent, .. } if sent < term);
        let sequences: Vec<u64> = self.by_sequence.iter().filter(|(_, c)| overtaken(c)).map(|(s, _)| *s).collect();
        for sequence in sequences {
            self.park_again(sequence);
        }
    }

    /// It is committed at `index`; answers whom to tell when the machine is done.
    pub(crate) fn applying(&mut self, sequence: u64, index: Index) -> Option<RequestId> {
        let call = self.by_sequence.get_mut(&sequence)?;
        if !matches!(call.stage, Stage::Sent { .. }) {
            return None;
        }
        call.stage = Stage::Applying { index };
        self.sent -= 1;
        self.sent_bytes -= call.body.len();
        self.applying.push_back((index, sequence));
        Some(call.request)
    }

    /// Everything up to `index` is applied and its callers are answered.
    pub(crate) fn applied(&mut self, index: Index) {
        while let Some((_, sequence)) = self.applying.pop_front_if(|(at, _)| *at <= index) {
            self.remove(sequence);
        }
    }

    fn remove(&mut self, sequence: u64) -> Option<Call> {
        let call = self.by_sequence.remove(&sequence)?;
        self.deadlines.remove(&(call.deadline, sequence));
        self.bytes -= call.body.len();
        match call.stage {
            Stage::Parked => drop(self.parked.remove(&sequence)),
            Stage::Sent { .. } => {
                self.sent -= 1;
                self.sent_bytes -= call.body.len();
            }
            Stage::Applying { .. } => {}
        }
        Some(call)
    }

    /// Takes out the calls that were handed to a leader and not seen since.
    pub(crate) fn take_all_sent(&mut self) -> Vec<Call> {
        let is_sent = |call: &Call| matches!(call.stage, Stage::Sent { .. });
        let sent: Vec<u64> = self.by_sequence.iter().filter(|(_, call)| is_sent(call)).map(|(s, _)| *s).collect();
        sent.into_iter().filter_map(|sequence| self.remove(sequence)).collect()
    }

    /// Takes out the calls that wait for a leader.
    pub(crate) fn take_parked(&mut self) -> Vec<Call> {
        let mut taken = Vec::new();
        while let Some(sequence) = self.parked.first().copied() {
            taken.extend(self.remove(sequence));
        }
        taken
    }

    /// Takes out the calls whose deadline has come.
    pub(crate) fn expired(&mut self, now: Instant) -> Vec<Call> {
        let mut expired = Vec::new();
        while let Some((_, sequence)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            expired.extend(self.remove(sequence));
        }
        expired
    }

    /// Takes out all of them.
    pub(crate) fn drain(&mut self) -> Vec<Call> {
        self.expired(Instant::NEVER)
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadlines.first().map_or(Instant::NEVER, |(at, _)| *at)
    }
}
