//! Calls of clients between their form in the services and their form on the wire.

use std::time::Duration;

use bytes::Bytes;
use graft_domain::Index;
use graft_services::commands::Slot;
use graft_services::error::Refusal;
use graft_services::{Consistency, Read};

use super::convert_status::nanos;
use super::wire::numbered_call::Call as WireCall;
use super::wire::{self, Consistency as WireConsistency};

/// What a client asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    Execute { body: Bytes, slot: Option<Slot> },
    Query { body: Bytes, read: Read },
    OpenSession { ttl: Option<Duration> },
}

/// What kind of call an answer is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Execute,
    Query,
    OpenSession,
}

/// One call of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Numbered {
    pub(super) number: u64,
    /// From its arrival; the default if none is set.
    pub(super) timeout: Option<Duration>,
    pub(super) asked: Asked,
}

type Decoded<T> = Result<T, Refusal>;

fn invalid<T>(what: impl Into<String>) -> Decoded<T> {
    Err(Refusal::Invalid(what.into()))
}

impl Asked {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Execute { .. } => Kind::Execute,
            Self::Query { .. } => Kind::Query,
            Self::OpenSession { .. } => Kind::OpenSession,
        }
    }

    /// Bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Execute { body, .. } | Self::Query { body, .. } => body.len(),
            Self::OpenSession { .. } => 0,
        }
    }

    pub(super) fn encode(self) -> WireCall {
        match self {
            Self::Execute { body, slot } => {
                WireCall::Execute(wire::ExecuteRequest { command: body, slot: slot.map(encode_slot) })
            }
            Self::Query { body, read } => WireCall::Query(encode_query(body, read)),
            Self::OpenSession { ttl } => WireCall::OpenSession(wire::OpenSessionRequest { ttl: ttl.map(nanos) }),
        }
    }

    pub(super) fn decode(call: WireCall) -> Decoded<Self> {
        match call {
            WireCall::Execute(request) => Self::execute(request),
            WireCall::Query(request) => Self::query(request),
            WireCall::OpenSession(request) => Ok(Self::open_session(request)),
        }
    }

    pub(super) fn execute(request: wire::ExecuteRequest) -> Decoded<Self> {
        let slot = request.slot.map(decode_slot).transpose()?;
        Ok(Self::Execute { body: request.command, slot })
    }

    pub(super) fn query(request: wire::QueryRequest) -> Decoded<Self> {
        let read = decode_read(&request)?;
        Ok(Self::Query { body: request.query, read })
    }

    pub(super) fn open_session(request: wire::OpenSessionRequest) -> Self {
        Self::OpenSession { ttl: request.ttl.map(Duration::from_nanos) }
    }
}

impl Numbered {
    pub(super) fn encode(self) -> wire::NumberedCall {
        let Self { number, timeout, asked } = self;
        // None would be the default: a wait of nothing at all is as short as can be said.
        let timeout = timeout.map_or(0, |timeout| nanos(timeout).max(1));
        wire::NumberedCall { number, timeout, call: Some(asked.encode()) }
    }

    pub(super) fn decode(call: wire::NumberedCall) -> Decoded<Self> {
        let wire::NumberedCall { number, timeout, call } = call;
        let Some(call) = call else {
            return invalid("a call of no known kind: was it sent by a newer version of Graft?");
        };
        let timeout = (timeout > 0).then(|| Duration::from_nanos(timeout));
        Ok(Self { number, timeout, asked: Asked::decode(call)? })
    }
}

fn encode_slot(slot: Slot) -> wire::SessionSlot {
    wire::SessionSlot { session: slot.session, sequence: slot.sequence, unanswered: slot.unanswered }
}

fn decode_slot(slot: wire::SessionSlot) -> Decoded<Slot> {
    let wire::SessionSlot { session, sequence, unanswered } = slot;
    if session == 0 {
        return invalid("slot.session must be what OpenSession answered; it is not set");
    }
    if sequence == 0 {
        return invalid("slot.sequence numbers the commands of a session from 1; it is not set");
    }
    if unanswered > sequence {
        return invalid(format!(
            "slot.unanswered ({unanswered}) must be the lowest sequence without an answer, at most this command's own \
             ({sequence})"
        ));
    }
    Ok(Slot { session, sequence, unanswered })
}

fn encode_query(body: Bytes, read: Read) -> wire::QueryRequest {
    let (consistency, max_age) = match read.consistency {
        Consistency::Linearizable => (WireConsistency::Linearizable, None),
        Consistency::Lease => (WireConsistency::Lease, None),
        Consistency::Stale { max_age } => (WireConsistency::Stale, max_age.map(nanos)),
    };
    wire::QueryRequest { query: body, consistency: consistency.into(), max_age, at_least: read.at_least.0 }
}

fn decode_read(request: &wire::QueryRequest) -> Decoded<Read> {
    let at_least = Index(request.at_least);
    if at_least > Index::LAST {
        return invalid(format!("at_least ({at_least}) must be an index that an earlier answer had"));
    }
    let consistency = match WireConsistency::try_from(request.consistency) {
        Ok(WireConsistency::Stale) => Consistency::Stale { max_age: request.max_age.map(Duration::from_nanos) },
        Ok(_) if request.max_age.is_some() => {
            return invalid("max_age is for CONSISTENCY_STALE; the other kinds of reads are never old");
        }
        Ok(WireConsistency::Unspecified | WireConsistency::Linearizable) => Consistency::Linearizable,
        Ok(WireConsistency::Lease) => Consistency::Lease,
        Err(_) => {
            let number = request.consistency;
            return invalid(format!("consistency {number} is not known: was it sent by a newer version of Graft?"));
        }
    };
    Ok(Read { consistency, at_least })
}

#[cfg(test)]
#[path = "tests/convert_call.rs"]
mod tests;
