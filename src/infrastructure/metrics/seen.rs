//! What is looked at when somebody asks for the metrics.

use graft_domain::NodeId;
use graft_services::Status;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// How a node is now.
#[derive(Debug)]
pub struct Seen<'a> {
    pub status: &'a Status,
    /// Calls that wait for an answer.
    pub waiting: usize,
    /// How many connections and calls were refused for who makes them, by what they were.
    pub refused: Vec<(&'static str, u64)>,
}

/// Every role, so that those a node has not are there as well: 0.
const ROLES: [&str; 8] =
    ["leader", "follower", "learner", "candidate", "pre-candidate", "removed", "failed", "stopped"];

type Word = [(&'static str, &'static str); 1];
type OfMember = [(&'static str, String); 1];

/// The values of one moment.
#[derive(Debug)]
pub(super) struct Gauges {
    role: Family<Word, Gauge>,
    term: Gauge,
    has_quorum: Gauge,
    last: Gauge,
    commit: Gauge,
    applied: Gauge,
    snapshot: Gauge,
    log: Gauge,
    snapshot_bytes: Gauge,
    waiting: Gauge,
    voters: Gauge,
    learners: Gauge,
    reachable: Family<OfMember, Gauge>,
    matched: Family<OfMember, Gauge>,
    expiry: Family<Vec<(String, String)>, Gauge>,
}

impl Gauges {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let (role, reachable, matched, expiry) =
            (Family::default(), Family::default(), Family::default(), Family::default());
        registry.register("role", "1 for what this node is", role.clone());
        registry.register("member_reachable", "Whether this node is connected to the member", reachable.clone());
        registry.register(
            "member_match_index",
            "Up to where a member has the log; known to the leader",
            matched.clone(),
        );
        let help = "When the certificate in use expires, since the Unix epoch";
        registry.register_with_unit("certificate_expiry_timestamp", help, Unit::Seconds, expiry.clone());
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        Self {
            role,
            term: gauge("term", "The current term"),
            has_quorum: gauge("has_quorum", "Whether a leader is known here, and reached a majority of late"),
            last: gauge("last_index", "The newest entry of the log"),
            commit: gauge("commit_index", "The newest entry that is known here to be committed"),
            applied: gauge("applied_index", "The newest entry that the machine has"),
            snapshot: gauge("snapshot_index", "The newest entry that a snapshot covers"),
            waiting: gauge("waiting_calls", "Calls on this node that wait for an answer"),
            voters: gauge("voters", "Members that vote"),
            learners: gauge("learners", "Members that do not vote"),
            log: gauge("log_bytes", "Log that is kept in memory"),
            snapshot_bytes: gauge("snapshot_bytes", "The newest snapshot's file"),
            reachable,
            matched,
            expiry,
        }
    }

    pub(super) fn show(&self, seen: &Seen<'_>) {
        let status = seen.status;
        for role in ROLES {
            self.role.get_or_create(&[("role", role)]).set(i64::from(status.role == role));
        }
        let set = |gauge: &Gauge, value: u64| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.term, status.term.0);
        set(&self.has_quorum, u64::from(status.has_quorum));
        set(&self.last, status.last.0);
        set(&self.commit, status.commit.0);
        set(&self.applied, status.applied.0);
        set(&self.snapshot, status.snapshot.0);
        set(&self.log, status.log_bytes as u64);
        set(&self.snapshot_bytes, status.snapshot_bytes.unwrap_or_default());
        set(&self.waiting, seen.waiting as u64);
        let voters = status.members.iter().filter(|member| member.voter).count();
        set(&self.voters, voters as u64);
        set(&self.learners, (status.members.len() - voters) as u64);
        // Of members that are gone nothing is said.
        self.reachable.clear();
        self.matched.clear();
        for member in &status.members {
            let label = [("member", id(member.id))];
            if let Some(reachable) = member.reachable {
                set(&self.reachable.get_or_create(&label), u64::from(reachable));
            }
            if let Some(matched) = member.matched {
                set(&self.matched.get_or_create(&label), matched.0);
            }
        }
        if let Some(life) = &status.certificate {
            self.expiry.get_or_create(&Vec::new()).set(life.expires);
        }
    }
}

fn id(id: NodeId) -> String {
    id.as_str().to_owned()
}
