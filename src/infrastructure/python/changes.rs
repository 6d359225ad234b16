//! Changes of the cluster, its events and its prospects, between Python's dicts and the engine's types.

use std::time::Duration;

use graft_domain::{ClusterId, Incarnation, Index, NodeId, Target};
use graft_services::api::{Happening, View};
use graft_services::change::{Ask, Change};
use graft_services::health::{self, Trouble};
use graft_services::{MemberStatus, Notice, Status, WhatIf};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::convert::{members, node_id};
use super::errors;

/// What is to be changed: `what` names it, the other keys are its arguments.
pub(super) fn ask(py: Python<'_>, dict: &Bound<'_, PyDict>) -> PyResult<Ask> {
    let what: String = required(py, dict, "what")?;
    if what == "transfer" {
        let to = dict.get_item("to")?.and_then(|to| to.extract::<Option<String>>().transpose()).transpose()?;
        return Ok(Ask::Transfer { to: to.map(|to| node_id(py, &to)).transpose()? });
    }
    let guard = match dict.get_item("guard")? {
        Some(guard) => guard.extract::<Option<u64>>()?.map(Index),
        None => None,
    };
    Ok(Ask::Change { change: change(py, &what, dict)?, guard })
}

/// A change of the membership, and no other ask.
pub(super) fn membership_change(py: Python<'_>, dict: &Bound<'_, PyDict>) -> PyResult<Change> {
    let what: String = required(py, dict, "what")?;
    change(py, &what, dict)
}

fn change(py: Python<'_>, what: &str, dict: &Bound<'_, PyDict>) -> PyResult<Change> {
    let id = |key: &str| -> PyResult<NodeId> { node_id(py, &required::<String>(py, dict, key)?) };
    Ok(match what {
        "add" => Change::Add {
            id: id("id")?,
            address: required(py, dict, "address")?,
            voter: required(py, dict, "voter")?,
            incarnation: Incarnation::UNKNOWN,
        },
        "remove" => Change::Remove { id: id("id")? },
        "promote" => Change::Promote { id: id("id")? },
        "demote" => Change::Demote { id: id("id")? },
        "replace" => Change::Replace { old: id("old")?, new: id("new")?, address: required(py, dict, "address")? },
        "apply" => {
            let wanted = dict.get_item("members")?;
            let wanted = wanted.map(|wanted| members(py, &wanted)).transpose()?.flatten();
            Change::Apply { members: wanted.unwrap_or_default() }
        }
        "cancel" => Change::Cancel,
        other => return Err(errors::raise(py, "CONFIG", &format!("there is no change {other:?}"), &[])),
    })
}

fn required<'py, T: for<'a> FromPyObject<'a, 'py>>(
    py: Python<'py>,
    dict: &Bound<'py, PyDict>,
    key: &str,
) -> PyResult<T> {
    let missing = || errors::raise(py, "CONFIG", &format!("a change without {key:?}"), &[]);
    dict.get_item(key)?.ok_or_else(missing)?.extract().map_err(Into::into)
}

/// An event as a dict: `sequence`, `time`, `kind`, and what belongs to the kind.
pub(super) fn event<'py>(py: Python<'py>, event: &Happening) -> PyResult<Bound<'py, PyAny>> {
    let dict = PyDict::new(py);
    dict.set_item("sequence", event.sequence)?;
    dict.set_item("time", Duration::from_nanos(event.at).as_secs_f64())?;
    match &event.notice {
        Some(notice) => put_notice(&dict, notice)?,
        None => dict.set_item("kind", "stopped")?,
    }
    Ok(dict.into_any())
}

fn put_notice(dict: &Bound<'_, PyDict>, notice: &Notice) -> PyResult<()> {
    let text = |id: &Option<NodeId>| id.map(|id| id.to_string());
    match notice {
        Notice::Leader { term, leader } => {
            dict.set_item("kind", "leader")?;
            dict.set_item("term", term.0)?;
            dict.set_item("leader", text(leader))
        }
        Notice::Role { role, term } => {
            dict.set_item("kind", "role")?;
            dict.set_item("role", role)?;
            dict.set_item("term", term.0)
        }
        Notice::Membership { index, step, member, committed } => {
            dict.set_item("kind", "membership")?;
            dict.set_item("index", index.0)?;
            dict.set_item("step", step)?;
            dict.set_item("member", text(member))?;
            dict.set_item("committed", committed)
        }
        Notice::CatchUp { member, matched, last } => {
            dict.set_item("kind", "catch-up")?;
            dict.set_item("member", member.as_str())?;
            dict.set_item("matched", matched.0)?;
            dict.set_item("last", last.0)
        }
        Notice::Snapshot { phase, index, bytes, total, peer, why } => {
            dict.set_item("kind", "snapshot")?;
            dict.set_item("phase", phase)?;
            dict.set_item("index", index.0)?;
            dict.set_item("bytes", bytes)?;
            dict.set_item("total", total)?;
            dict.set_item("peer", text(peer))?;
            dict.set_item("why", why)
        }
        Notice::Link { member, connected, why } => {
            dict.set_item("kind", "link")?;
            dict.set_item("member", member.as_str())?;
            dict.set_item("connected", connected)?;
            dict.set_item("why", why)
        }
        Notice::Certificate { phase, expires, why } => {
            dict.set_item("kind", "certificate")?;
            dict.set_item("phase", phase)?;
            dict.set_item("expires", expires)?;
            dict.set_item("why", why)
        }
    }
}

pub(super) fn what_if<'py>(py: Python<'py>, outlook: &WhatIf) -> PyResult<Bound<'py, PyDict>> {
    let names = |ids: &[NodeId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    let dict = PyDict::new(py);
    dict.set_item("allowed", outlook.refused.is_none())?;
    dict.set_item("reason", &outlook.refused)?;
    dict.set_item("voters", names(&outlook.voters))?;
    dict.set_item("learners", names(&outlook.learners))?;
    dict.set_item("needed", outlook.needed)?;
    dict.set_item("alive", names(&outlook.alive))?;
    dict.set_item("tolerates", outlook.tolerates())?;
    Ok(dict)
}

/// What a node says of itself: a dict, with what is not well and what to do about it; and what stands in the way of work, in
/// sentences.
pub(super) fn view<'py>(py: Python<'py>, view: &View) -> PyResult<Bound<'py, PyAny>> {
    let status = status(py, &view.status)?;
    let troubles = health::troubles(view).into_iter().map(|Trouble { what, fix }| (what, fix));
    status.set_item("troubles", troubles.collect::<Vec<_>>())?;
    Ok((status, &view.why).into_pyobject(py)?.into_any())
}

/// What is not known is None.
fn status<'py>(py: Python<'py>, status: &Status) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let find = |id| status.members.iter().find(|member| Some(member.id) == id).map(|member| member.address.as_str());
    dict.set_item("id", status.id.as_str())?;
    dict.set_item("address", find(Some(status.id)))?;
    dict.set_item("role", status.role)?;
    dict.set_item("removed", status.role == "removed")?;
    dict.set_item("term", status.term.0)?;
    dict.set_item("leader", status.leader.map(|leader| leader.to_string()))?;
    dict.set_item("leader_address", status.leader.and_then(|leader| find(Some(leader))))?;
    dict.set_item("last_index", status.last.0)?;
    dict.set_item("commit_index", status.commit.0)?;
    dict.set_item("applied_index", status.applied.0)?;
    dict.set_item("snapshot_index", status.snapshot.0)?;
    let known = status.cluster != ClusterId::UNKNOWN;
    dict.set_item("cluster", known.then(|| status.cluster.to_string()))?;
    let members = status.members.iter().map(|found| member(py, found));
    dict.set_item("members", members.collect::<PyResult<Vec<_>>>()?)?;
    dict.set_item("membership_index", status.membership_index.0)?;
    dict.set_item("former", status.former.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    dict.set_item("change", &status.change)?;
    dict.set_item("log_bytes", status.log_bytes)?;
    dict.set_item("snapshot_bytes", status.snapshot_bytes)?;
    dict.set_item("snapshot_phase", status.snapshot_phase.map(|(phase, _)| phase))?;
    dict.set_item("snapshot_progress", status.snapshot_phase.and_then(|(_, share)| share))?;
    dict.set_item("snapshot_error", &status.snapshot_error)?;
    dict.set_item("certificate_expires", status.certificate.map(|certificate| certificate.expires))?;
    dict.set_item("error", status.error.as_deref())?;
    dict.set_item("error_code", status.error_code)?;
    dict.set_item("trouble", status.trouble.as_deref())?;
    dict.set_item("has_quorum", status.has_quorum)?;
    Ok(dict)
}

fn member<'py>(py: Python<'py>, member: &MemberStatus) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let target = match member.target {
        Target::Voter => "voter",
        Target::Learner => "learner",
        Target::Gone => "gone",
    };
    let known = member.incarnation != Incarnation::UNKNOWN;
    dict.set_item("id", member.id.as_str())?;
    dict.set_item("address", &member.address)?;
    dict.set_item("voter", member.voter)?;
    dict.set_item("target", target)?;
    dict.set_item("incarnation", known.then(|| member.incarnation.to_string()))?;
    dict.set_item("installing", member.installing)?;
    dict.set_item("match_index", member.matched.map(|index| index.0))?;
    dict.set_item("last_contact", member.last_contact.map(|contact| contact.as_secs_f64()))?;
    dict.set_item("reachable", member.reachable)?;
    dict.set_item("trouble", member.ill())?;
    Ok(dict)
}
