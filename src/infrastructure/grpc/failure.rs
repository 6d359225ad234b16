//! Calls that are not answered: as gRPC statuses with details of google.rpc, and back. The table of codes for users is in
//! `proto/graft/v1/client.proto`; `failure_kinds` has the words.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use graft_domain::NodeId;
use graft_services::commands::Slot;
use graft_services::error::{Outcome, Refusal};
use prost::Message;
use tonic::Status;
use tonic_types::{ErrorDetails, ErrorInfo, RpcStatusExt, StatusExt, pb};

use super::convert::TEXT_BYTES_MAX;
use super::failure_kinds::{self as kinds, Kind};

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Failure {
    /// Certainly not applied, and will not be.
    Refused(Refusal),
    /// It may or may not be applied, now or later.
    Unknown { why: String, slot: Option<Slot> },
    /// A member broke its own rules; it may have been applied.
    Internal(String),
}

/// Who leads and where, as far as a member knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LeaderHint {
    pub(super) id: NodeId,
    /// `host:port`.
    pub(super) address: String,
}

/// What a member says of a call that it does not answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Told {
    pub(super) failure: Failure,
    pub(super) leader: Option<LeaderHint>,
    /// Nothing was done, and after so long the same call may do better.
    pub(super) retry_after: Option<Duration>,
}

/// What all of Graft's errors belong to.
pub(super) const DOMAIN: &str = "graft";
/// Bytes of the words in a status that travels in HTTP headers: clients take 8 KiB of these, and the words are in them twice,
/// once with every byte that is not plain text as three.
const HEADER_TEXT_BYTES_MAX: usize = 1 << 10;
/// Bytes of an address that is believed.
const ADDRESS_BYTES_MAX: usize = 1 << 10;

/// Whether a call that failed was applied: the key, and what it says. Tells even those who do not know the reason.
const APPLIED: &str = "applied";
const APPLIED_NO: &str = "no";
const APPLIED_UNKNOWN: &str = "unknown";

impl Failure {
    /// As the status that ends a call.
    pub(super) fn to_status(&self, leader: Option<&LeaderHint>) -> Status {
        self.status(leader, HEADER_TEXT_BYTES_MAX)
    }

    /// As a message, which may have more words.
    pub(super) fn to_wire(&self, leader: Option<&LeaderHint>) -> pb::Status {
        let status = self.status(leader, TEXT_BYTES_MAX);
        pb::Status::decode(status.details()).unwrap_or_else(|_| pb::Status {
            code: status.code().into(),
            message: status.message().to_owned(),
            details: Vec::new(),
        })
    }

    fn status(&self, leader: Option<&LeaderHint>, text_bytes_max: usize) -> Status {
        let kind = Kind::of(self);
        let mut details = ErrorDetails::new();
        details.set_error_info(kind.reason, DOMAIN, self.metadata(leader));
        if kind.retry_after.is_some() {
            details.set_retry_info(kind.retry_after);
        }
        details.add_help_link(kind.fix, kind.url());
        let mut words = self.words().into_owned();
        words.truncate(words.floor_char_boundary(text_bytes_max));
        Status::with_error_details(kind.code, words, details)
    }

    fn words(&self) -> Cow<'_, str> {
        match self {
            Self::Refused(refusal) => Cow::Owned(refusal.to_string()),
            Self::Unknown { why, .. } => Cow::Owned(format!("{}{why}", kinds::UNKNOWN_PREFIX)),
            Self::Internal(what) => Cow::Borrowed(what),
        }
    }

    fn metadata(&self, leader: Option<&LeaderHint>) -> HashMap<String, String> {
        let applied = if matches!(self, Self::Refused(_)) { APPLIED_NO } else { APPLIED_UNKNOWN };
        let mut all = HashMap::from([(APPLIED.to_owned(), applied.to_owned())]);
        let mut put = |key: &str, value: String| all.insert(key.to_owned(), value);
        if let Some(LeaderHint { id, address }) = leader {
            put("leader", id.to_string());
            put("leader_address", address.clone());
        }
        match self {
            Self::Refused(Refusal::NotLeader { leader: Some(leader) }) => {
                let before = put("leader", leader.to_string());
                // What is known of addresses may be older than the word about who leads.
                if before.is_some_and(|before| before != leader.as_str()) {
                    all.remove("leader_address");
                }
            }
            Self::Refused(Refusal::NoQuorum { reachable, needed }) => {
                put("reachable", reachable.to_string());
                put("needed", needed.to_string());
            }
            Self::Refused(Refusal::TooLarge { bytes, limit }) => {
                put("bytes", bytes.to_string());
                put("limit", limit.to_string());
            }
            Self::Unknown { slot: Some(slot), .. } => {
                put("session", slot.session.to_string());
                put("sequence", slot.sequence.to_string());
                put("unanswered", slot.unanswered.to_string());
            }
            _ => {}
        }
        all
    }
}

impl Told {
    /// None if it is not Graft that speaks: a proxy, say, or the connection that broke. Whether the call was applied is then
    /// for its sender to judge.
    pub(super) fn from_status(status: &Status) -> Option<Self> {
        Self::of(status.message(), &status.get_error_details())
    }

    /// The same of a status that came as a message.
    pub(super) fn from_wire(status: &pb::Status) -> Option<Self> {
        Self::of(&status.message, &status.get_error_details())
    }

    fn of(words: &str, details: &ErrorDetails) -> Option<Self> {
        let info = details.error_info().filter(|info| info.domain == DOMAIN)?;
        let retry_after = details.retry_info().and_then(|retry| retry.retry_delay);
        let words = &words[..words.floor_char_boundary(TEXT_BYTES_MAX)];
        Some(Self { failure: understood(info, words, retry_after.is_some()), leader: hint(info), retry_after })
    }
}

/// What is said, whatever version says it: of a reason that is not known, whether the call was applied is told apart.
fn understood(info: &ErrorInfo, words: &str, again: bool) -> Failure {
    let number = |key: &str| info.metadata.get(key).and_then(|text| text.parse::<u64>().ok());
    let count = |key: &str| number(key).and_then(|number| usize::try_from(number).ok()).unwrap_or_default();
    let without = |prefix: &str| words.strip_prefix(prefix).unwrap_or(words).to_owned();
    Failure::Refused(match info.reason.as_str() {
        "NOT_LEADER" => Refusal::NotLeader { leader: leader_id(info) },
        "NO_LEADER" => Refusal::NoLeader,
        "NO_QUORUM" => Refusal::NoQuorum { reachable: count("reachable"), needed: count("needed") },
        "BUSY" => Refusal::Busy(without(kinds::BUSY_PREFIX)),
        "TOO_LARGE" => {
            Refusal::TooLarge { bytes: number("bytes").unwrap_or_default(), limit: number("limit").unwrap_or_default() }
        }
        "TIMEOUT" => Refusal::Timeout,
        "MEMBERSHIP_REFUSED" => Refusal::Membership(words.to_owned()),
        "STORAGE" => Refusal::Snapshot(words.to_owned()),
        "REMOVED" => Refusal::Removed,
        "STOPPED" => Refusal::Stopped,
        "HALTED" => Refusal::Halted(without(kinds::HALTED_PREFIX)),
        "SESSION_EXPIRED" => Refusal::SessionExpired,
        "INVALID_CALL" => Refusal::Invalid(words.to_owned()),
        "TLS" => Refusal::Denied(words.to_owned()),
        "UNKNOWN_OUTCOME" => {
            let field = |key| number(key).filter(|number| *number > 0);
            let slot = field("session").zip(field("sequence"));
            let unanswered = number("unanswered").unwrap_or_default();
            let slot = slot.map(|(session, sequence)| Slot { session, sequence, unanswered });
            return Failure::Unknown { why: without(kinds::UNKNOWN_PREFIX), slot };
        }
        "INTERNAL" => return Failure::Internal(words.to_owned()),
        other => {
            let words = format!("{other}: {words}");
            let applied = info.metadata.get(APPLIED).map(String::as_str);
            match applied {
                Some(APPLIED_NO) if again => Refusal::Busy(words),
                Some(APPLIED_NO) => Refusal::Invalid(words),
                _ => return Failure::Unknown { why: words, slot: None },
            }
        }
    })
}

fn leader_id(info: &ErrorInfo) -> Option<NodeId> {
    info.metadata.get("leader").and_then(|id| NodeId::new(id).ok())
}

fn hint(info: &ErrorInfo) -> Option<LeaderHint> {
    let address = info.metadata.get("leader_address").filter(|address| address.len() <= ADDRESS_BYTES_MAX)?;
    Some(LeaderHint { id: leader_id(info)?, address: address.clone() })
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refusal) => Self::Refused(refusal),
            Failure::Unknown { why, slot } => Self::Unknown { why, slot },
            Failure::Internal(what) => Self::unknown(what),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

#[cfg(test)]
#[path = "tests/failure.rs"]
mod tests;
