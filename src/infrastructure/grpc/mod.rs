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
//! - `server` accepts connections for every service on the port, `service` says who may call what, `http2` makes
//!   connections, `address` sockets, `backoff` waits, and `tasks` ends what was started.
//!
//! Delivery is in order for each link, at most once, and a broken link loses what was on its way: Raft sends it again.

mod address;
mod backoff;
mod config;
mod convert;
mod convert_ask;
mod dial;
mod event;
mod fetching;
mod handshake;
mod http2;
mod inbound;
mod join_reply;
mod joining;
mod outbox;
mod pace;
mod probing;
mod refusal;
mod sending;
mod server;
mod service;
mod tasks;
mod transport;
mod welcome;

pub use address::{BindError, bind};
pub use config::PeerConfig;
pub use event::{JoinTrouble, LinkStatus, LocalHello, Peer, PeerEvent, PeerSink, RefusedCode};
pub use join_reply::JoinReply;
pub use transport::Transport;

/// The wire types and service stubs, generated from `proto/graft/v1`.
#[allow(clippy::pedantic, clippy::all, missing_debug_implementations, unreachable_pub, unused_qualifications)]
pub(crate) mod wire {
    tonic::include_proto!("graft.v1");
}

#[cfg(test)]
mod tests;
