//! How calls ended, between its form in the services and its form on the wire.

use std::collections::BTreeMap;

use graft_domain::{Index, Term};
use graft_services::error::Outcome;
use graft_services::ports::{Raised, Reply};

use super::convert::{BadFrame, few, node_id};
use super::convert_call::Kind;
use super::convert_status::{optional_id, text};
use super::failure::{Failure, LeaderHint, Told};
use super::wire;
use super::wire::numbered_answer::Answer;
use super::wire::verify_response::MemberDigest;
use super::wire::verify_response::member_digest::Digest;
use super::wire::{execute_response, query_response};

/// What a call was answered, on the wire.
pub(super) type Answered<T> = Result<T, Failure>;

/// The index, the term and the reply of a call that was done.
fn done(outcome: Outcome) -> Answered<(Index, Term, Reply)> {
    match outcome {
        Outcome::Done { index, term, reply } => Ok((index, term, reply)),
        Outcome::Refused(refusal) => Err(Failure::Refused(refusal)),
        Outcome::Unknown { why, slot } => Err(Failure::Unknown { why, slot }),
        Outcome::Compared { .. } => Err(Failure::Internal("a call was answered with digests".to_owned())),
    }
}

pub(super) fn executed(outcome: Outcome, leader: Option<&LeaderHint>) -> Answered<wire::ExecuteResponse> {
    let (index, term, reply) = done(outcome)?;
    let reply = Some(match reply {
        Reply::Value(value) => execute_response::Reply::Value(value),
        Reply::Raised(raised) => execute_response::Reply::Raised(encode_raised(*raised)),
    });
    Ok(wire::ExecuteResponse { index: index.0, term: term.0, reply, leader: leader.map(encode_leader) })
}

pub(super) fn queried(outcome: Outcome, leader: Option<&LeaderHint>) -> Answered<wire::QueryResponse> {
    let (index, term, reply) = done(outcome)?;
    let reply = Some(match reply {
        Reply::Value(value) => query_response::Reply::Value(value),
        Reply::Raised(raised) => query_response::Reply::Raised(encode_raised(*raised)),
    });
    Ok(wire::QueryResponse { index: index.0, term: term.0, reply, leader: leader.map(encode_leader) })
}

pub(super) fn opened(outcome: Outcome, leader: Option<&LeaderHint>) -> Answered<wire::OpenSessionResponse> {
    let (session, ..) = done(outcome)?;
    Ok(wire::OpenSessionResponse { session: session.0, leader: leader.map(encode_leader) })
}

/// From which index of the log on something is done.
pub(super) fn index(outcome: Outcome) -> Answered<u64> {
    done(outcome).map(|(index, ..)| index.0)
}

pub(super) fn compared(outcome: Outcome) -> Answered<wire::VerifyResponse> {
    let Outcome::Compared { index, digests } = outcome else {
        done(outcome)?;
        return Err(Failure::Internal("a comparison was answered without digests".to_owned()));
    };
    let digests = digests.into_iter().map(|(id, digest)| MemberDigest {
        id: text(id),
        digest: Some(match digest {
            Ok(bytes) => Digest::Bytes(bytes),
            Err(why) => Digest::Why(why),
        }),
    });
    Ok(wire::VerifyResponse { index: index.0, digests: digests.collect() })
}

/// The answer to one call of a stream. The leader is told beside the answers, but in errors.
pub(super) fn encode(number: u64, kind: Kind, outcome: Outcome, leader: Option<&LeaderHint>) -> wire::NumberedAnswer {
    let answer = match kind {
        Kind::Execute => executed(outcome, None).map(Answer::Execute),
        Kind::Query => queried(outcome, None).map(Answer::Query),
        Kind::OpenSession => opened(outcome, None).map(Answer::OpenSession),
    };
    let answer = answer.unwrap_or_else(|failure| Answer::Error(failure.to_wire(leader)));
    wire::NumberedAnswer { number, answer: Some(answer) }
}

/// How a call ended, as a member says, and all that it says beside if that is an error.
pub(super) fn decode(answer: wire::NumberedAnswer) -> Result<(u64, Outcome, Option<Told>), BadFrame> {
    let outcome = match answer.answer.ok_or(BadFrame::Empty("answer"))? {
        Answer::Execute(response) => decode_executed(response)?,
        Answer::Query(response) => decode_queried(response)?,
        Answer::OpenSession(response) => decode_opened(&response),
        Answer::Error(status) => {
            let told = Told::from_wire(&status);
            let failure = told.as_ref().map(|told| told.failure.clone());
            let outcome = failure.map_or_else(|| Outcome::unknown(status.message), Outcome::from);
            return Ok((answer.number, outcome, told));
        }
    };
    Ok((answer.number, outcome, None))
}

pub(super) fn decode_executed(response: wire::ExecuteResponse) -> Result<Outcome, BadFrame> {
    let reply = match response.reply.ok_or(BadFrame::Empty("reply"))? {
        execute_response::Reply::Value(value) => Reply::Value(value),
        execute_response::Reply::Raised(raised) => Reply::Raised(Box::new(decode_raised(raised))),
    };
    Ok(Outcome::Done { index: Index(response.index), term: Term(response.term), reply })
}

pub(super) fn decode_queried(response: wire::QueryResponse) -> Result<Outcome, BadFrame> {
    let reply = match response.reply.ok_or(BadFrame::Empty("reply"))? {
        query_response::Reply::Value(value) => Reply::Value(value),
        query_response::Reply::Raised(raised) => Reply::Raised(Box::new(decode_raised(raised))),
    };
    Ok(Outcome::Done { index: Index(response.index), term: Term(response.term), reply })
}

/// A session's id stands where others have an index; its term nobody needs.
pub(super) fn decode_opened(response: &wire::OpenSessionResponse) -> Outcome {
    decode_index(response.session)
}

pub(super) fn decode_index(index: u64) -> Outcome {
    Outcome::Done { index: Index(index), term: Term::ZERO, reply: Reply::Value(bytes::Bytes::new()) }
}

pub(super) fn decode_compared(response: wire::VerifyResponse) -> Result<Outcome, BadFrame> {
    few("digests", response.digests.len())?;
    let mut digests = BTreeMap::new();
    for MemberDigest { id, digest } in response.digests {
        let digest = match digest.ok_or(BadFrame::Empty("digest"))? {
            Digest::Bytes(bytes) => Ok(bytes),
            Digest::Why(why) => Err(why),
        };
        if digests.insert(node_id(&id)?, digest).is_some() {
            return Err(BadFrame::Twice(id));
        }
    }
    Ok(Outcome::Compared { index: Index(response.index), digests })
}

pub(super) fn encode_leader(hint: &LeaderHint) -> wire::Leader {
    wire::Leader { id: text(hint.id), address: hint.address.clone() }
}

/// None if nobody leads.
pub(super) fn decode_leader(leader: wire::Leader) -> Result<Option<LeaderHint>, BadFrame> {
    let wire::Leader { id, address } = leader;
    Ok(optional_id(&id)?.map(|id| LeaderHint { id, address }))
}

fn encode_raised(raised: Raised) -> wire::Raised {
    wire::Raised { type_name: raised.type_name, message: raised.message, traceback: raised.traceback }
}

fn decode_raised(raised: wire::Raised) -> Raised {
    Raised { type_name: raised.type_name, message: raised.message, traceback: raised.traceback }
}

#[cfg(test)]
#[path = "tests/convert_answer.rs"]
mod tests;
