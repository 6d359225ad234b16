//! How the sessions look in a snapshot. docs/snapshot-format.md tells it byte by byte.

use std::collections::VecDeque;
use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use graft_domain::{Index, Term};

use crate::ports::{Raised, Reply};
use crate::sessions::{RECORDS_MAX, REPLIES_BYTES_MAX, Record, SESSIONS_MAX, Session, Sessions, WINDOW_MAX};

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 21;
const SESSION_BYTES: usize = 44;
/// At the most, without what the reply says.
const RECORD_BYTES: usize = 37;
/// No table has more bytes than this.
pub(crate) const TABLE_BYTES_MAX: usize =
    HEAD_BYTES + SESSIONS_MAX * SESSION_BYTES + RECORDS_MAX * RECORD_BYTES + REPLIES_BYTES_MAX;

const NO_REPLY: u8 = 0;
const VALUE: u8 = 1;
const RAISED: u8 = 2;

/// Why bytes are not a table of sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadSessions {
    Truncated,
    UnknownVersion(u8),
    UnknownReply(u8),
    /// Numbers that cannot be beside one another.
    Order,
    /// More than any table holds.
    TooMany,
    /// Words of an exception that are not UTF-8.
    Words,
    /// Bytes behind the end.
    Rest,
}

impl Sessions {
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(
            HEAD_BYTES + self.open.len() * SESSION_BYTES + self.records * RECORD_BYTES + self.bytes,
        );
        out.put_u8(VERSION);
        out.put_u64_le(self.upto.0);
        out.put_u64_le(self.given.0);
        put_length(&mut out, self.open.len());
        for (id, Session { ttl, used, named, floor, done }) in &self.open {
            for number in [*id, *ttl, *used, *named, *floor] {
                out.put_u64_le(number);
            }
            put_length(&mut out, done.len());
            for Record { sequence, index, term, reply } in done {
                for number in [*sequence, index.0, term.0] {
                    out.put_u64_le(number);
                }
                put_reply(&mut out, reply.as_ref());
            }
        }
        out.freeze()
    }

    /// The reverse of [`Sessions::encode`]. What it answers is within all limits, and is what these bytes say: no others say
    /// the same.
    pub fn decode(mut data: &[u8]) -> Result<Self, BadSessions> {
        match take_u8(&mut data)? {
            VERSION => {}
            other => return Err(BadSessions::UnknownVersion(other)),
        }
        let mut table = Self::default();
        (table.upto, table.given) = (Index(take_u64(&mut data)?), Index(take_u64(&mut data)?));
        if table.given > table.upto {
            return Err(BadSessions::Order);
        }
        let sessions = take_u32(&mut data)?;
        if sessions as usize > SESSIONS_MAX {
            return Err(BadSessions::TooMany);
        }
        for _ in 0..sessions {
            let id = take_u64(&mut data)?;
            let session = table.take_session(id, &mut data)?;
            if table.open.last_key_value().is_some_and(|(before, _)| *before >= id) {
                return Err(BadSessions::Order);
            }
            table.open.insert(id, session);
        }
        if data.is_empty() { Ok(table) } else { Err(BadSessions::Rest) }
    }

    fn take_session(&mut self, id: u64, data: &mut &[u8]) -> Result<Session, BadSessions> {
        let mut number = || take_u64(data);
        let (ttl, used, named, floor) = (number()?, number()?, number()?, number()?);
        if id == 0 || floor == 0 || named == 0 || named > self.upto.0 {
            return Err(BadSessions::Order);
        }
        let mut session = Session { ttl, used, named, floor, done: VecDeque::new() };
        for _ in 0..take_u32(data)? {
            let record = take_record(data)?;
            let first = session.done.back().map_or(floor, |before| before.sequence.saturating_add(1));
            let in_window = record.sequence >= first && record.sequence - floor < WINDOW_MAX;
            if !in_window || record.index.0 == 0 || record.index.0 > named {
                return Err(BadSessions::Order);
            }
            self.records += 1;
            self.bytes += record.size();
            if self.records > RECORDS_MAX || self.bytes > REPLIES_BYTES_MAX {
                return Err(BadSessions::TooMany);
            }
            session.done.push_back(record);
        }
        Ok(session)
    }
}

fn put_length(out: &mut BytesMut, length: usize) {
    // Limits are far below.
    out.put_u32_le(u32::try_from(length).unwrap_or(u32::MAX));
}

fn put_reply(out: &mut BytesMut, reply: Option<&Reply>) {
    match reply {
        None => out.put_u8(NO_REPLY),
        Some(Reply::Value(value)) => {
            out.put_u8(VALUE);
            put_bytes(out, value);
        }
        Some(Reply::Raised(raised)) => {
            let Raised { type_name, message, traceback } = &**raised;
            out.put_u8(RAISED);
            for words in [type_name, message, traceback] {
                put_bytes(out, words.as_bytes());
            }
        }
    }
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.put_slice(bytes);
}

fn take_record(data: &mut &[u8]) -> Result<Record, BadSessions> {
    let mut number = || take_u64(data);
    let (sequence, index, term) = (number()?, Index(number()?), Term(number()?));
    let reply = match take_u8(data)? {
        NO_REPLY => None,
        // Copied: shared, one reply would keep the bytes of all others.
        VALUE => Some(Reply::Value(Bytes::copy_from_slice(take_bytes(data)?))),
        RAISED => {
            let mut words = || String::from_utf8(take_bytes(data)?.to_vec()).map_err(|_| BadSessions::Words);
            let raised = Raised { type_name: words()?, message: words()?, traceback: words()? };
            Some(Reply::Raised(Box::new(raised)))
        }
        other => return Err(BadSessions::UnknownReply(other)),
    };
    Ok(Record { sequence, index, term, reply })
}

fn take_bytes<'a>(data: &mut &'a [u8]) -> Result<&'a [u8], BadSessions> {
    let length = take_u32(data)? as usize;
    let (bytes, rest) = data.split_at_checked(length).ok_or(BadSessions::Truncated)?;
    *data = rest;
    Ok(bytes)
}

fn take_u8(data: &mut &[u8]) -> Result<u8, BadSessions> {
    data.try_get_u8().map_err(|_| BadSessions::Truncated)
}

fn take_u32(data: &mut &[u8]) -> Result<u32, BadSessions> {
    data.try_get_u32_le().map_err(|_| BadSessions::Truncated)
}

fn take_u64(data: &mut &[u8]) -> Result<u64, BadSessions> {
    data.try_get_u64_le().map_err(|_| BadSessions::Truncated)
}

impl fmt::Display for BadSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("cut short"),
            Self::UnknownVersion(version) => {
                write!(f, "format {version}, this program knows {VERSION}: upgrade this node")
            }
            Self::UnknownReply(kind) => write!(f, "a reply of kind {kind}, this program knows those up to {RAISED}"),
            Self::Order => f.write_str("numbers that contradict one another"),
            Self::TooMany => f.write_str("more than the limits allow"),
            Self::Words => f.write_str("an exception's words are not UTF-8"),
            Self::Rest => f.write_str("bytes behind the end"),
        }
    }
}

impl std::error::Error for BadSessions {}
