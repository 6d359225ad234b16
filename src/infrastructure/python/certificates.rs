//! Certificates, as Python's layer holds them.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use graft_services::identity::Role;

use super::errors;
use crate::infrastructure::runtime::{Authority, Pem, Source, TlsError};

/// Three texts in PEM: of the authority, the certificate, the key.
type Triple<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>, Bound<'py, PyBytes>);

/// An authority in memory.
#[pyclass(frozen, module = "graft._graft")]
pub(super) struct NativeAuthority(Authority);

#[pymethods]
impl NativeAuthority {
    #[new]
    fn new(py: Python<'_>, cluster: &str) -> PyResult<Self> {
        Authority::new(cluster).map(Self).map_err(|error| raise(py, &error))
    }

    /// For the member of this id.
    #[pyo3(signature = (id_, /))]
    fn node<'py>(&self, py: Python<'py>, id_: &str) -> PyResult<Triple<'py>> {
        self.0.node(id_).map(|pem| triple(py, &pem)).map_err(|error| raise(py, &error))
    }

    /// For a client of this name and role.
    fn client<'py>(&self, py: Python<'py>, name: &str, role: &str) -> PyResult<Triple<'py>> {
        let unknown = || TlsError(format!("role={role:?} must be \"reader\", \"writer\" or \"operator\""));
        let role = Role::parse(role).ok_or_else(unknown).map_err(|error| raise(py, &error))?;
        self.0.client(name, role).map(|pem| triple(py, &pem)).map_err(|error| raise(py, &error))
    }
}

fn triple<'py>(py: Python<'py>, pem: &Pem) -> Triple<'py> {
    (PyBytes::new(py, &pem.ca), PyBytes::new(py, &pem.cert), PyBytes::new(py, &pem.key))
}

fn raise(py: Python<'_>, error: &TlsError) -> PyErr {
    errors::raise(py, "CONFIG", &error.0, &[])
}

/// Three paths, or three texts in PEM; none for connections that are not secured.
pub(super) fn source(value: &Bound<'_, PyAny>) -> PyResult<Option<Source>> {
    if value.is_none() {
        return Ok(None);
    }
    if let Ok((ca, cert, key)) = value.extract::<(String, String, String)>() {
        return Ok(Some(Source::Files { ca: ca.into(), cert: cert.into(), key: key.into() }));
    }
    let (ca, cert, key): (Vec<u8>, Vec<u8>, Vec<u8>) = value.extract()?;
    Ok(Some(Source::Memory(Pem { ca, cert, key })))
}
