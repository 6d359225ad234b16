//! The threads of a node.

use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use graft_domain::NodeId;

use super::StartError;

/// What the standard library gives a thread.
const STACK_BYTES: usize = 2 << 20;
/// For user code: an interpreter checks its recursion against the stack of a main thread, 8 MiB, and must not run out before.
pub(crate) const USER_STACK_BYTES: usize = 32 << 20;

/// A thread, and what tells that it has ended.
pub(crate) type Thread = (JoinHandle<()>, Receiver<()>);

/// A named thread; names longer than 15 bytes are cut by the system.
pub(crate) fn thread(id: NodeId, what: &str, body: impl FnOnce() + Send + 'static) -> Result<Thread, StartError> {
    thread_with_stack(id, what, STACK_BYTES, body)
}

pub(crate) fn thread_with_stack(
    id: NodeId,
    what: &str,
    stack_bytes: usize,
    body: impl FnOnce() + Send + 'static,
) -> Result<Thread, StartError> {
    let (ends, ended) = channel::<()>();
    let body = move || {
        body();
        drop(ends);
    };
    let builder = std::thread::Builder::new().name(format!("graft-{what}-{id}")).stack_size(stack_bytes);
    Ok((builder.spawn(body).map_err(io("starting a thread"))?, ended))
}

pub(crate) fn io(doing: &'static str) -> impl Fn(std::io::Error) -> StartError {
    move |error| StartError::Io { doing, error }
}
