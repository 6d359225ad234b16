//! The user's Python object as the engine's machine.

use std::cell::Cell;

use bytes::Bytes;
use graft_domain::Index;
use graft_services::ports::{Command, Halt, Machine, Reply, WriteSnapshot};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::convert::reply_from_python;
use super::errors;
use super::files::{SnapshotReader, write_snapshot};

thread_local! {
    /// Whose machine runs on this thread; 0 for nobody's.
    static MACHINE_OF: Cell<u64> = const { Cell::new(0) };
}

/// Whether this is the thread of that node's machine: a call from there would wait for itself.
pub(super) fn is_machine_thread(node: u64) -> bool {
    MACHINE_OF.get() == node
}

/// `graft._host.Host`, with its methods at hand.
pub(super) struct PyMachine {
    node: u64,
    open: Py<PyAny>,
    apply: Py<PyAny>,
    query: Py<PyAny>,
    snapshot: Py<PyAny>,
    write_snapshot: Py<PyAny>,
    restore: Py<PyAny>,
}

impl PyMachine {
    pub(super) fn new(py: Python<'_>, host: &Py<PyAny>, node: u64) -> PyResult<Self> {
        let host = host.bind(py);
        let method = |name: &str| host.getattr(name).map(Bound::unbind);
        Ok(Self {
            node,
            open: method("open")?,
            apply: method("apply")?,
            query: method("query")?,
            snapshot: method("snapshot")?,
            write_snapshot: method("write_snapshot")?,
            restore: method("restore")?,
        })
    }

    /// One attachment for the whole batch: `(index, term, time, body)` each.
    fn call_apply(&self, py: Python<'_>, commands: &[Command], replies: &mut Vec<Reply>) -> PyResult<Option<String>> {
        let batch = PyList::empty(py);
        for command in commands {
            let body = PyBytes::new(py, &command.body);
            batch.append((command.index.0, command.term.0, command.time, body))?;
        }
        let answer = self.apply.bind(py).call1((batch,))?;
        let (answers, halt): (Bound<'_, PyList>, Option<String>) = answer.extract()?;
        for answer in answers {
            replies.push(reply_from_python(&answer)?);
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

impl Machine for PyMachine {
    /// The thread keeps one thread state of the interpreter for its life: making one anew costs more than a small batch, and
    /// the user's thread-locals would be lost with it.
    fn stay(&self) -> fn(&mut (dyn FnMut() + Send)) {
        |body| Python::attach(|py| py.detach(body))
    }

    fn open(&mut self, directory: &str) -> Result<Index, Halt> {
        MACHINE_OF.set(self.node);
        Python::attach(|py| {
            let index = self.open.bind(py).call1((directory,)).and_then(|index| index.extract::<u64>());
            index.map(Index).map_err(|error| Halt { index: Index::ZERO, why: errors::words(py, &error).traceback })
        })
    }

    fn apply(&mut self, commands: &[Command], replies: &mut Vec<Reply>) -> Result<(), Halt> {
        if commands.is_empty() {
            return Ok(());
        }
        Python::attach(|py| {
            let halt = match self.call_apply(py, commands, replies) {
                Ok(halt) => halt,
                Err(error) => Some(errors::words(py, &error).traceback),
            };
            let Some(why) = halt else { return Ok(()) };
            let index = commands.get(replies.len()).map_or(Index::ZERO, |command| command.index);
            Err(Halt { index, why })
        })
    }

    fn snapshot(&mut self) -> Result<WriteSnapshot, String> {
        Python::attach(|py| {
            let made = self.snapshot.bind(py).call0().map_err(|error| errors::words(py, &error).traceback)?;
            Ok(write_snapshot(py, &made.unbind(), &self.write_snapshot))
        })
    }

    fn restore(&mut self, file: Box<dyn std::io::Read + Send>) -> Result<(), String> {
        Python::attach(|py| {
            let file = Bound::new(py, SnapshotReader::new(file));
            let restored = file.and_then(|file| self.restore.bind(py).call1((file,)));
            restored.map(|_| ()).map_err(|error| errors::words(py, &error).traceback)
        })
    }

    fn query(&mut self, queries: &[Bytes], replies: &mut Vec<Reply>) {
        Python::attach(|py| {
            if let Err(error) = self.call_query(py, queries, replies) {
                replies.resize(queries.len(), errors::raised(py, &error));
            }
        });
    }
}
