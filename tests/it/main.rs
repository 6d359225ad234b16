//! One binary for every test that needs the whole crate: real files, real sockets on loopback, the tree itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod architecture;
mod backup;
mod calls;
mod client;
mod cluster;
mod door;
mod impostors;
mod membership;
mod outsiders;
mod proxy;
mod recovery;
mod sessions;
mod shutdown;
mod strangers;
mod tls;
mod watch;
