//! Two threads that may block: one on the disk, one in the user's code.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{ClusterId, Index, Term};
use graft_services::error::Outcome;
use graft_services::ports::{Command, Halt, LogStore, Machine, Reply, StoreError};
use graft_services::{Event, RequestId};

use super::calls::Caller;
use super::engine::Message;
use crate::infrastructure::store::Wal;

/// For the disk.
#[derive(Debug)]
pub(crate) enum StoreJob {
    Persist(graft_domain::Write),
    /// The cluster's name is committed.
    Cluster(ClusterId),
}

/// Bytes that go into one write and sync; a single larger write goes alone.
const GATHER_BYTES_MAX: usize = 64 << 20;
/// How long to wait before a write is tried again on a full disk.
const FULL_RETRY: Duration = Duration::from_millis(100);

/// Makes writes durable: all that queued during the last sync go with the next one.
///
/// Once `killed`, what still waits is dropped as a killed process would.
pub(crate) fn run_store(mut wal: Wal, jobs: &Receiver<StoreJob>, engine: &Sender<Message>, killed: &AtomicBool) {
    let mut writes = Vec::new();
    while let Ok(first) = jobs.recv() {
        if killed.load(Ordering::Relaxed) {
            return;
        }
        let (mut named, mut bytes, mut next) = (None, 0, Some(first));
        while let Some(job) = next {
            match job {
                StoreJob::Persist(write) => {
                    bytes += write.entries.iter().map(graft_domain::Entry::size).sum::<usize>();
                    writes.push(write);
                }
                StoreJob::Cluster(cluster) => named = Some(cluster),
            }
            next = if bytes < GATHER_BYTES_MAX { jobs.try_recv().ok() } else { None };
        }
        let event = match persist(&mut wal, &writes, engine, killed) {
            Ok(seq) => seq.map(|seq| Event::Persisted { seq }),
            Err(error) => Some(Event::StorageFailed(error.to_string())),
        };
        writes.clear();
        // After the log: a directory that knows its cluster has the entry that names it.
        if let (Some(cluster), Some(Event::Persisted { .. }) | None) = (named, &event)
            && let Err(error) = wal.record_cluster(cluster)
        {
            tracing::warn!(%error, "the cluster's name could not be kept beside the log; the log has it");
        }
        if let Some(event) = event
            && engine.send(Message::Event(event)).is_err()
        {
            return;
        }
    }
}

/// Writes until it is durable or cannot be; a full disk is waited out. Answers the last number.
fn persist(
    wal: &mut Wal,
    writes: &[graft_domain::Write],
    engine: &Sender<Message>,
    killed: &AtomicBool,
) -> Result<Option<u64>, StoreError> {
    let Some(last) = writes.last() else { return Ok(None) };
    let mut told = false;
    loop {
        match wal.persist(writes) {
            Ok(()) if told => {
                tracing::warn!("there is space again: writes go on");
                return Ok(Some(last.seq));
            }
            Ok(()) => return Ok(Some(last.seq)),
            Err(StoreError::Full { path }) => {
                if !told {
                    tracing::error!(%path, "no space left: nothing is written until there is");
                }
                told = true;
                if killed.load(Ordering::Relaxed) || engine.send(Message::Event(Event::StorageFull)).is_err() {
                    return Err(StoreError::Full { path });
                }
                std::thread::sleep(FULL_RETRY);
            }
            Err(error) => return Err(error),
        }
    }
}

/// For the machine.
#[derive(Debug)]
pub(crate) enum MachineJob {
    Apply(ApplyJob),
    Query { queries: Vec<Bytes>, callers: Vec<(RequestId, Option<Caller>)>, applied: Index, term: Term },
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
pub(crate) fn run_machine(
    machine: &mut dyn Machine,
    jobs: &Receiver<MachineJob>,
    engine: &Sender<Message>,
    dead: &AtomicBool,
) {
    let mut work = Work { machine, engine, halted: None };
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
        }
    }
}

/// Adds further commands that already wait; gives the job that could not be added.
fn gather(gathered: &mut ApplyJob, jobs: &Receiver<MachineJob>) -> Option<MachineJob> {
    while gathered.commands.len() < APPLY_BATCH_MAX {
        let ApplyJob { commands, callers, upto } = match jobs.try_recv().ok()? {
            MachineJob::Apply(job) => job,
            query @ MachineJob::Query { .. } => return Some(query),
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
    halted: Option<String>,
}

impl Work<'_> {
    fn apply(&mut self, ApplyJob { commands, callers, upto }: ApplyJob) {
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
        let done = callers.iter().map(|(_, request, _)| *request).collect();
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
