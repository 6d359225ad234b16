//! Graft keeps a program's state alive on several machines: a replicated state machine as a library.
//!
//! Three layers. [`domain`] is Raft, a value that steps; [`services`] is what users can do; [`infrastructure`] touches the
//! world. Everything depends on the domain, and the domain depends on nothing.

pub mod infrastructure;

pub use graft_domain as domain;
pub use graft_services as services;
