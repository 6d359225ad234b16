//! Tasks that end with whoever started them.

use std::future::Future;

use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// A group of tasks that can be ended and waited for. Handed to the HTTP/2 library too, so that none of the tasks it
/// starts for a connection outlives the connection.
#[derive(Clone, Debug)]
pub(super) struct Tasks {
    handle: Handle,
    tracker: TaskTracker,
    kill: CancellationToken,
}

impl Tasks {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle, tracker: TaskTracker::new(), kill: CancellationToken::new() }
    }

    /// A group within this one: it ends when the guard is dropped, if not before with this one.
    pub(super) fn subgroup(&self) -> (Self, DropGuard) {
        let kill = self.kill.child_token();
        let group = Self { handle: self.handle.clone(), tracker: self.tracker.clone(), kill: kill.clone() };
        (group, kill.drop_guard())
    }

    pub(super) fn spawn(&self, task: impl Future + Send + 'static) {
        let kill = self.kill.clone();
        let task = async move {
            tokio::select! {
                biased;
                () = kill.cancelled() => {}
                _ = task => {}
            }
        };
        self.tracker.spawn_on(task, &self.handle);
    }

    /// Drops every task of the group at its next await.
    pub(super) fn kill(&self) {
        self.kill.cancel();
    }

    /// Ready when no task of this group, of the one it is within and of the ones within it is left.
    pub(super) async fn done(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Tasks that have not ended, of all groups.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.tracker.len()
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl<F: Future + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}
