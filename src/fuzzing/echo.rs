//! A machine that answers what it is told, and whose state is bytes.

use std::io::Read;

use bytes::Bytes;
use graft_domain::Index;
use graft_services::ports::{Command, Halt, Machine, Made, Reply, WriteSnapshot};

use crate::formats::reply;

#[derive(Default)]
pub(crate) struct Echo(Vec<u8>);

impl Machine for Echo {
    fn open(&mut self, _: &str) -> Result<Index, Halt> {
        Ok(Index::ZERO)
    }

    fn apply(&mut self, commands: &[Command], made: &mut Made) -> Result<(), Halt> {
        made.replies.extend(commands.iter().map(|command| reply(&command.body)));
        Ok(())
    }

    fn snapshot(&mut self) -> Result<WriteSnapshot, String> {
        let state = self.0.clone();
        Ok(Box::new(move |file| file.write_all(&state).map_err(|error| error.to_string())))
    }

    fn restore(&mut self, mut file: Box<dyn Read + Send>) -> Result<(), String> {
        self.0.clear();
        file.read_to_end(&mut self.0).map(drop).map_err(|error| error.to_string())
    }

    fn query(&mut self, queries: &[Bytes], replies: &mut Vec<Reply>) {
        replies.extend(queries.iter().map(|query| reply(query)));
    }

    fn digest(&mut self) -> Result<Bytes, String> {
        Ok(Bytes::copy_from_slice(&self.0))
    }
}
