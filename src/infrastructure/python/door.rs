//! The user's annotations as the door that calls from other programs come through.

use std::fmt;

use bytes::Bytes;
use graft_services::ports::{Called, Door};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::errors;
use super::machine::stay;

/// `graft._host.Host.check`.
pub(super) struct PyDoor {
    check: Py<PyAny>,
}

impl PyDoor {
    /// None if the machine takes any bytes.
    pub(super) fn of(host: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        let has_door: bool = host.getattr("checks")?.extract()?;
        has_door.then(|| Ok(Self { check: host.getattr("check")?.unbind() })).transpose()
    }

    fn call(&self, py: Python<'_>, kind: Called, bodies: &[Bytes]) -> PyResult<Vec<Option<String>>> {
        let kind = match kind {
            Called::Command => 0,
            Called::Query => 1,
        };
        let batch = PyList::new(py, bodies.iter().map(|body| PyBytes::new(py, body)))?;
        self.check.bind(py).call1((kind, batch))?.extract()
    }
}

impl Door for PyDoor {
    fn stay(&self) -> fn(&mut (dyn FnMut() + Send)) {
        stay
    }

    /// One attachment for the whole batch. Should the check itself fail, none of them will do: the log is for ever.
    fn check(&self, kind: Called, bodies: &[Bytes]) -> Vec<Option<String>> {
        Python::attach(|py| {
            let answers = self.call(py, kind, bodies).map_err(|error| errors::words(py, &error).message);
            match answers {
                Ok(answers) if answers.len() == bodies.len() => answers,
                Ok(_) => vec![Some("the check of calls has lost count".to_owned()); bodies.len()],
                Err(why) => vec![Some(format!("the call could not be checked: {why}")); bodies.len()],
            }
        })
    }
}

impl fmt::Debug for PyDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PyDoor").finish_non_exhaustive()
    }
}
