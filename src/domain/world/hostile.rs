//! Messages that no correct member sends: whatever a peer says, a core neither panics nor contradicts itself.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::disk::Disk;
use crate::message::{Append, AppendOutcome, AppendReply, Envelope, Message, SnapshotOffer, VoteReply, VoteRequest};
use crate::random::Random;
use crate::{
    ClusterId, Config, Entry, EntryId, Index, Input, Instant, Membership, NodeId, Payload, RaftCore, ReadId, Target,
    Term,
};

const RUNS: u64 = 2_000;
const MESSAGES: u64 = 60;

fn pick<T: Copy, const N: usize>(random: &mut Random, from: [T; N]) -> T {
    from[usize::try_from(random.next() % N as u64).expect("a small number")]
}

/// Numbers that are near to what is true, and numbers that are as far from it as can be.
fn number(random: &mut Random) -> u64 {
    match random.next() % 4 {
        0 => pick(random, [u64::MAX, u64::MAX - 1, 1 << 63, u64::from(u32::MAX)]),
        _ => random.next() % 8,
    }
}

fn entry_id(random: &mut Random) -> EntryId {
    EntryId::new(number(random), number(random))
}

/// Mostly terms that let the message be taken seriously.
fn term(random: &mut Random, own: Term) -> Term {
    match random.next() % 16 {
        0 => Term(number(random)),
        1 => own.next(),
        _ => own,
    }
}

fn entries(random: &mut Random, prev: EntryId, term: Term) -> Vec<Entry> {
    let mut index = prev.index;
    let count = random.next() % 4;
    let mut entry = |_| {
        index = if random.next().is_multiple_of(16) { Index(number(random)) } else { index.next() };
        let term = if random.next().is_multiple_of(4) { Term(number(random)) } else { term };
        Entry { index, term, payload: Payload::Command(Bytes::from_static(b"x")) }
    };
    (0..count).map(&mut entry).collect()
}

fn message(random: &mut Random, term: Term) -> Message {
    let (round, session) = (number(random), random.next() % 3);
    let prev = entry_id(random);
    let request = VoteRequest { term, last: entry_id(random), commit: Index(number(random)), transfer: round % 2 == 0 };
    let reply = VoteReply { term, granted: round % 2 == 0 };
    let promise = Duration::new(number(random), 0);
    match random.next() % 12 {
        0 => Message::PreVote(request),
        1 => Message::Vote(request),
        2 => Message::PreVoteReply(reply),
        3 => Message::VoteReply(reply),
        4 | 5 => {
            let entries = entries(random, prev, term);
            Message::Append(Append { session, round, prev, entries, commit: Index(number(random)) })
        }
        6 => Message::AppendReply(AppendReply { session, round, promise, outcome: AppendOutcome::Matched(prev.index) }),
        7 => {
            let outcome = AppendOutcome::Missing { prev: Index(number(random)), hint: prev };
            Message::AppendReply(AppendReply { session, round, promise, outcome })
        }
        8 => Message::Snapshot(SnapshotOffer { session, round, last: prev }),
        9 => Message::TimeoutNow,
        10 => Message::Read { read: ReadId(round), lease: session == 0 },
        _ => Message::ReadReply { read: ReadId(round), index: Some(prev.index) },
    }
}

/// What a leader, or a user of one, might want: the membership that is, with some votes, members and targets changed.
fn membership(random: &mut Random, core: &RaftCore) -> Arc<Membership> {
    if random.next().is_multiple_of(8) {
        return Arc::default();
    }
    let mut next = (**core.membership()).clone();
    for member in next.members.values_mut() {
        match random.next() % 8 {
            0 => member.voter = !member.voter,
            1 => member.outgoing = !member.outgoing,
            2 => member.target = pick(random, [Target::Voter, Target::Learner, Target::Gone]),
            _ => {}
        }
    }
    Arc::new(next.next().unwrap_or(next))
}

/// A member of three, a leader if it can become one.
fn member(random: &mut Random, ids: &[NodeId], leads: bool) -> RaftCore {
    let founding = Membership::founding(ids.iter().map(|id| (*id, "")));
    let command = |index| Entry { index: Index(index), term: Term(1), payload: Payload::Command(Bytes::new()) };
    let disk = Disk {
        term: Term(1),
        entries: (1..=4).map(command).collect(),
        membership: Arc::new(founding),
        ..Disk::default()
    };
    let config = Config::new(ids[0], ClusterId(1), random.next());
    let mut core = RaftCore::new(config, disk.recover(Index::ZERO), Instant(0));
    if leads {
        let _ = core.step(core.deadline(), Input::Timeout);
        let from = ids[1];
        let reply = VoteReply { term: Term(2), granted: true };
        for message in [Message::PreVoteReply(reply), Message::VoteReply(reply)] {
            let _ = core.step(Instant(0), Input::Receive(Envelope { from, to: ids[0], term: core.term(), message }));
            let _ = core.ready(Instant(0));
            let _ = core.step(Instant(0), Input::Persisted { seq: 1 });
        }
        assert!(core.is_leader(), "the election that was set up took place");
    }
    core
}

#[test]
fn no_message_makes_a_core_panic_or_contradict_itself() {
    let ids = ["n1", "n2", "n3"].map(|id| NodeId::new(id).expect("a good id"));
    let stranger = NodeId::new("n9").expect("a good id");
    for run in 0..RUNS {
        let mut random = Random::new(run);
        let mut core = member(&mut random, &ids, run % 2 == 0);
        let mut written = 1;
        for _ in 0..MESSAGES {
            let from = pick(&mut random, [ids[1], ids[1], ids[1], ids[2], stranger, ids[0]]);
            let term = term(&mut random, core.term());
            let message = message(&mut random, term);
            let input = match random.next() % 16 {
                0 => Input::Timeout,
                1 => Input::Propose(vec![Bytes::from_static(b"y")]),
                2 => Input::Read { read: ReadId(random.next()), lease: run % 3 == 0 },
                3 => Input::SnapshotTaken { last: entry_id(&mut random) },
                4 => Input::Applied { index: Index(number(&mut random)) },
                5 => Input::Persisted { seq: written },
                6 => {
                    Input::SnapshotInstalled { last: entry_id(&mut random), membership: membership(&mut random, &core) }
                }
                7 => Input::ChangeMembership(membership(&mut random, &core)),
                8 => Input::TransferLeadership(term.0.is_multiple_of(2).then_some(from)),
                9 => Input::SnapshotFailed(from),
                _ => Input::Receive(Envelope { from, to: ids[0], term, message: message.clone() }),
            };
            let now = core.deadline().min(Instant(random.next() % (1 << 40)));
            let _ = core.step(now, input.clone());
            let later = if run % 5 == 0 { Instant(number(&mut random)) } else { now };
            written = core.ready(later).write.map_or(written, |write| write.seq);
            assert_eq!(core.broken_invariant(), None, "run {run}: {input:?}");
        }
    }
}
