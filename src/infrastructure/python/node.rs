//! A node as Python's layer holds it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use graft_services::error::Outcome;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use super::completions::Completions;
use super::convert::{self, seconds};
use super::machine::{PyMachine, is_machine_thread};
use super::{changes, errors, fork, logs};
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
        changes::status(py, &status)
    }

    /// Changes the cluster and answers the index at which that is committed. Calls `tick` while it waits, about every 50 ms.
    fn change(
        &self,
        py: Python<'_>,
        change: &Bound<'_, PyDict>,
        timeout: f64,
        tick: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<u64> {
        let ask = changes::ask(py, change)?;
        let begin = |node: &Node, caller, deadline| node.ask(ask, caller, deadline);
        self.index_of(py, timeout, tick, begin)
    }

    /// As `change`, answered in `queue` under `token`. Never blocks.
    fn submit_change(
        &self,
        py: Python<'_>,
        change: &Bound<'_, PyDict>,
        timeout: f64,
        queue: &Completions,
        token: u64,
    ) -> PyResult<()> {
        let ask = changes::ask(py, change)?;
        let sink = Arc::clone(&queue.queue);
        self.running(py)?.ask(ask, Caller { sink, token }, Instant::now() + seconds(timeout));
        Ok(())
    }

    /// Takes a snapshot and answers the index that it covers.
    fn snapshot(&self, py: Python<'_>, timeout: f64) -> PyResult<u64> {
        self.index_of(py, timeout, None, Node::snapshot)
    }

    /// As `snapshot`, answered in `queue` under `token`. Never blocks.
    fn submit_snapshot(&self, py: Python<'_>, timeout: f64, queue: &Completions, token: u64) -> PyResult<()> {
        let sink = Arc::clone(&queue.queue);
        self.running(py)?.snapshot(Caller { sink, token }, Instant::now() + seconds(timeout));
        Ok(())
    }

    /// Events after number `since`, after waiting for one at most `timeout` seconds; then the oldest number that is kept,
    /// and the newest.
    fn events<'py>(&self, py: Python<'py>, since: u64, timeout: f64) -> PyResult<(Bound<'py, PyList>, u64, u64)> {
        let node = Arc::clone(self.running(py)?);
        let found = py.detach(|| node.events(since, seconds(timeout)));
        Ok((changes::events(py, &found.events)?, found.oldest, found.newest))
    }

    /// What stands in the way of work, in sentences; none if all is well.
    fn why(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let node = Arc::clone(self.running(py)?);
        let busy = || vec!["the node's engine does not answer: it is ending, or very busy".to_owned()];
        Ok(py.detach(|| node.why()).unwrap_or_else(busy))
    }

    /// What the cluster would be after a change, as a dict.
    fn what_if<'py>(&self, py: Python<'py>, change: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
        let change = changes::membership_change(py, change)?;
        let node = Arc::clone(self.running(py)?);
        let busy = || errors::raise(py, "BUSY", "the node's engine does not answer: it is ending, or very busy", &[]);
        changes::what_if(py, &py.detach(|| node.what_if(change)).ok_or_else(busy)?)
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

    /// Asks for something whose answer is an index, and waits for it.
    fn index_of(
        &self,
        py: Python<'_>,
        timeout: f64,
        tick: Option<&Bound<'_, PyAny>>,
        begin: impl FnOnce(&Node, Caller, Instant),
    ) -> PyResult<u64> {
        let node = self.callable(py)?;
        let waiting = Waiting::new(1);
        let deadline = Instant::now() + seconds(timeout);
        begin(node, Caller { sink: Arc::<Waiting>::clone(&waiting), token: 0 }, deadline);
        let mut answers = wait_for(py, &waiting, deadline, tick)?;
        match answers.pop() {
            Some(Outcome::Done { index, .. }) => Ok(index.0),
            other => {
                let unknown = Outcome::Unknown("the engine gave no answer".to_owned());
                match errors::outcome(py, other.unwrap_or(unknown))? {
                    Ok(_) => Ok(0),
                    Err(exception) => Err(PyErr::from_value(exception)),
                }
            }
        }
    }

    /// The running node, unless a call would wait for itself.
    fn callable(&self, py: Python<'_>) -> PyResult<&Arc<Node>> {
        let node = self.running(py)?;
        if is_machine_thread(self.number) {
            return Err(pyo3::exceptions::PyRuntimeError::new_err(
                "a command or query called back into its own node, which would wait for itself for ever: \
                 call the machine's other methods directly",
            ));
        }
        Ok(node)
    }

    /// Hands over the calls and waits for the answers.
    fn wait(&self, py: Python<'_>, kind: Kind, bodies: Vec<Bytes>, timeout: f64) -> PyResult<Vec<Outcome>> {
        let node = self.callable(py)?;
        let waiting = Waiting::new(bodies.len());
        let deadline = Instant::now() + seconds(timeout);
        let caller = |token: usize| Caller { sink: Arc::<Waiting>::clone(&waiting), token: token as u64 };
        let calls = bodies.into_iter().enumerate().map(|(token, body)| (body, caller(token))).collect();
        node.submit(kind, calls, deadline);
        wait_for(py, &waiting, deadline, None)
    }
}

/// Waits for the answers, detached, in slices.
fn wait_for(
    py: Python<'_>,
    waiting: &Waiting,
    deadline: Instant,
    tick: Option<&Bound<'_, PyAny>>,
) -> PyResult<Vec<Outcome>> {
    loop {
        if py.detach(|| waiting.wait(SLICE)) || until(deadline + GRACE).is_zero() {
            return Ok(waiting.take());
        }
        py.check_signals()?;
        if let Some(tick) = tick {
            tick.call0()?;
        }
    }
}
