//! Certificates, as Python's layer holds them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use graft_services::identity::{Identity, Role};

use super::errors;
use crate::infrastructure::runtime::certificates::{Depot, Files};
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
        self.0.client(name, self::role(py, role)?).map(|pem| triple(py, &pem)).map_err(|error| raise(py, &error))
    }
}

/// An authority in a directory.
#[pyclass(frozen, module = "graft._graft")]
pub(super) struct NativeDepot(Mutex<Depot>);

/// Three paths: of the authority, the certificate, the key.
type Paths = (PathBuf, PathBuf, PathBuf);

#[pymethods]
impl NativeDepot {
    #[staticmethod]
    #[expect(clippy::needless_pass_by_value, reason = "arguments of Python's come by value")]
    fn create(py: Python<'_>, directory: PathBuf, cluster: &str) -> PyResult<Self> {
        Depot::create(&directory, cluster).map(Self::of).map_err(|error| raise(py, &error))
    }

    #[staticmethod]
    #[expect(clippy::needless_pass_by_value, reason = "arguments of Python's come by value")]
    fn load(py: Python<'_>, directory: PathBuf) -> PyResult<Self> {
        Depot::load(&directory).map(Self::of).map_err(|error| raise(py, &error))
    }

    #[getter]
    fn cluster(&self) -> String {
        self.depot().cluster().to_owned()
    }

    #[pyo3(signature = (id_, /))]
    fn node(&self, py: Python<'_>, id_: &str) -> PyResult<Paths> {
        self.depot().node(id_).map(paths).map_err(|error| raise(py, &error))
    }

    fn client(&self, py: Python<'_>, name: &str, role: &str) -> PyResult<Paths> {
        self.depot().client(name, self::role(py, role)?).map(paths).map_err(|error| raise(py, &error))
    }

    /// The names of what was renewed.
    #[expect(clippy::needless_pass_by_value, reason = "arguments of Python's come by value")]
    fn renew(&self, py: Python<'_>, certs: Vec<PathBuf>) -> PyResult<Vec<String>> {
        let renewed = self.depot().renew(&certs).map_err(|error| raise(py, &error))?;
        Ok(renewed.into_iter().map(|(identity, _)| identity.to_string()).collect())
    }

    fn rotate(&self, py: Python<'_>) -> PyResult<()> {
        self.depot().rotate().map_err(|error| raise(py, &error))
    }

    fn retire(&self, py: Python<'_>) -> PyResult<()> {
        self.depot().retire().map_err(|error| raise(py, &error))
    }
}

impl NativeDepot {
    fn of(depot: Depot) -> Self {
        Self(Mutex::new(depot))
    }

    fn depot(&self) -> MutexGuard<'_, Depot> {
        // What it holds is whole between any two steps.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn paths(files: Files) -> Paths {
    (files.ca, files.cert, files.key)
}

fn role(py: Python<'_>, role: &str) -> PyResult<Role> {
    let unknown = || TlsError(format!("role={role:?} must be \"reader\", \"writer\" or \"operator\""));
    Role::parse(role).ok_or_else(unknown).map_err(|error| raise(py, &error))
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
    let (material, names): (Bound<'_, PyAny>, BTreeMap<String, String>) = value.extract()?;
    let source = if let Ok((ca, cert, key)) = material.extract::<(String, String, String)>() {
        Source::Files { ca: ca.into(), cert: cert.into(), key: key.into() }
    } else {
        let (ca, cert, key): (Vec<u8>, Vec<u8>, Vec<u8>) = material.extract()?;
        Source::Memory(Pem { ca, cert, key })
    };
    if names.is_empty() {
        return Ok(Some(source));
    }
    let known = |(name, uri): (String, String)| {
        let wrong = |why| errors::raise(value.py(), "CONFIG", &format!("names[{name:?}]={uri:?}: {why}"), &[]);
        Identity::parse(&uri).map_err(wrong).map(|identity| (name.clone(), identity))
    };
    let names = names.into_iter().map(known).collect::<PyResult<_>>()?;
    Ok(Some(Source::Listed(Box::new(source), names)))
}
