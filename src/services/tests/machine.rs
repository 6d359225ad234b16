//! The user's machine and its thread: works through what it is handed, in order, when it is let.

use std::collections::VecDeque;

use bytes::Bytes;
use graft_domain::{Index, NodeId, Term};

use super::history::{History, Verdict};
use crate::error::Outcome;
use crate::ports::{Halt, Reply};
use crate::{Batch, Event, RequestId};

#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are what a test says of it, each for itself")]
pub(crate) struct Machine {
    pub(crate) jobs: VecDeque<Job>,
    pub(crate) applied: Index,
    /// What it applied survives a crash.
    pub(crate) keeps: bool,
    pub(crate) held: bool,
    /// It will not apply the next command.
    pub(crate) halts: bool,
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
}

impl Machine {
    pub(crate) fn apply(&mut self, batch: Batch) {
        self.jobs.push_back(Job::Apply(batch));
    }

    pub(crate) fn query(&mut self, handed: Index, term: Term, requests: Vec<RequestId>) {
        self.jobs.push_back(Job::Query { handed, term, requests });
    }

    /// Does the next job and answers its callers; gives what the replica is to hear.
    pub(crate) fn work(&mut self, node: NodeId, history: &mut History) -> Result<Option<Event>, String> {
        let Some(job) = self.jobs.pop_front() else { return Ok(None) };
        match job {
            _ if self.halted => Ok(None),
            Job::Apply(batch) if self.halts && !batch.commands.is_empty() => {
                self.halted = true;
                let index = batch.commands[0].index;
                Ok(Some(Event::Halted(Halt { index, why: "told to halt".to_owned() })))
            }
            Job::Apply(batch) => {
                self.apply_all(node, &batch, history)?;
                self.applied = batch.upto;
                Ok(Some(Event::Applied { index: batch.upto }))
            }
            Job::Query { handed, term, requests } => {
                if self.applied != handed {
                    return Err(format!("{node} reads at {} what was to be read at {handed}", self.applied));
                }
                for request in &requests {
                    let reply = Reply::Value(Bytes::copy_from_slice(&handed.0.to_le_bytes()));
                    history.counts(*request, &Outcome::Done { index: handed, term, reply })?;
                }
                Ok(Some(Event::Queried(requests)))
            }
        }
    }

    fn apply_all(&mut self, node: NodeId, batch: &Batch, history: &mut History) -> Verdict {
        let mut before = self.applied;
        for command in &batch.commands {
            if command.index <= before || command.index > batch.upto {
                return Err(format!("{node} applies {} after {before}, upto {}", command.index, batch.upto));
            }
            before = command.index;
            history.applies(node, command)?;
        }
        for (place, request) in &batch.callers {
            let command = &batch.commands[*place];
            let reply = Reply::Value(Bytes::new());
            history.counts(*request, &Outcome::Done { index: command.index, term: command.term, reply })?;
        }
        Ok(())
    }

    /// The process ends.
    pub(crate) fn crash(&mut self) {
        let applied = if self.keeps { self.applied } else { Index::ZERO };
        *self = Self { applied, keeps: self.keeps, ..Self::default() };
    }
}
