//! What a node is told when it is made.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use graft_domain::{ClusterId, Membership, NodeId};

/// Every setting of a node. Sizes are bytes.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    pub id: NodeId,
    /// What other members dial: `host:port`. Port 0 takes any free one.
    pub address: String,
    /// Where to listen, when that differs from `address`.
    pub bind: Option<String>,
    /// Where metrics are read, in plain HTTP on this machine, over TLS beyond it; port 0 takes any free one.
    pub metrics: Option<String>,
    /// Whether to listen beyond this machine without certificates: whoever reaches the port may then do anything.
    pub insecure: bool,
    /// Holds the log and the machine's own files; made if it is not there.
    pub data_dir: PathBuf,
    /// Everyone who founds the cluster, this node included; none for a cluster of one.
    pub members: Option<BTreeMap<NodeId, String>>,
    /// Addresses of members of a running cluster to join, or to announce this node to when it is a member already.
    pub join: Vec<String>,
    /// Followers campaign after one to two of these without a leader. 300 ms: ten heartbeats.
    pub election_timeout: Duration,
    /// A leader is heard this often; about half as often while everybody has everything. 30 ms.
    pub heartbeat: Duration,
    /// A larger command is refused. 8 MiB.
    pub command_bytes_max: usize,
    /// Calls that wait on this node; more are refused as busy. 65 536.
    pub inflight_max: usize,
    /// Bytes of commands that wait on this node; more are refused as busy. 256 MiB.
    pub inflight_bytes_max: usize,
    /// Connections of clients to this node, or as many as the limit on open files leaves if that is fewer. Idle ones make
    /// room for others. 4096.
    pub clients_max: usize,
    /// One append message is cut here. 1 MiB.
    pub batch_bytes_max: usize,
    /// A session that is not used for so long, by the stamps of the log, is forgotten, and with it what its commands answered.
    /// 1 h.
    pub session_ttl: Duration,
    /// Log kept in memory; commands are refused as busy beyond. 1 GiB.
    pub log_bytes_max: usize,
    /// Bytes of log after which a snapshot is taken, or as many as the last snapshot had, if that is more: a snapshot never
    /// costs more than the log it replaces. 64 MiB.
    pub snapshot_every_bytes: usize,
    /// Entries after which a snapshot is taken, whatever their bytes. 1 000 000.
    pub snapshot_every_entries: u64,
    /// A snapshot is sent to a follower at no more than this many bytes in a second. 128 MiB.
    pub snapshot_bytes_per_second: u64,
}

/// Why a configuration cannot work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadConfig(pub String);

/// The cluster of this id, in the form in which `status()` shows it: 32 hexadecimal digits. Hyphens, as UUIDs have, are left
/// out.
pub fn cluster_id(text: &str) -> Result<ClusterId, BadConfig> {
    let digits: String = text.chars().filter(|letter| *letter != '-').collect();
    let is_hex = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = if is_hex { u128::from_str_radix(&digits, 16).ok() } else { None };
    id.map(ClusterId).filter(|id| *id != ClusterId::UNKNOWN).ok_or_else(|| {
        BadConfig(format!(
            "{text:?} is not the id of a cluster: it has 32 hexadecimal digits, and `graft status` shows it"
        ))
    })
}

impl NodeConfig {
    pub fn new(id: NodeId, address: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            id,
            address: address.into(),
            bind: None,
            metrics: None,
            insecure: false,
            data_dir: data_dir.into(),
            members: None,
            join: Vec::new(),
            election_timeout: Duration::from_millis(300),
            heartbeat: Duration::from_millis(30),
            command_bytes_max: 8 << 20,
            inflight_max: 65_536,
            inflight_bytes_max: 256 << 20,
            clients_max: 4096,
            batch_bytes_max: 1 << 20,
            session_ttl: Duration::from_hours(1),
            log_bytes_max: 1 << 30,
            snapshot_every_bytes: 64 << 20,
            snapshot_every_entries: 1_000_000,
            snapshot_bytes_per_second: 128 << 20,
        }
    }

    /// Refuses what cannot work, in words that say what would.
    pub fn check(&self) -> Result<(), BadConfig> {
        let rules = [
            (self.heartbeat < Duration::from_millis(1), "heartbeat must be at least 1 ms".to_owned()),
            (
                self.election_timeout < self.heartbeat * 3,
                format!(
                    "election_timeout ({:?}) must be at least three heartbeats ({:?} each), or followers campaign for nothing",
                    self.election_timeout, self.heartbeat
                ),
            ),
            (
                self.election_timeout > Duration::from_mins(10),
                "election_timeout must be at most ten minutes".to_owned(),
            ),
            (self.command_bytes_max == 0, "command_bytes_max must be at least 1 byte".to_owned()),
            (self.command_bytes_max > 32 << 20, "command_bytes_max must be at most 32 MiB".to_owned()),
            (self.inflight_max == 0, "inflight_max must be at least 1".to_owned()),
            (self.inflight_bytes_max == 0, "inflight_bytes_max must be at least 1 byte".to_owned()),
            (self.clients_max == 0, "clients_max must be at least 1".to_owned()),
            (self.batch_bytes_max == 0, "batch_bytes_max must be at least 1 byte".to_owned()),
            (self.batch_bytes_max > 16 << 20, "batch_bytes_max must be at most 16 MiB".to_owned()),
            (self.address.len() > 1024, "address must be at most 1024 characters".to_owned()),
            (self.session_ttl < Duration::from_secs(1), "session_ttl must be at least 1 s".to_owned()),
            (self.snapshot_every_bytes == 0, "snapshot_every_bytes must be at least 1 byte".to_owned()),
            (
                self.snapshot_every_bytes > self.log_bytes_max,
                "snapshot_every_bytes must not be more than log_bytes_max, or the log fills up before it is shortened"
                    .to_owned(),
            ),
            (self.snapshot_every_entries == 0, "snapshot_every_entries must be at least 1".to_owned()),
            (self.snapshot_bytes_per_second < 1 << 20, "snapshot_bytes_per_second must be at least 1 MiB".to_owned()),
            (
                self.members.is_some() && !self.join.is_empty(),
                "members founds a cluster and join enters one: give one of the two".to_owned(),
            ),
            (self.join.len() > 64, "join takes at most 64 addresses".to_owned()),
        ];
        let broken = rules.into_iter().find_map(|(broken, why)| broken.then_some(BadConfig(why)));
        broken.map_or(Ok(()), Err)?;
        let Some(members) = &self.members else { return Ok(()) };
        match members.get(&self.id) {
            None => Err(BadConfig(format!("members does not name this node, {:?}", self.id.as_str()))),
            Some(address) if *address != self.address => Err(BadConfig(format!(
                "members says that {} is at {address}, but address is {}; both must be the same",
                self.id, self.address
            ))),
            Some(_) if members.values().any(|address| address.ends_with(":0")) => {
                Err(BadConfig("members needs real ports: nobody can dial port 0".to_owned()))
            }
            Some(_) => Ok(()),
        }
    }

    /// The membership that the cluster is founded with, this node being at `address`.
    ///
    /// A node that is to join a cluster begins without one.
    pub fn founding(&self, address: &str) -> Membership {
        match &self.members {
            None if !self.join.is_empty() => Membership::default(),
            Some(members) => Membership::founding(members.iter().map(|(id, address)| (*id, address.as_str()))),
            None => Membership::founding([(self.id, address)]),
        }
    }
}

impl std::fmt::Display for BadConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadConfig {}
