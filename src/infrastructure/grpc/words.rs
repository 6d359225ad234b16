//! The words that services tell by, found again when they come over the wire.

use graft_services::Notice;

/// What stands for a word of a newer version.
pub(super) const UNKNOWN: &str = "unknown";

/// What a node is; see [`graft_services::Status`].
pub(super) const ROLES: &[&str] =
    &["leader", "follower", "learner", "pre-candidate", "candidate", "silenced", "removed", "failed", "stopped"];
/// Kinds of errors that keep a node from working.
pub(super) const ERROR_CODES: &[&str] =
    &["HALTED", "REMOVED", "CLUSTER_MISMATCH", "IDENTITY_MISMATCH", "MEMBERSHIP_REFUSED", "DIVERGED", "STORAGE"];
/// Steps of a change of the membership; see [`Notice::Membership`].
pub(super) const STEPS: &[&str] =
    &["learner", "joint", "voter", "removed", "demoted", "address", "cancelled", "settled"];
/// What goes on with snapshots; see [`Notice::Snapshot`].
pub(super) const PHASES: &[&str] = &["writing", "written", "failed", "fetching", "applying", "installed", "sending"];

/// What becomes of certificates; see [`Notice::Certificate`].
pub(super) const RENEWALS: &[&str] = &["renewed", "refused", "expiring"];

/// The word itself, if it is among those.
pub(super) fn known(word: &str, words: &'static [&'static str]) -> &'static str {
    words.iter().copied().find(|known| *known == word).unwrap_or(UNKNOWN)
}

/// The kind of an event; none that the node has stopped.
pub(super) fn kind(notice: Option<&Notice>) -> &'static str {
    match notice {
        Some(Notice::Leader { .. }) => "leader",
        Some(Notice::Role { .. }) => "role",
        Some(Notice::Membership { .. }) => "membership",
        Some(Notice::CatchUp { .. }) => "catch-up",
        Some(Notice::Snapshot { .. }) => "snapshot",
        Some(Notice::Link { .. }) => "link",
        Some(Notice::Certificate { .. }) => "certificate",
        None => "stopped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_a_newer_version_is_said_to_be_unknown() {
        assert_eq!((known("leader", ROLES), known("emperor", ROLES)), ("leader", UNKNOWN));
    }
}
