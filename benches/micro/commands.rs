//! Commands as the log has them, and as the machine gets them.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use graft_domain::{Index, Term};
use graft_services::Committed;
use graft_services::applier::{Applied, Applier};
use graft_services::commands::{Act, Slot, decode, encode, session_id};
use graft_services::ports::{Command, Halt, Machine, Made, Reply, Ticket, WriteSnapshot};

use crate::{Work, shared_bodies};

/// A machine that does nothing.
#[derive(Debug)]
pub(crate) struct Nothing;

impl Machine for Nothing {
    fn open(&mut self, _directory: &str) -> Result<Index, Halt> {
        Ok(Index::ZERO)
    }

    fn apply(&mut self, commands: &[Command], made: &mut Made) -> Result<(), Halt> {
        made.replies.extend(commands.iter().map(|_| Reply::Value(Bytes::new())));
        Ok(())
    }

    fn snapshot(&mut self) -> Result<WriteSnapshot, String> {
        Err("it has no state".to_owned())
    }

    fn restore(&mut self, _file: Box<dyn io::Read + Send>) -> Result<(), String> {
        Ok(())
    }

    fn query(&mut self, queries: &[Bytes], replies: &mut Vec<Reply>) {
        replies.extend(queries.iter().map(|_| Reply::Value(Bytes::new())));
    }

    fn digest(&mut self) -> Result<Bytes, String> {
        Ok(Bytes::new())
    }
}

/// The applier, with commands of one session whose client has had all earlier answers.
#[derive(Debug)]
pub struct Applying {
    applier: Applier,
    batch: usize,
    index: u64,
    sequence: u64,
}

/// Of the session.
const KEY: u64 = 5;

impl Applying {
    pub fn new(batch: usize) -> Self {
        let mut applier = Applier::new(Box::new(Nothing));
        let open = Act::OpenSession { ttl: Duration::from_hours(1), key: KEY };
        let open = Committed { index: Index(1), term: Term(1), time: 1, act: open };
        applier.apply(&[open], &mut Applied::default()).expect("it goes on");
        Self { applier, batch, index: 1, sequence: 0 }
    }
}

impl Work for Applying {
    type Input = Vec<Committed>;

    fn prepare(&mut self) -> Vec<Committed> {
        let unanswered = self.sequence + 1;
        let committed = |body| {
            (self.index, self.sequence) = (self.index + 1, self.sequence + 1);
            let slot = Slot { session: session_id(Index(1), KEY), sequence: self.sequence, unanswered };
            let act = Act::Command { slot: Some(slot), body };
            Committed { index: Index(self.index), term: Term(1), time: self.index, act }
        };
        shared_bodies(self.batch).into_iter().map(committed).collect()
    }

    fn turn(&mut self, commands: Vec<Committed>) {
        let mut applied = Applied::default();
        self.applier.apply(&commands, &mut applied).expect("it goes on");
        assert_eq!(applied.answers.len(), commands.len());
    }
}

/// Puts commands down as the log has them, and reads them back.
#[derive(Debug)]
pub struct Codec {
    arena: BytesMut,
    batch: usize,
}

impl Codec {
    pub fn new(batch: usize) -> Self {
        Self { arena: BytesMut::new(), batch }
    }
}

impl Work for Codec {
    type Input = Vec<Act>;

    fn prepare(&mut self) -> Vec<Act> {
        let slot = Some(Slot { session: 9, sequence: 8, unanswered: 7 });
        shared_bodies(self.batch).into_iter().map(|body| Act::Command { slot, body }).collect()
    }

    fn turn(&mut self, acts: Vec<Act>) {
        let ticket = Ticket { session: 9, sequence: 8 };
        let logged: Vec<Bytes> = acts.iter().map(|act| encode(&mut self.arena, 7, ticket, act)).collect();
        for command in &logged {
            std::hint::black_box(decode(command).expect("it was encoded here"));
        }
    }
}
