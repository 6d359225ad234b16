//! What Raft is. A value that steps: time and luck are arguments, effects are values.
//!
//! Source: D. Ongaro, *Consensus: Bridging Theory and Practice* (2014), "the thesis"; its words are used here.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod config;
mod durability;
mod election;
mod entry;
mod ids;
mod invariants;
mod leader;
mod lease;
mod log;
mod membership;
mod message;
mod progress;
mod quorum;
mod raft;
mod random;
mod reading;
mod rebasing;
mod reconfiguration;
mod replication;
mod retention;
mod snapshotting;
mod step;
mod transfer;

#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod world;

pub use config::Config;
pub use entry::{BadPayload, Entry, Payload};
pub use ids::{BadNodeId, ClusterId, EntryId, Incarnation, Index, Instant, NodeId, ReadId, Term};
pub use membership::{BadMembership, Member, Membership, Target};
pub use message::{Append, AppendOutcome, AppendReply, Envelope, Message, SnapshotOffer, VoteReply, VoteRequest};
pub use raft::{FollowerView, RaftCore};
pub use random::Random;
pub use step::{
    Breach, Input, ReadOutcome, Ready, Recovered, Rejected, SnapshotFetch, SnapshotNeed, Transition, Write,
};
