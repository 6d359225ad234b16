//! The thread that may block in the user's code: applies, answers, lets snapshots be taken and restores them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};

use bytes::Bytes;
use graft_domain::{EntryId, Index, Term};
use graft_services::error::Outcome;
use graft_services::ports::{Command, Halt, Machine, Reply, SnapshotFiles};
use graft_services::snapshot_meta::SnapshotMeta;
use graft_services::{Event, RequestId};

use super::calls::Caller;
use super::engine::Message;
use super::snapshot_worker::WriteJob;
use crate::infrastructure::store;

/// What the machine's thread has besides the machine.
pub(crate) struct MachineWork {
    pub(crate) jobs: Receiver<MachineJob>,
    pub(crate) engine: Sender<Message>,
    /// The engine is gone: what waits for the machine is for nobody.
    pub(crate) dead: Arc<AtomicBool>,
    pub(crate) snapshots: Arc<dyn SnapshotFiles>,
    /// The thread that writes snapshots.
    pub(crate) writer: Sender<WriteJob>,
    /// Held until the machine is done: another node on the same directory would apply the same commands beside it.
    pub(crate) _lock: Arc<store::OsLock>,
}

/// For the machine.
#[derive(Debug)]
pub(crate) enum MachineJob {
    Apply(ApplyJob),
    Query {
        queries: Vec<Bytes>,
        callers: Vec<(RequestId, Option<Caller>)>,
        applied: Index,
        term: Term,
    },
    /// Let the state be written as it is after all jobs before.
    Snapshot(SnapshotMeta),
    /// Restore the snapshot unless the machine is past it.
    Restore(SnapshotMeta),
}

/// Committed commands, and who waits for which of them.
#[derive(Debug)]
pub(crate) struct ApplyJob {
    pub(crate) commands: Vec<Command>,
    /// The place in `commands`, and whom to answer.
    pub(crate) callers: Vec<(usize, RequestId, Option<Caller>)>,
    pub(crate) upto: Index,
}

/// Commands that the machine gets in one call at the most.
const APPLY_BATCH_MAX: usize = 1024;

/// Drives the machine. Callers are answered when the machine has let go of whatever it holds (the interpreter, say).
///
/// Once the engine is `dead` what still waits is dropped: the log has it for the next node on this directory.
pub(crate) fn run_machine(machine: &mut dyn Machine, work: &MachineWork, restored: Index) {
    let MachineWork { jobs, engine, dead, snapshots, writer, .. } = work;
    let mut work = Work { machine, engine, snapshots: &**snapshots, writer, restored, applied: restored, halted: None };
    let mut held: Option<MachineJob> = None;
    while let Some(job) = held.take().or_else(|| jobs.recv().ok()) {
        if dead.load(Ordering::Relaxed) {
            return;
        }
        match job {
            MachineJob::Apply(mut job) => {
                held = gather(&mut job, jobs);
                work.apply(job);
            }
            MachineJob::Query { queries, callers, applied, term } => work.query(&queries, callers, applied, term),
            MachineJob::Snapshot(meta) => work.snapshot(meta),
            MachineJob::Restore(meta) => work.restore(&meta),
        }
    }
}

/// Adds further commands that already wait; gives the job that could not be added.
fn gather(gathered: &mut ApplyJob, jobs: &Receiver<MachineJob>) -> Option<MachineJob> {
    while gathered.commands.len() < APPLY_BATCH_MAX {
        let ApplyJob { commands, callers, upto } = match jobs.try_recv().ok()? {
            MachineJob::Apply(job) => job,
            other => return Some(other),
        };
        let before = gathered.commands.len();
        gathered.commands.extend(commands);
        gathered.callers.extend(callers.into_iter().map(|(place, request, caller)| (before + place, request, caller)));
        gathered.upto = upto;
    }
    None
}

struct Work<'a> {
    machine: &'a mut dyn Machine,
    engine: &'a Sender<Message>,
    snapshots: &'a dyn SnapshotFiles,
    writer: &'a Sender<WriteJob>,
    /// The last entry that a restored snapshot covers: commands up to it are in the state already.
    restored: Index,
    /// Everything up to here is in the state.
    applied: Index,
    halted: Option<String>,
}

impl Work<'_> {
    fn apply(&mut self, mut job: ApplyJob) {
        let done = job.callers.iter().map(|(_, request, _)| *request).collect();
        if job.commands.first().is_some_and(|first| first.index <= self.restored) {
            skip_restored(&mut job, self.restored);
        }
        let ApplyJob { commands, callers, upto } = job;
        let mut replies = Vec::with_capacity(commands.len());
        let halt = self.halted.clone().map(|why| Halt { index: upto, why }).or_else(|| {
            let machine = &mut *self.machine;
            let replies = &mut replies;
            let call = catch_unwind(AssertUnwindSafe(|| machine.apply(&commands, replies)));
            call.unwrap_or_else(|panic| Err(Halt { index: upto, why: panic_words(&*panic) })).err()
        });
        let index = if halt.is_none() {
            upto
        } else {
            replies.len().checked_sub(1).and_then(|last| commands.get(last)).map_or(Index::ZERO, |c| c.index)
        };
        // The engine hears first, so that whoever was answered finds the node's status to know of it.
        self.applied = self.applied.max(index);
        let _ = self.engine.send(Message::Applied { index, done });
        let unapplied = unapplied(halt.as_ref());
        for (place, _, caller) in callers {
            let Some(Caller { sink, token }) = caller else { continue };
            let outcome = match (replies.get_mut(place), commands.get(place)) {
                (Some(reply), Some(command)) => {
                    let reply = std::mem::replace(reply, Reply::Value(Bytes::new()));
                    Outcome::Done { index: command.index, term: command.term, reply }
                }
                _ => Outcome::Unknown(unapplied.clone()),
            };
            sink.complete(token, outcome);
        }
        if let Some(halt) = halt
            && self.halted.is_none()
        {
            self.halted = Some(halt.why.clone());
            let _ = self.engine.send(Message::Event(Event::Halted(halt)));
        }
    }

    fn snapshot(&mut self, meta: SnapshotMeta) {
        let last = meta.last;
        let machine = &mut *self.machine;
        let failed = match &self.halted {
            Some(why) => Some(format!("the machine halted: {why}")),
            None if self.restored > last.index => Some("a newer one has come from the leader".to_owned()),
            None => match catch_unwind(AssertUnwindSafe(|| machine.snapshot())) {
                Ok(Ok(write)) => self.writer.send(WriteJob { meta, write }).err().map(|_| "the node ends".to_owned()),
                Ok(Err(why)) => Some(why),
                Err(panic) => Some(panic_words(&*panic)),
            },
        };
        if let Some(why) = failed {
            let _ = self.engine.send(Message::Event(Event::SnapshotFailed { last, why }));
        }
    }

    /// The state becomes that of the snapshot, or the machine halts: half restored it is nobody's state.
    fn restore(&mut self, meta: &SnapshotMeta) {
        if self.halted.is_some() {
            return;
        }
        let last = meta.last;
        // A machine never goes back: what came by the log while the snapshot was fetched would be lost.
        let restored = if self.applied >= last.index { Ok(()) } else { restore(self.machine, self.snapshots, last) };
        let event = match restored {
            Ok(()) => {
                self.restored = self.restored.max(last.index);
                self.applied = self.applied.max(last.index);
                Event::SnapshotRestored { last }
            }
            Err(why) => {
                self.halted = Some(why.clone());
                Event::Halted(Halt { index: last.index, why })
            }
        };
        let _ = self.engine.send(Message::Event(event));
    }

    fn query(&mut self, queries: &[Bytes], callers: Vec<(RequestId, Option<Caller>)>, applied: Index, term: Term) {
        let mut replies = Vec::with_capacity(queries.len());
        let machine = &mut *self.machine;
        // A machine that halted lacks what it was handed since, which may be what a query has to see.
        let failed = self.halted.clone().or_else(|| {
            let outcome = catch_unwind(AssertUnwindSafe(|| machine.query(queries, &mut replies)));
            outcome.err().map(|panic| panic_words(&*panic))
        });
        let mut replies = replies.into_iter();
        let done = callers.iter().map(|(request, _)| *request).collect();
        let _ = self.engine.send(Message::Queried { done });
        for (_, caller) in callers {
            let reply = replies.next();
            let Some(Caller { sink, token }) = caller else { continue };
            let outcome = match reply {
                Some(reply) => Outcome::Done { index: applied, term, reply },
                None => Outcome::Refused(graft_services::error::Refusal::Halted(
                    failed.clone().unwrap_or_else(|| "the machine gave no answer".to_owned()),
                )),
            };
            sink.complete(token, outcome);
        }
    }
}

/// Gives the machine the state of a snapshot.
pub(crate) fn restore(machine: &mut dyn Machine, snapshots: &dyn SnapshotFiles, last: EntryId) -> Result<(), String> {
    let (_, file) = snapshots.read(last).map_err(|error| error.to_string())?;
    let restored = catch_unwind(AssertUnwindSafe(|| machine.restore(file)));
    restored.unwrap_or_else(|panic| Err(panic_words(&*panic)))
}

/// Takes out of a job what the machine has from a snapshot. Nothing is known of the answers.
fn skip_restored(job: &mut ApplyJob, restored: Index) {
    let skipped = job.commands.partition_point(|command| command.index <= restored);
    job.commands.drain(..skipped);
    let (known, unknown): (Vec<_>, Vec<_>) = std::mem::take(&mut job.callers).into_iter().partition(|c| c.0 >= skipped);
    job.callers = known.into_iter().map(|(place, request, caller)| (place - skipped, request, caller)).collect();
    for (_, _, caller) in unknown {
        let Some(Caller { sink, token }) = caller else { continue };
        let why = "it is committed, and this node has its effect from a snapshot, which does not hold its answer";
        sink.complete(token, Outcome::Unknown(why.to_owned()));
    }
}

/// What those are told whose commands the machine did not come to.
fn unapplied(halt: Option<&Halt>) -> String {
    // Of a traceback the last line says most.
    let why = halt.and_then(|halt| halt.why.trim_end().lines().last()).unwrap_or_default();
    format!("it is committed, but this node's machine halted before applying it: {why}")
}

/// What a panic said.
pub(crate) fn panic_words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("an internal error, please report it: {}", text.unwrap_or_else(|| "a panic without words".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::mpsc::channel;

    use graft_domain::{Incarnation, Membership, NodeId};
    use graft_services::ports::WriteSnapshot;

    use super::*;

    /// Keeps the index of the last command, and is never given an older state.
    struct Last(u64);

    impl Machine for Last {
        fn open(&mut self, _directory: &str) -> Result<Index, Halt> {
            Ok(Index::ZERO)
        }

        fn apply(&mut self, commands: &[Command], replies: &mut Vec<Reply>) -> Result<(), Halt> {
            for command in commands {
                assert!(command.index.0 > self.0, "a command twice");
                self.0 = command.index.0;
                replies.push(Reply::Value(Bytes::new()));
            }
            Ok(())
        }

        fn query(&mut self, _queries: &[Bytes], _replies: &mut Vec<Reply>) {}

        fn snapshot(&mut self) -> Result<WriteSnapshot, String> {
            let last = self.0;
            Ok(Box::new(move |file| file.write_all(&last.to_le_bytes()).map_err(|error| error.to_string())))
        }

        fn restore(&mut self, mut file: Box<dyn Read + Send>) -> Result<(), String> {
            let mut last = [0; 8];
            file.read_exact(&mut last).map_err(|error| error.to_string())?;
            let last = u64::from_le_bytes(last);
            assert!(last >= self.0, "back from {} to {last}", self.0);
            self.0 = last;
            Ok(())
        }
    }

    fn apply(from: u64, upto: u64) -> MachineJob {
        let command = |index| Command { index: Index(index), term: Term(1), time: 0, body: Bytes::new() };
        let commands = (from..=upto).map(command).collect();
        MachineJob::Apply(ApplyJob { commands, callers: Vec::new(), upto: Index(upto) })
    }

    /// Runs the jobs on a machine, beside a snapshot of entry 5. Answers what the machine has in the end.
    fn run(jobs: Vec<MachineJob>) -> u64 {
        let directory = tempfile::tempdir().expect("a directory");
        let id = NodeId::new("n1").expect("a good id");
        let membership = Arc::new(Membership::founding([(id, "127.0.0.1:1")]));
        let founding = store::Founding { id, membership: Arc::clone(&membership), mint: Incarnation(1) };
        let (wal, snapshots, _) =
            store::open(directory.path(), &founding, store::StoreConfig::default()).expect("it is new");
        let meta = SnapshotMeta { last: EntryId::new(1, 5), command: Index(5), time: 0, membership };
        let written = snapshots.write(&meta, Last(5).snapshot().expect("it can"));
        written.expect("there is room");
        let ((sender, inbox), (engine, _engine), (writer, _writer)) = (channel(), channel(), channel());
        for job in jobs {
            sender.send(job).expect("the inbox is here");
        }
        sender.send(MachineJob::Restore(meta)).expect("the inbox is here");
        sender.send(apply(7, 8)).expect("the inbox is here");
        drop(sender);
        let dead = Arc::new(AtomicBool::new(false));
        let work = MachineWork { jobs: inbox, engine, dead, snapshots, writer, _lock: wal.lock() };
        let mut machine = Last(0);
        run_machine(&mut machine, &work, Index::ZERO);
        machine.0
    }

    #[test]
    fn a_machine_never_goes_back_to_a_snapshot() {
        // At 6 when the snapshot of 5 comes: going back would bring 6 a second time, or lose it.
        assert_eq!(run(vec![apply(1, 6)]), 8);
    }

    #[test]
    fn a_machine_that_is_behind_gets_the_snapshot_and_skips_what_it_covers() {
        assert_eq!(run(vec![apply(1, 3)]), 8);
        assert_eq!(run(Vec::new()), 8);
    }
}
