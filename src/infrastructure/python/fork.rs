//! A forked child has the engine's memory and none of its threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;

use super::errors;

static IN_CHILD: AtomicBool = AtomicBool::new(false);

pub(super) fn mark_child() {
    IN_CHILD.store(true, Ordering::Relaxed);
}

pub(super) fn is_child() -> bool {
    IN_CHILD.load(Ordering::Relaxed)
}

/// In a forked child it is never taken down: a lock may be held by a thread that is not there, and the sockets are the parent's.
pub(super) fn keep_in_child<T: ?Sized>(kept: &Arc<T>) {
    if is_child() {
        std::mem::forget(Arc::clone(kept));
    }
}

/// Refuses use in a forked child: nobody would ever answer.
pub(super) fn refuse_in_child(py: Python<'_>) -> PyResult<()> {
    if is_child() {
        let what = "this process was forked from one that used Graft; the engine's threads did not come along. \
                    Start it with the \"spawn\" or \"forkserver\" method of multiprocessing instead";
        return Err(errors::raise(py, "STOPPED", what, &[]));
    }
    Ok(())
}
