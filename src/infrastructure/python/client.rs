//! A client as Python's layer holds it.

use std::sync::Arc;

use graft_services::api::Api;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::calls::NativeCalls;
use super::convert::seconds;
use super::{certificates, errors, fork, logs};
use crate::infrastructure::runtime::{Client, ClientConfig, cluster_id};

/// A client of a cluster, open from the beginning until it is closed.
#[pyclass(frozen, extends = NativeCalls, module = "graft._graft")]
pub(super) struct NativeClient {
    client: Arc<Client>,
}

#[pymethods]
impl NativeClient {
    /// `config` has `endpoints`, a list of addresses, `cluster`, the id of theirs or None, and `session_ttl`, in seconds or
    /// None. Connects in the background.
    #[new]
    fn new(py: Python<'_>, config: &Bound<'_, PyDict>) -> PyResult<PyClassInitializer<Self>> {
        fork::refuse_in_child(py)?;
        logs::install();
        let config = client_config(py, config)?;
        let client = Arc::new(py.detach(|| Client::start(config)).map_err(|error| errors::start(py, &error))?);
        let api: Arc<dyn Api> = Arc::<Client>::clone(&client);
        let calls = NativeCalls { api: api.into() };
        Ok(PyClassInitializer::from(calls).add_subclass(Self { client }))
    }

    /// Waits a little for calls under way, answers everyone and closes the connections. False if something was left behind
    /// after `timeout` seconds.
    fn close(&self, py: Python<'_>, timeout: f64) -> bool {
        if fork::refuse_in_child(py).is_err() {
            return true;
        }
        py.detach(|| self.client.close(seconds(timeout)))
    }
}

impl Drop for NativeClient {
    fn drop(&mut self) {
        fork::keep_in_child(&self.client);
    }
}

fn client_config(py: Python<'_>, dict: &Bound<'_, PyDict>) -> PyResult<ClientConfig> {
    let mut config = ClientConfig::new(Vec::<String>::new());
    for (key, value) in dict {
        let key: String = key.extract()?;
        match key.as_str() {
            "endpoints" => config.endpoints = value.extract()?,
            "cluster" => {
                if let Some(text) = value.extract::<Option<String>>()? {
                    config.cluster = cluster_id(&text).map_err(|bad| errors::raise(py, "CONFIG", &bad.0, &[]))?;
                }
            }
            "tls" => config.tls = certificates::source(&value)?,
            "insecure" => config.insecure = value.extract()?,
            "session_ttl" => config.session_ttl = value.extract::<Option<f64>>()?.map(seconds),
            other => return Err(errors::raise(py, "CONFIG", &format!("a client knows no setting {other}"), &[])),
        }
    }
    Ok(config)
}
