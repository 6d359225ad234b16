//! The table of sessions: what it knows, what it forgets, and how it looks in a snapshot.

use std::time::Duration;

use bytes::Bytes;
use graft_domain::{Index, Term};

use super::random::Random;
use crate::commands::{Slot, session_id};
use crate::ports::{Raised, Reply};
use crate::sessions::{Admission, Limits, Record, Sessions, WINDOW_MAX};
use crate::sessions_format::BadSessions;

const SECOND: u64 = 1_000_000_000;
const KEY: u64 = 4;

fn slot(session: u64, sequence: u64, unanswered: u64) -> Slot {
    Slot { session, sequence, unanswered }
}

fn value(text: &str) -> Reply {
    Reply::Value(Bytes::copy_from_slice(text.as_bytes()))
}

fn known(index: u64, reply: Option<&str>) -> Admission {
    Admission::Known { index: Index(index), term: Term(1), reply: reply.map(value) }
}

/// A table and the log that it follows.
#[derive(Default)]
struct Log {
    table: Sessions,
    index: u64,
    /// Seconds.
    now: u64,
}

impl Log {
    fn with(limits: Limits) -> Self {
        let mut log = Self::default();
        log.table.limits = limits;
        log
    }

    fn next(&mut self) -> Index {
        self.index += 1;
        self.table.reach(Index(self.index));
        Index(self.index)
    }

    fn open(&mut self, ttl: u64) -> u64 {
        let index = self.next();
        self.table.open(index, KEY, self.now * SECOND, Duration::from_secs(ttl));
        session_id(index, KEY)
    }

    /// One command; answered if it is applied.
    fn apply(&mut self, slot: Slot, reply: &str) -> Admission {
        let index = self.next();
        let admission = self.table.admit(slot, index, Term(1), self.now * SECOND);
        if admission == Admission::New {
            self.table.keep(slot, index, &value(reply));
        }
        admission
    }

    /// What it counts is what it has.
    fn check(&self) {
        let records = || self.table.open.values().flat_map(|session| &session.done);
        assert_eq!(self.table.records, records().count());
        assert_eq!(self.table.bytes, records().map(Record::size).sum::<usize>());
        let Limits { sessions, records, replies_bytes, .. } = self.table.limits;
        assert!(self.table.open.len() <= sessions && self.table.records <= records);
        assert!(self.table.bytes <= replies_bytes);
    }
}

#[test]
fn a_command_is_new_once_and_then_has_its_first_answer() {
    let mut log = Log::default();
    let session = log.open(60);
    assert_eq!(log.apply(slot(session, 1, 1), "one"), Admission::New);
    assert_eq!(log.apply(slot(session, 3, 1), "three"), Admission::New, "gaps are fine");
    assert_eq!(log.apply(slot(session, 1, 1), "other"), known(2, Some("one")));
    assert_eq!(log.apply(slot(session, 2, 1), "two"), Admission::New, "and may be filled");
    assert_eq!(log.apply(slot(session, 3, 1), "other"), known(3, Some("three")));
    // Whoever has an answer needs it no more.
    assert_eq!(log.apply(slot(session, 4, 3), "four"), Admission::New);
    assert_eq!(log.apply(slot(session, 2, 1), "other"), Admission::Forgotten);
    assert_eq!(log.apply(slot(session, 3, 3), "other"), known(3, Some("three")));
    // Nonsense is not applied twice either.
    assert_eq!(log.apply(slot(session, 0, 0), "other"), Admission::Forgotten);
    assert_eq!(log.apply(slot(session, 9, u64::MAX), "nine"), Admission::New);
    assert_eq!(log.apply(slot(session, 9, 0), "other"), known(11, Some("nine")));
    assert_eq!(log.apply(slot(session + 1, 1, 1), "other"), Admission::Gone);
    log.check();
}

#[test]
fn a_session_takes_a_window_of_commands_and_no_more() {
    let mut log = Log::default();
    let session = log.open(60);
    assert_eq!(log.apply(slot(session, WINDOW_MAX, 1), "last"), Admission::New);
    assert_eq!(log.apply(slot(session, WINDOW_MAX + 1, 1), ""), Admission::Full);
    assert_eq!(log.apply(slot(session, u64::MAX, 1), ""), Admission::Full);
    assert_eq!(log.apply(slot(session, WINDOW_MAX + 1, 2), ""), Admission::New, "it moves with what is unanswered");
    assert_eq!(log.apply(slot(session, u64::MAX, u64::MAX), ""), Admission::New);
    log.check();
}

#[test]
fn a_session_ends_when_it_was_not_used_for_its_time_by_the_stamps() {
    let mut log = Log::default();
    let (brief, other) = (log.open(10), log.open(1_000));
    for _ in 0..3 {
        log.now += 10;
        assert_eq!(log.apply(slot(brief, 1, 1), ""), if log.now == 10 { Admission::New } else { known(3, Some("")) });
    }
    log.now += 11;
    assert_eq!(log.apply(slot(brief, 2, 1), ""), Admission::Gone);
    assert_eq!(log.apply(slot(brief, 1, 1), ""), Admission::Gone, "nor is it there again");
    assert_eq!(log.apply(slot(other, 1, 1), ""), Admission::New);
    // Those that nobody names any more go when another one comes.
    let unnamed = log.open(5);
    log.now += 6;
    assert!(log.table.open.contains_key(&unnamed));
    log.open(5);
    assert!(!log.table.open.contains_key(&unnamed) && log.table.open.contains_key(&other));
    log.check();
}

#[test]
fn of_too_many_sessions_the_least_recently_used_one_goes() {
    let mut log = Log::with(Limits { sessions: 300, ..Limits::default() });
    let mut random = Random(3);
    let mut used: Vec<u64> = Vec::new();
    for _ in 0..5_000 {
        if used.is_empty() || random.chance(400) {
            let goes = (used.len() == 300).then(|| used.remove(0));
            used.push(log.open(u64::MAX / SECOND));
            assert!(goes.is_none_or(|id| !log.table.open.contains_key(&id)));
        } else {
            let id = used.remove(random.size(used.len()));
            assert_ne!(log.apply(slot(id, 1, 1), ""), Admission::Gone);
            used.push(id);
        }
        assert!(used.iter().all(|id| log.table.open.contains_key(id)) && log.table.open.len() == used.len());
    }
    log.check();
}

#[test]
fn of_too_many_bytes_the_oldest_replies_go_and_that_they_were_applied_is_known() {
    let mut log = Log::with(Limits { replies_bytes: 1_000, ..Limits::default() });
    let sessions = [log.open(60), log.open(60)];
    for sequence in 1..=100 {
        for session in sessions {
            assert_eq!(log.apply(slot(session, sequence, 1), "ten bytes!"), Admission::New);
            log.check();
        }
    }
    let kept = log.table.bytes / 10;
    assert!((75..=100).contains(&kept), "{kept}");
    for (place, session) in sessions.into_iter().enumerate() {
        assert_eq!(log.apply(slot(session, 1, 1), ""), known(3 + place as u64, None));
        assert_eq!(log.apply(slot(session, 100, 1), ""), known(201 + place as u64, Some("ten bytes!")));
    }
    // One that would drive out many is not kept.
    assert_eq!(log.apply(slot(sessions[0], 101, 1), &"x".repeat(251)), Admission::New);
    assert_eq!((log.table.bytes / 10, log.table.bytes % 10), (kept, 0));
}

#[test]
fn of_too_many_records_the_oldest_are_forgotten_and_never_applied_again() {
    let mut log = Log::with(Limits { records: 100, ..Limits::default() });
    let sessions = [log.open(60), log.open(60), log.open(60)];
    let mut random = Random(5);
    let mut applied = std::collections::BTreeSet::new();
    for _ in 0..3_000 {
        let slot = slot(random.one_of(&sessions), 1 + random.below(400), 1);
        if log.apply(slot, "") == Admission::New {
            assert!(applied.insert((slot.session, slot.sequence)), "{slot:?} twice");
        }
        log.check();
    }
    assert!(applied.len() > 100);
}

/// Any table.
fn any(random: &mut Random) -> Log {
    let limits = Limits { sessions: 5, records: 30, replies_bytes: 300, ..Limits::default() };
    let mut log = Log::with(limits);
    let mut ids = vec![log.open(1_000)];
    for _ in 0..random.below(120) {
        log.now += random.below(20);
        if random.chance(100) {
            let ttl = random.below(500);
            ids.push(log.open(ttl));
        }
        let (id, sequence) = (random.one_of(&ids), random.below(40));
        let slot = slot(id, sequence, sequence.saturating_sub(random.below(12)));
        let index = log.next();
        if log.table.admit(slot, index, Term(2), log.now * SECOND) == Admission::New && random.chance(800) {
            let words = "é".repeat(random.size(9));
            let raised = || Raised { type_name: "E".to_owned(), message: words.clone(), traceback: String::new() };
            let reply = if random.chance(300) { Reply::Raised(Box::new(raised())) } else { value(&words) };
            log.table.keep(slot, index, &reply);
        }
    }
    log
}

#[test]
fn what_is_encoded_is_decoded_and_goes_on_alike() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let mut log = any(&mut random);
        let bytes = log.table.encode();
        let mut decoded = Sessions::decode(&bytes).expect("it was encoded here");
        decoded.limits = log.table.limits;
        assert_eq!((decoded.encode(), decoded.digest()), (bytes, log.table.digest()));
        let mut copy = Log { table: decoded, index: log.index, now: log.now };
        copy.check();
        for _ in 0..50 {
            let (ttl, later, act) = (random.below(500), random.below(50), random.chance(200));
            let slot = slot(1 + random.below(log.index), random.below(60), random.below(60));
            for log in [&mut log, &mut copy] {
                log.now += later;
                if act {
                    log.open(ttl);
                }
            }
            assert_eq!(log.apply(slot, "same"), copy.apply(slot, "same"), "seed {seed}");
        }
        assert_eq!(log.table.encode(), copy.table.encode(), "seed {seed}");
    }
}

#[test]
fn what_is_known_to_be_applied_does_not_depend_on_what_is_kept_of_replies() {
    for seed in 0..100 {
        let log = any(&mut Random(seed));
        let mut without = log.table.clone();
        for record in without.open.values_mut().flat_map(|session| &mut session.done) {
            record.reply = None;
        }
        without.bytes = 0;
        let mut logs = [log.table, without].map(|table| Log { table, index: log.index, now: log.now });
        let mut random = Random(seed + 1_000);
        for _ in 0..200 {
            let (slot, ttl) = (slot(1 + random.below(log.index), random.below(80), random.below(70)), random.below(90));
            let (opens, later) = (random.chance(50), random.below(9));
            let applied = logs.each_mut().map(|log| {
                log.now += later;
                if opens {
                    log.open(ttl);
                }
                log.apply(slot, "some reply") == Admission::New
            });
            assert_eq!(applied[0], applied[1], "seed {seed}");
            assert_eq!(logs[0].table.digest(), logs[1].table.digest(), "seed {seed}");
        }
    }
}

#[test]
fn no_bytes_panic_and_none_say_what_others_say() {
    for seed in 0..20 {
        let log = any(&mut Random(seed));
        let bytes = log.table.encode();
        for cut in 0..bytes.len() {
            assert!(Sessions::decode(&bytes[..cut]).is_err(), "seed {seed} cut at {cut}");
        }
        assert!(Sessions::decode(&[&bytes[..], &[0]].concat()).is_err());
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut other = bytes.to_vec();
                other[place] ^= 1 << bit;
                // An error, or the table that just these bytes say.
                if let Ok(table) = Sessions::decode(&other) {
                    assert_eq!(table.encode(), other, "seed {seed}, bit {bit} of {place}");
                    assert_ne!(table.encode(), bytes);
                }
            }
        }
    }
    let mut random = Random(1);
    for _ in 0..20_000 {
        let mut noise: Vec<u8> = (0..random.below(120)).map(|_| random.next().to_le_bytes()[0] % 5).collect();
        noise.insert(0, 1);
        let _ = Sessions::decode(&noise);
    }
}

#[test]
fn a_table_beyond_the_limits_is_refused_before_it_is_built() {
    // More sessions than there may be, and nothing behind the number.
    let mut bytes = Sessions::default().encode().to_vec();
    bytes[17..21].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(Sessions::decode(&bytes).map(|_| ()), Err(BadSessions::TooMany));
    // A reply that is longer than the file.
    let mut log = Log::default();
    let session = log.open(60);
    log.apply(slot(session, 1, 1), "four");
    let mut bytes = log.table.encode().to_vec();
    let length = bytes.len() - 8;
    bytes[length..length + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(Sessions::decode(&bytes).map(|_| ()), Err(BadSessions::Truncated));
}

#[test]
fn of_two_sessions_with_the_same_id_neither_is_there() {
    let mut log = Log::default();
    let session = log.open(60);
    log.apply(slot(session, 1, 1), "one");
    // No honest log has the same entry twice; two entries with the same id are not to be found.
    log.table.open(Index(1), KEY, 0, Duration::from_mins(1));
    assert_eq!(log.apply(slot(session, 1, 1), "one"), Admission::Gone);
    log.check();
}

#[test]
fn many_sessions_and_commands_cost_little() {
    let mut log = Log::default();
    let sessions: Vec<u64> = (0..10_000).map(|_| log.open(3_600)).collect();
    let mut random = Random(9);
    let mut next = vec![1; sessions.len()];
    for _ in 0..100_000 {
        let of = random.size(sessions.len());
        assert_eq!(log.apply(slot(sessions[of], next[of], next[of]), "reply"), Admission::New);
        next[of] += 1;
    }
    log.check();
    assert!(log.table.records <= sessions.len(), "one reply is kept for each: the last");
    let busy = sessions[0];
    for sequence in 0..20_000 {
        log.apply(slot(busy, next[0] + sequence, next[0]), "");
    }
    log.apply(slot(busy, next[0] + 20_000, next[0] + 20_000), "");
    assert!(log.table.open[&busy].done.capacity() < 200, "nor is room kept for what is gone");
}
