//! A node as Python's layer holds it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use graft_services::error::Outcome;
use graft_services::{MemberStatus, Status};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use super::completions::Completions;
use super::convert::{self, seconds};
use super::machine::{PyMachine, is_machine_thread};
use super::{errors, fork, logs};
use crate::infrastructure::runtime::{Caller, Kind, Node, NodeConfig, Waiting, until};

/// How long a waiting call sleeps before it looks for signals, so that Ctrl-C is answered.
const SLICE: Duration = Duration::from_millis(50);
/// How long a call waits for its engine beyond the deadline that the engine keeps.
const GRACE: Duration = Duration::from_secs(1);

/// Numbers the nodes of this process, to tell whose machine a thread runs.
static NODES: AtomicU64 = AtomicU64::new(1);

/// One node. It is started once and stopped once.
#[pyclass(frozen, module = "graft._graft")]
pub(super) struct NativeNode {
    number: u64,
    config: NodeConfig,
    host: Py<PyAny>,
    node: OnceLock<Arc<Node>>,
    starting: Mutex<()>,
}

#[pymethods]
impl NativeNode {
    #[new]
    fn new(py: Python<'_>, host: Py<PyAny>, config: &Bound<'_, PyDict>) -> PyResult<Self> {
        let config = convert::config(py, config)?;
        let number = NODES.fetch_add(1, Ordering::Relaxed);
        Ok(Self { number, config, host, node: OnceLock::new(), starting: Mutex::new(()) })
    }

    /// What other members dial: `host:port`, with the real port once started.
    #[getter]
    fn address(&self) -> String {
        self.node.get().map_or_else(|| self.config.address.clone(), |node| node.address().to_owned())
    }

    /// Binds, opens the data directory and starts the threads.
    fn start(&self, py: Python<'_>) -> PyResult<()> {
        fork::refuse_in_child(py)?;
        logs::install();
        let machine = PyMachine::new(py, &self.host, self.number)?;
        let started = py.detach(|| {
            let Ok(_starting) = self.starting.try_lock() else { return Ok(()) };
            if self.node.get().is_some() {
                return Ok(());
            }
            let node = Node::start(&self.config, Box::new(machine))?;
            // The lock is held and nobody was first.
            let _ = self.node.set(Arc::new(node));
            Ok(())
        });
        started.map_err(|error| errors::start(py, &error))
    }

    /// Hands over, answers everyone and ends the threads. False if something was left behind after `timeout` seconds.
    fn stop(&self, py: Python<'_>, timeout: f64) -> bool {
        let Some(node) = self.node.get() else { return true };
        if fork::refuse_in_child(py).is_err() {
            return true;
        }
        py.detach(|| node.stop(seconds(timeout)))
    }

    /// Replicates a command and answers `(reply, index, term)`. Ctrl-C is answered within 50 ms.
    fn execute<'py>(&self, py: Python<'py>, body: &[u8], timeout: f64) -> PyResult<Bound<'py, PyAny>> {
        self.call(py, Kind::Execute, body, timeout)
    }

    /// Asks the machine; `consistency` is "linearizable" or "stale".
    fn query<'py>(&self, py: Python<'py>, body: &[u8], timeout: f64, consistency: &str) -> PyResult<Bound<'py, PyAny>> {
        let consistency = convert::consistency(py, consistency)?;
        self.call(py, Kind::Query(consistency), body, timeout)
    }

    /// Replicates many commands at once, in this order. Each answer is as that of `execute`, or the exception itself.
    fn execute_many<'py>(
        &self,
        py: Python<'py>,
        bodies: &Bound<'py, PyList>,
        timeout: f64,
    ) -> PyResult<Bound<'py, PyList>> {
        let copy = |body: Bound<'_, PyAny>| Ok(Bytes::copy_from_slice(body.cast::<PyBytes>()?.as_bytes()));
        let bodies = bodies.iter().map(copy).collect::<PyResult<_>>()?;
        let answers = self.wait(py, Kind::Execute, bodies, timeout)?;
        let list = PyList::empty(py);
        for answer in answers {
            list.append(errors::outcome(py, answer)?.unwrap_or_else(|exception| exception))?;
        }
        Ok(list)
    }

    /// Hands over a call (kind 0 a command, 1 a query) whose answer goes to `queue` under `token`. Never blocks.
    #[expect(clippy::too_many_arguments, reason = "the call of one Python method; a struct would be built for each")]
    fn submit(
        &self,
        py: Python<'_>,
        kind: u8,
        body: &[u8],
        timeout: f64,
        consistency: &str,
        queue: &Completions,
        token: u64,
    ) -> PyResult<()> {
        let kind = match kind {
            0 => Kind::Execute,
            1 => Kind::Query(convert::consistency(py, consistency)?),
            other => return Err(pyo3::exceptions::PyValueError::new_err(format!("kind must be 0 or 1, not {other}"))),
        };
        let node = self.running(py)?;
        let sink = Arc::clone(&queue.queue);
        let calls = vec![(Bytes::copy_from_slice(body), Caller { sink, token })];
        node.submit(kind, calls, Instant::now() + seconds(timeout));
        Ok(())
    }

    /// What the node says of itself, as a dict; what is not known is None.
    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let node = Arc::clone(self.running(py)?);
        let status = py.detach(|| node.status());
        status_to_python(py, &status)
    }
}

impl NativeNode {
    fn running(&self, py: Python<'_>) -> PyResult<&Arc<Node>> {
        fork::refuse_in_child(py)?;
        self.node.get().ok_or_else(|| errors::raise(py, "STOPPED", "the node is not started: call start() first", &[]))
    }

    fn call<'py>(&self, py: Python<'py>, kind: Kind, body: &[u8], timeout: f64) -> PyResult<Bound<'py, PyAny>> {
        let mut answers = self.wait(py, kind, vec![Bytes::copy_from_slice(body)], timeout)?;
        let unanswered = || Outcome::Unknown("the engine gave no answer".to_owned());
        errors::outcome(py, answers.pop().unwrap_or_else(unanswered))?.map_err(PyErr::from_value)
    }

    /// Waits for the answers, detached, in slices.
    fn wait(&self, py: Python<'_>, kind: Kind, bodies: Vec<Bytes>, timeout: f64) -> PyResult<Vec<Outcome>> {
        let node = self.running(py)?;
        if is_machine_thread(self.number) {
            return Err(pyo3::exceptions::PyRuntimeError::new_err(
                "a command or query called back into its own node, which would wait for itself for ever: \
                 call the machine's other methods directly",
            ));
        }
        let waiting = Waiting::new(bodies.len());
        let deadline = Instant::now() + seconds(timeout);
        let caller = |token: usize| Caller { sink: Arc::<Waiting>::clone(&waiting), token: token as u64 };
        let calls = bodies.into_iter().enumerate().map(|(token, body)| (body, caller(token))).collect();
        node.submit(kind, calls, deadline);
        loop {
            if py.detach(|| waiting.wait(SLICE)) || until(deadline + GRACE).is_zero() {
                return Ok(waiting.take());
            }
            py.check_signals()?;
        }
    }
}

fn status_to_python<'py>(py: Python<'py>, status: &Status) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let find = |id| status.members.iter().find(|member| Some(member.id) == id).map(|member| member.address.as_str());
    dict.set_item("id", status.id.as_str())?;
    dict.set_item("address", find(Some(status.id)))?;
    dict.set_item("role", status.role)?;
    dict.set_item("term", status.term.0)?;
    dict.set_item("leader", status.leader.map(|leader| leader.to_string()))?;
    dict.set_item("leader_address", status.leader.and_then(|leader| find(Some(leader))))?;
    dict.set_item("last_index", status.last.0)?;
    dict.set_item("commit_index", status.commit.0)?;
    dict.set_item("applied_index", status.applied.0)?;
    dict.set_item("snapshot_index", status.snapshot.0)?;
    let known = status.cluster != graft_domain::ClusterId::UNKNOWN;
    dict.set_item("cluster", known.then(|| status.cluster.to_string()))?;
    let members = status.members.iter().map(|member| member_to_python(py, member));
    dict.set_item("members", members.collect::<PyResult<Vec<_>>>()?)?;
    dict.set_item("error", status.error.as_deref())?;
    dict.set_item("has_quorum", status.has_quorum)?;
    Ok(dict)
}

fn member_to_python<'py>(py: Python<'py>, member: &MemberStatus) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("id", member.id.as_str())?;
    dict.set_item("address", &member.address)?;
    dict.set_item("voter", member.voter)?;
    dict.set_item("match_index", member.matched.map(|index| index.0))?;
    dict.set_item("last_contact", member.last_contact.map(|contact| contact.as_secs_f64()))?;
    dict.set_item("reachable", member.reachable)?;
    dict.set_item("trouble", member.trouble.as_deref())?;
    Ok(dict)
}
