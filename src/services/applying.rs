//! From the log to the machine: committed commands are handed over with those who wait for them.

use bytes::Bytes;
use graft_domain::{Entry, Index, Input, Payload};

use crate::commands::{self, Act, session_id};
use crate::error::Outcome;
use crate::ports::Reply;
use crate::replica::{Batch, Committed, Effect, Replica};
use crate::waiting::RequestId;

impl Replica {
    pub(crate) fn apply(&mut self, entries: Vec<Entry>) {
        if self.failure.is_some() {
            return;
        }
        if self.handed == self.core.applied() {
            self.got_on = self.clock.now;
        }
        let mut batch = Batch { upto: self.handed, ..Batch::default() };
        batch.commands.reserve(entries.len());
        for entry in entries {
            let id = entry.id();
            if let Err(why) = self.put_into(&mut batch, entry) {
                let why = format!("entry {id} is not a command: {why}");
                self.fail(why, Input::Unfit);
                break;
            }
            batch.upto = id.index;
        }
        self.handed = batch.upto;
        self.effects.push(Effect::Apply(batch));
    }

    fn put_into(&mut self, batch: &mut Batch, entry: Entry) -> Result<(), commands::BadCommand> {
        self.snapshots.count(&entry);
        if let Payload::Command(command) = entry.payload {
            let commands::Logged { time, ticket, act } = commands::decode_owned(command)?;
            self.time = self.time.max(time);
            if ticket.session == self.config.session
                && let Some(request) = self.recognise(ticket.sequence, entry.index, &act)
            {
                batch.callers.push((batch.commands.len(), request));
            }
            (self.command, self.applied_time) = (entry.index, time);
            batch.commands.push(Committed { index: entry.index, term: entry.term, time, act });
        } else {
            // A leader's first entry: everything of earlier terms that will ever be is before it.
            for call in self.calls.take_overtaken(entry.term) {
                self.park(call);
            }
        }
        Ok(())
    }

    /// What was handed over from here under this number is committed. Answers whom the machine's thread is to answer.
    fn recognise(&mut self, sequence: u64, index: Index, act: &Act) -> Option<RequestId> {
        if let Act::Command { .. } = act {
            return self.calls.applying(sequence, index);
        }
        let call = self.calls.take_sent(sequence);
        if let Act::OpenSession { key, .. } = act
            && *key == self.own_key()
        {
            self.on_own_session(session_id(index, *key));
            return None;
        }
        let call = call?;
        match (act, call.request) {
            (Act::Verify { .. }, Some(request)) => self.verifies.begin(index, request, call.deadline),
            // Its id follows from the entry, and that is the answer.
            (Act::OpenSession { key, .. }, Some(request)) => {
                let (id, reply) = (session_id(index, *key), Reply::Value(Bytes::new()));
                self.answer(request, Outcome::Done { index: Index(id), term: self.core.term(), reply });
            }
            _ => {}
        }
        None
    }

    /// The machine is done with everything up to `index`. Its callers are answered, but for those of `expired`, whose session
    /// is gone.
    pub(crate) fn on_applied(&mut self, index: Index, expired: Vec<RequestId>) {
        self.got_on = self.clock.now;
        self.end_applied(index, &expired.into_iter().collect());
        self.step(Input::Applied { index });
    }
}
