//! What is read at the reader's own pace: what commands emit, and what happens to a node.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use graft_services::api::{Happening, News, Reader, Taken, Wake};
use graft_services::ports::Emitted;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::completions::{Answer, Completions, Queue};
use super::convert::seconds;
use super::{SLICE, changes, errors, fork};

/// Most that one call gives: some milliseconds of the interpreter's time.
const ITEMS_MAX: usize = 1024;

/// Rung when there may be more to read.
#[derive(Default)]
struct Bell {
    state: Mutex<Rung>,
    rang: Condvar,
}

#[derive(Default)]
struct Rung {
    /// Since the reader last looked.
    rung: bool,
    /// Who is told of the next time.
    listener: Option<(Arc<Queue>, u64)>,
}

impl Bell {
    fn ring(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.rung = true;
        let listener = state.listener.take();
        drop(state);
        self.rang.notify_all();
        if let Some((queue, token)) = listener {
            queue.push(token, Answer::Woken);
        }
    }

    /// What rings from here on is news.
    fn hush(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).rung = false;
    }

    fn wait(&self, timeout: Duration) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.rang.wait_timeout_while(state, timeout, |state| !state.rung));
    }

    /// Tells this listener, and no other, the next time that it rings; at once if it has rung.
    fn arm(&self, queue: &Arc<Queue>, token: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.rung {
            drop(state);
            queue.push(token, Answer::Woken);
        } else {
            state.listener = Some((Arc::clone(queue), token));
        }
    }
}

/// A reader, and the bell that rings for it.
struct Reading<T> {
    /// None once closed.
    reader: Mutex<Option<Box<dyn Reader<T>>>>,
    bell: Arc<Bell>,
}

impl<T: Send> Reading<T> {
    fn new(open: impl FnOnce(Wake) -> Box<dyn Reader<T>>) -> Self {
        let bell = Arc::new(Bell::default());
        let rings = Arc::clone(&bell);
        let reader = open(Arc::new(move || rings.ring()));
        Self { reader: Mutex::new(Some(reader)), bell }
    }

    fn take(&self) -> Taken<T> {
        self.bell.hush();
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let nothing = || Taken { items: Vec::new(), ended: None };
        reader.as_mut().map_or_else(nothing, |reader| reader.take(ITEMS_MAX))
    }

    fn is_current(&self) -> bool {
        if fork::is_child() {
            return true;
        }
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        reader.as_ref().is_none_or(|reader| reader.is_current())
    }

    fn is_closed(&self) -> bool {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// What there is, after waiting for it, or until it is known that nothing is, at most so long; in slices, so that Ctrl-C is
    /// answered.
    fn next(&self, py: Python<'_>, timeout: f64) -> PyResult<Taken<T>> {
        fork::refuse_in_child(py)?;
        let deadline = Instant::now() + seconds(timeout);
        let knew = py.detach(|| self.is_current());
        loop {
            let taken = py.detach(|| self.take());
            let knows = !knew && py.detach(|| self.is_current());
            let left = deadline.saturating_duration_since(Instant::now());
            if !taken.items.is_empty() || taken.ended.is_some() || knows || left.is_zero() || self.is_closed() {
                return Ok(taken);
            }
            py.detach(|| self.bell.wait(left.min(SLICE)));
            py.check_signals()?;
        }
    }

    fn arm(&self, py: Python<'_>, queue: &Completions, token: u64) -> PyResult<()> {
        fork::refuse_in_child(py)?;
        self.bell.arm(&queue.queue, token);
        Ok(())
    }

    fn close(&self) {
        if fork::is_child() {
            return;
        }
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(reader);
        self.bell.ring();
    }

    /// A list of the items, and the exception that says why nothing will follow, or None.
    fn told<'py>(
        py: Python<'py>,
        taken: &Taken<T>,
        item: impl Fn(Python<'py>, &T) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyList>, Option<Bound<'py, PyAny>>)> {
        let list = PyList::empty(py);
        for one in &taken.items {
            list.append(item(py, one)?)?;
        }
        let ended = taken.ended.as_ref().map(|why| errors::refusal(py, why)).transpose()?;
        Ok((list, ended))
    }
}

impl<T> Drop for Reading<T> {
    /// In a forked child it stays: what it would take leave of may be locked by a thread that is not there.
    fn drop(&mut self) {
        if fork::is_child() {
            std::mem::forget(self.reader.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

type Told<'py> = (Bound<'py, PyList>, Option<Bound<'py, PyAny>>);

/// Reads what commands emit.
#[pyclass(frozen, module = "graft._graft")]
pub(super) struct NativeWatch {
    reading: Reading<News>,
}

impl NativeWatch {
    pub(super) fn new(open: impl FnOnce(Wake) -> Box<dyn Reader<News>>) -> Self {
        Self { reading: Reading::new(open) }
    }
}

#[pymethods]
impl NativeWatch {
    /// What there is, after waiting for it at most `timeout` seconds: `("emitted", index, number, topic, value)`,
    /// `("behind", upto)` and `("upto", index)` each; then why nothing will follow, as an exception, or None.
    fn next<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Told<'py>> {
        Reading::told(py, &self.reading.next(py, timeout)?, news)
    }

    /// Whether what `next` does not give is not there. Not known of a member elsewhere before it has answered.
    fn is_current(&self, py: Python<'_>) -> bool {
        py.detach(|| self.reading.is_current())
    }

    /// Puts an answer under `token` into `queue` as soon as there may be more; the last one who asked for it is told.
    fn arm(&self, py: Python<'_>, queue: &Completions, token: u64) -> PyResult<()> {
        self.reading.arm(py, queue, token)
    }

    /// Nothing follows, and who waits is woken.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.reading.close());
    }
}

fn news<'py>(py: Python<'py>, news: &News) -> PyResult<Bound<'py, PyAny>> {
    Ok(match news {
        News::Emitted(Emitted { index, number, topic, value }) => {
            ("emitted", index.0, number, topic, PyBytes::new(py, value)).into_pyobject(py)?.into_any()
        }
        News::Behind { upto } => ("behind", upto.0).into_pyobject(py)?.into_any(),
        News::Upto(index) => ("upto", index.0).into_pyobject(py)?.into_any(),
    })
}

/// Reads what happens to a node.
#[pyclass(frozen, module = "graft._graft")]
pub(super) struct NativeEvents {
    reading: Reading<Happening>,
}

impl NativeEvents {
    pub(super) fn new(open: impl FnOnce(Wake) -> Box<dyn Reader<Happening>>) -> Self {
        Self { reading: Reading::new(open) }
    }
}

#[pymethods]
impl NativeEvents {
    /// As that of a `NativeWatch`; each event is a dict.
    fn next<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Told<'py>> {
        Reading::told(py, &self.reading.next(py, timeout)?, changes::event)
    }

    fn is_current(&self, py: Python<'_>) -> bool {
        py.detach(|| self.reading.is_current())
    }

    fn arm(&self, py: Python<'_>, queue: &Completions, token: u64) -> PyResult<()> {
        self.reading.arm(py, queue, token)
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.reading.close());
    }
}
