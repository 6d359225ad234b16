//! Answers for an event loop or a waiting thread: one wake-up, however many.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use graft_services::WhatIf;
use graft_services::api::{Caller, Sink, View};
use graft_services::error::{Outcome, Refusal};
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::convert::seconds;
use super::{changes, errors};

/// What somebody waits for.
pub(super) enum Answer {
    Outcome(Outcome),
    View(Result<Box<View>, Refusal>),
    WhatIf(Result<WhatIf, Refusal>),
    /// There may be more to read.
    Woken,
}

/// Answers that nobody has taken yet.
///
/// A pipe holds one byte while there are any, so that an event loop can watch it. Nothing here touches the interpreter.
pub(super) struct Queue {
    state: Mutex<State>,
    some: Condvar,
}

struct State {
    answers: Vec<(u64, Answer)>,
    signalled: bool,
    /// None once closed.
    pipe: Option<(PipeReader, PipeWriter)>,
}

impl Sink for Queue {
    fn complete(&self, token: u64, outcome: Outcome) {
        self.push(token, Answer::Outcome(outcome));
    }

    fn complete_amid(&self, token: u64, outcome: Outcome) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.pipe.is_some() {
            state.answers.push((token, Answer::Outcome(outcome)));
        }
    }
}

impl Queue {
    /// Never blocks, and needs no interpreter.
    pub(super) fn push(&self, token: u64, answer: Answer) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        let Some((_, writer)) = &mut state.pipe else { return };
        state.answers.push((token, answer));
        if !state.signalled {
            // One byte at a time is in the pipe, so this neither blocks nor fails; should it fail, the next answer tries again.
            state.signalled = writer.write_all(&[1]).is_ok();
            self.some.notify_all();
        }
    }

    fn take(&self) -> Vec<(u64, Answer)> {
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

impl Answer {
    fn into_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        let answer = match self {
            Self::Outcome(outcome) => return Ok(errors::outcome(py, outcome)?.unwrap_or_else(|exception| exception)),
            Self::View(view) => view.map(|view| changes::view(py, &view)),
            Self::WhatIf(outlook) => outlook.map(|outlook| Ok(changes::what_if(py, &outlook)?.into_any())),
            Self::Woken => Ok(Ok(py.None().into_bound(py))),
        };
        answer.unwrap_or_else(|refusal| errors::refusal(py, &refusal))
    }
}

/// Where the answers of submitted calls gather.
#[pyclass(frozen, module = "graft._graft")]
pub(super) struct Completions {
    pub(super) queue: Arc<Queue>,
}

impl Completions {
    /// Who is answered here, under this token.
    pub(super) fn caller(&self, token: u64) -> Caller {
        Caller { sink: Arc::<Queue>::clone(&self.queue), token }
    }
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

    /// Takes all answers: `(token, answer)` each, the answer being an exception, or what the call of the same name without
    /// `submit_` returns; for a call `(reply, index, term)`. Never blocks.
    fn drain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for (token, answer) in self.queue.take() {
            list.append((token, answer.into_python(py)?))?;
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
