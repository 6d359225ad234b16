//! Between Python's values and the engine's.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use graft_domain::{Index, NodeId};
use graft_services::commands::Slot;
use graft_services::ports::{Raised, Reply};
use graft_services::{Consistency, Read};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use super::errors;
use crate::infrastructure::runtime::NodeConfig;

/// Seconds as a duration; what is negative or not a number is no time at all, what is endless a day.
pub(super) fn seconds(seconds: f64) -> Duration {
    const DAY: f64 = 86_400.0;
    if seconds > 0.0 { Duration::from_secs_f64(seconds.min(DAY)) } else { Duration::ZERO }
}

/// How fresh an answer must be: the name of a consistency, its `max_age` in seconds, the index that it must have seen.
pub(super) type ReadTuple = (String, Option<f64>, u64);

pub(super) fn read(py: Python<'_>, (consistency, max_age, at_least): &ReadTuple) -> PyResult<Read> {
    let consistency = match consistency.as_str() {
        "linearizable" => Consistency::Linearizable,
        "lease" => Consistency::Lease,
        "stale" => Consistency::Stale { max_age: max_age.map(seconds) },
        other => {
            let words = format!("consistency must be \"linearizable\", \"lease\" or \"stale\", not {other:?}");
            return Err(errors::raise(py, "CONFIG", &words, &[]));
        }
    };
    Ok(Read { consistency, at_least: Index(*at_least) })
}

/// A command's place in a session: the session, its number in there, the lowest number without an answer.
pub(super) type SlotTuple = (u64, u64, u64);

pub(super) fn slot(slot: Option<SlotTuple>) -> Option<Slot> {
    slot.map(|(session, sequence, unanswered)| Slot { session, sequence, unanswered })
}

/// What is returned where nothing is.
const NONE: &[u8] = &[0xc0];

/// Bytes are a value, a triple of texts is what was raised.
pub(super) fn reply_from_python(reply: &Bound<'_, PyAny>) -> PyResult<Reply> {
    if let Ok(bytes) = reply.cast::<PyBytes>() {
        // Most commands return None, and an allocation costs more than to look.
        let value =
            if bytes.as_bytes() == NONE { Bytes::from_static(NONE) } else { Bytes::copy_from_slice(bytes.as_bytes()) };
        return Ok(Reply::Value(value));
    }
    let (type_name, message, traceback) = reply.extract()?;
    Ok(Reply::Raised(Box::new(Raised { type_name, message, traceback })))
}

pub(super) fn reply_to_python<'py>(py: Python<'py>, reply: &Reply) -> PyResult<Bound<'py, PyAny>> {
    match reply {
        Reply::Value(bytes) => Ok(PyBytes::new(py, bytes).into_any()),
        Reply::Raised(raised) => {
            Ok(PyTuple::new(py, [&raised.type_name, &raised.message, &raised.traceback])?.into_any())
        }
    }
}

/// The engine's configuration from the flat dict that Python's layer has checked and completed.
pub(super) fn config(py: Python<'_>, dict: &Bound<'_, PyDict>) -> PyResult<NodeConfig> {
    let required = |key: &str| {
        let missing = || errors::raise(py, "CONFIG", &format!("the setting {key} is missing"), &[]);
        dict.get_item(key)?.ok_or_else(missing)
    };
    let id = node_id(py, &required("id")?.extract::<String>()?)?;
    let mut config = NodeConfig::new(
        id,
        required("address")?.extract::<String>()?,
        required("data_dir")?.extract::<std::path::PathBuf>()?,
    );
    for (key, value) in dict {
        let key: String = key.extract()?;
        match key.as_str() {
            "id" | "address" | "data_dir" | "tls" => {}
            "bind" => config.bind = value.extract()?,
            "metrics" => config.metrics = value.extract()?,
            "insecure" => config.insecure = value.extract()?,
            "members" => config.members = members(py, &value)?,
            "join" => config.join = value.extract()?,
            "snapshot_every_bytes" => config.snapshot_every_bytes = value.extract()?,
            "snapshot_every_entries" => config.snapshot_every_entries = value.extract()?,
            "snapshot_bytes_per_second" => config.snapshot_bytes_per_second = value.extract()?,
            "election_timeout" => config.election_timeout = seconds(value.extract()?),
            "heartbeat" => config.heartbeat = seconds(value.extract()?),
            "command_bytes_max" => config.command_bytes_max = value.extract()?,
            "inflight_max" => config.inflight_max = value.extract()?,
            "clients_max" => config.clients_max = value.extract()?,
            "inflight_bytes_max" => config.inflight_bytes_max = value.extract()?,
            "batch_bytes_max" => config.batch_bytes_max = value.extract()?,
            "log_bytes_max" => config.log_bytes_max = value.extract()?,
            "session_ttl" => config.session_ttl = seconds(value.extract()?),
            other => return Err(errors::raise(py, "CONFIG", &format!("the engine knows no setting {other}"), &[])),
        }
    }
    config.check().map_err(|error| errors::raise(py, "CONFIG", &error.to_string(), &[]))?;
    Ok(config)
}

pub(super) fn members(py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<Option<BTreeMap<NodeId, String>>> {
    let Some(members) = value.extract::<Option<BTreeMap<String, String>>>()? else { return Ok(None) };
    members.into_iter().map(|(id, address)| Ok((node_id(py, &id)?, address))).collect::<PyResult<_>>().map(Some)
}

pub(super) fn node_id(py: Python<'_>, id: &str) -> PyResult<NodeId> {
    NodeId::new(id).map_err(|error| errors::raise(py, "CONFIG", &format!("id {id:?}: {error}"), &[]))
}
