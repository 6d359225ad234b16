//! The user's machine: a digest of every command that it was given. What it answers is what the state was after it.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use graft_domain::Index;

use graft_services::ports::{Command, Emitted, Halt, Machine, Made, Raised, Reply, WriteSnapshot};

use crate::kept::{Kept, Page};
use crate::release::needs;

/// The machine's side; what is in it can be looked at from outside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pages: Arc<Mutex<Pages>>,
    /// Its own disk, if it has one.
    kept: Option<Kept>,
    /// The version of its code.
    pub(crate) code: u8,
}

#[derive(Debug, Default)]
pub(crate) struct Pages {
    pub(crate) digest: u64,
    /// The last command that it was given.
    pub(crate) command: Index,
    /// It will not apply the next command.
    pub(crate) halts: bool,
    /// It was given this command, and its code does not know it.
    pub(crate) unknown: Option<Index>,
    /// What it was given since somebody looked, and the digest after each.
    pub(crate) news: Vec<(Command, u64)>,
}

impl Ledger {
    pub(crate) fn new(kept: Option<Kept>, code: u8) -> Self {
        Self { pages: Arc::default(), kept, code }
    }

    fn keep(&self) {
        if let Some(kept) = &self.kept {
            let (command, digest) = self.end();
            kept.keep(Page { command, digest, code: self.code });
        }
    }

    pub(crate) fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    /// The last command that it was given, and the state after it.
    pub(crate) fn end(&self) -> (Index, u64) {
        let pages = self.pages();
        (pages.command, pages.digest)
    }

    fn lacks(&self, what: &str, code: u8) -> String {
        format!("{what} of version {code}, this code is version {}: upgrade this node", self.code)
    }

    fn take(&self, commands: &[Command], made: &mut Made) -> Result<(), Halt> {
        let mut pages = self.pages();
        for command in commands {
            if pages.halts {
                return Err(Halt { index: command.index, why: "told to halt".to_owned() });
            }
            if needs(&command.body) > self.code {
                pages.unknown = Some(command.index);
                return Err(Halt { index: command.index, why: self.lacks("a command", needs(&command.body)) });
            }
            let numbers = [command.index.0, command.term.0, command.time].into_iter().flat_map(u64::to_le_bytes);
            for byte in numbers.chain(command.body.iter().copied()) {
                pages.digest = (pages.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).wrapping_add(1);
            }
            pages.command = command.index;
            let digest = pages.digest;
            pages.news.push((command.clone(), digest));
            made.replies.push(reply_to(&command.body, digest));
            let value = command.body.clone();
            made.emitted.push(Emitted { index: command.index, number: 0, topic: "applied".to_owned(), value });
        }
        Ok(())
    }
}

/// How a version ends its snapshots. The first two have the same length, the later ones have not.
fn mark_of(code: u8) -> Vec<u8> {
    vec![code; usize::from(code.max(1))]
}

/// What a command answers.
pub(crate) fn reply(digest: u64) -> Reply {
    Reply::Value(Bytes::copy_from_slice(&digest.to_le_bytes()))
}

/// Some commands raise, which is an answer like any other.
pub(crate) fn raises(body: &[u8]) -> bool {
    body.ends_with(b"!")
}

/// What this command answers when the state has this digest after it.
pub(crate) fn reply_to(body: &[u8], digest: u64) -> Reply {
    if raises(body) {
        let (type_name, message) = ("Refused".to_owned(), format!("at {digest}"));
        return Reply::Raised(Box::new(Raised { type_name, message, traceback: String::new() }));
    }
    reply(digest)
}

impl Machine for Ledger {
    fn open(&mut self, _directory: &str) -> Result<Index, Halt> {
        let Some(kept) = &self.kept else { return Ok(Index::ZERO) };
        let Page { command, digest, code } = kept.newest();
        if code > self.code {
            return Err(Halt { index: command, why: self.lacks("its own disk is", code) });
        }
        let mut pages = self.pages();
        (pages.command, pages.digest) = (command, digest);
        Ok(command)
    }

    fn apply(&mut self, commands: &[Command], made: &mut Made) -> Result<(), Halt> {
        let done = self.take(commands, made);
        self.keep();
        done
    }

    fn snapshot(&mut self) -> Result<WriteSnapshot, String> {
        let pages = self.pages();
        let mut bytes = [pages.digest.to_le_bytes(), pages.command.0.to_le_bytes()].concat();
        bytes.extend(mark_of(self.code));
        Ok(Box::new(move |file: &mut dyn Write| file.write_all(&bytes).map_err(|error| error.to_string())))
    }

    fn restore(&mut self, mut file: Box<dyn Read + Send>) -> Result<(), String> {
        let (mut digest, mut command, mut rest) = ([0; 8], [0; 8], Vec::new());
        let read = file.read_exact(&mut digest).and_then(|()| file.read_exact(&mut command));
        read.and_then(|()| file.read_to_end(&mut rest)).map_err(|error| error.to_string())?;
        let code = rest.last().copied().ok_or("it gets less than it wrote")?;
        if code > self.code {
            return Err(self.lacks("a snapshot", code));
        }
        if rest != mark_of(code) {
            return Err("it gets more than it wrote".to_owned());
        }
        let mut pages = self.pages();
        if pages.command.0 > u64::from_le_bytes(command) {
            return Err(format!("a machine never goes back, and this one is at {}", pages.command));
        }
        (pages.digest, pages.command) = (u64::from_le_bytes(digest), Index(u64::from_le_bytes(command)));
        drop(pages);
        self.keep();
        Ok(())
    }

    fn query(&mut self, queries: &[Bytes], replies: &mut Vec<Reply>) {
        replies.extend(queries.iter().map(|_| reply(self.pages().digest)));
    }

    fn digest(&mut self) -> Result<Bytes, String> {
        Ok(Bytes::copy_from_slice(&self.pages().digest.to_le_bytes()))
    }
}
