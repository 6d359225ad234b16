//! Work on data directories that no node runs in, as Python's layer asks for it.

use std::path::{Path, PathBuf};

use graft_services::ports::StoreError;
use graft_services::snapshot_meta::SnapshotMeta;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::errors;
use crate::infrastructure::runtime::offline::{self, OfflineError, Wreck};

/// `(index, term, seconds since the epoch of the newest command, bytes of the file)`.
type Kept = (u64, u64, f64, u64);

/// Reads all of a backup, and says what it is one of.
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "arguments of Python's come by value")]
pub(super) fn verify_backup(py: Python<'_>, path: PathBuf) -> PyResult<Kept> {
    let verified = py.detach(|| offline::verify_backup(&path));
    verified.map(|(meta, bytes)| kept(&meta, bytes)).map_err(|error| of_backup(py, &error, &path))
}

/// Makes `data_dir` one that begins with the state of a backup.
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "arguments of Python's come by value")]
pub(super) fn restore(py: Python<'_>, path: PathBuf, data_dir: PathBuf) -> PyResult<Kept> {
    let restored = py.detach(|| {
        let meta = offline::restore(&path, &data_dir)?;
        let bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
        Ok::<_, StoreError>((meta, bytes))
    });
    restored.map(|(meta, bytes)| kept(&meta, bytes)).map_err(|error| of_backup(py, &error, &path))
}

fn of_backup(py: Python<'_>, error: &StoreError, backup: &Path) -> PyErr {
    errors::store_with(py, error, offline::advice_on_backup(error, backup))
}

fn kept(meta: &SnapshotMeta, bytes: u64) -> Kept {
    let time = std::time::Duration::from_nanos(meta.time).as_secs_f64();
    (meta.last.index.0, meta.last.term.0, time, bytes)
}

/// What is left of a cluster in these directories, as a dict. With `into` the best of it goes on there, unless a majority is
/// left and it is not forced: then `recovered` says as what, and is None otherwise.
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "arguments of Python's come by value")]
pub(super) fn recover(
    py: Python<'_>,
    data_dirs: Vec<PathBuf>,
    into: Option<PathBuf>,
    id_: Option<String>,
    address: Option<String>,
    force: bool,
) -> PyResult<Bound<'_, PyDict>> {
    let (wreck, recovered) = py
        .detach(|| {
            let wreck = Wreck::look(&data_dirs)?;
            let target = into.filter(|_| force || !wreck.verdict.is_quorum);
            let recovered = target.map(|target| wreck.recover(&target, id_.as_deref(), address.as_deref()));
            Ok((wreck, recovered.transpose()?))
        })
        .map_err(|error| raise(py, &error))?;
    let dict = PyDict::new(py);
    let mut survivors = Vec::new();
    for survivor in &wreck.survivors {
        let one = PyDict::new(py);
        let remains = &survivor.remains;
        one.set_item("data_dir", &survivor.directory)?;
        one.set_item("id", remains.id.as_str())?;
        one.set_item("last_index", remains.last.index.0)?;
        one.set_item("last_term", remains.last.term.0)?;
        one.set_item("commit_index", remains.commit.0)?;
        one.set_item("snapshot_index", survivor.snapshot().map_or(0, |(last, _)| last.index.0))?;
        survivors.push(one);
    }
    dict.set_item("survivors", survivors)?;
    dict.set_item("best", wreck.verdict.best)?;
    dict.set_item("missing", wreck.verdict.missing.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    dict.set_item("is_quorum", wreck.verdict.is_quorum)?;
    dict.set_item("is_complete", wreck.verdict.is_complete)?;
    let recovered = recovered.map(|recovered| {
        (recovered.id.to_string(), recovered.address, recovered.cluster.to_string(), recovered.last.index.0)
    });
    dict.set_item("recovered", recovered)?;
    Ok(dict)
}

fn raise(py: Python<'_>, error: &OfflineError) -> PyErr {
    match error {
        OfflineError::Store(error) => errors::store(py, error),
        OfflineError::Refused(why) => errors::raise(py, "CONFIG", why, &[]),
        OfflineError::Start(error) => errors::start(py, error),
    }
}
