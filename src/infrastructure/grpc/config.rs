//! The limits of the transport.

use std::time::Duration;

use tokio::sync::Semaphore;

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
    /// Connections that others may hold to this node. 256.
    pub connections_max: usize,
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
            connections_max: 256,
        }
    }
}

impl PeerConfig {
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
            connections_max: self.connections_max.min(Semaphore::MAX_PERMITS),
            ..self
        }
    }
}

const WINDOW_BYTES_MIN: u32 = 64 << 10;
const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;
const MESSAGE_BYTES_MIN: usize = 1 << 10;
const MESSAGE_BYTES_MAX: usize = 1 << 31;
const BACKOFF_MIN: Duration = Duration::from_millis(1);

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
    fn a_batch_is_never_larger_than_a_message_may_be() {
        let config = PeerConfig { message_bytes_max: 0, batch_bytes_max: usize::MAX, ..PeerConfig::default() };
        let config = config.workable();
        assert_eq!((config.message_bytes_max, config.batch_bytes_max), (MESSAGE_BYTES_MIN, MESSAGE_BYTES_MIN));
    }
}
