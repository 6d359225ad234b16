//! The user's machine and its thread: works through what it is handed, in order, when it is let.

use std::collections::VecDeque;

use bytes::Bytes;
use graft_domain::{Index, NodeId, Term};

use super::disk::{Disk, Stored};
use super::history::{History, Verdict};
use crate::error::Outcome;
use crate::ports::{Command, Halt, Reply};
use crate::snapshot_meta::SnapshotMeta;
use crate::{Batch, Event, RequestId};

/// What it has made of the log: a digest of every command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct State {
    pub(crate) applied: Index,
    pub(crate) command: Index,
    pub(crate) time: u64,
    pub(crate) digest: u64,
}

impl State {
    pub(crate) fn apply(&mut self, command: &Command) {
        let numbers = [command.index.0, command.term.0, command.time].into_iter().flat_map(u64::to_le_bytes);
        for byte in numbers.chain(command.body.iter().copied()) {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).wrapping_add(1);
        }
        (self.command, self.time) = (command.index, command.time);
    }
}

#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are what a test says of it, each for itself")]
pub(crate) struct Machine {
    pub(crate) jobs: VecDeque<Job>,
    pub(crate) state: State,
    /// What it applied survives a crash.
    pub(crate) keeps: bool,
    pub(crate) held: bool,
    /// It will not apply the next command.
    pub(crate) halts: bool,
    /// A snapshot that another thread writes.
    pub(crate) writing: Option<Stored>,
    /// It is not done before told.
    pub(crate) writing_held: bool,
    /// Why no snapshot can be taken.
    pub(crate) snapshot_fails: Option<String>,
    /// Bytes of each snapshot's file.
    pub(crate) snapshot_bytes: u64,
    /// The end of the last snapshot that it was restored from.
    restored: Index,
    halted: bool,
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
    ) -> Result<(bool, Option<Event>), String> {
        let Some(job) = self.jobs.pop_front() else { return Ok((false, None)) };
        let event = match job {
            _ if self.halted => None,
            Job::Apply(batch) if self.halts && !batch.commands.is_empty() => {
                self.halted = true;
                let index = batch.commands[0].index;
                Some(Event::Halted(Halt { index, why: "told to halt".to_owned() }))
            }
            Job::Apply(batch) => {
                self.apply_all(node, &batch, history)?;
                self.state.applied = self.state.applied.max(batch.upto);
                Some(Event::Applied { index: batch.upto })
            }
            Job::Query { handed, term, requests } => Some(self.answer(node, handed, term, requests, history)?),
            Job::Snapshot(meta) => {
                self.take_snapshot(node, meta)?;
                None
            }
            Job::Restore(meta) => Some(self.restore_from(node, disk, &meta, history)?),
        };
        Ok((true, event))
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

    fn apply_all(&mut self, node: NodeId, batch: &Batch, history: &mut History) -> Verdict {
        let mut before = Index::ZERO;
        for command in &batch.commands {
            if command.index <= before || command.index > batch.upto {
                return Err(format!("{node} applies {} after {before}, upto {}", command.index, batch.upto));
            }
            before = command.index;
            // A snapshot brought it already.
            if command.index <= self.restored {
                continue;
            }
            if command.index <= self.state.applied {
                return Err(format!("{node} is given {} and has applied {}", command.index, self.state.applied));
            }
            self.state.apply(command);
            history.applies(node, command, self.state.digest)?;
        }
        for (place, request) in &batch.callers {
            let command = &batch.commands[*place];
            let reply = Reply::Value(Bytes::new());
            let outcome = if command.index <= self.restored {
                Outcome::Unknown("a snapshot has it".to_owned())
            } else {
                Outcome::Done { index: command.index, term: command.term, reply }
            };
            history.counts(*request, &outcome)?;
        }
        Ok(())
    }

    /// The snapshot says exactly what the state is.
    fn take_snapshot(&mut self, node: NodeId, meta: SnapshotMeta) -> Verdict {
        let State { applied, command, time, .. } = self.state;
        if (meta.last.index, meta.command, meta.time) != (applied, command, time) || self.writing.is_some() {
            return Err(format!("{node} takes {meta:?} of {:?} while {:?} is written", self.state, self.writing));
        }
        self.writing = Some(Stored { meta, state: self.state, bytes: self.snapshot_bytes });
        Ok(())
    }

    fn restore_from(
        &mut self,
        node: NodeId,
        disk: &Disk,
        meta: &SnapshotMeta,
        history: &History,
    ) -> Result<Event, String> {
        let there = disk.snapshot.as_ref().filter(|stored| stored.meta == *meta);
        let stored = there.ok_or_else(|| format!("{node} is to restore {meta:?}, which is not there"))?;
        self.restore(stored);
        history.agrees(node, self.state)?;
        Ok(Event::SnapshotRestored { last: meta.last })
    }

    /// Makes the state the snapshot's, unless it is past it.
    pub(crate) fn restore(&mut self, stored: &Stored) {
        if self.state.applied < stored.meta.last.index {
            self.state = stored.state;
            self.restored = stored.meta.last.index;
        }
    }

    /// The process ends.
    pub(crate) fn crash(&mut self) {
        let state = if self.keeps { self.state } else { State::default() };
        *self = Self { state, keeps: self.keeps, snapshot_bytes: self.snapshot_bytes, ..Self::default() };
    }
}
