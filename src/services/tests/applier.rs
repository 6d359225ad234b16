//! The applier: each command of a session reaches the machine once, whatever the log, a snapshot or a start brings again.

use std::io::{Cursor, Read, Write};
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{Index, NodeId, Term};

use super::ledger::{Ledger, reply};
use crate::Committed;
use crate::applier::{Answer, Applied, Applier};
use crate::commands::{Act, Slot, session_id};
use crate::ports::{Command, Halt, Machine, Made, Reply, WriteSnapshot};

const KEY: u64 = 5;

fn command(index: u64, sequence: u64, body: &'static str) -> Committed {
    let slot = Some(Slot { session: session_id(Index(1), KEY), sequence, unanswered: 1 });
    committed(index, Act::Command { slot, body: Bytes::from_static(body.as_bytes()) })
}

fn committed(index: u64, act: Act) -> Committed {
    Committed { index: Index(index), term: Term(7), time: index, act }
}

fn open(index: u64) -> Committed {
    committed(index, Act::OpenSession { ttl: Duration::from_secs(1), key: KEY })
}

fn origin() -> NodeId {
    NodeId::new("n1").expect("a good id")
}

fn verify(index: u64) -> Committed {
    committed(index, Act::Verify { origin: origin() })
}

fn ledger() -> (Ledger, Applier) {
    let ledger = Ledger::default();
    (ledger.clone(), Applier::new(Box::new(ledger)))
}

fn apply(applier: &mut Applier, commands: &[Committed]) -> Applied {
    let mut came = Applied::default();
    applier.apply(commands, &mut came).expect("it goes on");
    assert_eq!(came.answers.len(), commands.len());
    came
}

fn bodies(ledger: &Ledger) -> Vec<String> {
    let news = std::mem::take(&mut ledger.pages().news);
    news.iter().map(|(command, _)| String::from_utf8_lossy(&command.body).into_owned()).collect()
}

fn index_of(answer: &Answer) -> u64 {
    let Answer::Done { index, term: Term(7), .. } = answer else { panic!("{answer:?}") };
    index.0
}

#[test]
fn within_a_batch_and_across_the_first_one_counts() {
    let (ledger, mut applier) = ledger();
    let came = apply(
        &mut applier,
        &[open(1), command(2, 1, "a"), command(3, 1, "a again"), command(4, 2, "b"), command(5, 1, "a again")],
    );
    assert_eq!(came.answers.iter().map(index_of).collect::<Vec<_>>(), [1, 2, 2, 4, 2]);
    assert_eq!(came.answers[1], came.answers[2]);
    let emitted: Vec<u64> = came.emitted.iter().map(|emitted| emitted.index.0).collect();
    assert_eq!((emitted, bodies(&ledger)), (vec![2, 4], vec!["a".to_owned(), "b".to_owned()]));
    let later = apply(&mut applier, &[command(6, 2, "b again"), command(7, 1, "a again"), command(8, 3, "c")]);
    assert_eq!(later.answers[..2], [came.answers[3].clone(), came.answers[1].clone()]);
    assert_eq!((later.emitted.len(), bodies(&ledger)), (1, vec!["c".to_owned()]));
    // One after the other it comes to the same.
    let (_, mut alone) = self::ledger();
    for command in [
        open(1),
        command(2, 1, "a"),
        command(3, 1, "a again"),
        command(4, 2, "b"),
        command(5, 1, "a again"),
        command(6, 2, "b again"),
        command(7, 1, "a again"),
        command(8, 3, "c"),
    ] {
        apply(&mut alone, &[command]);
    }
    assert_eq!(alone.sessions().encode(), applier.sessions().encode());
}

#[test]
fn kept_replies_share_their_bytes_with_those_that_are_given() {
    let (_, mut applier) = ledger();
    let first = apply(&mut applier, &[open(1), command(2, 1, "a")]);
    let again = apply(&mut applier, &[command(3, 1, "a")]);
    let bytes = |answer: &Answer| match answer {
        Answer::Done { reply: Reply::Value(value), .. } => value.as_ptr(),
        other => panic!("{other:?}"),
    };
    assert_eq!(bytes(&first.answers[1]), bytes(&again.answers[0]));
}

#[test]
fn a_session_that_is_not_there_and_one_that_is_full_apply_nothing() {
    let (ledger, mut applier) = ledger();
    let came = apply(
        &mut applier,
        &[command(2, 1, "nowhere"), committed(3, Act::Command { slot: None, body: Bytes::from_static(b"alone") })],
    );
    assert_eq!((&came.answers[0], index_of(&came.answers[1])), (&Answer::Expired, 3));
    let slot = Slot { session: session_id(Index(4), KEY), sequence: u64::MAX, unanswered: 1 };
    let far = committed(5, Act::Command { slot: Some(slot), body: Bytes::from_static(b"far") });
    let answers = apply(&mut applier, &[open(4), far]).answers;
    assert_eq!((&answers[1], bodies(&ledger)), (&Answer::Full, vec!["alone".to_owned()]));
}

#[test]
fn a_machine_that_halts_is_not_called_again() {
    let (ledger, mut applier) = ledger();
    apply(&mut applier, &[open(1), command(2, 1, "a")]);
    ledger.pages().halts = true;
    let mut came = Applied::default();
    let batch = [command(3, 1, "a again"), command(4, 2, "b"), command(5, 1, "a again")];
    let halt = applier.apply(&batch, &mut came).expect_err("told to halt");
    assert_eq!((halt.index, came.answers.len()), (Index(4), 1), "the answers so far count");
    ledger.pages().halts = false;
    let mut came = Applied::default();
    assert_eq!(applier.apply(&[command(6, 3, "c")], &mut came), Err(halt));
    assert!(came.answers.is_empty() && applier.snapshot().is_err());
    assert_eq!(bodies(&ledger), ["a"]);
}

/// A machine that does not keep its word.
struct Broken;

impl Machine for Broken {
    fn open(&mut self, _directory: &str) -> Result<Index, Halt> {
        Ok(Index::ZERO)
    }

    fn apply(&mut self, _commands: &[Command], made: &mut Made) -> Result<(), Halt> {
        made.replies.push(Reply::Value(Bytes::new()));
        Ok(())
    }

    fn snapshot(&mut self) -> Result<WriteSnapshot, String> {
        Err("no".to_owned())
    }

    fn restore(&mut self, _file: Box<dyn Read + Send>) -> Result<(), String> {
        Err("no".to_owned())
    }

    fn query(&mut self, _queries: &[Bytes], _replies: &mut Vec<Reply>) {}

    fn digest(&mut self) -> Result<Bytes, String> {
        Err("it has no digest".to_owned())
    }
}

#[test]
fn too_few_replies_are_a_halt_and_not_answers_to_others() {
    let mut applier = Applier::new(Box::new(Broken));
    let mut came = Applied::default();
    let halt = applier.apply(&[open(1), command(2, 1, "a"), command(3, 2, "b")], &mut came);
    assert_eq!((halt.map_err(|halt| halt.index), came.answers.len()), (Err(Index(3)), 2));
}

#[test]
fn a_digest_is_as_of_its_entry_and_has_the_sessions_in_it() {
    let digests = |batches: &[&[Committed]]| -> Vec<_> {
        let (_, mut applier) = ledger();
        batches.iter().flat_map(|batch| apply(&mut applier, batch).digests).collect()
    };
    let log = [open(1), command(2, 1, "a"), verify(3), command(4, 2, "b"), verify(5), verify(6), open(7), verify(8)];
    let whole = digests(&[&log]);
    let one_by_one: Vec<&[Committed]> = log.chunks(1).collect();
    assert_eq!(whole, digests(&one_by_one));
    assert!(whole.iter().map(|(index, origin, _)| (index.0, *origin)).eq([3, 5, 6, 8].map(|index| (index, origin()))));
    let digest = |place: usize| whole[place].2.clone().expect("a ledger has one");
    assert!(digest(0) != digest(1) && digest(1) == digest(2) && digest(2) != digest(3), "{whole:?}");
    let mut broken = Applier::new(Box::new(Broken));
    let mut came = Applied::default();
    broken.apply(&[verify(1)], &mut came).expect("a digest is no reason to halt");
    assert_eq!(came.digests, [(Index(1), origin(), Err("it has no digest".to_owned()))]);
}

#[test]
fn a_digest_does_not_depend_on_replies() {
    let log = [open(1), command(2, 1, "a"), command(3, 2, "b")];
    let ((_, mut came), (_, mut replayed)) = (ledger(), ledger());
    apply(&mut came, &log);
    replayed.replay(&log);
    assert_eq!(came.sessions().digest(), replayed.sessions().digest());
    assert_ne!(came.sessions().encode(), replayed.sessions().encode());
}

fn snapshot(applier: &mut Applier) -> Vec<u8> {
    let mut file = Vec::new();
    (applier.snapshot().expect("it can"))(&mut file).expect("there is room");
    file
}

#[test]
fn a_snapshot_brings_the_sessions_and_then_the_machine() {
    let (_, mut applier) = ledger();
    let first = apply(&mut applier, &[open(1), command(2, 1, "a"), command(3, 2, "b")]);
    let file = snapshot(&mut applier);
    let (ledger, mut other) = ledger();
    other.restore(Box::new(Cursor::new(file.clone())), Index::ZERO).expect("it was written here");
    let again = apply(&mut other, &[command(4, 2, "b again"), command(5, 3, "c")]);
    assert_eq!((&again.answers[0], bodies(&ledger)), (&first.answers[2], vec!["c".to_owned()]));
    // What was handed over before the snapshot came is in it.
    let (ledger, mut other) = self::ledger();
    other.restore(Box::new(Cursor::new(file.clone())), Index::ZERO).expect("it was written here");
    let known = apply(&mut other, &[command(2, 1, "a"), command(3, 2, "b"), command(4, 3, "c")]);
    assert_eq!(known.answers[..2], first.answers[1..]);
    assert_eq!(bodies(&ledger), ["c"]);
    // Also the last of it, if no session knows it.
    let (ledger, mut other) = self::ledger();
    other.restore(Box::new(Cursor::new(file.clone())), Index::ZERO).expect("it was written here");
    let plain = committed(3, Act::Command { slot: None, body: Bytes::from_static(b"b") });
    let known = apply(&mut other, &[plain, command(4, 3, "c")]);
    assert_eq!(
        (&known.answers[0], bodies(&ledger)),
        (&Answer::Forgotten { index: Some(Index(3)) }, vec!["c".to_owned()])
    );
    // A digest is as of its entry or not at all.
    let (_, mut other) = self::ledger();
    other.restore(Box::new(Cursor::new(file.clone())), Index::ZERO).expect("it was written here");
    let digests = apply(&mut other, &[verify(2), verify(3), verify(4)]).digests;
    let good: Vec<bool> = digests.iter().map(|(_, _, digest)| digest.is_ok()).collect();
    assert_eq!(good, [false, true, true], "{digests:?}");
    for cut in 0..file.len() {
        let (_, mut other) = self::ledger();
        assert!(other.restore(Box::new(Cursor::new(file[..cut].to_vec())), Index::ZERO).is_err(), "cut at {cut}");
    }
    let mut long = file;
    long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let why = other.restore(Box::new(Cursor::new(long)), Index::ZERO).expect_err("no table is so long");
    assert!(why.contains("are the most"), "{why}");
}

#[test]
fn a_machine_with_its_own_disk_gets_the_sessions_only_and_those_after_the_snapshot() {
    let (_, mut applier) = ledger();
    apply(&mut applier, &[open(1), command(2, 1, "a")]);
    let file = snapshot(&mut applier);
    apply(&mut applier, &[command(3, 2, "b"), open(4), command(5, 3, "c")]);
    let (ledger, mut other) = ledger();
    ledger.pages().command = Index(5);
    other.restore(Box::new(Cursor::new(file)), Index(5)).expect("it was written here");
    assert_eq!(ledger.pages().command, Index(5), "the machine is left alone");
    other.replay(&[command(2, 1, "a"), command(3, 2, "b"), open(4), command(5, 3, "c")]);
    assert_eq!(other.sessions().digest(), applier.sessions().digest());
    let answers = apply(&mut other, &[command(6, 1, "a again"), command(7, 2, "b again"), command(8, 4, "d")]).answers;
    assert_eq!(index_of(&answers[0]), 2);
    assert_eq!(answers[1], Answer::Forgotten { index: Some(Index(3)) }, "it is known to be applied");
    assert_eq!((index_of(&answers[2]), bodies(&ledger)), (8, vec!["d".to_owned()]));
}

#[test]
fn a_machine_with_its_own_disk_has_all_if_it_has_the_last_command_that_it_was_given() {
    let (_, mut applier) = ledger();
    // Behind the last command there are a session and a command that was answered before.
    apply(&mut applier, &[open(1), command(2, 1, "a"), open(3), command(4, 1, "a again"), verify(5)]);
    let file = snapshot(&mut applier);
    for (has, is_restored) in [(0, true), (1, true), (2, false), (9, false)] {
        let (ledger, mut other) = ledger();
        let before = ledger.pages().digest;
        other.restore(Box::new(Cursor::new(file.clone())), Index(has)).expect("it was written here");
        assert_eq!(ledger.pages().digest != before, is_restored, "{has}");
    }
    // What it has of the log behind the snapshot counts as given.
    let (_, mut other) = ledger();
    other.replay(&[open(1), command(2, 1, "a"), command(3, 1, "a again")]);
    assert_eq!(other.sessions().given(), Index(2));
}

/// Writes nothing, and fails when it is told to.
struct Full;

impl Write for Full {
    fn write(&mut self, _bytes: &[u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("no space"))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_snapshot_that_cannot_be_written_says_why() {
    let (_, mut applier) = ledger();
    let why = (applier.snapshot().expect("it can"))(&mut Full).expect_err("there is no room");
    assert_eq!(why, "the sessions could not be written: no space");
    let first = apply(&mut applier, &[open(1), command(2, 1, "a")]);
    assert!(matches!(&first.answers[1], Answer::Done { reply: given, .. } if *given != reply(0)));
}
