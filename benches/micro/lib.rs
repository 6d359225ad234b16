//! Pieces of a command's way, each as a value that does it again and again: for the clock (`micro.rs`) and for counted
//! instructions (`instructions`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_debug_implementations,
    reason = "it is measured, and may fail loudly"
)]

mod commands;
mod core;
mod log;
mod memory;
mod replica;

use bytes::Bytes;

pub use commands::{Applying, Codec};
pub use core::{Follower, Leader, Quorum};
pub use log::{Append, Recovery};
pub use memory::Memory;
pub use replica::{Leading, Way};

/// Bytes of each command's body.
pub const BODY_BYTES: usize = 128;

/// Commands after which the log is cut, as a snapshot would have it.
pub(crate) const SNAPSHOT_EVERY: u64 = 1 << 15;

/// Something that is done again and again, with so many commands each time.
pub trait Work {
    type Input;

    /// What the next turn is given. It is made apart, so that nobody counts what it costs.
    fn prepare(&mut self) -> Self::Input;

    /// Does it once, and lets go of what came of it.
    fn turn(&mut self, input: Self::Input);
}

/// Bodies of so many commands, each in an allocation of its own, as they come from callers.
pub(crate) fn bodies(count: usize) -> Vec<Bytes> {
    (0..count).map(|_| Bytes::from(vec![b'x'; BODY_BYTES])).collect()
}

/// The same as parts of one allocation, as they come off the wire.
pub(crate) fn shared_bodies(count: usize) -> Vec<Bytes> {
    let mut all = Bytes::from(vec![b'x'; count * BODY_BYTES]);
    (0..count).map(|_| all.split_to(BODY_BYTES)).collect()
}
