//! How it touches the world. Adapters do not know one another; only `runtime` wires them. The store is a
//! crate of its own, so that a simulator has the real log without the rest.

#[cfg(feature = "cli")]
mod cli;
pub mod config;
pub mod grpc;
pub mod metrics;
#[cfg(feature = "python")]
pub mod python;
pub mod runtime;
pub mod tls;

pub use graft_store as store;

#[cfg(feature = "cli")]
pub use cli::{Dev, Next, Setting, Start, exit_status, interrupt, run as command_line};
#[cfg(all(feature = "cli", feature = "fuzzing"))]
pub use cli::{setting_of_text, settings_of_file};
