//! Which commands of which sessions were applied, and what they were answered: so none is applied twice (thesis §6.3).
//!
//! A part of the replicated state. Sessions, their ends and the records of what was applied are the same on every replica at
//! the same index of the log. Replies are kept as far as there is room: a replica that has forgotten one still knows that the
//! command was applied.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use graft_domain::{Index, Term};

use crate::commands::{Slot, session_id};
use crate::ports::{Raised, Reply};

/// Sessions that are open at the same time; another one ends the one that was not used for the longest.
pub const SESSIONS_MAX: usize = 16_384;
/// Sequences from the lowest unanswered one on that a session may use.
pub const WINDOW_MAX: u64 = 65_536;
/// Commands of all sessions that are known to be applied, one by one; beyond that the oldest are forgotten, with all that
/// their sessions had before them: a command that is sent again after that is not applied.
pub const RECORDS_MAX: usize = 1 << 20;
/// Bytes of replies that are kept; beyond that the oldest are dropped.
pub const REPLIES_BYTES_MAX: usize = 64 << 20;

/// Sessions that are looked up at once when the least recently used ones are wanted.
const IDLE_MAX: usize = 256;

/// Records for which a session keeps room.
const ROOM_MIN: usize = 64;

/// The limits, as values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) sessions: usize,
    pub(crate) window: u64,
    pub(crate) records: usize,
    pub(crate) replies_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let (sessions, window) = (SESSIONS_MAX, WINDOW_MAX);
        Self { sessions, window, records: RECORDS_MAX, replies_bytes: REPLIES_BYTES_MAX }
    }
}

/// The table.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    pub(crate) limits: Limits,
    pub(crate) open: BTreeMap<u64, Session>,
    /// Everything up to this entry is in the table.
    pub(crate) upto: Index,
    /// The last entry that the machine was given: others are answered without it.
    pub(crate) given: Index,
    pub(crate) records: usize,
    pub(crate) bytes: usize,
    /// No session ends before this stamp; what it saves is looking.
    soonest: u64,
    /// When they were last named, and which: those that may be the least recently used, oldest first.
    idle: VecDeque<(u64, u64)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Session {
    /// Nanoseconds.
    pub(crate) ttl: u64,
    /// The stamp of the entry that used it last, and its index.
    pub(crate) used: u64,
    pub(crate) named: u64,
    /// The lowest sequence that may still be asked for.
    pub(crate) floor: u64,
    /// By sequence, ascending.
    pub(crate) done: VecDeque<Record>,
}

/// A command that was applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) sequence: u64,
    pub(crate) index: Index,
    pub(crate) term: Term,
    pub(crate) reply: Option<Reply>,
}

/// What is to be done with a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Admission {
    /// It is to be applied; its reply is to be kept.
    New,
    /// It was applied here; without a reply if that is not kept, or not there yet.
    Known { index: Index, term: Term, reply: Option<Reply> },
    /// Its sender has said that it needs no answer any more, or too much came after it.
    Forgotten,
    /// There is no such session, or not any more.
    Gone,
    /// Too far beyond the lowest sequence without an answer.
    Full,
}

impl Session {
    /// Strictly after its time to live, so that a session lasts for at least that.
    fn is_over(&self, time: u64) -> bool {
        time > self.used.saturating_add(self.ttl)
    }

    fn find(&self, sequence: u64) -> Result<usize, usize> {
        // Most come in order, and without gaps.
        let (Some(first), Some(last)) = (self.done.front(), self.done.back()) else { return Err(0) };
        if last.sequence < sequence {
            return Err(self.done.len());
        }
        let place = usize::try_from(sequence.wrapping_sub(first.sequence)).unwrap_or(usize::MAX);
        if self.done.get(place).is_some_and(|record| record.sequence == sequence) {
            return Ok(place);
        }
        self.done.binary_search_by_key(&sequence, |r| r.sequence)
    }

    /// Forgets what is below; answers how many records and bytes of replies that were.
    fn forget_below(&mut self, floor: u64) -> (usize, usize) {
        let (mut records, mut bytes) = (0, 0);
        self.floor = self.floor.max(floor);
        while let Some(record) = self.done.pop_front_if(|record| record.sequence < self.floor) {
            records += 1;
            bytes += record.size();
        }
        // A session that had much open once does not keep the room.
        if self.done.capacity() > ROOM_MIN && self.done.len() < self.done.capacity() / 8 {
            self.done.shrink_to((2 * self.done.len()).max(ROOM_MIN));
        }
        (records, bytes)
    }
}

impl Record {
    pub(crate) fn size(&self) -> usize {
        self.reply.as_ref().map_or(0, size)
    }
}

/// What a reply counts for.
pub(crate) fn size(reply: &Reply) -> usize {
    match reply {
        Reply::Value(value) => value.len(),
        Reply::Raised(raised) => {
            let Raised { type_name, message, traceback } = &**raised;
            type_name.len() + message.len() + traceback.len()
        }
    }
}

impl Sessions {
    /// Everything up to this entry is in the table.
    pub fn upto(&self) -> Index {
        self.upto
    }

    /// The last entry that the machine was given.
    pub fn given(&self) -> Index {
        self.given
    }

    /// The machine is given an entry, or has it already.
    pub(crate) fn give(&mut self, index: Index) {
        self.given = index;
    }

    /// An entry is being applied.
    pub(crate) fn reach(&mut self, index: Index) {
        self.upto = index;
    }

    /// Opens a session as of its entry. If its id is taken, which is all but impossible, neither session is there afterwards:
    /// both clients hear so and open others, and neither uses the other's.
    pub(crate) fn open(&mut self, index: Index, key: u64, time: u64, ttl: Duration) {
        let id = session_id(index, key);
        self.sweep(time);
        if self.open.contains_key(&id) {
            return self.close(id);
        }
        while self.open.len() >= self.limits.sessions {
            self.close_least_recently_used();
        }
        let ttl = u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX);
        self.soonest = self.soonest.min(time.saturating_add(ttl));
        let session = Session { ttl, used: time, named: index.0, floor: 1, done: VecDeque::new() };
        self.open.insert(id, session);
    }

    /// Takes in a command as of its entry.
    pub(crate) fn admit(&mut self, slot: Slot, index: Index, term: Term, time: u64) -> Admission {
        let Slot { session: id, sequence, unanswered } = slot;
        let Some(session) = self.open.get_mut(&id) else { return Admission::Gone };
        if session.is_over(time) {
            self.close(id);
            return Admission::Gone;
        }
        (session.used, session.named) = (time, index.0);
        // Whoever sends a command has no answer to it, whatever it says.
        let (records, bytes) = session.forget_below(unanswered.min(sequence));
        (self.records, self.bytes) = (self.records - records, self.bytes - bytes);
        if sequence < session.floor {
            return Admission::Forgotten;
        }
        if sequence - session.floor >= self.limits.window {
            return Admission::Full;
        }
        match session.find(sequence) {
            Ok(place) => {
                let Record { index, term, reply, .. } = session.done[place].clone();
                Admission::Known { index, term, reply }
            }
            Err(place) => {
                let record = Record { sequence, index, term, reply: None };
                if place == session.done.len() {
                    session.done.push_back(record);
                } else {
                    session.done.insert(place, record);
                }
                self.records += 1;
                if self.records > self.limits.records {
                    self.shed_records();
                }
                Admission::New
            }
        }
    }

    /// What an entry that is in the state already has come to, if that is known.
    pub(crate) fn recall(&self, slot: Slot) -> Option<(Index, Term, Option<Reply>)> {
        let session = self.open.get(&slot.session)?;
        let record = &session.done[session.find(slot.sequence).ok()?];
        Some((record.index, record.term, record.reply.clone()))
    }

    /// Keeps what the command at this entry was answered, unless it is forgotten already, or would drive out too many others.
    pub(crate) fn keep(&mut self, slot: Slot, index: Index, reply: &Reply) {
        if size(reply) > self.limits.replies_bytes / 4 {
            return;
        }
        let Some(session) = self.open.get_mut(&slot.session) else { return };
        let Ok(place) = session.find(slot.sequence) else { return };
        let record = &mut session.done[place];
        if record.index == index && record.reply.is_none() {
            self.bytes += size(reply);
            record.reply = Some(reply.clone());
        }
        if self.bytes > self.limits.replies_bytes {
            self.shed_replies();
        }
    }

    /// Ends the sessions whose time is over.
    fn sweep(&mut self, time: u64) {
        if time <= self.soonest {
            return;
        }
        let over: Vec<u64> = self.open.iter().filter(|(_, s)| s.is_over(time)).map(|(id, _)| *id).collect();
        for id in over {
            self.close(id);
        }
        let ends = self.open.values().map(|session| session.used.saturating_add(session.ttl));
        self.soonest = ends.min().unwrap_or(u64::MAX);
    }

    fn close(&mut self, id: u64) {
        let Some(session) = self.open.remove(&id) else { return };
        self.records -= session.done.len();
        self.bytes -= session.done.iter().map(Record::size).sum::<usize>();
    }

    /// Any that was used since it was noted is newer than all that were not, so the first that was not is the oldest of all.
    fn close_least_recently_used(&mut self) {
        loop {
            match self.idle.pop_front() {
                Some((named, id)) if self.open.get(&id).is_some_and(|session| session.named == named) => {
                    return self.close(id);
                }
                Some(_) => {}
                None if self.open.is_empty() => return,
                None => {
                    let mut all: Vec<_> = self.open.iter().map(|(id, session)| (session.named, *id)).collect();
                    let oldest = all.len().min(IDLE_MAX);
                    all.select_nth_unstable(oldest - 1);
                    all.truncate(oldest);
                    all.sort_unstable();
                    self.idle = all.into();
                }
            }
        }
    }

    /// Drops the oldest replies until a quarter of the room is free: the next time is far.
    fn shed_replies(&mut self) {
        let all = self.open.values().flat_map(|session| &session.done);
        let mut kept: Vec<(Index, usize)> =
            all.filter(|record| record.reply.is_some()).map(|r| (r.index, r.size())).collect();
        kept.sort_unstable();
        let (room, mut bytes, mut cut) = (self.limits.replies_bytes / 4 * 3, self.bytes, Index::ZERO);
        for (index, size) in kept {
            if bytes <= room {
                break;
            }
            (bytes, cut) = (bytes - size, index);
        }
        for record in self.open.values_mut().flat_map(|session| &mut session.done).filter(|r| r.index <= cut) {
            record.reply = None;
        }
        self.bytes = bytes;
    }

    /// Forgets the oldest quarter of the records. Like everything but replies it is decided by the log alone.
    fn shed_records(&mut self) {
        let all = self.open.values().flat_map(|session| &session.done);
        let mut indexes: Vec<Index> = all.map(|record| record.index).collect();
        let count = (indexes.len() / 4).max(1);
        let (_, cut, _) = indexes.select_nth_unstable(count - 1);
        let cut = *cut;
        for session in self.open.values_mut() {
            let last = session.done.iter().rev().find(|record| record.index <= cut);
            let Some(floor) = last.map(|record| record.sequence.saturating_add(1)) else { continue };
            let (records, bytes) = session.forget_below(floor);
            (self.records, self.bytes) = (self.records - records, self.bytes - bytes);
        }
    }

    /// Equal on two replicas exactly if their sessions are, replies left out (FNV-1a).
    pub(crate) fn digest(&self) -> [u8; 16] {
        let mut digest = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
        let mut add = |numbers: &[u64]| {
            for byte in numbers.iter().flat_map(|number| number.to_le_bytes()) {
                digest = (digest ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
            }
        };
        for (id, session) in &self.open {
            add(&[*id, session.ttl, session.used, session.named, session.floor, session.done.len() as u64]);
            session.done.iter().for_each(|record| add(&[record.sequence, record.index.0, record.term.0]));
        }
        digest.to_le_bytes()
    }
}
