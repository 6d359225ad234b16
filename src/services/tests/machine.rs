//! The thread of the user's machine: works through what it is handed, in order, when it is let. The machine is a ledger, and
//! what drives it is the applier that a node has.

use std::collections::VecDeque;
use std::io::Cursor;

use bytes::Bytes;
use graft_domain::{Entry, EntryId, Index, NodeId, Payload, Term};

use super::disk::{Disk, Stored};
use super::history::{History, Verdict};
use super::ledger::Ledger;
use crate::applier::{Answer, Applied, Applier};
use crate::commands;
use crate::error::{Outcome, Refusal};
use crate::ports::{Halt, Reply};
use crate::snapshot_meta::SnapshotMeta;
use crate::{Batch, Committed, Event, RequestId};

/// What has been made of the log here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct State {
    pub(crate) applied: Index,
    pub(crate) command: Index,
    pub(crate) time: u64,
    pub(crate) digest: u64,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are what a test says of it, each for itself")]
pub(crate) struct Machine {
    pub(crate) jobs: VecDeque<Job>,
    pub(crate) state: State,
    /// What it applied survives a crash.
    pub(crate) keeps: bool,
    pub(crate) held: bool,
    /// It will not apply the next command.
    pub(crate) halts: bool,
    /// It takes all batches that wait at once.
    pub(crate) gathers: bool,
    /// A snapshot that another thread writes.
    pub(crate) writing: Option<Stored>,
    /// It is not done before told.
    pub(crate) writing_held: bool,
    /// Why no snapshot can be taken.
    pub(crate) snapshot_fails: Option<String>,
    /// Bytes of each snapshot's file, as the replica is told.
    pub(crate) snapshot_bytes: u64,
    pub(crate) ledger: Ledger,
    pub(crate) applier: Applier,
    /// The end of the last snapshot that it was restored from.
    restored: Index,
    halted: bool,
}

impl Default for Machine {
    fn default() -> Self {
        let ledger = Ledger::default();
        Self {
            jobs: VecDeque::new(),
            state: State::default(),
            keeps: false,
            held: false,
            halts: false,
            gathers: false,
            writing: None,
            writing_held: false,
            snapshot_fails: None,
            snapshot_bytes: 0,
            applier: Applier::new(Box::new(ledger.clone())),
            ledger,
            restored: Index::ZERO,
            halted: false,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Job {
    /// With those of the callers that had no answer when it was handed over.
    Apply(Batch),
    Query {
        handed: Index,
        term: Term,
        requests: Vec<RequestId>,
    },
    Snapshot(SnapshotMeta),
    Restore(SnapshotMeta),
}

impl Machine {
    pub(crate) fn apply(&mut self, batch: Batch) {
        self.jobs.push_back(Job::Apply(batch));
    }

    pub(crate) fn query(&mut self, handed: Index, term: Term, requests: Vec<RequestId>) {
        self.jobs.push_back(Job::Query { handed, term, requests });
    }

    /// Does the next job and answers its callers; whether there was one, and what the replica is to hear.
    pub(crate) fn work(
        &mut self,
        node: NodeId,
        disk: &Disk,
        history: &mut History,
    ) -> Result<(bool, Vec<Event>), String> {
        let Some(job) = self.jobs.pop_front() else { return Ok((false, Vec::new())) };
        let events = match job {
            _ if self.halted => Vec::new(),
            Job::Apply(mut batch) => {
                while self.gathers
                    && let Some(Job::Apply(more)) = self.jobs.pop_front_if(|j| matches!(j, Job::Apply(_)))
                {
                    let before = batch.commands.len();
                    batch.commands.extend(more.commands);
                    batch.callers.extend(more.callers.into_iter().map(|(place, request)| (before + place, request)));
                    batch.upto = more.upto;
                }
                self.apply_all(node, &batch, history)?
            }
            Job::Query { handed, term, requests } => vec![self.answer(node, handed, term, requests, history)?],
            Job::Snapshot(meta) => {
                self.take_snapshot(node, meta)?;
                Vec::new()
            }
            Job::Restore(meta) => vec![self.restore_from(node, disk, &meta, history)?],
        };
        Ok((true, events))
    }

    fn answer(
        &self,
        node: NodeId,
        handed: Index,
        term: Term,
        requests: Vec<RequestId>,
        history: &mut History,
    ) -> Result<Event, String> {
        let applied = self.state.applied;
        if applied != handed.max(self.restored) {
            return Err(format!("{node} reads at {applied} what was to be read at {handed}"));
        }
        for request in &requests {
            let reply = Reply::Value(Bytes::copy_from_slice(&applied.0.to_le_bytes()));
            history.counts(*request, &Outcome::Done { index: applied, term, reply })?;
        }
        Ok(Event::Queried(requests))
    }

    fn apply_all(&mut self, node: NodeId, batch: &Batch, history: &mut History) -> Result<Vec<Event>, String> {
        let mut before = Index::ZERO;
        for command in &batch.commands {
            if command.index <= before || command.index > batch.upto {
                return Err(format!("{node} applies {} after {before}, upto {}", command.index, batch.upto));
            }
            before = command.index;
            if command.index > self.restored && command.index <= self.state.applied {
                return Err(format!("{node} is given {} and has applied {}", command.index, self.state.applied));
            }
        }
        self.ledger.pages().halts = self.halts;
        let mut applied = Applied::default();
        let halt = self.applier.apply(&batch.commands, &mut applied).err();
        let news = std::mem::take(&mut self.ledger.pages().news);
        let emitted = applied.emitted.iter().map(|emitted| emitted.index);
        if !emitted.eq(news.iter().map(|(command, _)| command.index)) {
            return Err(format!("{node}: what is not applied emits nothing, and what is does: {:?}", applied.emitted));
        }
        for (command, digest) in &news {
            history.applies(node, command, *digest)?;
        }
        let done = applied.answers.len().checked_sub(1).and_then(|last| batch.commands.get(last));
        let upto = if halt.is_some() { done.map_or(self.state.applied, |command| command.index) } else { batch.upto };
        if let Some(last) = done.filter(|last| last.index > self.state.applied) {
            (self.state.command, self.state.time) = (last.index, last.time);
        }
        self.state.applied = self.state.applied.max(upto);
        self.state.digest = self.ledger.pages().digest;
        if halt.is_none() {
            self.has_the_same_sessions(node, history)?;
        }
        let expired = answer_callers(batch, &applied, history)?;
        let mut events: Vec<Event> = applied
            .digests
            .into_iter()
            .map(|(index, origin, digest)| Event::Digested { index, origin, digest })
            .collect();
        events.push(Event::Applied { index: upto, expired });
        if let Some(halt) = halt {
            self.halted = true;
            events.push(Event::Halted(Halt { index: halt.index, why: "told to halt".to_owned() }));
        }
        Ok(events)
    }

    fn has_the_same_sessions(&self, node: NodeId, history: &mut History) -> Verdict {
        let sessions = self.applier.sessions();
        history.has_sessions(node, sessions.upto(), sessions.digest())
    }

    /// The snapshot says exactly what the state is.
    fn take_snapshot(&mut self, node: NodeId, meta: SnapshotMeta) -> Verdict {
        let State { applied, command, time, .. } = self.state;
        if (meta.last.index, meta.command, meta.time) != (applied, command, time) || self.writing.is_some() {
            return Err(format!("{node} takes {meta:?} of {:?} while {:?} is written", self.state, self.writing));
        }
        let mut file = Vec::new();
        (self.applier.snapshot()?)(&mut file)?;
        self.writing = Some(Stored { meta, file, bytes: self.snapshot_bytes });
        Ok(())
    }

    fn restore_from(
        &mut self,
        node: NodeId,
        disk: &Disk,
        meta: &SnapshotMeta,
        history: &mut History,
    ) -> Result<Event, String> {
        let there = disk.snapshot.as_ref().filter(|stored| stored.meta == *meta);
        let stored = there.ok_or_else(|| format!("{node} is to restore {meta:?}, which is not there"))?;
        // A machine never goes back.
        if self.state.applied < stored.meta.last.index {
            self.restore(stored, Index::ZERO)?;
        }
        history.agrees(node, self.ledger.pages().command, self.state)?;
        self.has_the_same_sessions(node, history)?;
        Ok(Event::SnapshotRestored { last: meta.last })
    }

    /// Makes the state the snapshot's; of the sessions only if the machine `has` the rest.
    fn restore(&mut self, stored: &Stored, has: Index) -> Verdict {
        self.applier.restore(Box::new(Cursor::new(stored.file.clone())), has)?;
        let (meta, digest) = (&stored.meta, self.ledger.pages().digest);
        self.state = State { applied: meta.last.index, command: meta.command, time: meta.time, digest };
        self.restored = meta.last.index;
        Ok(())
    }

    /// A node starts: from the snapshot and from what the machine has on its own disk. Answers up to where that goes.
    pub(crate) fn open(&mut self, disk: &Disk) -> Result<Index, String> {
        let own = self.ledger.pages().command;
        if let Some(stored) = &disk.snapshot {
            self.restore(stored, own)?;
            self.restored = Index::ZERO;
        }
        let snapshot = disk.snapshot.as_ref().map_or(EntryId::ZERO, |stored| stored.meta.last);
        let missed = |entry: &&Entry| entry.index > snapshot.index && entry.index <= own;
        let recovered = disk.recover(own);
        let missed: Vec<Committed> = recovered.entries.iter().filter(missed).filter_map(committed).collect();
        self.applier.replay(&missed);
        if let Some(last) = missed.last() {
            (self.state.command, self.state.time) = (last.index, last.time);
        }
        self.state.applied = snapshot.index.max(own);
        self.state.digest = self.ledger.pages().digest;
        Ok(self.state.applied)
    }

    /// The process ends.
    pub(crate) fn crash(&mut self) {
        let ledger = if self.keeps { std::mem::take(&mut self.ledger) } else { Ledger::default() };
        let Self { keeps, gathers, snapshot_bytes, .. } = *self;
        ledger.pages().halts = false;
        let applier = Applier::new(Box::new(ledger.clone()));
        *self = Self { keeps, gathers, snapshot_bytes, ledger, applier, ..Self::default() };
    }

    /// What it kept is gone.
    pub(crate) fn wipe(&mut self) {
        let keeps = std::mem::take(&mut self.keeps);
        self.crash();
        self.keeps = keeps;
    }
}

fn committed(entry: &Entry) -> Option<Committed> {
    let Payload::Command(command) = &entry.payload else { return None };
    let commands::Logged { time, act, .. } = commands::decode(command).expect("it was encoded here");
    Some(Committed { index: entry.index, term: entry.term, time, act })
}

/// Answers those who wait, as the thread does. Those whose session is gone are left to the replica.
fn answer_callers(batch: &Batch, applied: &Applied, history: &mut History) -> Result<Vec<RequestId>, String> {
    let mut expired = Vec::new();
    for (place, request) in &batch.callers {
        let outcome = match applied.answers.get(*place) {
            Some(Answer::Done { index, term, reply }) => {
                Outcome::Done { index: *index, term: *term, reply: reply.clone() }
            }
            Some(Answer::Expired) => {
                expired.push(*request);
                continue;
            }
            Some(Answer::Full) => Outcome::Refused(Refusal::Busy("its session is full".to_owned())),
            Some(Answer::Forgotten { index }) => Outcome::unknown(format!("its answer is not kept: {index:?}")),
            None => Outcome::unknown("the machine halted"),
        };
        history.counts(*request, &outcome)?;
    }
    Ok(expired)
}
