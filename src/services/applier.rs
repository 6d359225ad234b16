//! Where the log meets the user's machine: committed commands in, answers out. All of it is a function of the log.

use std::fmt;
use std::io::{self, Read};

use bytes::Bytes;
use graft_domain::{Index, NodeId, Term};

use crate::commands::Act;
use crate::ports::{Command, Emitted, Halt, Machine, Made, Reply, WriteSnapshot};
use crate::replica::Committed;
use crate::sessions::{Admission, Sessions};
use crate::sessions_format::TABLE_BYTES_MAX;

/// The user's machine, and what is kept beside its state.
pub struct Applier {
    machine: Box<dyn Machine>,
    sessions: Sessions,
    /// Why nothing is applied any more.
    halted: Option<Halt>,
}

/// What came of applying a batch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Applied {
    /// One for each command, in order; fewer if the machine halted.
    pub answers: Vec<Answer>,
    pub emitted: Vec<Emitted>,
    /// Digests that were asked for: as of which entry, for whom.
    pub digests: Vec<(Index, NodeId, Result<Bytes, String>)>,
}

/// How a committed command ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Applied, now or before: at this index, in this term.
    Done { index: Index, term: Term, reply: Reply },
    /// Not applied: its session does not exist any more.
    Expired,
    /// Not applied: its session has too many commands without an answer.
    Full,
    /// It was applied before, and the answer is not kept any more. The index is known if some of it is kept.
    Forgotten { index: Option<Index> },
}

/// What is to be done with one command of a batch.
enum Plan {
    /// The machine gets it, in this place.
    Fresh(usize),
    /// The machine gets another one under the same place in the session, earlier in the batch.
    Again(usize),
    Answered(Answer),
    Verify(NodeId),
}

impl fmt::Debug for Applier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Applier").field("halted", &self.halted).finish_non_exhaustive()
    }
}

impl Applier {
    pub fn new(machine: Box<dyn Machine>) -> Self {
        Self { machine, sessions: Sessions::default(), halted: None }
    }

    pub fn machine(&mut self) -> &mut dyn Machine {
        &mut *self.machine
    }

    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Applies commands in log order. On `Err` the answers so far count, and nothing is applied any more. What the state has
    /// already, from a snapshot that was restored meanwhile, is not applied again; it is answered as far as its answer is kept.
    pub fn apply(&mut self, commands: &[Committed], applied: &mut Applied) -> Result<(), Halt> {
        if let Some(halt) = &self.halted {
            return Err(halt.clone());
        }
        // A digest has everything before it and nothing behind it.
        let is_verify = |command: &Committed| matches!(command.act, Act::Verify { .. });
        let done = commands.split_inclusive(is_verify).try_for_each(|run| self.apply_run(run, applied));
        self.halted = done.clone().err();
        done
    }

    fn apply_run(&mut self, run: &[Committed], applied: &mut Applied) -> Result<(), Halt> {
        let mut fresh = Vec::with_capacity(run.len());
        let plans: Vec<Plan> = run.iter().map(|command| self.plan(command, &mut fresh)).collect();
        let mut made = Made { replies: Vec::with_capacity(fresh.len()), ..Made::default() };
        applied.answers.reserve(run.len());
        let result = if fresh.is_empty() { Ok(()) } else { self.machine.apply(&fresh, &mut made) };
        applied.emitted.append(&mut made.emitted);
        for (command, plan) in run.iter().zip(plans) {
            let answer = match plan {
                Plan::Answered(answer) => answer,
                Plan::Fresh(place) | Plan::Again(place) => {
                    let Some(reply) = made.replies.get(place) else {
                        return Err(result.err().unwrap_or_else(|| too_few(command.index)));
                    };
                    if let (Plan::Fresh(_), Act::Command { slot: Some(slot), .. }) = (&plan, &command.act) {
                        self.sessions.keep(*slot, command.index, reply);
                    }
                    let Command { index, term, .. } = fresh[place];
                    Answer::Done { index, term, reply: reply.clone() }
                }
                Plan::Verify(origin) => {
                    if let Err(halt) = result {
                        return Err(halt);
                    }
                    applied.digests.push((command.index, origin, self.digest(command.index)));
                    done(command)
                }
            };
            applied.answers.push(answer);
        }
        result
    }

    fn plan(&mut self, command: &Committed, fresh: &mut Vec<Command>) -> Plan {
        let Committed { index, term, time, act } = command;
        if *index <= self.sessions.upto() {
            return self.plan_of_old(command);
        }
        self.sessions.reach(*index);
        let (slot, body) = match act {
            Act::Command { slot, body } => (slot, body),
            Act::OpenSession { ttl, key } => {
                self.sessions.open(*index, *key, *time, *ttl);
                return Plan::Answered(done(command));
            }
            Act::Verify { origin } => return Plan::Verify(*origin),
        };
        let admission = slot.map_or(Admission::New, |slot| self.sessions.admit(slot, *index, *term, *time));
        match admission {
            Admission::New => {
                self.sessions.give(*index);
                fresh.push(Command { index: *index, term: *term, time: *time, body: body.clone() });
                Plan::Fresh(fresh.len() - 1)
            }
            Admission::Known { index, term, reply: Some(reply) } => Plan::Answered(Answer::Done { index, term, reply }),
            Admission::Known { index, reply: None, .. } => match fresh.binary_search_by_key(&index, |c| c.index) {
                Ok(place) => Plan::Again(place),
                Err(_) => Plan::Answered(Answer::Forgotten { index: Some(index) }),
            },
            Admission::Forgotten => Plan::Answered(Answer::Forgotten { index: None }),
            Admission::Gone => Plan::Answered(Answer::Expired),
            Admission::Full => Plan::Answered(Answer::Full),
        }
    }

    /// Of an entry that the state has already.
    fn plan_of_old(&self, command: &Committed) -> Plan {
        Plan::Answered(match &command.act {
            Act::Verify { origin } => return Plan::Verify(*origin),
            Act::OpenSession { .. } => done(command),
            Act::Command { slot: None, .. } => Answer::Forgotten { index: Some(command.index) },
            Act::Command { slot: Some(slot), .. } => match self.sessions.recall(*slot) {
                Some((index, term, Some(reply))) => Answer::Done { index, term, reply },
                Some((index, _, None)) => Answer::Forgotten { index: Some(index) },
                // It may have been turned away, or applied and forgotten.
                None => Answer::Forgotten { index: None },
            },
        })
    }

    /// Takes note of commands that the machine has on its own disk: of their sessions, that is. Their replies are not known.
    pub fn replay(&mut self, commands: &[Committed]) {
        for Committed { index, term, time, act } in commands {
            if *index <= self.sessions.upto() {
                continue;
            }
            self.sessions.reach(*index);
            match act {
                Act::Command { slot, .. } => {
                    let admission = slot.map_or(Admission::New, |slot| self.sessions.admit(slot, *index, *term, *time));
                    if matches!(admission, Admission::New) {
                        self.sessions.give(*index);
                    }
                }
                Act::OpenSession { ttl, key } => self.sessions.open(*index, *key, *time, *ttl),
                Act::Verify { .. } => {}
            }
        }
    }

    /// Of the machine's state and of the sessions, as of this entry.
    fn digest(&mut self, index: Index) -> Result<Bytes, String> {
        if index != self.sessions.upto() {
            return Err("this replica has got past the entry by a snapshot".to_owned());
        }
        let machine = self.machine.digest()?;
        Ok(Bytes::from([&machine[..], &self.sessions.digest()].concat()))
    }

    /// The state as it is now, sessions first, to be written by another thread while commands go on.
    pub fn snapshot(&mut self) -> Result<WriteSnapshot, String> {
        if let Some(halt) = &self.halted {
            return Err(format!("the machine halted: {}", halt.why));
        }
        let machine = self.machine.snapshot()?;
        let sessions = self.sessions.encode();
        Ok(Box::new(move |file: &mut dyn io::Write| {
            let length = (sessions.len() as u64).to_le_bytes();
            let written = file.write_all(&length).and_then(|()| file.write_all(&sessions));
            written.map_err(|error| format!("the sessions could not be written: {error}"))?;
            drop(sessions);
            machine(file)
        }))
    }

    /// Makes the state what a snapshot says. A machine that has all on its own disk that the snapshot's was given is left as it
    /// is; `has` is the last entry there, 0 without any.
    pub fn restore(&mut self, mut file: Box<dyn Read + Send>, has: Index) -> Result<(), String> {
        let sessions = read_sessions(&mut *file).map_err(|why| format!("the sessions of the snapshot: {why}"))?;
        if has == Index::ZERO || has < sessions.given() {
            self.machine.restore(file)?;
        }
        self.sessions = sessions;
        Ok(())
    }
}

/// What is not the machine's is done when it is in the log.
fn done(command: &Committed) -> Answer {
    Answer::Done { index: command.index, term: command.term, reply: Reply::Value(Bytes::new()) }
}

fn too_few(index: Index) -> Halt {
    Halt { index, why: "the machine gave fewer replies than it had commands".to_owned() }
}

fn read_sessions(file: &mut dyn Read) -> Result<Sessions, String> {
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|error| error.to_string())?;
    let length = u64::from_le_bytes(length);
    if length > TABLE_BYTES_MAX as u64 {
        return Err(format!("{length} bytes, and {TABLE_BYTES_MAX} are the most"));
    }
    let mut table = Vec::new();
    file.take(length).read_to_end(&mut table).map_err(|error| error.to_string())?;
    if (table.len() as u64) < length {
        return Err("cut short".to_owned());
    }
    Sessions::decode(&table).map_err(|bad| bad.to_string())
}
