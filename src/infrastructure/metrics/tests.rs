use std::collections::BTreeSet;

use graft_domain::{ClusterId, Index, NodeId, Term};
use graft_services::{CertificateLife, Status};

use super::*;

fn status() -> Status {
    Status {
        id: NodeId::new("n1").unwrap(),
        role: "leader",
        term: Term(3),
        leader: None,
        last: Index(9),
        commit: Index(8),
        applied: Index(7),
        snapshot: Index(2),
        cluster: ClusterId(1),
        members: Vec::new(),
        has_quorum: true,
        error: None,
        error_code: None,
        membership_index: Index(1),
        former: Vec::new(),
        change: None,
        log_bytes: 4096,
        snapshot_bytes: Some(512),
        snapshot_phase: None,
        snapshot_error: None,
        trouble: None,
        certificate: Some(CertificateLife { expires: 1_800_000_000, is_expiring: false }),
    }
}

fn text(metrics: &Metrics) -> String {
    metrics.text(&Seen { status: &status(), waiting: 2, refused: vec![("connection", 5), ("link", 0)] })
}

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|found| found == line), "{line} is not among\n{text}");
}

#[test]
fn what_is_counted_and_what_is_seen_is_told() {
    let metrics = Metrics::default();
    metrics.synced(Duration::from_micros(900), 4000);
    metrics.synced(Duration::from_micros(100), 96);
    metrics.applied(Duration::from_micros(5), 32);
    metrics.called(40);
    metrics.refused(&Refusal::NoLeader, 3);
    metrics.ended(&Outcome::Refused(Refusal::Busy("x".to_owned())));
    metrics.ended(&Outcome::unknown("x"));
    metrics.noticed(&Notice::Certificate { phase: "refused", expires: 1, why: None });
    metrics.noticed(&Notice::Certificate { phase: "expiring", expires: 1, why: None });
    let text = text(&metrics);
    for line in [
        "graft_log_sync_seconds_count 2",
        "graft_log_sync_seconds_bucket{le=\"0.000128\"} 1",
        "graft_log_written_bytes_total 4096",
        "graft_apply_seconds_count 1",
        "graft_applied_commands_total 32",
        "graft_calls_total 40",
        "graft_refused_calls_total{code=\"NO_LEADER\"} 3",
        "graft_refused_calls_total{code=\"BUSY\"} 1",
        "graft_unknown_calls_total 1",
        "graft_certificate_reloads_total{result=\"refused\"} 1",
        "graft_refused_total{what=\"connection\"} 5",
        "graft_refused_total{what=\"link\"} 0",
        "graft_role{role=\"leader\"} 1",
        "graft_role{role=\"follower\"} 0",
        "graft_term 3",
        "graft_has_quorum 1",
        "graft_commit_index 8",
        "graft_waiting_calls 2",
        "graft_certificate_expiry_timestamp_seconds 1800000000",
        "# EOF",
    ] {
        has(&text, line);
    }
    assert!(!text.contains("expiring"), "{text}");
}

#[test]
fn each_metric_is_in_the_documentation_and_named_as_the_others() {
    let documentation = include_str!("../../../docs/metrics.md");
    let metrics = Metrics::default();
    let text = text(&metrics);
    let names: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(names.len() > 20, "{text}");
    for name in names {
        assert!(name.starts_with("graft_"), "{name}");
        assert!(documentation.contains(&format!("`{name}")), "docs/metrics.md does not say what {name} means");
    }
}

#[test]
fn what_has_not_happened_yet_is_told_as_none() {
    let text = text(&Metrics::default());
    for code in REFUSALS {
        has(&text, &format!("graft_refused_calls_total{{code=\"{code}\"}} 0"));
    }
    for result in SNAPSHOTS {
        has(&text, &format!("graft_snapshots_total{{result=\"{result}\"}} 0"));
    }
    for result in RELOADS {
        has(&text, &format!("graft_certificate_reloads_total{{result=\"{result}\"}} 0"));
    }
    for line in ["graft_calls_total 0", "graft_refused_total{what=\"link\"} 0", "graft_log_sync_seconds_count 0"] {
        has(&text, line);
    }
}

#[test]
fn every_refusal_of_a_node_has_its_series_from_the_beginning() {
    let why = || "why".to_owned();
    for refusal in [
        Refusal::NotLeader { leader: None },
        Refusal::NoLeader,
        Refusal::NoQuorum { reachable: 1, needed: 2 },
        Refusal::Busy(why()),
        Refusal::TooLarge { bytes: 2, limit: 1 },
        Refusal::Timeout,
        Refusal::Membership(why()),
        Refusal::Snapshot(why()),
        Refusal::Removed,
        Refusal::Stopped,
        Refusal::Halted(why()),
        Refusal::SessionExpired,
        Refusal::Denied(why()),
        Refusal::Invalid(why()),
    ] {
        assert!(REFUSALS.contains(&refusal.code()), "{}", refusal.code());
    }
}
