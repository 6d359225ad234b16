//! The transport between members: one long-lived call in each direction between any two of them.
//!
//! ```text
//!   engine ── send ──▶ outbox ──▶ dial ════ HTTP/2 ════▶ server ──▶ inbound ── PeerSink ──▶ engine
//!                        one per peer                      one port, all services
//! ```
//!
//! - [`Transport`] is what the runtime holds. Nothing of it waits.
//! - `outbox` queues for one peer under limits, `dial` keeps the link to it, `inbound` reads the links of others.
//! - `handshake` decides who may talk to whom, `refusal` carries the reasons, `convert` the messages.
//! - `server` accepts connections for every service on the port, `address` makes sockets, `tasks` ends what it started.
//!
//! Delivery is in order for each link, at most once, and a broken link loses what was on its way: Raft sends it again.

mod address;
mod config;
mod convert;
mod dial;
mod event;
mod handshake;
mod inbound;
mod outbox;
mod refusal;
mod server;
mod tasks;
mod transport;

pub use address::{BindError, bind};
pub use config::PeerConfig;
pub use event::{LinkStatus, LocalHello, Peer, PeerEvent, PeerSink, RefusedCode};
pub use transport::Transport;

/// The wire types and service stubs, generated from `proto/graft/v1`.
#[allow(clippy::pedantic, clippy::all, missing_debug_implementations, unreachable_pub, unused_qualifications)]
pub(crate) mod wire {
    tonic::include_proto!("graft.v1");
}

#[cfg(test)]
mod tests;
