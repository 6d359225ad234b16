//! Answers for an event loop or a waiting thread: one wake-up, however many.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use graft_services::error::Outcome;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::convert::seconds;
use super::errors;
use crate::infrastructure::runtime::Sink;

/// Answers that nobody has taken yet.
///
/// A pipe holds one byte while there are any, so that an event loop can watch it. Nothing here touches the interpreter.
pub(super) struct Queue {
    state: Mutex<State>,
    some: Condvar,
}

struct State {
    answers: Vec<(u64, Outcome)>,
    signalled: bool,
    /// None once closed.
    pipe: Option<(PipeReader, PipeWriter)>,
}

impl Sink for Queue {
    fn complete(&self, token: u64, outcome: Outcome) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        let Some((_, writer)) = &mut state.pipe else { return };
        state.answers.push((token, outcome));
        if !state.signalled {
            // One byte at a time is in the pipe, so this neither blocks nor fails; should it fail, the next answer tries again.
            state.signalled = writer.write_all(&[1]).is_ok();
            self.some.notify_all();
        }
    }
}

impl Queue {
    fn take(&self) -> Vec<(u64, Outcome)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        if state.signalled
            && let Some((reader, _)) = &mut state.pipe
        {
            // The byte is there: it was written under the lock.
            let _ = reader.read(&mut [0]);
        }
        state.signalled = false;
        std::mem::take(&mut state.answers)
    }
}

/// Where the answers of submitted calls gather.
#[pyclass(frozen, module = "graft._graft")]
pub(super) struct Completions {
    pub(super) queue: Arc<Queue>,
}

#[pymethods]
impl Completions {
    #[new]
    fn new() -> PyResult<Self> {
        let state = State { answers: Vec::new(), signalled: false, pipe: Some(std::io::pipe()?) };
        Ok(Self { queue: Arc::new(Queue { state: Mutex::new(state), some: Condvar::new() }) })
    }

    /// Readable while there are answers.
    fn fileno(&self) -> PyResult<i32> {
        #[cfg(unix)]
        {
            use std::os::fd::AsRawFd;
            let state = self.queue.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((reader, _)) = &state.pipe {
                return Ok(reader.as_raw_fd());
            }
        }
        Err(pyo3::exceptions::PyOSError::new_err("there is no file descriptor to watch"))
    }

    /// Takes all answers: `(token, answer)` each, the answer being `(reply, index, term)` or an exception. Never blocks.
    fn drain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for (token, answer) in self.queue.take() {
            let answer = errors::outcome(py, answer)?.unwrap_or_else(|exception| exception);
            list.append((token, answer))?;
        }
        Ok(list)
    }

    /// Waits at most `timeout` seconds for an answer; true if there is one.
    fn wait(&self, py: Python<'_>, timeout: f64) -> bool {
        py.detach(|| {
            let state = self.queue.state.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = self
                .queue
                .some
                .wait_timeout_while(state, seconds(timeout), |state| state.answers.is_empty() && state.pipe.is_some());
            !waited.unwrap_or_else(PoisonError::into_inner).0.answers.is_empty()
        })
    }

    /// Drops what comes from now on, and wakes whoever waits.
    fn close(&self) {
        let mut state = self.queue.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.pipe = None;
        state.answers.clear();
        drop(state);
        self.queue.some.notify_all();
    }
}
