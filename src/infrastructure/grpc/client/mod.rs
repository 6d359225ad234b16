//! Connections of a client to members: one for each [`LinkId`], with one stream of calls on it, single calls beside it, and
//! the streams of whoever watches.
//!
//! ```text
//!   clerk ── send ──▶ outgoing ──▶ connection ════ HTTP/2 ════▶ a member
//!     ▲                                │ batches of answers
//!     └──────────── ClerkSink ◀────────┘
//! ```
//!
//! - [`Lines`] is what the runtime holds. Nothing of it waits.
//! - `connection` makes a connection and reads it, `outgoing` cuts what waits into batches, `single` makes calls of `Admin`.
//! - `following` reads streams that go on at another member when one ends, into the `feed` of a reader.
//!
//! What to send where, and what to make of an answer, is decided by the clerk in the services.

mod connection;
mod feed;
mod following;
mod lines;
mod outgoing;
mod single;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use graft_services::client::Event;
use tokio::sync::OwnedSemaphorePermit;

pub use lines::{Lines, Watchers};

/// What a connection tells, all that came at once.
#[derive(Debug)]
pub struct Happened {
    pub events: Vec<Event>,
    /// A member that talks faster than its client listens is not read until what it said has been dropped.
    pub(self) _heard: Option<OwnedSemaphorePermit>,
}

impl From<Event> for Happened {
    fn from(event: Event) -> Self {
        Self { events: vec![event], _heard: None }
    }
}

/// Takes what happens, from any thread and in order for each link. It must not block.
pub type ClerkSink = Arc<dyn Fn(Happened) + Send + Sync>;
