//! The calls that this node owes an answer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use graft_domain::{Index, Instant, NodeId, Term};

use crate::replica::RequestId;

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
#[derive(Debug, Default)]
pub(crate) struct Calls {
    by_sequence: BTreeMap<u64, Call>,
    deadlines: BTreeSet<(Instant, u64)>,
    parked: VecDeque<u64>,
    applying: VecDeque<(Index, u64)>,
    bytes: usize,
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
        self.parked.push_back(self.sequence);
    }

    pub(crate) fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Takes the parked calls to a leader: `(sequence, body)` each, in the order they came.
    pub(crate) fn send_parked(&mut self, leader: NodeId, term: Term) -> Vec<(u64, Bytes)> {
        let mut sent = Vec::with_capacity(self.parked.len());
        for sequence in self.parked.drain(..) {
            let Some(call) = self.by_sequence.get_mut(&sequence) else { continue };
            call.stage = Stage::Sent { leader, term };
            sent.push((sequence, call.body.clone()));
        }
        sent
    }

    /// It was certainly not proposed: wait for a leader again, in the old order.
    pub(crate) fn park_again(&mut self, sequence: u64) {
        let Some(call) = self.by_sequence.get_mut(&sequence) else { return };
        if matches!(call.stage, Stage::Sent { .. }) {
            call.stage = Stage::Parked;
            let place = self.parked.partition_point(|parked| *parked < sequence);
            self.parked.insert(place, sequence);
        }
    }

    /// An entry of `term` is committed: what an earlier term's leader was given and is not in the log by now never will be.
    pub(crate) fn park_overtaken(&mut self, term: Term) {
        let overtaken = |call: &Call| matches!(call.stage, Stage::Sent { term: sent, .. } if sent < term);
        let sequences: Vec<u64> = self.by_sequence.iter().filter(|(_, c)| overtaken(c)).map(|(s, _)| *s).collect();
        for sequence in sequences {
            self.park_again(sequence);
        }
    }

    /// It is committed at `index`; answers whom to tell when the machine is done.
    pub(crate) fn applying(&mut self, sequence: u64, index: Index) -> Option<RequestId> {
        let call = self.by_sequence.get_mut(&sequence)?;
        call.stage = Stage::Applying { index };
        self.applying.push_back((index, sequence));
        Some(call.request)
    }

    /// Everything up to `index` is applied and its callers are answered.
    pub(crate) fn applied(&mut self, index: Index) {
        while let Some((_, sequence)) = self.applying.pop_front_if(|(at, _)| *at <= index) {
            self.remove(sequence);
        }
    }

    pub(crate) fn remove(&mut self, sequence: u64) -> Option<Call> {
        let call = self.by_sequence.remove(&sequence)?;
        self.deadlines.remove(&(call.deadline, sequence));
        self.bytes -= call.body.len();
        Some(call)
    }

    /// Takes out the calls whose deadline has come.
    pub(crate) fn expired(&mut self, now: Instant) -> Vec<Call> {
        let mut expired = Vec::new();
        while let Some((deadline, sequence)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(deadline, sequence));
            expired.extend(self.remove(sequence));
        }
        if !expired.is_empty() {
            self.parked.retain(|sequence| self.by_sequence.contains_key(sequence));
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
