//! What users can do: the use-cases around the core. No IO, no clock, no luck: the same events give the same effects.
#![forbid(unsafe_code)]

pub mod api;
pub mod applier;
mod applying;
mod asks;
pub mod change;
pub mod client;
pub mod commands;
mod deadlines;
mod ending;
pub mod error;
pub mod health;
mod heard;
pub mod identity;
mod links;
mod membership;
mod notice;
pub mod numbered;
mod own_session;
pub mod ports;
mod reads;
mod replica;
pub mod rescue;
mod routing;
pub mod sessions;
pub mod sessions_format;
pub mod snapshot_meta;
mod snapshots;
mod status;
mod telling;
mod verifying;
mod waiting;
mod why;

#[cfg(test)]
mod tests;

pub use notice::Notice;
pub use replica::{Batch, Clock, Committed, Consistency, Effect, Event, Read, Replica, ReplicaConfig, Restored};
pub use status::{CertificateLife, MemberStatus, Status, named};
pub use waiting::RequestId;
pub use why::WhatIf;
