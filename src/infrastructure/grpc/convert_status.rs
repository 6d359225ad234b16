//! What a node says of itself, between its form in the services and its form on the wire.

use std::time::Duration;

use graft_domain::{Incarnation, Index, NodeId, Target, Term};
use graft_services::api::View;
use graft_services::{CertificateLife, MemberStatus, Status, WhatIf};

use super::convert::{BadFrame, few, node_id};
use super::failure::LeaderHint;
use super::handshake::{decode_cluster, encode_cluster};
use super::{wire, words};

pub(super) fn encode(view: View) -> wire::StatusResponse {
    let View { status, why } = view;
    let (snapshot_phase, snapshot_share) = status.snapshot_phase.unzip();
    wire::StatusResponse {
        id: text(status.id),
        role: status.role.to_owned(),
        term: status.term.0,
        leader: status.leader.map(text).unwrap_or_default(),
        last: status.last.0,
        commit: status.commit.0,
        applied: status.applied.0,
        snapshot: status.snapshot.0,
        cluster: encode_cluster(status.cluster),
        members: encode_members(status.members),
        has_quorum: status.has_quorum,
        error: status.error,
        error_code: status.error_code.map(str::to_owned),
        membership_index: status.membership_index.0,
        former: texts(status.former),
        change: status.change,
        log_bytes: status.log_bytes as u64,
        snapshot_bytes: status.snapshot_bytes,
        snapshot_phase: snapshot_phase.map(str::to_owned),
        snapshot_share: snapshot_share.flatten(),
        snapshot_error: status.snapshot_error,
        trouble: status.trouble,
        certificate_expires: status.certificate.map(|certificate| certificate.expires),
        certificate_expiring: status.certificate.is_some_and(|certificate| certificate.is_expiring),
        why,
    }
}

pub(super) fn decode(said: wire::StatusResponse) -> Result<View, BadFrame> {
    let phase = said.snapshot_phase.map(|phase| words::known(&phase, words::PHASES));
    let status = Status {
        id: node_id(&said.id)?,
        role: words::known(&said.role, words::ROLES),
        term: Term(said.term),
        leader: optional_id(&said.leader)?,
        last: Index(said.last),
        commit: Index(said.commit),
        applied: Index(said.applied),
        snapshot: Index(said.snapshot),
        cluster: decode_cluster(&said.cluster).ok_or(BadFrame::Empty("cluster id"))?,
        members: decode_members(said.members)?,
        has_quorum: said.has_quorum,
        error: said.error,
        error_code: said.error_code.map(|code| words::known(&code, words::ERROR_CODES)),
        membership_index: Index(said.membership_index),
        former: ids("former members", &said.former)?,
        change: said.change,
        log_bytes: usize::try_from(said.log_bytes).unwrap_or(usize::MAX),
        snapshot_bytes: said.snapshot_bytes,
        snapshot_phase: phase.map(|phase| (phase, said.snapshot_share)),
        snapshot_error: said.snapshot_error,
        trouble: said.trouble,
        certificate: said
            .certificate_expires
            .map(|expires| CertificateLife { expires, is_expiring: said.certificate_expiring }),
    };
    few("reasons", said.why.len())?;
    Ok(View { status, why: said.why })
}

/// Where the leader is, as far as this node knows.
pub(super) fn leader_of(status: &Status) -> Option<LeaderHint> {
    let id = status.leader?;
    let member = status.members.iter().find(|member| member.id == id)?;
    Some(LeaderHint { id, address: member.address.clone() })
}

pub(super) fn encode_members(members: Vec<MemberStatus>) -> Vec<wire::MemberStatus> {
    members.into_iter().map(encode_member).collect()
}

pub(super) fn decode_members(members: Vec<wire::MemberStatus>) -> Result<Vec<MemberStatus>, BadFrame> {
    few("members", members.len())?;
    members.into_iter().map(decode_member).collect()
}

fn encode_member(member: MemberStatus) -> wire::MemberStatus {
    let target = match member.target {
        Target::Voter => "voter",
        Target::Learner => "learner",
        Target::Gone => "gone",
    };
    let (sent, sent_total) = member.sent.unzip();
    wire::MemberStatus {
        id: text(member.id),
        address: member.address,
        voter: member.voter,
        target: target.to_owned(),
        incarnation: member.incarnation.0,
        installing: member.installing,
        sent,
        sent_total,
        matched: member.matched.map(|index| index.0),
        last_contact: member.last_contact.map(nanos),
        reachable: member.reachable,
        trouble: member.trouble,
        difference: member.difference,
    }
}

fn decode_member(member: wire::MemberStatus) -> Result<MemberStatus, BadFrame> {
    let target = match member.target.as_str() {
        "voter" => Target::Voter,
        "learner" => Target::Learner,
        "gone" => Target::Gone,
        _ => return Err(BadFrame::Empty("target of a member")),
    };
    Ok(MemberStatus {
        id: node_id(&member.id)?,
        address: member.address,
        voter: member.voter,
        target,
        incarnation: Incarnation(member.incarnation),
        installing: member.installing,
        sent: member.sent.zip(member.sent_total),
        matched: member.matched.map(Index),
        last_contact: member.last_contact.map(Duration::from_nanos),
        reachable: member.reachable,
        trouble: member.trouble,
        difference: member.difference,
    })
}

pub(super) fn encode_what_if(outlook: WhatIf) -> wire::WhatIfResponse {
    wire::WhatIfResponse {
        refused: outlook.refused,
        voters: texts(outlook.voters),
        learners: texts(outlook.learners),
        needed: outlook.needed as u64,
        alive: texts(outlook.alive),
    }
}

pub(super) fn decode_what_if(said: wire::WhatIfResponse) -> Result<WhatIf, BadFrame> {
    Ok(WhatIf {
        refused: said.refused,
        voters: ids("voters", &said.voters)?,
        learners: ids("learners", &said.learners)?,
        needed: usize::try_from(said.needed).unwrap_or(usize::MAX),
        alive: ids("voters", &said.alive)?,
    })
}

pub(super) fn text(id: NodeId) -> String {
    id.as_str().to_owned()
}

fn texts(ids: Vec<NodeId>) -> Vec<String> {
    ids.into_iter().map(text).collect()
}

/// Empty for none.
pub(super) fn optional_id(text: &str) -> Result<Option<NodeId>, BadFrame> {
    if text.is_empty() { Ok(None) } else { node_id(text).map(Some) }
}

fn ids(what: &'static str, texts: &[String]) -> Result<Vec<NodeId>, BadFrame> {
    few(what, texts.len())?;
    texts.iter().map(|text| node_id(text)).collect()
}

/// As many as there is room for: half a millennium.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "tests/convert_status.rs"]
mod tests;
