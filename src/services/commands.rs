//! How a command looks in the log: a header that names its call and its time, then the bytes for the machine.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::ports::Ticket;

/// Bytes before a command's body.
pub const HEADER_BYTES: usize = 25;
const VERSION: u8 = 1;

/// A command as it stands in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Logged {
    /// Nanoseconds since the Unix epoch by the leader's clock, never less than that of the command before it.
    pub time: u64,
    pub ticket: Ticket,
    pub body: Bytes,
}

/// Why bytes in the log are not a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadCommand {
    Truncated,
    UnknownVersion(u8),
}

/// Puts a command down behind what `arena` holds and cuts it off: one allocation serves a batch.
pub fn encode(arena: &mut BytesMut, time: u64, ticket: Ticket, body: &[u8]) -> Bytes {
    arena.reserve(HEADER_BYTES + body.len());
    arena.put_u8(VERSION);
    arena.put_u64_le(time);
    arena.put_u64_le(ticket.session);
    arena.put_u64_le(ticket.sequence);
    arena.put_slice(body);
    arena.split().freeze()
}

/// The reverse of [`encode`]; the body shares the entry's bytes.
pub fn decode(command: &Bytes) -> Result<Logged, BadCommand> {
    let mut header = command.get(..HEADER_BYTES).ok_or(BadCommand::Truncated)?;
    match header.get_u8() {
        VERSION => {}
        other => return Err(BadCommand::UnknownVersion(other)),
    }
    let time = header.get_u64_le();
    let ticket = Ticket { session: header.get_u64_le(), sequence: header.get_u64_le() };
    Ok(Logged { time, ticket, body: command.slice(HEADER_BYTES..) })
}

impl std::fmt::Display for BadCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Truncated => f.write_str("shorter than a command's header"),
            Self::UnknownVersion(version) => {
                write!(f, "command format {version}, this program knows {VERSION}: upgrade this node")
            }
        }
    }
}

impl std::error::Error for BadCommand {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_and_shares_its_bytes() {
        let mut arena = BytesMut::new();
        let ticket = Ticket { session: u64::MAX, sequence: 3 };
        let command = encode(&mut arena, 5, ticket, b"body");
        let other = encode(&mut arena, 6, ticket, b"");
        let logged = decode(&command).expect("it was encoded here");
        assert_eq!(logged, Logged { time: 5, ticket, body: Bytes::from_static(b"body") });
        assert_eq!(logged.body.as_ptr(), command[HEADER_BYTES..].as_ptr());
        assert_eq!(decode(&other).expect("it was encoded here").body, Bytes::new());
    }

    #[test]
    fn foreign_bytes_are_refused() {
        let command = encode(&mut BytesMut::new(), 5, Ticket::default(), b"");
        for cut in 0..HEADER_BYTES {
            assert_eq!(decode(&command.slice(..cut)), Err(BadCommand::Truncated));
        }
        let mut newer = command.to_vec();
        newer[0] = 9;
        assert_eq!(decode(&Bytes::from(newer)), Err(BadCommand::UnknownVersion(9)));
    }
}
