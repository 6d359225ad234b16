//! Once all is well whoever asks is served: through every member, and what clients still lack. What finds no room is
//! asked again, as by any client, and so is what went to a node that a change has just removed; but within a bounded time
//! all must be done.

use std::time::Duration;

use bytes::Bytes;
use graft_domain::NodeId;
use graft_services::error::{Outcome, Refusal};
use graft_services::{Consistency, Read, RequestId};

use crate::history::Verdict;
use crate::world::World;

/// Within this time, in milliseconds, everything that is asked must be done.
const WITHIN_MS: u64 = 20_000;
/// Before what was refused is asked again.
const PAUSE_MS: u64 = 50;

/// Something that must be done, and the call that is to do it.
#[derive(Debug)]
struct Wish {
    what: Wanted,
    by: NodeId,
    asked: RequestId,
}

#[derive(Clone, Debug)]
enum Wanted {
    /// What a client lacks: which client, and which of its orders. Any member will do.
    Order(usize, u64),
    /// A fresh one, each time.
    Command,
    Read(Consistency),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Done,
    Waits,
    Again,
}

impl World {
    /// What is asked now is done, through every member that stays one.
    pub(crate) fn serves(&mut self, members: &[NodeId]) -> Verdict {
        let mut open: Vec<Wish> = Vec::new();
        for (which, sequence) in self.lacking() {
            let by = self.dice.one_of(members);
            open.extend(self.wish(Wanted::Order(which, sequence), by));
        }
        for id in members {
            let reads = [Consistency::Linearizable, Consistency::Lease].map(Wanted::Read);
            for what in [Wanted::Command].into_iter().chain(reads) {
                open.extend(self.wish(what, *id));
            }
        }
        let end = self.now + Duration::from_millis(WITHIN_MS);
        while !open.is_empty() && self.broken.is_none() {
            if self.now >= end {
                let answers: Vec<_> = open.iter().map(|wish| (wish, self.history.answer(wish.asked))).collect();
                return Err(format!("not everybody is served though all is well: {answers:?}"));
            }
            self.pass(PAUSE_MS);
            open = self.go_on_with(open)?;
        }
        Ok(())
    }

    /// What is not done yet: asked again if that is what it takes.
    fn go_on_with(&mut self, open: Vec<Wish>) -> Result<Vec<Wish>, String> {
        let mut left = Vec::new();
        for wish in open {
            match self.fate(&wish)? {
                Fate::Done => {}
                Fate::Waits => left.push(wish),
                Fate::Again => {
                    self.coverage.saw("a healed world is asked again");
                    let members = self.membership().map(|m| m.members.keys().copied().collect::<Vec<_>>());
                    let by = match (&wish.what, members) {
                        (Wanted::Order(..), Some(members)) => self.dice.one_of(&members),
                        _ => wish.by,
                    };
                    left.extend(self.wish(wish.what, by));
                }
            }
        }
        Ok(left)
    }

    /// Asks for it, unless the client's session has ended meanwhile.
    fn wish(&mut self, what: Wanted, by: NodeId) -> Option<Wish> {
        let asked = match &what {
            Wanted::Order(which, sequence) => self.order(*which, *sequence, by, WITHIN_MS)?,
            Wanted::Command => {
                // All have the newest version by now.
                let body = Bytes::from(format!("v{}fresh {}", self.releases.newest, self.requests));
                self.execute(by, None, body, WITHIN_MS)
            }
            Wanted::Read(consistency) => self.read(by, Read::of(*consistency), WITHIN_MS),
        };
        Some(Wish { what, by, asked })
    }

    fn fate(&self, wish: &Wish) -> Result<Fate, String> {
        let is_order = matches!(wish.what, Wanted::Order(..));
        // Without a leader nobody can say who is a member: that is known a little later.
        let leaves = self.membership().map(|membership| !membership.contains(&wish.by));
        match (self.history.answer(wish.asked), leaves) {
            (Some(Outcome::Done { .. }), _) => Ok(Fate::Done),
            // A change that was asked for before has removed it, so that it may leave calls without an answer.
            (_, Some(true)) => Ok(if is_order { Fate::Again } else { Fate::Done }),
            (None, _) | (_, None) => Ok(Fate::Waits),
            (Some(Outcome::Refused(Refusal::Busy(_))), _) => Ok(Fate::Again),
            // Of what was answered before, the answer may not be kept any more; and some things never fit.
            (Some(Outcome::Refused(Refusal::SessionExpired) | Outcome::Unknown { slot: None, .. }), _) if is_order => {
                Ok(Fate::Done)
            }
            (Some(Outcome::Refused(Refusal::TooLarge { bytes, limit })), _) if is_order && bytes > limit => {
                Ok(Fate::Done)
            }
            // An earlier attempt may have been applied, and this one found no room: its place in the session tells.
            (Some(Outcome::Unknown { slot: Some(_), .. }), _) if is_order => Ok(Fate::Again),
            // So long behind that the session of the member itself has ended, as it was given a snapshot.
            (Some(Outcome::Unknown { slot: None, .. }), _) if matches!(wish.what, Wanted::Command) => Ok(Fate::Again),
            (other, _) => Err(format!("{:?} by {} is answered {other:?} though all is well", wish.what, wish.by)),
        }
    }
}
