//! How it touches the world. Adapters do not know one another; only `runtime` wires them.

pub mod config;
pub mod grpc;
#[cfg(feature = "python")]
pub mod python;
pub mod runtime;
pub mod store;
