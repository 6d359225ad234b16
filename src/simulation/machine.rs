//! The thread of the user's machine: works through what it is handed, in order. What drives the machine is the applier that
//! ships.

use bytes::Bytes;
use graft_domain::{Index, NodeId, Term};
use graft_services::applier::{Answer, Applied};
use graft_services::commands::Act;
use graft_services::error::{Outcome, Refusal};
use graft_services::ports::{Halt, SnapshotFiles};
use graft_services::snapshot_meta::SnapshotMeta;
use graft_services::{Batch, Event, RequestId};

use crate::history::Verdict;
use crate::release::{reads, writes};
use crate::world::{Happening, World};

#[derive(Clone, Debug)]
pub(crate) enum MachineJob {
    Apply(Batch),
    Query { queries: Vec<(RequestId, Bytes)>, handed: Index, term: Term },
    Snapshot(SnapshotMeta),
    Restore(SnapshotMeta),
}

/// How far a machine has come.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) restored: Index,
    pub(crate) applied: Index,
    pub(crate) halted: Option<String>,
}

impl World {
    pub(crate) fn machine_job(&mut self, id: NodeId, job: MachineJob) {
        let Some(running) = self.nodes.get_mut(&id).and_then(|node| node.running.as_mut()) else { return };
        running.machine_jobs.push_back(job);
        self.mind_machine(id);
    }

    fn mind_machine(&mut self, id: NodeId) {
        let (least, most) = self.mix.apply;
        let (takes, now) = (self.dice.micros(least, most), self.now);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(running) = &mut node.running else { return };
        if running.working.is_none() && !running.machine_jobs.is_empty() {
            let (run, at) = (running.run, (now + takes).max(node.slow_until));
            running.working = Some(at);
            self.at(at, Happening::Worked(id, run));
        }
    }

    /// The machine has done what it was at.
    pub(crate) fn worked(&mut self, id: NodeId) {
        self.history.now = self.now;
        let gathers = self.dice.chance(500);
        let Some(running) = self.nodes.get_mut(&id).and_then(|node| node.running.as_mut()) else { return };
        // It was waited for longer, and went on when everything healed.
        if running.working.is_none_or(|until| until > self.now) {
            return;
        }
        running.working = None;
        let Some(job) = running.machine_jobs.pop_front() else { return };
        let verdict = match job {
            MachineJob::Apply(mut batch) => {
                while gathers
                    && let Some(MachineJob::Apply(more)) =
                        running.machine_jobs.pop_front_if(|job| matches!(job, MachineJob::Apply(_)))
                {
                    let before = batch.commands.len();
                    batch.commands.extend(more.commands);
                    batch.callers.extend(more.callers.into_iter().map(|(place, request)| (before + place, request)));
                    batch.upto = more.upto;
                }
                self.apply(id, &batch)
            }
            MachineJob::Query { queries, handed, term } => self.query(id, queries, handed, term),
            MachineJob::Snapshot(meta) => {
                self.take_snapshot(id, meta);
                Ok(())
            }
            MachineJob::Restore(meta) => self.restore(id, &meta),
        };
        self.must(verdict);
        self.mind_machine(id);
    }

    fn apply(&mut self, id: NodeId, batch: &Batch) -> Verdict {
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let Some(running) = &mut node.running else { return Ok(()) };
        let mut before = Index::ZERO;
        for command in &batch.commands {
            if command.index <= before || command.index > batch.upto {
                return Err(format!("{id} applies {} after {before}, upto {}", command.index, batch.upto));
            }
            before = command.index;
            if command.index > running.work.restored && command.index <= running.work.applied {
                return Err(format!("{id} is given {} and has applied {}", command.index, running.work.applied));
            }
        }
        running.ledger.pages().halts = node.halts;
        let code = running.ledger.code;
        let mut applied = Applied::default();
        let halt = match running.work.halted.clone() {
            Some(why) => Some(Halt { index: batch.upto, why }),
            None => running.applier.apply(&batch.commands, &mut applied).err(),
        };
        let news = std::mem::take(&mut running.ledger.pages().news);
        let unknown = running.ledger.pages().unknown.take();
        let emitted = applied.emitted.iter().map(|emitted| emitted.index);
        if !emitted.eq(news.iter().map(|(command, _)| command.index)) {
            return Err(format!("{id}: what is not applied emits nothing, and what is does"));
        }
        let done = applied.answers.len().checked_sub(1).and_then(|last| batch.commands.get(last));
        let index = if halt.is_some() { done.map_or(Index::ZERO, |command| command.index) } else { batch.upto };
        running.work.applied = running.work.applied.max(index);
        let is_new = halt.is_some() && running.work.halted.is_none();
        if let Some(halt) = &halt {
            running.work.halted = Some(halt.why.clone());
        }
        self.is_given(id, code, &news)?;
        for (index, origin, digest) in std::mem::take(&mut applied.digests) {
            if let Ok(digest) = &digest {
                self.history.digested(id, index, digest)?;
            }
            self.tell(id, Event::Digested { index, origin, digest });
        }
        let next = batch.commands.get(applied.answers.len()).map(|command| command.index);
        let expired = self.answer_callers(batch, &applied)?;
        self.tell(id, Event::Applied { index, expired });
        if let Some(halt) = halt.filter(|_| is_new) {
            self.coverage.saw("a machine halted");
            let verdict = match unknown {
                Some(unknown) if next != Some(halt.index) => Err(format!(
                    "{id} does not know the command at {unknown}, halts at {}, was at {next:?}",
                    halt.index
                )),
                Some(unknown) => self.halts_at(id, &halt, unknown),
                None => Ok(()),
            };
            self.tell(id, Event::Halted(halt));
            return verdict;
        }
        Ok(())
    }

    /// Answers those who wait, as the thread does. Those whose session is gone are left to the replica.
    fn answer_callers(&mut self, batch: &Batch, applied: &Applied) -> Result<Vec<RequestId>, String> {
        let mut expired = Vec::new();
        for (place, request) in &batch.callers {
            // Whoever was answered at his deadline has let go.
            if self.history.answer(*request).is_some() {
                continue;
            }
            let slot = batch.commands.get(*place).and_then(|command| match &command.act {
                Act::Command { slot, .. } => *slot,
                _ => None,
            });
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
                None => Outcome::Unknown { why: "the machine halted".to_owned(), slot },
            };
            self.history.counts(*request, &outcome)?;
        }
        Ok(expired)
    }

    fn query(&mut self, id: NodeId, queries: Vec<(RequestId, Bytes)>, handed: Index, term: Term) -> Verdict {
        let Some(running) = self.nodes.get_mut(&id).and_then(|node| node.running.as_mut()) else { return Ok(()) };
        let applied = running.work.applied;
        let halted = running.work.halted.clone();
        if halted.is_none() && applied != handed.max(running.work.restored) {
            return Err(format!("{id} reads at {applied} what was to be read at {handed}"));
        }
        let (requests, bodies): (Vec<RequestId>, Vec<Bytes>) = queries.into_iter().unzip();
        let mut replies = Vec::new();
        if halted.is_none() {
            running.applier.machine().query(&bodies, &mut replies);
        }
        for (nth, request) in requests.iter().enumerate() {
            if self.history.answer(*request).is_some() {
                continue;
            }
            let outcome = match replies.get(nth) {
                Some(reply) => Outcome::Done { index: applied, term, reply: reply.clone() },
                None => Outcome::Refused(Refusal::Halted(halted.clone().unwrap_or_default())),
            };
            self.history.counts(*request, &outcome)?;
        }
        self.tell(id, Event::Queried(requests));
        Ok(())
    }

    fn take_snapshot(&mut self, id: NodeId, meta: SnapshotMeta) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(running) = &mut node.running else { return };
        let last = meta.last;
        let failed = match &running.work.halted {
            Some(why) => format!("the machine halted: {why}"),
            None if running.work.restored > last.index => "a newer one has come from the leader".to_owned(),
            None if node.snapshot_fails => "told to fail".to_owned(),
            None => match running.applier.snapshot() {
                Ok(write) => {
                    let write = writes(running.ledger.code, write);
                    return self.snapshot_job(id, meta, write);
                }
                Err(why) => why,
            },
        };
        self.tell(id, Event::SnapshotFailed { last, why: failed });
    }

    fn restore(&mut self, id: NodeId, meta: &SnapshotMeta) -> Verdict {
        let Some(running) = self.nodes.get_mut(&id).and_then(|node| node.running.as_mut()) else { return Ok(()) };
        if running.work.halted.is_some() {
            return Ok(());
        }
        let last = meta.last;
        if running.work.applied < last.index {
            let file = running.snapshots.read(last).map_err(|error| format!("{id} cannot restore {last}: {error}"))?.1;
            let restored = reads(running.ledger.code, file).and_then(|file| running.applier.restore(file, Index::ZERO));
            if let Err(why) = restored {
                // Half restored it is nobody's state.
                running.work.halted = Some(why.clone());
                let verdict = self.refuses(id, last, &why);
                self.tell(id, Event::Halted(Halt { index: last.index, why }));
                return verdict;
            }
            (running.work.restored, running.work.applied) = (last.index, last.index);
            let (command, digest) = running.ledger.end();
            self.history.agrees(id, command, digest)?;
            self.passes(id, last.index);
        }
        self.coverage.saw("a snapshot is installed");
        if meta.membership.is_joint() {
            self.coverage.saw("a snapshot is installed while the membership is joint");
        }
        self.note(|| format!("{id} is restored from the snapshot of {last}"));
        self.tell(id, Event::SnapshotRestored { last });
        Ok(())
    }
}
