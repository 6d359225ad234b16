//! What users can do: the use-cases around the core. No IO, no clock, no luck: the same events give the same effects.
#![forbid(unsafe_code)]

pub mod commands;
mod ending;
pub mod error;
mod heard;
pub mod ports;
mod reads;
mod replica;
mod routing;
mod status;
mod waiting;

#[cfg(test)]
mod tests;

pub use replica::{Batch, Clock, Consistency, Effect, Event, Replica, ReplicaConfig};
pub use status::{MemberStatus, Status};
pub use waiting::RequestId;
