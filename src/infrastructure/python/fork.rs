//! A forked child has the engine's memory and none of its threads.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;

use super::errors;

static IN_CHILD: AtomicBool = AtomicBool::new(false);

pub(super) fn mark_child() {
    IN_CHILD.store(true, Ordering::Relaxed);
}

/// Refuses use in a forked child: nobody would ever answer.
pub(super) fn refuse_in_child(py: Python<'_>) -> PyResult<()> {
    if IN_CHILD.load(Ordering::Relaxed) {
        let what = "this process was forked from one that used Graft; the engine's threads did not come along. \
                    Start it with the \"spawn\" or \"forkserver\" method of multiprocessing instead";
        return Err(errors::raise(py, "STOPPED", what, &[]));
    }
    Ok(())
}
