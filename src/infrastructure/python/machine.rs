//! The user's Python object as the engine's machine.

use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;
use graft_domain::Index;
use graft_services::ports::{Command, Door, Emitted, Halt, Machine, Made, Reply, WriteSnapshot};
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::convert::reply_from_python;
use super::door::PyDoor;
use super::errors;
use super::files::{SnapshotReader, write_snapshot};

thread_local! {
    static IS_MACHINE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is the thread of a machine: a call from there would wait for itself.
pub(super) fn is_machine_thread() -> bool {
    IS_MACHINE.get()
}

/// A thread keeps one thread state of the interpreter for its life: making one anew costs more than a small batch, and the
/// user's thread-locals would be lost with it.
pub(super) fn stay(body: &mut (dyn FnMut() + Send)) {
    Python::attach(|py| py.detach(body));
}

/// `graft._host.Host`, with its methods at hand.
pub(super) struct PyMachine {
    open: Py<PyAny>,
    apply: Py<PyAny>,
    query: Py<PyAny>,
    snapshot: Py<PyAny>,
    write_snapshot: Py<PyAny>,
    restore: Py<PyAny>,
    digest: Py<PyAny>,
    door: Option<Arc<PyDoor>>,
}

impl PyMachine {
    pub(super) fn new(py: Python<'_>, host: &Py<PyAny>) -> PyResult<Self> {
        let host = host.bind(py);
        let method = |name: &str| host.getattr(name).map(Bound::unbind);
        Ok(Self {
            open: method("open")?,
            apply: method("apply")?,
            query: method("query")?,
            snapshot: method("snapshot")?,
            write_snapshot: method("write_snapshot")?,
            restore: method("restore")?,
            digest: method("digest")?,
            door: PyDoor::of(host)?.map(Arc::new),
        })
    }

    /// A list of indices, one of terms, one of times, one of bodies.
    fn call_apply(&self, py: Python<'_>, commands: &[Command], made: &mut Made) -> PyResult<Option<String>> {
        let indices = PyList::new(py, commands.iter().map(|command| command.index.0))?;
        let terms = PyList::new(py, commands.iter().map(|command| command.term.0))?;
        let times = PyList::new(py, commands.iter().map(|command| command.time))?;
        let bodies = PyList::new(py, commands.iter().map(|command| PyBytes::new(py, &command.body)))?;
        let answer = self.apply.bind(py).call1((indices, terms, times, bodies))?;
        let (answers, halt, told): (Bound<'_, PyList>, Option<String>, Bound<'_, PyList>) = answer.extract()?;
        for answer in answers {
            made.replies.push(reply_from_python(&answer)?);
        }
        for one in told {
            push_emitted(&one, commands, &mut made.emitted)?;
        }
        Ok(halt)
    }

    fn call_query(&self, py: Python<'_>, queries: &[Bytes], replies: &mut Vec<Reply>) -> PyResult<()> {
        let batch = PyList::new(py, queries.iter().map(|query| PyBytes::new(py, query)))?;
        let answers = self.query.bind(py).call1((batch,))?;
        for answer in answers.cast::<PyList>()? {
            replies.push(reply_from_python(&answer)?);
        }
        Ok(())
    }
}

/// `(place in the batch, topic, value)`, in the order of the batch.
fn push_emitted(one: &Bound<'_, PyAny>, commands: &[Command], emitted: &mut Vec<Emitted>) -> PyResult<()> {
    let (place, topic, value): (usize, String, Bound<'_, PyBytes>) = one.extract()?;
    let command = commands.get(place);
    let index = command.ok_or_else(|| PyIndexError::new_err("no command has this place in the batch"))?.index;
    let number = emitted.last().filter(|last| last.index == index).map_or(0, |last| last.number + 1);
    emitted.push(Emitted { index, number, topic, value: Bytes::copy_from_slice(value.as_bytes()) });
    Ok(())
}

impl Machine for PyMachine {
    fn stay(&self) -> fn(&mut (dyn FnMut() + Send)) {
        stay
    }

    fn open(&mut self, directory: &str) -> Result<Index, Halt> {
        IS_MACHINE.set(true);
        Python::attach(|py| {
            let index = self.open.bind(py).call1((directory,)).and_then(|index| index.extract::<u64>());
            index.map(Index).map_err(|error| Halt { index: Index::ZERO, why: errors::told(py, &error) })
        })
    }

    fn apply(&mut self, commands: &[Command], made: &mut Made) -> Result<(), Halt> {
        if commands.is_empty() {
            return Ok(());
        }
        Python::attach(|py| {
            let halt = match self.call_apply(py, commands, made) {
                Ok(halt) => halt,
                Err(error) => Some(errors::told(py, &error)),
            };
            let Some(why) = halt else { return Ok(()) };
            let index = commands.get(made.replies.len()).map_or(Index::ZERO, |command| command.index);
            Err(Halt { index, why })
        })
    }

    fn snapshot(&mut self) -> Result<WriteSnapshot, String> {
        Python::attach(|py| {
            let made = self.snapshot.bind(py).call0().map_err(|error| errors::told(py, &error))?;
            Ok(write_snapshot(py, &made.unbind(), &self.write_snapshot))
        })
    }

    fn restore(&mut self, file: Box<dyn std::io::Read + Send>) -> Result<(), String> {
        Python::attach(|py| {
            let file = Bound::new(py, SnapshotReader::new(file));
            let restored = file.and_then(|file| self.restore.bind(py).call1((file,)));
            restored.map(|_| ()).map_err(|error| errors::told(py, &error))
        })
    }

    fn digest(&mut self) -> Result<Bytes, String> {
        Python::attach(|py| {
            let made = self.digest.bind(py).call0();
            let bytes = made.and_then(|made| Ok(Bytes::copy_from_slice(made.cast::<PyBytes>()?.as_bytes())));
            bytes.map_err(|error| errors::told(py, &error))
        })
    }

    fn door(&self) -> Option<Arc<dyn Door>> {
        Some(Arc::<PyDoor>::clone(self.door.as_ref()?))
    }

    fn query(&mut self, queries: &[Bytes], replies: &mut Vec<Reply>) {
        Python::attach(|py| {
            if let Err(error) = self.call_query(py, queries, replies) {
                replies.resize(queries.len(), errors::raised(py, &error));
            }
        });
    }
}
