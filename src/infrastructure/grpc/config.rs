//! The limits of the transport.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tracing::info;

use super::admission::{LEAVING_MAX, Limits};
use super::security::Security;

/// Limits and times of the transport between members. Every queue and every wait has one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerConfig {
    /// Bytes that may wait for one peer; what would go beyond is dropped. 64 MiB.
    pub queue_bytes_max: usize,
    /// Messages that may wait for one peer; what would go beyond is dropped. 16384.
    pub queue_messages_max: usize,
    /// Bytes after which a batch is cut. A single larger message goes alone. 1 MiB.
    pub batch_bytes_max: usize,
    /// Bytes of the largest message that is sent or received. 64 MiB.
    pub message_bytes_max: usize,
    /// How long resolving a name may take, and how long connecting may. 1 s.
    pub connect_timeout: Duration,
    /// How long a peer may take from the connection to its introduction. 5 s.
    pub handshake_timeout: Duration,
    /// The wait before the second attempt to connect; it doubles from there, and is jittered. 20 ms.
    pub backoff_first: Duration,
    /// The longest wait between two attempts; a link that lasted as long as this resets the wait. 1 s.
    pub backoff_max: Duration,
    /// How long nothing may be heard on a connection before it is pinged. 2 s.
    pub keepalive_interval: Duration,
    /// How long the answer to a ping may take before the connection is given up. A ping waits behind bytes that the
    /// operating system has already taken, so this must not be much shorter on slow networks. 4 s.
    pub keepalive_timeout: Duration,
    /// Bytes of one call that a peer may send ahead of being read. 8 MiB.
    pub stream_window_bytes: u32,
    /// Bytes of one connection that a peer may send ahead of being read. 16 MiB.
    pub connection_window_bytes: u32,
    /// The same of one call of a client, where it is known who is no member. 1 MiB.
    pub client_stream_window_bytes: u32,
    /// The same of one connection of a client. 2 MiB.
    pub client_connection_window_bytes: u32,
    /// Connections that members may hold to this node. 256.
    pub connections_max: usize,
    /// Connections that clients may hold to this node, or as many as the process may have files open, less what the node
    /// needs, if that is fewer. Idle ones make room for others. 4096.
    pub clients_max: usize,
    /// Bytes of the largest request of a client; on a stream of calls a message may have as many as a member's, so that a
    /// call that is too large is refused alone. 8 MiB and a little.
    pub request_bytes_max: usize,
    /// Bytes of clients' messages that may be half here, of all clients together. 256 MiB.
    pub requests_bytes_max: usize,
    /// Bytes of answers that clients have not taken, of all clients together; one connection may be owed a quarter of it.
    /// 256 MiB.
    pub answers_bytes_max: usize,
    /// How long a node that asks to be let in waits for the answer before it is told to ask again. 3 s.
    pub join_wait: Duration,
    /// Bytes of snapshots that are sent in a second, to all followers together. 128 MiB.
    pub snapshot_bytes_per_second: u64,
    /// Bytes of a snapshot that are read, sent and taken in at a time. A transfer holds a few times as many. 1 MiB.
    pub snapshot_part_bytes_max: usize,
    /// How long a transfer of a snapshot may stand still before it is broken off, on either side. 10 s.
    pub snapshot_stall_timeout: Duration,
    /// What every connection is secured with. Nothing.
    pub security: Security,
}

impl Default for PeerConfig {
    fn default() -> Self {
        Self {
            queue_bytes_max: 64 << 20,
            queue_messages_max: 16_384,
            batch_bytes_max: 1 << 20,
            message_bytes_max: 64 << 20,
            connect_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(5),
            backoff_first: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
            keepalive_interval: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(4),
            stream_window_bytes: 8 << 20,
            connection_window_bytes: 16 << 20,
            client_stream_window_bytes: 1 << 20,
            client_connection_window_bytes: 2 << 20,
            connections_max: 256,
            clients_max: 4096,
            request_bytes_max: Self::request_bytes_max(8 << 20),
            requests_bytes_max: 256 << 20,
            answers_bytes_max: 256 << 20,
            join_wait: Duration::from_secs(3),
            snapshot_bytes_per_second: 128 << 20,
            snapshot_part_bytes_max: 1 << 20,
            snapshot_stall_timeout: Duration::from_secs(10),
            security: Security::default(),
        }
    }
}

impl PeerConfig {
    /// What lets a request with the largest command through, and every other one.
    pub fn request_bytes_max(command_bytes_max: usize) -> usize {
        command_bytes_max.max(REQUEST_BYTES_MIN) + REQUEST_OVERHEAD
    }

    /// The largest reply that a message has room for, with what else is in it.
    pub(super) fn answer_bytes_max(&self) -> usize {
        self.message_bytes_max - ANSWER_OVERHEAD.min(self.message_bytes_max / 2)
    }

    /// How many connections of each kind there may be, with a file each.
    pub(super) fn limits(&self) -> Limits {
        self.limits_within(getrlimit(Resource::Nofile).current)
    }

    fn limits_within(&self, open_files_max: Option<u64>) -> Limits {
        let files = open_files_max.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        let others = self.connections_max + NEWCOMERS_MAX + OPERATORS_MAX + LEAVING_MAX + FILES_RESERVED;
        let clients_max = self.clients_max.min(files.saturating_sub(others).max(CLIENTS_MIN));
        if clients_max < self.clients_max {
            info!(
                clients_max,
                "fewer clients than `clients_max` may connect, since the process may have only {files} files open \
                 (ulimit -n)"
            );
        }
        Limits {
            newcomers_max: NEWCOMERS_MAX,
            members_max: self.connections_max,
            clients_max,
            operators_max: OPERATORS_MAX,
        }
    }

    /// With every value that could not work moved to the nearest that can: HTTP/2 counts windows in 31 bits and gRPC
    /// messages in 32, a handshake needs some bytes, and without any wait a dead peer would be dialled in a busy loop.
    pub(super) fn workable(self) -> Self {
        let window = |bytes: u32| bytes.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        let backoff_first = self.backoff_first.max(BACKOFF_MIN);
        let message_bytes_max = self.message_bytes_max.clamp(MESSAGE_BYTES_MIN, MESSAGE_BYTES_MAX);
        Self {
            batch_bytes_max: self.batch_bytes_max.clamp(1, message_bytes_max),
            message_bytes_max,
            backoff_first,
            backoff_max: self.backoff_max.max(backoff_first),
            stream_window_bytes: window(self.stream_window_bytes),
            connection_window_bytes: window(self.connection_window_bytes),
            client_stream_window_bytes: window(self.client_stream_window_bytes),
            client_connection_window_bytes: window(self.client_connection_window_bytes),
            connections_max: self.connections_max.clamp(1, CONNECTIONS_MAX),
            clients_max: self.clients_max.clamp(CLIENTS_MIN, CONNECTIONS_MAX),
            request_bytes_max: self.request_bytes_max.clamp(MESSAGE_BYTES_MIN, MESSAGE_BYTES_MAX),
            requests_bytes_max: self.requests_bytes_max.max(self.request_bytes_max).max(message_bytes_max),
            answers_bytes_max: self.answers_bytes_max.max(MESSAGE_BYTES_MIN),
            snapshot_bytes_per_second: self.snapshot_bytes_per_second.max(SNAPSHOT_BYTES_PER_SECOND_MIN),
            snapshot_part_bytes_max: self.snapshot_part_bytes_max.clamp(PART_BYTES_MIN, PART_BYTES_MAX),
            snapshot_stall_timeout: self.snapshot_stall_timeout.max(STALL_TIMEOUT_MIN),
            ..self
        }
    }
}

const WINDOW_BYTES_MIN: u32 = 64 << 10;
const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;
const MESSAGE_BYTES_MIN: usize = 1 << 10;
const MESSAGE_BYTES_MAX: usize = 1 << 31;
/// Room for any change of a membership.
const REQUEST_BYTES_MIN: usize = 1 << 20;
/// More than a request takes beside its command.
const REQUEST_OVERHEAD: usize = 4 << 10;
/// More than an answer takes beside its reply, with who leads.
const ANSWER_OVERHEAD: usize = 4 << 10;
const BACKOFF_MIN: Duration = Duration::from_millis(1);
/// Slower, the smallest parts would take longer than a transfer may stand still.
const SNAPSHOT_BYTES_PER_SECOND_MIN: u64 = 64 << 10;
const PART_BYTES_MIN: usize = 4 << 10;
/// The largest part that any version takes.
pub(super) const PART_BYTES_MAX: usize = 4 << 20;
/// Far more than any process may have files open.
const CONNECTIONS_MAX: usize = 1 << 24;
const CLIENTS_MIN: usize = 1;
/// Connections that have not said yet what they are for. A member says it in one round trip.
const NEWCOMERS_MAX: usize = 256;
/// Clients beyond the limit who come to see what is wrong.
const OPERATORS_MAX: usize = 32;
/// Files that the node's log and snapshots, its own links and the user's machine may need.
const FILES_RESERVED: usize = 256;
const STALL_TIMEOUT_MIN: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_workable() {
        assert_eq!(PeerConfig::default().workable(), PeerConfig::default());
    }

    #[test]
    fn waits_are_never_nothing_and_never_the_wrong_way_round() {
        let zero = PeerConfig { backoff_first: Duration::ZERO, backoff_max: Duration::ZERO, ..PeerConfig::default() };
        assert_eq!((zero.clone().workable().backoff_first, zero.workable().backoff_max), (BACKOFF_MIN, BACKOFF_MIN));
        let swapped = PeerConfig { backoff_first: Duration::from_secs(9), ..PeerConfig::default() };
        assert_eq!(swapped.workable().backoff_max, Duration::from_secs(9));
    }

    #[test]
    fn a_snapshot_always_gets_on() {
        let nothing = PeerConfig {
            snapshot_bytes_per_second: 0,
            snapshot_part_bytes_max: 0,
            snapshot_stall_timeout: Duration::ZERO,
            ..PeerConfig::default()
        };
        let config = nothing.workable();
        assert_eq!(config.snapshot_bytes_per_second, SNAPSHOT_BYTES_PER_SECOND_MIN);
        assert_eq!(config.snapshot_part_bytes_max, PART_BYTES_MIN);
        assert_eq!(config.snapshot_stall_timeout, STALL_TIMEOUT_MIN);
        let much = PeerConfig { snapshot_part_bytes_max: usize::MAX, ..PeerConfig::default() };
        assert_eq!(much.workable().snapshot_part_bytes_max, PART_BYTES_MAX, "what every version takes");
    }

    #[test]
    fn clients_leave_files_for_the_node() {
        let clients = |files| PeerConfig::default().limits_within(files).clients_max;
        assert_eq!((clients(None), clients(Some(u64::MAX)), clients(Some(100_000))), (4096, 4096, 4096));
        assert_eq!((clients(Some(1024)), clients(Some(0))), (1024 - 256 - 256 - 32 - 64 - 256, 1));
    }

    #[test]
    fn a_batch_is_never_larger_than_a_message_may_be() {
        let config = PeerConfig { message_bytes_max: 0, batch_bytes_max: usize::MAX, ..PeerConfig::default() };
        let config = config.workable();
        assert_eq!((config.message_bytes_max, config.batch_bytes_max), (MESSAGE_BYTES_MIN, MESSAGE_BYTES_MIN));
    }
}
