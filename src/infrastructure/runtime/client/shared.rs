//! The network thread of this process's clients: one for all of them, there while there are any.

use std::io;
use std::process;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

/// A client's share of it.
#[derive(Debug)]
pub(super) struct Shared(Arc<Runtime>);

/// Of which process: a child that was forked has the memory of it, and not the thread.
static RUNNING: Mutex<Option<(u32, Weak<Runtime>)>> = Mutex::new(None);

impl Shared {
    pub(super) fn of_this_process() -> io::Result<Self> {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let here = process::id();
        if let Some((_, runtime)) = running.as_ref().filter(|(process, _)| *process == here)
            && let Some(runtime) = runtime.upgrade()
        {
            return Ok(Self(runtime));
        }
        // One thread moves more than a loop can decide on.
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("graft-client-net").enable_all().build()?;
        let runtime = Arc::new(runtime);
        *running = Some((here, Arc::downgrade(&runtime)));
        Ok(Self(runtime))
    }

    pub(super) fn handle(&self) -> &Handle {
        self.0.handle()
    }

    /// The last one ends it, and waits so long for a look-up of a name, say, that hangs.
    pub(super) fn leave(self, limit: Duration) {
        if let Some(runtime) = Arc::into_inner(self.0) {
            if limit.is_zero() {
                runtime.shutdown_background();
            } else {
                runtime.shutdown_timeout(limit);
            }
        }
    }
}
