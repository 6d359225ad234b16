//! The kinds of errors that clients see: their gRPC codes, when to try again, and what to do, in words.
//!
//! The gRPC code is chosen for clients that know nothing of Graft. Many of these send a call again by themselves when they
//! see `UNAVAILABLE`, so that it stands only where the call was certainly not applied. `UNKNOWN` is for what may have been:
//! nothing retries that by itself.

use std::time::Duration;

use graft_services::error::Refusal;
use tonic::Code;

use super::failure::Failure;

/// One kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Kind {
    /// The code of Graft's own, the same as in Python.
    pub(super) reason: &'static str,
    pub(super) code: Code,
    /// Given where nothing was done and the same call may do better after so long.
    pub(super) retry_after: Option<Duration>,
    /// What to do about it.
    pub(super) fix: &'static str,
}

/// What the words begin with, and the text of the refusal does not.
pub(super) const BUSY_PREFIX: &str = "busy: ";
pub(super) const HALTED_PREFIX: &str = "this node halted: ";
pub(super) const UNKNOWN_PREFIX: &str = "the outcome is not known: ";

const DOCUMENTATION: &str = "https://github.com/9OP/Graft/blob/main/docs/grpc.md";

/// A queue is shorter by then.
const SHORTLY: Duration = Duration::from_millis(100);
/// An election takes one to two of its timeouts.
const AN_ELECTION: Duration = Duration::from_millis(300);
/// Somebody has to start a member, or mend a network.
const A_WHILE: Duration = Duration::from_secs(1);

impl Kind {
    pub(super) fn of(failure: &Failure) -> Self {
        match failure {
            Failure::Refused(refusal) => refused(refusal),
            Failure::Unknown { slot: Some(_), .. } => kind(
                "UNKNOWN_OUTCOME",
                Code::Unknown,
                None,
                "send the same command again in the same place of its session: it is applied once and you get its answer",
            ),
            Failure::Unknown { slot: None, .. } => kind(
                "UNKNOWN_OUTCOME",
                Code::Unknown,
                None,
                "look at the state before you send the command again: it may have been applied",
            ),
            Failure::Internal(_) => kind(
                "INTERNAL",
                Code::Internal,
                None,
                "this is a fault in Graft: please report it together with the log of the member",
            ),
        }
    }

    /// Where the documentation tells of it: a heading, as GitHub makes anchors of them.
    pub(super) fn url(&self) -> String {
        format!("{DOCUMENTATION}#{}", self.reason.to_ascii_lowercase())
    }
}

const fn kind(reason: &'static str, code: Code, retry_after: Option<Duration>, fix: &'static str) -> Kind {
    Kind { reason, code, retry_after, fix }
}

fn refused(refusal: &Refusal) -> Kind {
    let reason = refusal.code();
    match refusal {
        Refusal::NotLeader { .. } => kind(
            reason,
            Code::Unavailable,
            Some(SHORTLY),
            "call again, or call the leader that the error names: it is in the metadata `leader` and `leader_address`",
        ),
        Refusal::NoLeader | Refusal::Unreachable(_) | Refusal::Strange(_) => kind(
            reason,
            Code::Unavailable,
            Some(AN_ELECTION),
            "call again in a moment; if it stays so, ask Admin.Status: a majority of the members must be up",
        ),
        Refusal::NoQuorum { .. } => kind(
            reason,
            Code::Unavailable,
            Some(A_WHILE),
            "start the members that are down, or repair the network between them",
        ),
        Refusal::Busy(_) => kind(
            reason,
            Code::ResourceExhausted,
            Some(SHORTLY),
            "call again in a moment, or keep fewer calls in flight",
        ),
        Refusal::TooLarge { .. } => kind(
            reason,
            Code::InvalidArgument,
            None,
            "send less at once, or ask for less; for larger commands, raise `command_bytes_max` on every member",
        ),
        Refusal::Timeout => kind(reason, Code::DeadlineExceeded, Some(SHORTLY), "call again, with a longer deadline"),
        Refusal::Membership(_) => {
            kind(reason, Code::FailedPrecondition, None, "the message says what stands in the way")
        }
        Refusal::Snapshot(_) => kind(
            reason,
            Code::FailedPrecondition,
            None,
            "see to what the message names: does the data directory exist, may it be written, is there space?",
        ),
        Refusal::Removed => {
            kind(reason, Code::FailedPrecondition, None, "call another member; this one was removed from the cluster")
        }
        Refusal::Stopped => kind(reason, Code::Unavailable, Some(A_WHILE), "call another member, or start this one"),
        Refusal::Halted(_) => kind(
            reason,
            Code::FailedPrecondition,
            None,
            "call another member; remove the cause that Admin.Status names and start this one again",
        ),
        Refusal::SessionExpired => kind(
            reason,
            Code::FailedPrecondition,
            None,
            "open another session; a command that was sent before may have been applied then, so look at the state first",
        ),
        Refusal::Denied(_) => {
            kind(reason, Code::PermissionDenied, None, "use a certificate of the role that the message names")
        }
        Refusal::Invalid(_) => kind(reason, Code::InvalidArgument, None, "correct the call as the message says"),
    }
}
