//! Why a link is refused or ended, and how that travels.

use bytes::Bytes;
use prost::Message;
use tonic::{Code, Status};

use super::event::RefusedCode;
use super::plain::plain;
use super::wire;
use super::wire::goodbye::Code as Wire;

/// A refusal of one side, in words that make sense on both.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    pub(super) code: RefusedCode,
    pub(super) why: String,
}

/// Who found fault with the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Here,
    There,
}

/// Bytes of a peer's text that are kept, logged and shown.
const WHY_BYTES_MAX: usize = 1024;

impl Refusal {
    pub(super) fn new(code: RefusedCode, why: impl Into<String>) -> Self {
        Self { code, why: why.into() }
    }

    pub(super) fn to_wire(&self) -> wire::Goodbye {
        let code = match self.code {
            RefusedCode::ProtocolVersion => Wire::ProtocolVersion,
            RefusedCode::ClusterMismatch => Wire::ClusterMismatch,
            RefusedCode::IdentityMismatch => Wire::IdentityMismatch,
            RefusedCode::NotMe => Wire::NotMe,
            RefusedCode::Removed => Wire::Removed,
            RefusedCode::FoundingMismatch => Wire::FoundingMismatch,
            RefusedCode::Malformed => Wire::Malformed,
            RefusedCode::TooMany => Wire::TooMany,
        };
        wire::Goodbye { code: code.into(), why: self.why.clone() }
    }

    /// A code that is not known is a newer version's; its words still say what to do.
    pub(super) fn from_wire(goodbye: &wire::Goodbye) -> Self {
        let code = match Wire::try_from(goodbye.code) {
            Ok(Wire::ProtocolVersion) => RefusedCode::ProtocolVersion,
            Ok(Wire::ClusterMismatch) => RefusedCode::ClusterMismatch,
            Ok(Wire::IdentityMismatch) => RefusedCode::IdentityMismatch,
            Ok(Wire::NotMe) => RefusedCode::NotMe,
            Ok(Wire::Removed) => RefusedCode::Removed,
            Ok(Wire::FoundingMismatch) => RefusedCode::FoundingMismatch,
            Ok(Wire::TooMany) => RefusedCode::TooMany,
            Ok(Wire::Malformed | Wire::Unspecified) | Err(_) => RefusedCode::Malformed,
        };
        Self { code, why: plain(&goodbye.why, WHY_BYTES_MAX) }
    }

    pub(super) fn to_status(&self) -> Status {
        let details = Bytes::from(self.to_wire().encode_to_vec());
        Status::with_details(Code::FailedPrecondition, self.why.clone(), details)
    }

    /// None if the status is not a refusal but a mere failure.
    pub(super) fn from_status(status: &Status) -> Option<Self> {
        if status.code() != Code::FailedPrecondition || status.details().is_empty() {
            return None;
        }
        wire::Goodbye::decode(status.details()).ok().map(|goodbye| Self::from_wire(&goodbye))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODES: [RefusedCode; 8] = [
        RefusedCode::ProtocolVersion,
        RefusedCode::ClusterMismatch,
        RefusedCode::IdentityMismatch,
        RefusedCode::NotMe,
        RefusedCode::Removed,
        RefusedCode::FoundingMismatch,
        RefusedCode::Malformed,
        RefusedCode::TooMany,
    ];

    #[test]
    fn every_code_survives_a_status() {
        for code in CODES {
            let refusal = Refusal::new(code, "what to do: this and that, é included");
            assert_eq!(Refusal::from_status(&refusal.to_status()), Some(refusal));
        }
    }

    #[test]
    fn a_failure_is_not_a_refusal() {
        assert_eq!(Refusal::from_status(&Status::unavailable("gone")), None);
        assert_eq!(Refusal::from_status(&Status::failed_precondition("of another service")), None);
        let garbage = Status::with_details(Code::FailedPrecondition, "", Bytes::from_static(b"\xff\xff\xff"));
        assert_eq!(Refusal::from_status(&garbage), None);
    }

    #[test]
    fn words_write_no_lines_of_their_own() {
        let why = "stop\nERROR the disk is full\x1b[8m".to_owned();
        let refusal = Refusal::from_wire(&wire::Goodbye { code: 99, why });
        assert_eq!(refusal.why, "stop\\nERROR the disk is full\\u{1b}[8m");
    }

    #[test]
    fn long_words_are_clipped_between_characters() {
        let why = "é".repeat(WHY_BYTES_MAX);
        let refusal = Refusal::from_wire(&wire::Goodbye { code: 99, why });
        assert_eq!(refusal.code, RefusedCode::Malformed);
        assert_eq!(refusal.why, "é".repeat(WHY_BYTES_MAX / 2));
    }
}
