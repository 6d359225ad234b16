//! The thread that may block in the user's code: applies, answers, lets snapshots be taken and restores them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;

use bytes::Bytes;
use graft_domain::{EntryId, Index, Term};
use graft_services::applier::{Answer, Applied, Applier};
use graft_services::commands::{Act, Slot};
use graft_services::error::{Outcome, Refusal};
use graft_services::ports::{Halt, Reply, SnapshotFiles};
use graft_services::snapshot_meta::SnapshotMeta;
use graft_services::{Committed, Event, RequestId};

use super::calls::Caller;
use super::engine::Message;
use super::hub::Hub;
use super::inbox::Inbox;
use super::snapshot_worker::WriteJob;
use crate::infrastructure::metrics::Metrics;
use crate::infrastructure::store;

/// What the machine's thread has besides the machine.
pub(crate) struct MachineWork {
    pub(crate) jobs: Receiver<MachineJob>,
    pub(crate) engine: Arc<Inbox>,
    /// The engine is gone: what waits for the machine is for nobody.
    pub(crate) dead: Arc<AtomicBool>,
    pub(crate) snapshots: Arc<dyn SnapshotFiles>,
    /// Where what commands emit goes.
    pub(crate) hub: Arc<Hub>,
    pub(crate) metrics: Arc<Metrics>,
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
    pub(crate) commands: Vec<Committed>,
    /// The place in `commands`, and whom to answer; places ascend.
    pub(crate) callers: Vec<(usize, RequestId, Option<Caller>)>,
    pub(crate) upto: Index,
}

/// Commands that the machine gets in one call at the most. Of a log that is replayed tens of thousands come in one job, and what
/// is made of so many is out of the processor's caches when the machine comes to it.
const APPLY_BATCH_MAX: usize = 1024;
/// Commands that it gets in the first call, when nothing is known of its answers.
const APPLY_BATCH_FIRST: usize = 64;
/// Bytes that the commands of one call should answer and emit, for all of that is in memory at once. Nobody knows before what they
/// answer: the first call, and one whose commands answer more than those before, may come to more.
const ANSWERS_BYTES: usize = 16 << 20;

/// Drives the machine. Callers are answered when the machine has let go of whatever it holds (the interpreter, say).
///
/// Once the engine is `dead` what still waits is dropped: the log has it for the next node on this directory.
pub(crate) fn run_machine(applier: &mut Applier, work: &MachineWork, restored: Index) {
    let MachineWork { jobs, engine, dead, snapshots, hub, metrics, writer, .. } = work;
    let (engine, snapshots) = (&**engine, &**snapshots);
    let mut work = Work {
        applier,
        engine,
        dead,
        snapshots,
        hub,
        metrics,
        writer,
        restored,
        applied: restored,
        at_once: APPLY_BATCH_FIRST,
        halted: None,
    };
    let mut held: Option<MachineJob> = None;
    while let Some(job) = held.take().or_else(|| jobs.recv().ok()) {
        if dead.load(Ordering::Relaxed) {
            return;
        }
        match job {
            MachineJob::Apply(mut job) => {
                held = gather(&mut job, jobs);
                work.apply_some_at_once(job);
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
    applier: &'a mut Applier,
    engine: &'a Inbox,
    dead: &'a AtomicBool,
    snapshots: &'a dyn SnapshotFiles,
    hub: &'a Hub,
    metrics: &'a Metrics,
    writer: &'a Sender<WriteJob>,
    /// The last entry that a restored snapshot covers: commands up to it are in the state already.
    restored: Index,
    /// Everything up to here is in the state.
    applied: Index,
    /// Commands for the next call, by what those of the last one have answered.
    at_once: usize,
    halted: Option<String>,
}

impl Work<'_> {
    /// All of a job. The answers to one call are given before the next is made.
    fn apply_some_at_once(&mut self, job: ApplyJob) {
        let ApplyJob { commands, callers, upto } = job;
        let mut callers = callers.into_iter().peekable();
        let (mut begin, mut halted) = (0, None);
        loop {
            let end = commands.len().min(begin + self.at_once);
            let theirs = std::iter::from_fn(|| callers.next_if(|(place, ..)| *place < end));
            let theirs = theirs.map(|(place, request, caller)| (place - begin, request, caller)).collect();
            let some = &commands[begin..end];
            let is_last = end == commands.len();
            let upto = some.last().filter(|_| !is_last).map_or(upto, |command| command.index);
            let halts = self.apply(some, theirs, upto);
            halted = halted.or(halts);
            if is_last || self.dead.load(Ordering::Relaxed) {
                break;
            }
            begin = end;
        }
        // The engine answers whoever still waits then, and knows less of what became of them.
        if let Some(halt) = halted {
            let _ = self.engine.send(Message::Event(Event::Halted(halt)));
        }
    }

    /// Answers why the machine halts, if it does now.
    fn apply(
        &mut self,
        commands: &[Committed],
        callers: Vec<(usize, RequestId, Option<Caller>)>,
        upto: Index,
    ) -> Option<Halt> {
        let mut applied = Applied::default();
        let begun = Instant::now();
        let halt = self.halted.clone().map(|why| Halt { index: upto, why }).or_else(|| {
            let call = catch_unwind(AssertUnwindSafe(|| self.applier.apply(commands, &mut applied)));
            call.unwrap_or_else(|panic| Err(Halt { index: upto, why: panic_words(&*panic) })).err()
        });
        let index = if halt.is_none() {
            upto
        } else {
            applied.answers.len().checked_sub(1).and_then(|last| commands.get(last)).map_or(Index::ZERO, |c| c.index)
        };
        self.applied = self.applied.max(index);
        let is_command = |committed: &&Committed| matches!(committed.act, Act::Command { .. });
        let count = commands.iter().take(applied.answers.len()).filter(is_command).count();
        self.metrics.applied(begun.elapsed(), count);
        self.at_once = at_once(self.at_once, &applied);
        // Watchers hear first, so that whoever was answered finds there what the command emitted.
        applied.emitted.retain(|thing| thing.index <= index);
        self.hub.publish(std::mem::take(&mut applied.emitted), index);
        for (index, origin, digest) in std::mem::take(&mut applied.digests) {
            let _ = self.engine.send(Message::Event(Event::Digested { index, origin, digest }));
        }
        let answers = applied.answers;
        let has_expired = |place: &usize| answers.get(*place) == Some(&Answer::Expired);
        let (expired, callers): (Vec<_>, Vec<_>) = callers.into_iter().partition(|(place, ..)| has_expired(place));
        let expired = expired.into_iter().map(|(_, request, _)| request).collect();
        let done = callers.iter().map(|(_, request, _)| *request).collect();
        // The engine hears before the callers, so that whoever was answered finds the node's status to know of it.
        let _ = self.engine.leave(Message::Applied { index, done, expired });
        answer(commands, answers, callers, halt.as_ref(), self.metrics);
        self.engine.help();
        if self.halted.is_some() {
            return None;
        }
        self.halted = halt.as_ref().map(|halt| halt.why.clone());
        halt
    }

    fn snapshot(&mut self, meta: SnapshotMeta) {
        let last = meta.last;
        let applier = &mut *self.applier;
        let failed = match &self.halted {
            Some(why) => Some(format!("the machine halted: {why}")),
            None if self.restored > last.index => Some("a newer one has come from the leader".to_owned()),
            None => match catch_unwind(AssertUnwindSafe(|| applier.snapshot())) {
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
        let is_behind = self.applied < last.index;
        let restored = if is_behind { restore(self.applier, self.snapshots, last, Index::ZERO) } else { Ok(()) };
        let event = match restored {
            Ok(()) => {
                if is_behind {
                    self.hub.begin(last.index);
                }
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
        self.metrics.queried(queries.len());
        let mut replies = Vec::with_capacity(queries.len());
        let machine = self.applier.machine();
        // A machine that halted lacks what it was handed since, which may be what a query has to see.
        let failed = self.halted.clone().or_else(|| {
            let outcome = catch_unwind(AssertUnwindSafe(|| machine.query(queries, &mut replies)));
            outcome.err().map(|panic| panic_words(&*panic))
        });
        let mut replies = replies.into_iter();
        let done = callers.iter().map(|(request, _)| *request).collect();
        let _ = self.engine.leave(Message::Queried { done });
        let mut waiting = callers.into_iter().map(|(_, caller)| caller).peekable();
        while let Some(caller) = waiting.next() {
            let reply = replies.next();
            let Some(Caller { sink, token }) = caller else { continue };
            let outcome = match reply {
                Some(reply) => Outcome::Done { index: applied, term, reply },
                None => Outcome::Refused(Refusal::Halted(
                    failed.clone().unwrap_or_else(|| "the machine gave no answer".to_owned()),
                )),
            };
            match waiting.peek() {
                Some(Some(next)) if Arc::ptr_eq(&next.sink, &sink) => sink.complete_amid(token, outcome),
                _ => sink.complete(token, outcome),
            }
        }
        self.engine.help();
    }
}

/// How many commands the machine gets next, after so many that came to this.
fn at_once(before: usize, applied: &Applied) -> usize {
    let answered = applied.answers.iter().map(|answer| match answer {
        Answer::Done { reply: Reply::Value(value), .. } => value.len(),
        Answer::Done { reply: Reply::Raised(raised), .. } => raised.message.len() + raised.traceback.len(),
        Answer::Expired | Answer::Full | Answer::Forgotten { .. } => 0,
    });
    let emitted = applied.emitted.iter().map(|thing| thing.topic.len() + thing.value.len());
    let bytes: usize = answered.chain(emitted).sum();
    let fitting = ANSWERS_BYTES.saturating_mul(applied.answers.len()).checked_div(bytes).unwrap_or(APPLY_BATCH_MAX);
    // What comes may be larger than what came.
    fitting.min(before * 4).clamp(1, APPLY_BATCH_MAX)
}

/// What a caller is told.
fn outcome(answer: Answer) -> Outcome {
    match answer {
        Answer::Done { index, term, reply } => Outcome::Done { index, term, reply },
        Answer::Expired => Outcome::Refused(Refusal::SessionExpired),
        Answer::Full => {
            Outcome::Refused(Refusal::Busy("its session has too many commands without an answer".to_owned()))
        }
        Answer::Forgotten { index: Some(index) } => Outcome::unknown(format!(
            "it was applied at index {index}, and its answer is not kept: that was given long ago, or is too large; have \
                 commands return less, and queries read the rest"
        )),
        Answer::Forgotten { index: None } => {
            Outcome::unknown("it was given up before, and what became of it is not kept any more")
        }
    }
}

/// Makes the state that of a snapshot, unless the machine `has` it on its own disk; and what is kept beside it.
pub(crate) fn restore(
    applier: &mut Applier,
    snapshots: &dyn SnapshotFiles,
    last: EntryId,
    has: Index,
) -> Result<(), String> {
    let (_, file) = snapshots.read(last).map_err(|error| error.to_string())?;
    let restored = catch_unwind(AssertUnwindSafe(|| applier.restore(file, has)));
    restored.unwrap_or_else(|panic| Err(panic_words(&*panic)))
}

/// Tells callers how their commands ended.
fn answer(
    commands: &[Committed],
    mut answers: Vec<Answer>,
    callers: Vec<(usize, RequestId, Option<Caller>)>,
    halt: Option<&Halt>,
    metrics: &Metrics,
) {
    let why = unapplied(halt);
    let mut waiting = callers.into_iter().filter_map(|(place, _, caller)| Some((place, caller?))).peekable();
    while let Some((place, Caller { sink, token })) = waiting.next() {
        let outcome = match answers.get_mut(place) {
            // No two callers have the same place.
            Some(answer) => outcome(std::mem::replace(answer, Answer::Expired)),
            None => Outcome::Unknown { why: why.clone(), slot: commands.get(place).and_then(slot) },
        };
        metrics.ended(&outcome);
        match waiting.peek() {
            Some((_, next)) if Arc::ptr_eq(&next.sink, &sink) => sink.complete_amid(token, outcome),
            _ => sink.complete(token, outcome),
        }
    }
}

/// The place of a command in its session, under which it can be asked for again.
fn slot(command: &Committed) -> Option<Slot> {
    if let Act::Command { slot, .. } = &command.act { *slot } else { None }
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
#[path = "tests/machine_worker.rs"]
mod tests;
