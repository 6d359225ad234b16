//! A node as Python's layer holds it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use graft_services::api::View;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::calls::NativeCalls;
use super::convert::{self, seconds};
use super::machine::PyMachine;
use super::{certificates, changes, errors, fork, logs};
use crate::infrastructure::runtime::{LinkFault, Node, NodeConfig, Source};

/// One node. It is started once and stopped once.
#[pyclass(frozen, extends = NativeCalls, module = "graft._graft")]
pub(super) struct NativeNode {
    config: NodeConfig,
    tls: Option<Source>,
    host: Py<PyAny>,
    node: OnceLock<Arc<Node>>,
    starting: Mutex<()>,
}

impl Drop for NativeNode {
    fn drop(&mut self) {
        self.node.get().into_iter().for_each(fork::keep_in_child);
    }
}

#[pymethods]
impl NativeNode {
    #[new]
    fn new(py: Python<'_>, host: Py<PyAny>, config: &Bound<'_, PyDict>) -> PyResult<PyClassInitializer<Self>> {
        let given = config.get_item("tls")?;
        let tls = given.as_ref().map_or(Ok(None), certificates::source)?;
        let config = convert::config(py, config)?;
        let node = Self { config, tls, host, node: OnceLock::new(), starting: Mutex::new(()) };
        Ok(PyClassInitializer::from(NativeCalls::new()).add_subclass(node))
    }

    /// What other members dial: `host:port`, with the real port once started.
    #[getter]
    fn address(&self) -> String {
        self.node.get().map_or_else(|| self.config.address.clone(), |node| node.address().to_owned())
    }

    /// What the node counts, as `OpenMetrics`; None if it is not started.
    fn metrics(&self, py: Python<'_>) -> PyResult<Option<String>> {
        fork::refuse_in_child(py)?;
        Ok(self.node.get().map(|node| py.detach(|| node.metrics())))
    }

    /// Where that is served: `host:port`, with the real port.
    #[getter]
    fn metrics_address(&self) -> Option<String> {
        self.node.get().and_then(|node| node.metrics_address()).map(|address| address.to_string())
    }

    /// Binds, opens the data directory and starts the threads.
    fn start(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        fork::refuse_in_child(py)?;
        logs::install();
        let machine = PyMachine::new(py, &this.host)?;
        let started = py.detach(|| {
            let Ok(_starting) = this.starting.try_lock() else { return Ok(()) };
            if this.node.get().is_some() {
                return Ok(());
            }
            let node = Node::start_secured(&this.config, Box::new(machine), this.tls.as_ref())?;
            // The lock is held and nobody was first.
            let _ = this.node.set(Arc::new(node));
            Ok(())
        });
        started.map_err(|error| errors::start(py, &error))?;
        if let Some(node) = this.node.get() {
            let _ = slf.as_super().get().api.set(Arc::<Node>::clone(node));
        }
        Ok(())
    }

    /// Hands over, answers everyone and ends the threads. False if something was left behind after `timeout` seconds.
    fn stop(&self, py: Python<'_>, timeout: f64) -> bool {
        let Some(node) = self.node.get() else { return true };
        if fork::refuse_in_child(py).is_err() {
            return true;
        }
        py.detach(|| node.stop(seconds(timeout)))
    }

    /// Ends the node as if its process were killed. False if something was left behind after `timeout` seconds.
    fn kill(&self, py: Python<'_>, timeout: f64) -> bool {
        let Some(node) = self.node.get() else { return true };
        if fork::refuse_in_child(py).is_err() {
            return true;
        }
        py.detach(|| node.kill(seconds(timeout)))
    }

    /// Faults on the ways from here to the peers at these addresses, `(cut, delay in seconds, share lost)` each, and no
    /// others.
    fn link_faults(&self, faults: BTreeMap<String, (bool, f64, f64)>, seed: u64) {
        let fault = |(cut, delay, drop)| LinkFault { cut, delay: seconds(delay), drop };
        let by_address = faults.into_iter().map(|(address, of)| (address, fault(of))).collect();
        if let Some(node) = self.node.get() {
            node.faults().set_links(by_address, seed);
        }
    }

    /// `(index, term)` of the newest entries in the log, at most `count` of them; None if the engine is busy.
    fn newest_terms(&self, py: Python<'_>, count: u64) -> Option<Vec<(u64, u64)>> {
        let node = self.node.get()?;
        let terms = py.detach(|| node.newest_terms(count))?;
        Some(terms.into_iter().map(|(index, term)| (index.0, term.0)).collect())
    }

    fn pause(&self) {
        if let Some(node) = self.node.get() {
            node.faults().pause();
        }
    }

    fn resume(&self) {
        if let Some(node) = self.node.get() {
            node.faults().resume();
        }
    }

    /// Has every write fail from now on.
    fn fail_disk(&self) {
        if let Some(node) = self.node.get() {
            node.faults().fail_disk();
        }
    }

    /// What the node says of itself, and what stands in the way of work: now, or, should its engine be busy for longer than a
    /// moment, what it said last.
    #[expect(
        unused_variables,
        reason = "a moment is always enough here; a client's look takes the time that it is given"
    )]
    fn view<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Bound<'py, PyAny>> {
        fork::refuse_in_child(py)?;
        let missing = || errors::raise(py, "STOPPED", "the node is not started: call start() first", &[]);
        let node = self.node.get().ok_or_else(missing)?;
        let busy = || vec!["the node's engine does not answer: it is ending, or very busy".to_owned()];
        let view = py.detach(|| View { status: node.status(), why: node.why().unwrap_or_else(busy) });
        changes::view(py, &view)
    }
}
