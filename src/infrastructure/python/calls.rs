//! What Python's layer asks of a cluster, through a node of this process or over the network.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use graft_domain::Index;
use graft_services::api::{Api, Call, Caller, Cursor, Sink, Then, Watch};
use graft_services::error::{Outcome, Refusal};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use super::completions::{Answer, Completions};
use super::convert::{self, ReadTuple, SlotTuple, seconds};
use super::machine::is_machine_thread;
use super::readers::{NativeEvents, NativeWatch};
use super::{SLICE, changes, errors, fork};
use crate::infrastructure::runtime::{Waiting, backup};

/// How long a call waits for its engine beyond the deadline that the engine keeps.
const GRACE: Duration = Duration::from_secs(1);

/// What nodes and clients have in common: every call. Those that wait do it detached from the interpreter and answer Ctrl-C
/// within 50 ms; those that begin with `submit_` never block, and are answered in a queue, under a token.
#[pyclass(frozen, subclass, module = "graft._graft")]
pub(super) struct NativeCalls {
    /// Unset until a node is started.
    pub(super) api: OnceLock<Arc<dyn Api>>,
}

#[pymethods]
impl NativeCalls {
    /// Replicates a command and answers `(reply, index, term)`. With a slot it is made under that place in its session.
    fn execute<'py>(
        &self,
        py: Python<'py>,
        body: &[u8],
        timeout: f64,
        slot: Option<SlotTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (body, slot) = (Bytes::copy_from_slice(body), convert::slot(slot));
        self.one(py, timeout, None, |api, caller, timeout| api.execute(vec![Call { body, slot, caller }], timeout))
    }

    /// Replicates many commands at once, in this order. Each answer is as that of `execute`, or the exception itself.
    fn execute_many<'py>(
        &self,
        py: Python<'py>,
        bodies: &Bound<'py, PyList>,
        timeout: f64,
    ) -> PyResult<Bound<'py, PyList>> {
        let bodies = copies(bodies)?;
        let count = bodies.len();
        let begin = |api: &dyn Api, sink: Arc<dyn Sink>, timeout| api.execute(numbered(bodies, &sink, 0), timeout);
        let list = PyList::empty(py);
        for answer in self.wait(py, count, timeout, None, begin)? {
            list.append(errors::outcome(py, answer)?.unwrap_or_else(|exception| exception))?;
        }
        Ok(list)
    }

    /// Asks the machine, and answers as `execute`.
    #[expect(clippy::needless_pass_by_value, reason = "extracted from a tuple")]
    fn query<'py>(&self, py: Python<'py>, body: &[u8], timeout: f64, read: ReadTuple) -> PyResult<Bound<'py, PyAny>> {
        let (body, read) = (Bytes::copy_from_slice(body), convert::read(py, &read)?);
        self.one(py, timeout, None, |api, caller, timeout| api.query(vec![(body, caller)], read, timeout))
    }

    fn submit_execute(
        &self,
        py: Python<'_>,
        body: &[u8],
        timeout: f64,
        slot: Option<SlotTuple>,
        queue: &Completions,
        token: u64,
    ) -> PyResult<()> {
        let call = Call { body: Bytes::copy_from_slice(body), slot: convert::slot(slot), caller: queue.caller(token) };
        let api = self.running(py)?;
        py.detach(|| api.execute(vec![call], seconds(timeout)));
        Ok(())
    }

    /// The answers come under `token` and the numbers after it.
    fn submit_execute_many(
        &self,
        py: Python<'_>,
        bodies: &Bound<'_, PyList>,
        timeout: f64,
        queue: &Completions,
        token: u64,
    ) -> PyResult<()> {
        let calls = numbered(copies(bodies)?, &queue.caller(token).sink, token);
        let api = self.running(py)?;
        py.detach(|| api.execute(calls, seconds(timeout)));
        Ok(())
    }

    /// As `submit_execute_many`.
    #[expect(clippy::needless_pass_by_value, reason = "extracted from a tuple")]
    fn submit_query_many(
        &self,
        py: Python<'_>,
        bodies: &Bound<'_, PyList>,
        timeout: f64,
        read: ReadTuple,
        queue: &Completions,
        token: u64,
    ) -> PyResult<()> {
        let queries =
            copies(bodies)?.into_iter().zip(token..).map(|(body, token)| (body, queue.caller(token))).collect();
        let (api, read) = (self.running(py)?, convert::read(py, &read)?);
        py.detach(|| api.query(queries, read, seconds(timeout)));
        Ok(())
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
        let answer = self.one(py, timeout, tick, |api, caller, timeout| api.ask(ask, caller, timeout))?;
        index_of(&answer)
    }

    fn submit_change(
        &self,
        py: Python<'_>,
        change: &Bound<'_, PyDict>,
        timeout: f64,
        queue: &Completions,
        token: u64,
    ) -> PyResult<()> {
        let ask = changes::ask(py, change)?;
        self.running(py)?.ask(ask, queue.caller(token), seconds(timeout));
        Ok(())
    }

    /// Takes a snapshot and answers the index that it covers.
    fn snapshot(&self, py: Python<'_>, timeout: f64) -> PyResult<u64> {
        index_of(&self.one(py, timeout, None, |api, caller, timeout| api.snapshot(false, caller, timeout))?)
    }

    fn submit_snapshot(&self, py: Python<'_>, timeout: f64, queue: &Completions, token: u64) -> PyResult<()> {
        self.running(py)?.snapshot(false, queue.caller(token), seconds(timeout));
        Ok(())
    }

    /// Writes a backup and answers the index that it covers.
    fn backup(&self, py: Python<'_>, path: PathBuf, timeout: f64) -> PyResult<u64> {
        let api = self.running(py)?;
        index_of(&self.one(py, timeout, None, |_, caller, timeout| backup(api, path, caller, timeout))?)
    }

    fn submit_backup(
        &self,
        py: Python<'_>,
        path: PathBuf,
        timeout: f64,
        queue: &Completions,
        token: u64,
    ) -> PyResult<()> {
        backup(self.running(py)?, path, queue.caller(token), seconds(timeout));
        Ok(())
    }

    /// Compares the members' digests: `({id: digest, or why there is none}, index, 0)`.
    fn verify<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Bound<'py, PyAny>> {
        self.one(py, timeout, None, |api, caller, timeout| api.verify(caller, timeout))
    }

    fn submit_verify(&self, py: Python<'_>, timeout: f64, queue: &Completions, token: u64) -> PyResult<()> {
        self.running(py)?.verify(queue.caller(token), seconds(timeout));
        Ok(())
    }

    /// What the member that is asked says of itself, as a dict; and what stands in the way of work there, in sentences.
    fn view<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Bound<'py, PyAny>> {
        changes::view(py, &self.then(py, timeout, |api, then| api.view(then))?)
    }

    fn submit_view(&self, py: Python<'_>, queue: &Completions, token: u64) -> PyResult<()> {
        let sink = Arc::clone(&queue.queue);
        self.running(py)?.view(Box::new(move |view| sink.push(token, Answer::View(view.map(Box::new)))));
        Ok(())
    }

    /// What the cluster would be after a change, as a dict.
    fn what_if<'py>(&self, py: Python<'py>, change: &Bound<'py, PyDict>, timeout: f64) -> PyResult<Bound<'py, PyDict>> {
        let change = changes::membership_change(py, change)?;
        changes::what_if(py, &self.then(py, timeout, |api, then| api.what_if(change, then))?)
    }

    fn submit_what_if(
        &self,
        py: Python<'_>,
        change: &Bound<'_, PyDict>,
        queue: &Completions,
        token: u64,
    ) -> PyResult<()> {
        let change = changes::membership_change(py, change)?;
        let sink = Arc::clone(&queue.queue);
        self.running(py)?.what_if(change, Box::new(move |outlook| sink.push(token, Answer::WhatIf(outlook))));
        Ok(())
    }

    /// What commands emit on these topics, on all if there are none, from behind `(index, number)` on, or from now on.
    fn watch(&self, py: Python<'_>, topics: Vec<String>, since: Option<(u64, u32)>) -> PyResult<NativeWatch> {
        let since = since.map(|(index, number)| Cursor { index: Index(index), number });
        let api = self.running(py)?;
        Ok(NativeWatch::new(|wake| api.watch(Watch { topics, since }, wake)))
    }

    /// What happens to the member that is asked, from the event after number `since` on, or from now on.
    fn events(&self, py: Python<'_>, since: Option<u64>) -> PyResult<NativeEvents> {
        let api = self.running(py)?;
        Ok(NativeEvents::new(|wake| api.events(since, wake)))
    }
}

impl NativeCalls {
    pub(super) fn new() -> Self {
        Self { api: OnceLock::new() }
    }

    fn running(&self, py: Python<'_>) -> PyResult<&Arc<dyn Api>> {
        fork::refuse_in_child(py)?;
        self.api.get().ok_or_else(|| errors::raise(py, "STOPPED", "the node is not started: call start() first", &[]))
    }

    /// As `running`, unless a call would wait for itself.
    fn callable(&self, py: Python<'_>) -> PyResult<&Arc<dyn Api>> {
        let api = self.running(py)?;
        if is_machine_thread() {
            return Err(pyo3::exceptions::PyRuntimeError::new_err(
                "a command or query called a node or a client, which would wait for itself for ever: \
                 call the machine's other methods directly",
            ));
        }
        Ok(api)
    }

    /// Makes one call and waits for its answer.
    fn one<'py>(
        &self,
        py: Python<'py>,
        timeout: f64,
        tick: Option<&Bound<'py, PyAny>>,
        begin: impl FnOnce(&dyn Api, Caller, Duration) + Send,
    ) -> PyResult<Bound<'py, PyAny>> {
        let begin = |api: &dyn Api, sink: Arc<dyn Sink>, timeout| begin(api, Caller { sink, token: 0 }, timeout);
        let mut answers = self.wait(py, 1, timeout, tick, begin)?;
        let unanswered = || Outcome::unknown("the engine gave no answer");
        errors::outcome(py, answers.pop().unwrap_or_else(unanswered))?.map_err(PyErr::from_value)
    }

    /// Begins calls, whose tokens count from 0, and waits for all answers, detached, in slices.
    fn wait(
        &self,
        py: Python<'_>,
        count: usize,
        timeout: f64,
        tick: Option<&Bound<'_, PyAny>>,
        begin: impl FnOnce(&dyn Api, Arc<dyn Sink>, Duration) + Send,
    ) -> PyResult<Vec<Outcome>> {
        let api = self.callable(py)?;
        let waiting = Waiting::new(count);
        let timeout = seconds(timeout);
        let deadline = Instant::now() + timeout + GRACE;
        let mut done = py.detach(|| {
            begin(&**api, Arc::<Waiting>::clone(&waiting), timeout);
            waiting.wait(SLICE)
        });
        while !done && Instant::now() < deadline {
            py.check_signals()?;
            if let Some(tick) = tick {
                tick.call0()?;
            }
            done = py.detach(|| waiting.wait(SLICE));
        }
        Ok(waiting.take())
    }

    /// Asks for a look at things, and waits for it.
    fn then<T: Send + 'static>(
        &self,
        py: Python<'_>,
        timeout: f64,
        begin: impl FnOnce(&dyn Api, Then<T>),
    ) -> PyResult<T> {
        let api = self.callable(py)?;
        let deadline = Instant::now() + seconds(timeout);
        let (told, answer) = sync_channel(1);
        let then = move |answer| {
            // Whoever asked may have given up.
            let _ = told.try_send(answer);
        };
        begin(&**api, Box::new(then));
        received(py, answer, deadline)?.map_err(|refusal| raise_refusal(py, &refusal))
    }
}

/// What comes until the deadline, waited for in slices.
fn received<T: Send>(
    py: Python<'_>,
    mut answer: Receiver<Result<T, Refusal>>,
    deadline: Instant,
) -> PyResult<Result<T, Refusal>> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // A receiver is not shared: it goes along, and comes back.
        let (back, found) = py.detach(move || {
            let found = answer.recv_timeout(left.min(SLICE));
            (answer, found)
        });
        match found {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Disconnected) => return Ok(Err(Refusal::Stopped)),
            Err(RecvTimeoutError::Timeout) if left.is_zero() => return Ok(Err(Refusal::Timeout)),
            Err(RecvTimeoutError::Timeout) => answer = back,
        }
        py.check_signals()?;
    }
}

fn raise_refusal(py: Python<'_>, refusal: &Refusal) -> PyErr {
    errors::refusal(py, refusal).map_or_else(|error| error, PyErr::from_value)
}

/// Of `(reply, index, term)`.
fn index_of(answer: &Bound<'_, PyAny>) -> PyResult<u64> {
    answer.get_item(1)?.extract()
}

fn copies(bodies: &Bound<'_, PyList>) -> PyResult<Vec<Bytes>> {
    bodies.iter().map(|body| Ok(Bytes::copy_from_slice(body.cast::<PyBytes>()?.as_bytes()))).collect()
}

/// Calls that are answered under numbers from `first` on.
fn numbered(bodies: Vec<Bytes>, sink: &Arc<dyn Sink>, first: u64) -> Vec<Call> {
    let caller = |token| Caller { sink: Arc::clone(sink), token };
    (first..).zip(bodies).map(|(token, body)| Call { body, slot: None, caller: caller(token) }).collect()
}
