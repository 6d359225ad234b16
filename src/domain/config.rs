//! What a core is told about itself before it starts. Every queue, batch and window has its limit here.

use core::time::Duration;

use crate::ids::{ClusterId, Incarnation, NodeId};

/// How often a leader that has nothing to say is heard in an election timeout at the least.
const HEARD_MIN: u32 = 5;
/// And how long it is silent at the most: who is not heard for seconds is held to be ill.
const REST_MAX: Duration = Duration::from_secs(1);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Config {
    pub id: NodeId,
    /// Followers campaign after hearing nothing for this long, up to twice it (drawn anew each time, thesis §3.4).
    pub election_timeout: Duration,
    /// A leader is heard this often; half as often while everybody has everything, but at least once a second and five times in
    /// an election timeout, unless this itself is rarer.
    pub heartbeat: Duration,
    /// How long a leader waits for entries to tell with them that its commit index has moved, before it does so alone; not at all
    /// where others wait for it: of a membership, of the first entry of a term, of what is [`crate::Input::Awaited`]. By default zero.
    pub commit_delay: Duration,
    /// The name the cluster gets should this node be its first leader.
    pub cluster: ClusterId,
    /// Which life of its data directory this is: a founder puts it into the first membership. Unknown by default.
    pub incarnation: Incarnation,
    /// Where its luck begins: two members of one cluster should differ.
    pub seed: u64,
    /// An append message is cut here; one larger entry still goes alone.
    pub append_bytes_max: usize,
    /// Append messages on their way to one follower.
    pub inflight_messages_max: usize,
    /// Their bytes; one message beyond it is let through when nothing else is on its way.
    pub inflight_bytes_max: usize,
    /// Bytes of entries handed out to be applied and not yet reported applied.
    pub apply_bytes_max: usize,
    /// Bytes of log kept in memory since the last snapshot; at the cap commands are refused as busy.
    pub log_bytes_max: usize,
    /// Bytes of log that are kept although a snapshot covers them, for followers that are a little behind.
    pub tail_bytes: usize,
    /// Bytes of log that are kept although a snapshot covers them, for followers that were heard of lately and need them, or
    /// that are being given a snapshot.
    pub held_bytes_max: usize,
    /// A leader whose disk has not finished a write for this long hands over, and who has such a disk does not campaign.
    pub storage_timeout: Duration,
    /// Bytes of the leader's log that are not committed; at the cap commands are refused as busy.
    pub uncommitted_bytes_max: usize,
    /// Reads waiting for their round of heartbeats; at the cap reads are refused as busy.
    pub reads_max: usize,
}

impl Config {
    /// The defaults of the product, for a node of this name.
    pub const fn new(id: NodeId, cluster: ClusterId, seed: u64) -> Self {
        Self {
            id,
            cluster,
            incarnation: Incarnation::UNKNOWN,
            seed,
            election_timeout: Duration::from_millis(300),
            heartbeat: Duration::from_millis(30),
            commit_delay: Duration::ZERO,
            append_bytes_max: 1 << 20,
            inflight_messages_max: 256,
            inflight_bytes_max: 16 << 20,
            apply_bytes_max: 16 << 20,
            log_bytes_max: 1 << 30,
            tail_bytes: 4 << 20,
            held_bytes_max: 256 << 20,
            storage_timeout: Duration::from_millis(1500),
            uncommitted_bytes_max: 64 << 20,
            reads_max: 65_536,
        }
    }

    /// How often a leader is heard that has nothing to say.
    pub(crate) fn rest(&self) -> Duration {
        (self.election_timeout / HEARD_MIN).min(self.heartbeat * 2).min(REST_MAX).max(self.heartbeat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_rest_heartbeats_are_half_as_many_where_that_is_often_enough() {
        let (millis, id) = (Duration::from_millis, NodeId::new("n1").unwrap());
        for (heartbeat, timeout, rest) in [
            (10, 300, 20),
            (30, 300, 60),
            (50, 300, 60),
            (60, 300, 60),
            (150, 300, 150),
            (600, 20_000, 1000),
            (2000, 20_000, 2000),
        ] {
            let (heartbeat, election_timeout) = (millis(heartbeat), millis(timeout));
            let config = Config { election_timeout, heartbeat, ..Config::new(id, ClusterId(1), 1) };
            assert_eq!(config.rest(), millis(rest), "{heartbeat:?}");
        }
    }
}
