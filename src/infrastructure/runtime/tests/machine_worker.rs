use std::io::Read;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::channel;
use std::time::Duration;

use graft_domain::{Incarnation, Membership, NodeId};
use graft_services::api::{Cursor, News, Sink, Watch};
use graft_services::ports::{Command, Machine, Made, WriteSnapshot};

use super::super::clock::Monotonic;
use super::*;

/// Keeps the index of the last command, and is never given an older state.
struct Last(Arc<AtomicU64>);

impl Machine for Last {
    fn open(&mut self, _directory: &str) -> Result<Index, Halt> {
        Ok(Index::ZERO)
    }

    fn apply(&mut self, commands: &[Command], made: &mut Made) -> Result<(), Halt> {
        for command in commands {
            let before = self.0.swap(command.index.0, Ordering::Relaxed);
            assert!(command.index.0 > before, "a command twice");
            made.replies.push(Reply::Value(Bytes::new()));
        }
        Ok(())
    }

    fn query(&mut self, _queries: &[Bytes], _replies: &mut Vec<Reply>) {}

    fn snapshot(&mut self) -> Result<WriteSnapshot, String> {
        let last = self.0.load(Ordering::Relaxed);
        Ok(Box::new(move |file| file.write_all(&last.to_le_bytes()).map_err(|error| error.to_string())))
    }

    fn restore(&mut self, mut file: Box<dyn Read + Send>) -> Result<(), String> {
        let mut last = [0; 8];
        file.read_exact(&mut last).map_err(|error| error.to_string())?;
        let last = u64::from_le_bytes(last);
        let before = self.0.swap(last, Ordering::Relaxed);
        assert!(last >= before, "back from {before} to {last}");
        Ok(())
    }

    fn digest(&mut self) -> Result<Bytes, String> {
        Ok(Bytes::copy_from_slice(&self.0.load(Ordering::Relaxed).to_le_bytes()))
    }
}

/// Keeps the tokens of its answers, and with each whether another one was said to follow.
#[derive(Default)]
struct Noted(std::sync::Mutex<Vec<(u64, bool)>>);

impl Sink for Noted {
    fn complete(&self, token: u64, _outcome: Outcome) {
        self.0.lock().expect("nobody panics").push((token, false));
    }

    fn complete_amid(&self, token: u64, _outcome: Outcome) {
        self.0.lock().expect("nobody panics").push((token, true));
    }
}

#[test]
fn of_the_answers_to_one_caller_the_last_one_wakes_him() {
    let (ann, bob) = (Arc::new(Noted::default()), Arc::new(Noted::default()));
    let caller = |sink: &Arc<Noted>, token| Some(Caller { sink: Arc::<Noted>::clone(sink), token });
    let callers = [caller(&ann, 1), caller(&ann, 2), None, caller(&ann, 3), caller(&bob, 4), caller(&ann, 5)];
    let numbered = (0..).zip(callers).map(|(place, caller)| (place, RequestId(place as u64), caller));
    answer(&[], Vec::new(), numbered.collect(), None, &Metrics::default());
    assert_eq!(*ann.0.lock().expect("nobody panics"), [(1, true), (2, true), (3, false), (5, false)]);
    assert_eq!(*bob.0.lock().expect("nobody panics"), [(4, false)]);
}

fn apply(from: u64, upto: u64) -> MachineJob {
    let act = Act::Command { slot: None, body: Bytes::new() };
    let command = |index| Committed { index: Index(index), term: Term(1), time: 0, act: act.clone() };
    let commands = (from..=upto).map(command).collect();
    MachineJob::Apply(ApplyJob { commands, callers: Vec::new(), upto: Index(upto) })
}

fn membership() -> Arc<Membership> {
    Arc::new(Membership::founding([(NodeId::new("n1").expect("a good id"), "127.0.0.1:1")]))
}

fn stored(directory: &std::path::Path) -> (store::Wal, Arc<store::Snapshots>) {
    let (id, membership) = (NodeId::new("n1").expect("a good id"), membership());
    let founding = store::Founding { id, membership, mint: Incarnation(1), promise: Duration::ZERO };
    let (wal, snapshots, _) = store::open(directory, &founding, store::StoreConfig::default()).expect("it is new");
    (wal, snapshots)
}

/// Runs the jobs on a machine, beside a snapshot of entry 5. Answers what the machine has in the end, and what was told to
/// those who watch since its command 1.
fn run(jobs: Vec<MachineJob>) -> (u64, Vec<News>) {
    let directory = tempfile::tempdir().expect("a directory");
    let (wal, snapshots) = stored(directory.path());
    let membership = membership();
    let meta = SnapshotMeta { last: EntryId::new(1, 5), command: Index(5), time: 0, membership };
    let mut five = Applier::new(Box::new(Last(Arc::default())));
    let MachineJob::Apply(ApplyJob { commands, .. }) = apply(1, 5) else { unreachable!() };
    five.apply(&commands, &mut Applied::default()).expect("it does not halt");
    let written = snapshots.write(&meta, five.snapshot().expect("it can"));
    written.expect("there is room");
    let ((sender, inbox), (writer, _writer)) = (channel(), channel());
    let engine = Inbox::new(Monotonic::start());
    for job in jobs {
        sender.send(job).expect("the inbox is here");
    }
    sender.send(MachineJob::Restore(meta)).expect("the inbox is here");
    sender.send(apply(7, 8)).expect("the inbox is here");
    drop(sender);
    let dead = Arc::new(AtomicBool::new(false));
    let hub = Arc::new(Hub::default());
    let since = Some(Cursor { index: Index(1), number: u32::MAX });
    let mut watcher = hub.watch(Watch { topics: Vec::new(), since }, Arc::new(|| {}));
    let metrics = Arc::default();
    let work = MachineWork { jobs: inbox, engine, dead, snapshots, hub, metrics, writer, _lock: wal.lock() };
    let last = Arc::new(AtomicU64::new(0));
    let mut applier = Applier::new(Box::new(Last(Arc::clone(&last))));
    run_machine(&mut applier, &work, Index::ZERO);
    (last.load(Ordering::Relaxed), watcher.take(9).items)
}

/// Answers with as many bytes as a command's body says, halts at one that says 255, and keeps how many commands came at once.
#[derive(Default)]
struct Wordy(Arc<std::sync::Mutex<Vec<usize>>>);

impl Machine for Wordy {
    fn open(&mut self, _directory: &str) -> Result<Index, Halt> {
        Ok(Index::ZERO)
    }

    fn apply(&mut self, commands: &[Command], made: &mut Made) -> Result<(), Halt> {
        self.0.lock().expect("nobody panics").push(commands.len());
        let reply = |command: &Command| Reply::Value(Bytes::from(vec![0; usize::from(command.body[0]) << 12]));
        let halts = commands.iter().position(|command| command.body[0] == 255);
        made.replies.extend(commands[..halts.unwrap_or(commands.len())].iter().map(reply));
        let halt = |place: usize| Err(Halt { index: commands[place].index, why: "255".to_owned() });
        halts.map_or(Ok(()), halt)
    }

    fn query(&mut self, _queries: &[Bytes], _replies: &mut Vec<Reply>) {}

    fn snapshot(&mut self) -> Result<WriteSnapshot, String> {
        Err("it has none".to_owned())
    }

    fn restore(&mut self, _file: Box<dyn Read + Send>) -> Result<(), String> {
        Ok(())
    }

    fn digest(&mut self) -> Result<Bytes, String> {
        Ok(Bytes::new())
    }
}

/// Commands from this index on that are all to be answered with as much, of which callers wait for some.
fn long(from: u64, body: u8, callers: &[usize], sink: &Arc<Noted>) -> ApplyJob {
    let act = Act::Command { slot: None, body: Bytes::copy_from_slice(&[body]) };
    let command = |index| Committed { index: Index(index), term: Term(1), time: 0, act: act.clone() };
    let caller = |place: &usize| {
        let (sink, token): (Arc<dyn Sink>, _) = (Arc::<Noted>::clone(sink), *place as u64);
        (*place, RequestId(token), Some(Caller { sink, token }))
    };
    let callers = callers.iter().map(caller).collect();
    ApplyJob { commands: (from..from + 3000).map(command).collect(), callers, upto: Index(from + 3000) }
}

/// Lets a machine of its own do things, until it is told that the engine is dead.
fn with_wordy(body: impl FnOnce(&mut Work<'_>, &dyn Fn() -> Vec<usize>, &Inbox, &AtomicBool)) {
    let wordy = Wordy::default();
    let calls = Arc::clone(&wordy.0);
    let mut applier = Applier::new(Box::new(wordy));
    let (engine, dead) = (Inbox::new(Monotonic::start()), AtomicBool::new(false));
    let directory = tempfile::tempdir().expect("a directory");
    let (_wal, snapshots) = stored(directory.path());
    let mut work = Work {
        applier: &mut applier,
        engine: &engine,
        dead: &dead,
        snapshots: &*snapshots,
        hub: &Hub::default(),
        metrics: &Metrics::default(),
        writer: &channel().0,
        restored: Index::ZERO,
        applied: Index::ZERO,
        at_once: APPLY_BATCH_FIRST,
        halted: None,
    };
    let calls = || std::mem::take(&mut *calls.lock().expect("nobody panics"));
    body(&mut work, &calls, &engine, &dead);
}

#[test]
fn of_a_long_log_the_machine_gets_some_at_once_and_fewer_the_more_they_answer() {
    let ann = Arc::new(Noted::default());
    with_wordy(|work, calls, _, dead| {
        work.apply_some_at_once(long(1, 0, &[0, 63, 64, 2999], &ann));
        assert_eq!((calls(), work.applied), (vec![64, 256, 1024, 1024, 632], Index(3001)));
        let tokens: Vec<u64> = ann.0.lock().expect("nobody panics").iter().map(|(token, _)| *token).collect();
        assert_eq!(tokens, [0, 63, 64, 2999], "to each his own answer");
        // 256 KiB each: 64 of them are 16 MiB.
        work.apply_some_at_once(long(4000, 64, &[], &ann));
        let sizes = calls();
        assert_eq!((&sizes[..3], sizes.iter().sum::<usize>()), (&[1024, 64, 64][..], 3000));
        work.apply_some_at_once(long(8000, 0, &[], &ann));
        assert_eq!(calls()[..3], [64, 256, 1024]);
        dead.store(true, Ordering::Relaxed);
        work.apply_some_at_once(long(12_000, 0, &[], &ann));
        assert_eq!(calls(), [1024], "nobody waits for the others");
    });
}

#[test]
fn who_waits_for_what_comes_behind_a_halt_is_told_by_the_machine() {
    let ann = Arc::new(Noted::default());
    with_wordy(|work, calls, engine, _| {
        let mut job = long(1, 0, &[70, 100, 2999], &ann);
        job.commands[80] = long(81, 255, &[], &ann).commands.swap_remove(0);
        work.apply_some_at_once(job);
        assert_eq!((calls(), work.applied), (vec![64, 256], Index(80)));
        assert_eq!(ann.0.lock().expect("nobody panics").len(), 3);
        let mut told = std::collections::VecDeque::new();
        engine.take(&mut told);
        let is_halt = |message: &Message| matches!(message, Message::Event(Event::Halted(halt)) if halt.index.0 == 81);
        assert_eq!(told.iter().position(is_halt), Some(told.len() - 1), "when all of them are answered");
    });
}

#[test]
fn a_machine_never_goes_back_to_a_snapshot() {
    // At 6 when the snapshot of 5 comes: going back would bring 6 a second time, or lose it.
    assert_eq!(run(vec![apply(1, 6)]), (8, vec![]));
}

#[test]
fn a_machine_that_is_behind_gets_the_snapshot_and_skips_what_it_covers() {
    let behind = || vec![News::Behind { upto: Index(5) }];
    assert_eq!(run(vec![apply(1, 3)]), (8, behind()));
    assert_eq!(run(Vec::new()), (8, behind()));
}
