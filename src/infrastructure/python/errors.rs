//! Errors become the classes of `graft._errors`, by their codes.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict};

use graft_services::error::{Outcome, Refusal};
use graft_services::identity::is_for_want_of_a_role;
use graft_services::ports::{Raised, Reply, StoreError};

use super::convert::reply_to_python;
use crate::infrastructure::runtime::{BindError, StartError};

/// A value among an error's details.
pub(super) enum Detail {
    Text(String),
    Number(u64),
}

/// The exception object of this code.
pub(super) fn object<'py>(
    py: Python<'py>,
    code: &str,
    message: &str,
    details: &[(&str, Detail)],
) -> PyResult<Bound<'py, PyAny>> {
    static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let make = MAKE.import(py, "graft._errors", "_native")?;
    let dict = PyDict::new(py);
    for (name, detail) in details {
        match detail {
            Detail::Text(text) => dict.set_item(name, text)?,
            Detail::Number(number) => dict.set_item(name, number)?,
        }
    }
    make.call1((code, message, dict))
}

pub(super) fn raise(py: Python<'_>, code: &str, message: &str, details: &[(&str, Detail)]) -> PyErr {
    object(py, code, message, details).map_or_else(|error| error, PyErr::from_value)
}

pub(super) fn refusal<'py>(py: Python<'py>, refusal: &Refusal) -> PyResult<Bound<'py, PyAny>> {
    let number = |number: usize| Detail::Number(number as u64);
    let details = match refusal {
        Refusal::NotLeader { leader } => leader.iter().map(|id| ("leader", Detail::Text(id.to_string()))).collect(),
        Refusal::NoQuorum { reachable, needed } => vec![("reachable", number(*reachable)), ("needed", number(*needed))],
        Refusal::TooLarge { bytes, limit } => {
            vec![("bytes", Detail::Number(*bytes)), ("limit", Detail::Number(*limit))]
        }
        Refusal::Strange(_) => {
            let fix =
                "correct the addresses, or `cluster=` if it was given; after a restore or a recovery make a new client";
            vec![("fix", Detail::Text(fix.to_owned()))]
        }
        Refusal::Denied(why) if is_for_want_of_a_role(why) => {
            let fix = "use a certificate of the role that the message names, or of one above it (reader, writer, operator): \
                       `graft tls client NAME --role ROLE` makes one";
            vec![("fix", Detail::Text(fix.to_owned()))]
        }
        _ => vec![],
    };
    object(py, refusal.code(), &refusal.to_string(), &details)
}

/// What a call answers: `(reply, index, term)`, or the exception to raise.
pub(super) fn outcome(py: Python<'_>, outcome: Outcome) -> PyResult<Result<Bound<'_, PyAny>, Bound<'_, PyAny>>> {
    match outcome {
        Outcome::Done { index, term, reply } => {
            let reply = reply_to_python(py, &reply)?;
            Ok(Ok((reply, index.0, term.0).into_pyobject(py)?.into_any()))
        }
        Outcome::Refused(why) => Ok(Err(refusal(py, &why)?)),
        Outcome::Compared { index, digests } => {
            let all = PyDict::new(py);
            for (id, digest) in digests {
                match digest {
                    Ok(bytes) => all.set_item(id.as_str(), PyBytes::new(py, &bytes))?,
                    Err(why) => all.set_item(id.as_str(), why)?,
                }
            }
            Ok(Ok((all, index.0, 0_u64).into_pyobject(py)?.into_any()))
        }
        Outcome::Unknown { why, slot } => {
            let mut details = Vec::new();
            if let Some(slot) = slot {
                details.push(("session", Detail::Number(slot.session)));
                details.push(("sequence", Detail::Number(slot.sequence)));
                details.push(("unanswered", Detail::Number(slot.unanswered)));
            }
            Ok(Err(object(py, "UNKNOWN_OUTCOME", &format!("the outcome is not known: {why}"), &details)?))
        }
    }
}

pub(super) fn start(py: Python<'_>, error: &StartError) -> PyErr {
    let words = error.to_string();
    match error {
        StartError::Bind(BindError::InUse { .. }) => raise(py, "ADDRESS_IN_USE", &words, &[]),
        StartError::Config(_) | StartError::Bind(_) => raise(py, "CONFIG", &words, &[]),
        StartError::Tls(_) => raise(py, "TLS", &words, &[]),
        StartError::Insecure(..) => raise(py, "INSECURE", &words, &[]),
        StartError::Contradicted(_) => raise(py, "CLUSTER_MISMATCH", &words, &[]),
        StartError::Machine(_) => raise(py, "HALTED", &words, &[]),
        StartError::Store(error) => store(py, error),
        StartError::Io { .. } => raise(py, "STORAGE", &words, &[]),
    }
}

pub(super) fn store(py: Python<'_>, error: &StoreError) -> PyErr {
    store_with(py, error, None)
}

/// With other advice than that of its class.
pub(super) fn store_with(py: Python<'_>, error: &StoreError, fix: Option<&str>) -> PyErr {
    let words = error.to_string();
    let fix = fix.map(|fix| ("fix", Detail::Text(fix.to_owned())));
    match error {
        StoreError::Corrupt { file, offset, .. } => {
            let details = [("file", Detail::Text(file.clone())), ("offset", Detail::Number(*offset))];
            raise(py, "CORRUPTION", &words, &details.into_iter().chain(fix).collect::<Vec<_>>())
        }
        StoreError::Locked { .. } => {
            let fix = "stop that process, or give this node a data_dir of its own";
            raise(py, "STORAGE", &words, &[("fix", Detail::Text(fix.to_owned()))])
        }
        StoreError::WrongNode { .. } => raise(py, "IDENTITY_MISMATCH", &words, &[]),
        _ => raise(py, "STORAGE", &words, &Vec::from_iter(fix)),
    }
}

/// An exception in words, for peers and logs.
pub(super) fn words(py: Python<'_>, error: &PyErr) -> Raised {
    let traceback = error.traceback(py).and_then(|traceback| traceback.format().ok()).unwrap_or_default();
    let type_name = error.get_type(py).name().map_or_else(|_| "Exception".to_owned(), |name| name.to_string());
    let message = error.value(py).to_string();
    Raised { traceback: format!("{traceback}{type_name}: {message}"), type_name, message }
}

/// What was raised, the words first and then where; where what was raised says that itself, the words alone.
pub(super) fn told(py: Python<'_>, error: &PyErr) -> String {
    let Raised { type_name, message, traceback } = words(py, error);
    if message.contains("\nTraceback ") { message } else { format!("{type_name}: {message}\n{traceback}") }
}

/// The reply that stands for an exception where none was expected.
pub(super) fn raised(py: Python<'_>, error: &PyErr) -> Reply {
    Reply::Raised(Box::new(words(py, error)))
}
