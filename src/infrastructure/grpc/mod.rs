//! The transport between members: one long-lived call in each direction between any two of them, and a few single ones.
//!
//! ```text
//!   engine ── send ──▶ outbox ──▶ dial ════ HTTP/2 ════▶ server ──▶ inbound ── PeerSink ──▶ engine
//!                        one per peer                      one port, all services
//! ```
//!
//! - [`Transport`] is what the runtime holds. Nothing of it waits.
//! - `outbox` queues for one peer under limits, `dial` keeps the link to it, `inbound` reads the links of others.
//! - `handshake` decides who may talk to whom, `refusal` carries the reasons, `convert` and `convert_ask` the messages.
//! - `joining` asks to be let into a cluster, `welcome` answers; `probing` finds out who is at an address.
//! - `sending` gives this node's snapshot to followers, at the `pace` that is set, and `fetching` gets a leader's.
//! - `plain` makes texts of others fit for logs.
//! - `client` has the connections of a client, which is no member.
//! - `server` accepts connections for every service on the port, `service` says who may call what, `http2` makes
//!   connections, `address` sockets, `backoff` waits, and `tasks` ends what was started.
//!
//! Delivery is in order for each link, at most once, and a broken link loses what was on its way: Raft sends it again.
//!
//! Those who are no members come in by the same port and are served over the driving port ([`graft_services::api::Api`]):
//!
//! ```text
//!   served ──▶ bodies ──▶ client_service, admin_service ──▶ desk ──▶ Api ── sinks, wakes ──▶ calls, feeding ──▶ client
//!              metered         convert_*                            leading: who leads, for hints
//! ```
//!
//! - `failure` says why there is no answer, in gRPC's terms and back; `failure_kinds` has the table of codes.
//! - `calls` is the stream of numbered calls, `call_batch` what comes on it, `feeding` what is read on and on; `deadline` how long a call may take.
//! - `allowance` says how large a request may be, `intake` counts those that are half here, `owing` the answers that clients
//!   have not taken.
//! - `security` has every connection prove who is there, and says what a call takes; `watched` notes why that failed.
//! - `admission` says how many connections of whom there may be, `served` which service a call is for.
//! - `health_service` and `reflection` are for the tools of others.

mod address;
mod admin_service;
mod admission;
mod allowance;
mod backoff;
mod bodies;
mod call_batch;
mod calls;
mod client;
mod client_service;
mod complaints;
mod config;
mod convert;
mod convert_answer;
mod convert_ask;
mod convert_call;
mod convert_events;
mod convert_status;
mod deadline;
mod desk;
mod dial;
mod event;
mod failure;
mod failure_kinds;
mod faults;
mod feeding;
mod fetching;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
#[cfg(feature = "fuzzing")]
mod fuzzing_samples;
mod handshake;
mod health_service;
mod http2;
mod inbound;
mod intake;
mod join_reply;
mod joining;
mod leading;
mod outbox;
mod owing;
mod pace;
mod plain;
mod probing;
mod readers;
mod reflection;
mod refusal;
mod security;
mod sending;
mod served;
mod server;
mod service;
mod tasks;
mod transport;
mod watched;
mod welcome;
mod words;

pub use address::{BindError, bind, is_address};
pub use client::{ClerkSink, Happened, Lines, Watchers};
pub use complaints::Complaints;
pub use config::PeerConfig;
pub use event::{Health, JoinTrouble, LinkStatus, LocalHello, Offers, Peer, PeerEvent, PeerSink, RefusedCode};
pub use faults::{LinkFault, LinkFaults};
#[cfg(feature = "fuzzing")]
pub use fuzzing_samples::samples as said_samples;
pub use handshake::{founded, is_restored, restored};
pub use join_reply::JoinReply;
pub use readers::{Arrival, Desk, Reader, Readers, Reading};
pub use security::{Guard, Io, Secured, Securing, Security};
pub use transport::Transport;

/// The wire types and service stubs, generated from `proto/graft/v1`.
#[allow(clippy::pedantic, clippy::all, missing_debug_implementations, unreachable_pub, unused_qualifications)]
pub(crate) mod wire {
    tonic::include_proto!("graft.v1");

    pub(crate) use super::call_batch::CallBatch;

    /// All of it, for the reflection service.
    pub(crate) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}

#[cfg(test)]
mod tests;
