//! How the cluster is.

use std::time::Instant;

use graft_services::api::View;
use graft_services::health::{self, Trouble};
use graft_services::{MemberStatus, Status};
use serde_json::{Value as Json, json};

use super::failure::Failure;
use super::output::{Out, aligned};
use super::talk::{PAUSE, Talk};
use crate::infrastructure::runtime::certificates::date;

pub(super) fn status(talk: &Talk, out: &Out) -> Result<(), Failure> {
    let view = talk.view()?;
    let status = &view.status;
    let text = |id: Option<graft_domain::NodeId>| id.map_or_else(|| "nobody".to_owned(), |id| id.to_string());
    let mut rows = vec![
        row("cluster", &status.cluster.to_string()),
        row("leader", &text(status.leader)),
        row("term", &status.term.0.to_string()),
        row("majority", if status.has_quorum { "yes" } else { "no" }),
        row("seen by", &format!("{} ({})", status.id, status.role)),
        row("log", &format!("{} last, {} committed, {} applied", status.last.0, status.commit.0, status.applied.0)),
        row("snapshot", &status.snapshot.0.to_string()),
    ];
    rows.extend(
        status.certificate.map(|certificate| row("certificate", &format!("good until {}", date(certificate.expires)))),
    );
    rows.extend(status.change.iter().map(|change| row("under way", change)));
    rows.extend(status.error.iter().map(|error| row("error", error)));
    rows.extend(view.why.iter().map(|why| row("why", why)));
    let member = |member: &MemberStatus| row(member.id.as_str(), &described(status, member));
    rows.extend(status.members.iter().map(member));
    out.table(&["", ""], &rows, "status", document(&view), "members")
}

fn row(name: &str, value: &str) -> Vec<String> {
    vec![name.to_owned(), value.to_owned()]
}

fn described(status: &Status, member: &MemberStatus) -> String {
    let trouble = member.ill().into_iter().map(|trouble| format!(", {trouble}"));
    let all: String = trouble.collect();
    format!("{} {}, {}{all}", member.address, role(status, member), reachable(status, member))
}

fn role(status: &Status, member: &MemberStatus) -> &'static str {
    match (status.leader == Some(member.id), member.voter) {
        (true, _) => "leader",
        (false, true) => "voter",
        (false, false) => "learner",
    }
}

fn reachable(status: &Status, member: &MemberStatus) -> &'static str {
    match member.reachable {
        _ if member.id == status.id => "reachable",
        Some(true) => "reachable",
        Some(false) => "not reachable",
        None => "not known to be reachable",
    }
}

fn lag(status: &Status, member: &MemberStatus) -> Option<u64> {
    member.matched.map(|matched| status.last.0.saturating_sub(matched.0))
}

pub(super) fn document(view: &View) -> Json {
    let status = &view.status;
    let member = |member: &MemberStatus| {
        json!({
            "id": member.id.to_string(),
            "address": member.address,
            "role": role(status, member),
            "voter": member.voter,
            "reachable": if member.id == status.id { Some(true) } else { member.reachable },
            "match_index": member.matched.map(|index| index.0.to_string()),
            "lag": lag(status, member),
            "last_contact_seconds": member.last_contact.map(|time| time.as_secs_f64()),
            "trouble": member.ill(),
        })
    };
    json!({
        "cluster": status.cluster.to_string(),
        "id": status.id.to_string(),
        "role": status.role,
        "term": status.term.0.to_string(),
        "leader": status.leader.map(|id| id.to_string()),
        "has_quorum": status.has_quorum,
        "last_index": status.last.0.to_string(),
        "commit_index": status.commit.0.to_string(),
        "applied_index": status.applied.0.to_string(),
        "snapshot_index": status.snapshot.0.to_string(),
        "certificate_expires": status.certificate.map(|certificate| certificate.expires),
        "change": status.change,
        "error": status.error,
        "why": view.why,
        "members": status.members.iter().map(member).collect::<Json>(),
    })
}

const MEMBER_HEADS: [&str; 5] = ["id", "address", "role", "reachable", "lag"];

pub(super) fn members(talk: &Talk, out: &Out) -> Result<(), Failure> {
    tell_members(&talk.view_of_cluster()?, out)
}

/// The members as a table for people.
pub(super) fn members_table(view: &View) -> String {
    aligned(&MEMBER_HEADS, &member_rows(&view.status))
}

pub(super) fn tell_members(view: &View, out: &Out) -> Result<(), Failure> {
    let whole = document(view);
    let document = json!({ "cluster": whole["cluster"], "change": whole["change"], "members": whole["members"] });
    out.table(&MEMBER_HEADS, &member_rows(&view.status), "members", document, "members")
}

fn member_rows(status: &Status) -> Vec<Vec<String>> {
    let row = |member: &MemberStatus| {
        vec![
            member.id.to_string(),
            member.address.clone(),
            role(status, member).to_owned(),
            reachable(status, member).to_owned(),
            lag(status, member).map_or_else(String::new, |lag| lag.to_string()),
        ]
    };
    status.members.iter().map(row).collect()
}

pub(super) fn leader(talk: &Talk, out: &Out) -> Result<(), Failure> {
    let view = talk.view()?;
    let status = &view.status;
    let leads = status.members.iter().find(|member| status.leader == Some(member.id));
    let leader = leads.ok_or_else(|| Failure::new("NO_LEADER", sentence(&view)))?;
    let document = json!({
        "id": leader.id.to_string(), "address": leader.address, "term": status.term.0.to_string(),
    });
    out.done(&format!("{} {}", leader.id, leader.address), "leader", document)
}

pub(super) fn why(talk: &Talk, out: &Out) -> Result<(), Failure> {
    let view = talk.view()?;
    let words = if view.why.is_empty() { "all is well".to_owned() } else { view.why.join("\n") };
    out.done(&words, "why", json!({ "why": view.why }))
}

fn sentence(view: &View) -> String {
    if view.why.is_empty() { "the cluster has no leader".to_owned() } else { view.why.join("; ") }
}

pub(super) fn health(talk: &Talk, out: &Out, wait: Option<f64>) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        let is_late = wait.is_none_or(|seconds| begun.elapsed().as_secs_f64() >= seconds);
        match talk.view().map(|view| health::troubles(&view)) {
            Err(failure) if is_late => return Err(failure),
            Ok(troubles) if is_late || troubles.is_empty() => return tell_health(out, &troubles),
            _ => std::thread::sleep(PAUSE),
        }
    }
}

fn tell_health(out: &Out, troubles: &[Trouble]) -> Result<(), Failure> {
    let healthy = troubles.is_empty();
    let lines: Vec<String> = troubles.iter().map(ToString::to_string).collect();
    let words = if healthy { "healthy".to_owned() } else { lines.join("\n") };
    let list: Vec<_> = troubles.iter().map(|Trouble { what, fix }| json!({ "what": what, "fix": fix })).collect();
    out.done(&words, "health", json!({ "healthy": healthy, "troubles": list }))?;
    if healthy { Ok(()) } else { Err(Failure::new("UNHEALTHY", format!("{} thing(s) are not well", troubles.len()))) }
}
