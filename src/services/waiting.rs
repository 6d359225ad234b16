//! The calls that this node owes an answer.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{Index, Instant, NodeId, Term};

use crate::commands::Slot;
use crate::deadlines::Deadlines;
use crate::numbered::Numbered;

/// Calls that may be on their way to another member's leader; further ones stay parked, so that what the link cannot take
/// is refused for certain and not lost on it.
pub(crate) const FORWARDS_MAX: usize = 4096;
/// Their bytes; one larger call still goes alone.
pub(crate) const FORWARD_BYTES_MAX: usize = 16 << 20;

/// Names a call to whoever made it; opaque here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// Something for the log that someone here waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Call {
    /// Nobody, if the node itself wants it.
    pub(crate) request: Option<RequestId>,
    pub(crate) deadline: Instant,
    pub(crate) want: Want,
    pub(crate) stage: Stage,
    /// An earlier attempt may have been applied: a refusal of this one does not tell that it was not.
    pub(crate) unclear: bool,
}

/// What is to get into the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Want {
    Command { body: Bytes, place: Place },
    OpenSession { ttl: Duration, key: u64 },
    Verify,
}

/// A command's place in a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// To be given one in the session of this node.
    Wanted,
    /// In the session that this node has, or had.
    Own { session: u64, sequence: u64 },
    /// In a session that its caller looks after.
    Theirs(Slot),
}

/// How far a call has come. Only what was handed to a leader can ever be applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Waits for a leader, or for its place in a session.
    Parked,
    /// Handed to the leader of this term, for this term only: it is in the log at this term or nowhere.
    Sent { leader: NodeId, term: Term },
    /// Committed and with the machine.
    Applying { index: Index },
}

impl Call {
    pub(crate) fn new(request: Option<RequestId>, want: Want, deadline: Instant) -> Self {
        Self { request, deadline, want, stage: Stage::Parked, unclear: false }
    }

    pub(crate) fn place(&self) -> Option<Place> {
        if let Want::Command { place, .. } = self.want { Some(place) } else { None }
    }

    fn size(&self) -> usize {
        if let Want::Command { body, .. } = &self.want { body.len() } else { 0 }
    }
}

/// Sequences, ascending: each that comes is the greatest so far.
type Queue = VecDeque<u64>;

/// Takes a sequence out of a queue, if it is in it.
fn take_out(queue: &mut Queue, sequence: u64) -> bool {
    queue.binary_search(&sequence).is_ok_and(|place| queue.remove(place).is_some())
}

/// Every call by its sequence number, and in the order of their deadlines.
///
/// A sequence number is good for one handing-over. A call that is parked again gets a new one, so that whatever is still
/// said of the old one, late or twice, is said of nobody.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    by_sequence: Numbered<Call>,
    deadlines: Deadlines,
    parked: Queue,
    /// Those that cannot be handed over before they have a place in a session.
    unplaced: Queue,
    /// Those that are made again a few at a time, how many that is, and those that are on their way.
    aside: Queue,
    aside_count: usize,
    aside_out: Vec<u64>,
    applying: VecDeque<(Index, u64)>,
    /// Calls that somebody waits for.
    count: usize,
    bytes: usize,
    /// Calls that are sent, and their bytes.
    sent: usize,
    sent_bytes: usize,
    sequence: u64,
}

impl Calls {
    /// Calls that somebody waits for.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Bytes of commands that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes in a call, behind all others.
    pub(crate) fn park(&mut self, call: Call) {
        let is_unplaced = call.place() == Some(Place::Wanted);
        let sequence = self.insert(call);
        let queue = if is_unplaced { &mut self.unplaced } else { &mut self.parked };
        queue.push_back(sequence);
    }

    fn insert(&mut self, call: Call) -> u64 {
        self.sequence += 1;
        self.bytes += call.size();
        self.count += usize::from(call.request.is_some());
        self.deadlines.insert(call.deadline, self.sequence);
        self.by_sequence.insert(self.sequence, Call { stage: Stage::Parked, ..call });
        self.sequence
    }

    /// Takes in a call that is to be made again: one at first, twice as many each time these came through.
    pub(crate) fn set_aside(&mut self, call: Call) {
        let sequence = self.insert(call);
        self.aside.push_back(sequence);
        (self.aside_count, self.aside_out) = (1, Vec::new());
    }

    /// Lets some of the calls that were set aside go on, or all.
    pub(crate) fn let_go_on(&mut self, all: bool) {
        if self.aside.is_empty() {
            return;
        }
        let is_out = |sequence: &u64| {
            let stage = self.by_sequence.get(*sequence).map(|call| call.stage);
            matches!(stage, Some(Stage::Parked | Stage::Sent { .. }))
        };
        if !all && self.aside_out.iter().any(is_out) {
            return;
        }
        if !self.aside_out.is_empty() {
            self.aside_count = self.aside_count.saturating_mul(2);
        }
        self.aside_out.clear();
        let count = if all { usize::MAX } else { self.aside_count };
        for sequence in self.aside.iter().copied().take(count).collect::<Vec<_>>() {
            if let Some(call) = self.remove(sequence) {
                self.park(call);
                self.aside_out.push(self.sequence);
            }
        }
    }

    pub(crate) fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }

    pub(crate) fn has_unplaced(&self) -> bool {
        !self.unplaced.is_empty()
    }

    /// The call that has waited longest for a place has this one.
    pub(crate) fn place_next(&mut self, given: Place) {
        let Some(mut call) = self.unplaced.front().copied().and_then(|sequence| self.remove(sequence)) else { return };
        if let Want::Command { place, .. } = &mut call.want {
            *place = given;
        }
        self.park(call);
    }

    /// Comparisons of the replicas that are not known to be committed.
    pub(crate) fn verifies(&self) -> usize {
        self.by_sequence.iter().filter(|(_, call)| call.want == Want::Verify).count()
    }

    /// Whether one may be passed to another member's leader now.
    pub(crate) fn may_forward(&self) -> bool {
        let next = self.parked.front().and_then(|sequence| self.by_sequence.get(*sequence));
        let fits = |call: &Call| self.sent == 0 || self.sent_bytes + call.size() <= FORWARD_BYTES_MAX;
        self.sent < FORWARDS_MAX && next.is_some_and(fits)
    }

    /// Hands the parked call that came first to a leader: its sequence and what is wanted.
    pub(crate) fn send_next(&mut self, leader: NodeId, term: Term) -> Option<(u64, &Want)> {
        let sequence = self.parked.pop_front()?;
        let call = self.by_sequence.get_mut(sequence)?;
        call.stage = Stage::Sent { leader, term };
        self.sent += 1;
        self.sent_bytes += call.size();
        Some((sequence, &call.want))
    }

    /// What was handed to this leader and has not been seen since, in the order it was.
    pub(crate) fn sent_to(&self, leader: NodeId, term: Term) -> impl Iterator<Item = (u64, Want)> + '_ {
        let to_it = move |call: &Call| call.stage == Stage::Sent { leader, term };
        self.by_sequence.iter().filter(move |(_, call)| to_it(call)).map(|(s, call)| (s, call.want.clone()))
    }

    /// Takes out a call that was handed to a leader under this number and not seen since.
    pub(crate) fn take_sent(&mut self, sequence: u64) -> Option<Call> {
        let is_sent = matches!(self.by_sequence.get(sequence)?.stage, Stage::Sent { .. });
        if is_sent { self.remove(sequence) } else { None }
    }

    /// Takes out what an earlier leader than that of `term` was given. An entry of that term is committed: what is not in the
    /// log by now never will be.
    pub(crate) fn take_overtaken(&mut self, term: Term) -> Vec<Call> {
        if self.sent == 0 {
            return Vec::new();
        }
        self.take(|call| matches!(call.stage, Stage::Sent { term: sent, .. } if sent < term))
    }

    /// It is committed at `index`; answers whom to tell when the machine is done.
    pub(crate) fn applying(&mut self, sequence: u64, index: Index) -> Option<RequestId> {
        let call = self.by_sequence.get_mut(sequence)?;
        if !matches!(call.stage, Stage::Sent { .. }) {
            return None;
        }
        call.stage = Stage::Applying { index };
        self.sent -= 1;
        self.sent_bytes -= call.size();
        self.applying.push_back((index, sequence));
        call.request
    }

    /// Everything up to `index` is applied: takes out those calls.
    pub(crate) fn applied(&mut self, index: Index) -> Vec<Call> {
        let mut applied = Vec::new();
        while let Some((_, sequence)) = self.applying.pop_front_if(|(at, _)| *at <= index) {
            applied.extend(self.remove(sequence));
        }
        applied
    }

    fn remove(&mut self, sequence: u64) -> Option<Call> {
        let call = self.by_sequence.remove(sequence)?;
        self.deadlines.remove(call.deadline, sequence);
        self.bytes -= call.size();
        self.count -= usize::from(call.request.is_some());
        match call.stage {
            Stage::Parked => {
                let queues = [&mut self.parked, &mut self.unplaced, &mut self.aside];
                queues.into_iter().any(|queue| take_out(queue, sequence));
            }
            Stage::Sent { .. } => {
                self.sent -= 1;
                self.sent_bytes -= call.size();
            }
            Stage::Applying { .. } => {}
        }
        Some(call)
    }

    fn take(&mut self, which: impl Fn(&Call) -> bool) -> Vec<Call> {
        let sequences: Vec<u64> = self.by_sequence.iter().filter(|(_, call)| which(call)).map(|(s, _)| s).collect();
        sequences.into_iter().filter_map(|sequence| self.remove(sequence)).collect()
    }

    /// Takes out the calls that were handed to a leader and not seen since.
    pub(crate) fn take_all_sent(&mut self) -> Vec<Call> {
        self.take(|call| matches!(call.stage, Stage::Sent { .. }))
    }

    /// Takes out the calls that wait for a leader.
    pub(crate) fn take_parked(&mut self) -> Vec<Call> {
        let parked: Vec<u64> = self.aside.iter().chain(&self.parked).copied().collect();
        parked.into_iter().filter_map(|sequence| self.remove(sequence)).collect()
    }

    /// Takes out the calls that wait for a place in a session.
    pub(crate) fn take_unplaced(&mut self) -> Vec<Call> {
        let unplaced: Vec<u64> = self.unplaced.iter().copied().collect();
        unplaced.into_iter().filter_map(|sequence| self.remove(sequence)).collect()
    }

    /// Takes out the calls whose deadline has come.
    pub(crate) fn expired(&mut self, now: Instant) -> Vec<Call> {
        let mut expired = Vec::new();
        while let Some((_, sequence)) = self.deadlines.first().filter(|(at, _)| *at <= now) {
            expired.extend(self.remove(sequence));
        }
        expired
    }

    /// Takes out all of them.
    pub(crate) fn drain(&mut self) -> Vec<Call> {
        self.expired(Instant::NEVER)
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadlines.first().map_or(Instant::NEVER, |(at, _)| at)
    }
}
