//! How large the requests of those may be who are no members: as large as the method needs, and no larger. What is over
//! that is refused by its length alone: a few bytes on the wire may be many in memory, and what is decoded is held by
//! its method.

use super::config::PeerConfig;
use super::convert::MEMBERS_MAX;
use super::convert_events::TOPIC_BYTES_MAX;

/// What one message of a request may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Allowance {
    pub(super) bytes_max: usize,
    pub(super) counted: Counted,
}

/// With what others its messages are counted as long as they are not whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Counted {
    /// It is too small.
    Not,
    WithClients,
    WithOperators,
}

const CALLS_PATH: &str = "/graft.v1.Client/Calls";
/// What takes a command or a query.
const BODY_PATHS: [&str; 2] = ["/graft.v1.Client/Execute", "/graft.v1.Client/Query"];
const WATCH_PATH: &str = "/graft.v1.Client/Watch";
const CHANGE_PATH: &str = "/graft.v1.Admin/ChangeMembership";
const WHAT_IF_PATH: &str = "/graft.v1.Admin/WhatIf";

/// A few numbers and names. Headers may have more.
pub(super) const SMALL_BYTES_MAX: usize = 4 << 10;
/// As many members as may be named, each with an id and an address that are longer than anybody's.
pub(super) const CHANGE_BYTES_MAX: usize = MEMBERS_MAX * 256;
/// As many topics as may be named, each as long as it may be, and where to begin.
const WATCH_BYTES_MAX: usize = MEMBERS_MAX * (TOPIC_BYTES_MAX + 3) + 64;

impl Allowance {
    /// Of a call of this path.
    pub(super) fn of(path: &str, config: &PeerConfig) -> Self {
        use Counted::{Not, WithClients, WithOperators};
        let (bytes_max, counted) = match path {
            // Larger than a call may be, so that a call that is too large is refused alone.
            CALLS_PATH => (config.message_bytes_max, WithClients),
            path if BODY_PATHS.contains(&path) => (config.request_bytes_max, WithClients),
            WATCH_PATH => (WATCH_BYTES_MAX, WithClients),
            // Whoever may read may ask this.
            WHAT_IF_PATH => (CHANGE_BYTES_MAX, WithClients),
            CHANGE_PATH => (CHANGE_BYTES_MAX, WithOperators),
            _ => (SMALL_BYTES_MAX, Not),
        };
        Self { bytes_max, counted }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::super::convert_ask::encode_change;
    use super::super::{convert_events, wire};
    use super::*;

    fn bytes_max(path: &str) -> usize {
        Allowance::of(path, &PeerConfig::default()).bytes_max
    }

    #[test]
    fn what_has_no_command_in_it_is_small() {
        let config = PeerConfig::default();
        for path in ["/graft.v1.Client/Execute", "/graft.v1.Client/Query"] {
            assert_eq!(bytes_max(path), config.request_bytes_max);
        }
        assert_eq!(bytes_max(CALLS_PATH), config.message_bytes_max);
        let others = [
            "/graft.v1.Client/OpenSession",
            "/graft.v1.Admin/Status",
            "/graft.v1.Admin/Events",
            "/grpc.health.v1.Health/Watch",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/graft.v1.Client/Execute/",
            "/x",
        ];
        assert!(others.iter().all(|path| bytes_max(path) == SMALL_BYTES_MAX));
    }

    #[test]
    fn a_large_cluster_and_a_long_list_of_topics_fit() {
        let host = format!("{}.example:65535", "h".repeat(60));
        let members =
            (0..MEMBERS_MAX).map(|n| (graft_domain::NodeId::new(&format!("node-{n}")).unwrap(), host.clone()));
        let change = graft_services::change::Change::Apply { members: members.collect() };
        assert!(encode_change(change, None).encoded_len() <= CHANGE_BYTES_MAX);
        let topics = (0..MEMBERS_MAX).map(|n| format!("{n:0>TOPIC_BYTES_MAX$}")).collect();
        let since = Some(wire::Cursor { index: u64::MAX, number: Some(u32::MAX) });
        let watch = wire::WatchRequest { topics, since };
        assert!(watch.encoded_len() <= WATCH_BYTES_MAX);
        assert!(convert_events::decode_watch(watch).is_ok());
    }
}
