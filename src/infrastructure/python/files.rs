//! Snapshots on their way between Python's file objects and the engine's.

use std::io::Read;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use graft_services::ports::WriteSnapshot;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::errors;

/// Most that one call reads or takes.
const PIECE_BYTES_MAX: usize = 1 << 20;
/// Pieces that wait for the disk.
const PIECES_MAX: usize = 4;
/// How often to look whether the file still takes anything.
const LOOK: Duration = Duration::from_millis(100);
/// How long the function of a snapshot that was given up may take to find that out.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
/// User code runs on this stack; see the machine's thread.
const STACK_BYTES: usize = 32 << 20;

/// A snapshot to read from. Used by one thread, the machine's.
#[pyclass(frozen, module = "graft._graft")]
pub(super) struct SnapshotReader {
    file: Mutex<Box<dyn Read + Send>>,
}

impl SnapshotReader {
    pub(super) fn new(file: Box<dyn Read + Send>) -> Self {
        Self { file: Mutex::new(file) }
    }
}

#[pymethods]
impl SnapshotReader {
    /// The next bytes, `size` at the most and 1 MiB at the most; none at the end.
    fn read<'py>(&self, py: Python<'py>, size: usize) -> PyResult<Bound<'py, PyBytes>> {
        let mut buffer = vec![0; size.min(PIECE_BYTES_MAX)];
        let count = py.detach(|| {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.read(&mut buffer)
        });
        Ok(PyBytes::new(py, &buffer[..count?]))
    }
}

/// A snapshot to write to. What is written is taken by the thread that has the disk.
#[pyclass(frozen, module = "graft._graft")]
pub(super) struct SnapshotWriter {
    pieces: SyncSender<Vec<u8>>,
}

#[pymethods]
impl SnapshotWriter {
    /// Takes up to 1 MiB; waits while the disk is behind. Raises `OSError` once the snapshot has failed.
    fn write(&self, py: Python<'_>, data: &[u8]) -> PyResult<()> {
        if data.len() > PIECE_BYTES_MAX {
            return Err(PyValueError::new_err("a piece of a snapshot is at most 1 MiB"));
        }
        let piece = data.to_vec();
        let sent = py.detach(|| self.pieces.send(piece));
        sent.map_err(|_| PyOSError::new_err("the snapshot was given up: its file takes nothing more"))
    }
}

/// The function that puts down what `snapshot()` made. Python's part of it runs on a thread of its own, so that whoever has the
/// disk never waits for the interpreter with a file open in its hands alone: the pieces come through a short queue.
pub(super) fn write_snapshot(py: Python<'_>, made: &Py<PyAny>, write: &Py<PyAny>) -> WriteSnapshot {
    let (made, write) = (made.clone_ref(py), write.clone_ref(py));
    Box::new(move |file| {
        let (pieces, written) = sync_channel::<Vec<u8>>(PIECES_MAX);
        let body = move || {
            Python::attach(|py| {
                let file = Bound::new(py, SnapshotWriter { pieces })?;
                write.bind(py).call1((made, file)).map(|_| ())
            })
            .map_err(|error| Python::attach(|py| errors::told(py, &error)))
        };
        let builder = std::thread::Builder::new().name("graft-snapshot".to_owned()).stack_size(STACK_BYTES);
        let writer = builder.spawn(body).map_err(|error| format!("starting a thread: {error}"))?;
        let taken = take(&written, file, &|| writer.is_finished());
        drop(written);
        if let Err(error) = taken {
            // The user's function finds out with its next piece. It is waited for a while, so that an interpreter that ends finds
            // no thread in it; one that says nothing is left behind.
            let given_up = Instant::now();
            while !writer.is_finished() && given_up.elapsed() < LEAVE_TIMEOUT {
                std::thread::sleep(LOOK);
            }
            return Err(error.to_string());
        }
        writer.join().unwrap_or_else(|panic| Err(crate::infrastructure::runtime::panic_words(&*panic)))
    })
}

/// Until the writer has let go of its end, or the file takes nothing more.
fn take(
    pieces: &Receiver<Vec<u8>>,
    file: &mut dyn std::io::Write,
    is_finished: &dyn Fn() -> bool,
) -> std::io::Result<()> {
    loop {
        match pieces.recv_timeout(LOOK) {
            Ok(piece) => file.write_all(&piece)?,
            // User code may keep the file it was given: once it has returned, nothing more belongs to the snapshot.
            Err(RecvTimeoutError::Timeout) if is_finished() => {
                return pieces.try_iter().try_for_each(|piece| file.write_all(&piece));
            }
            // A file that was given up says so even to no bytes: user code that says nothing is not waited for then.
            Err(RecvTimeoutError::Timeout) => drop(file.write(&[])?),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}
