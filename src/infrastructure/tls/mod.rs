//! Mutual TLS with identity: who may connect to whom is decided by certificates, TLS 1.3 and nothing older.
//!
//! - `material` is what a user gives: authorities, a certificate, its key; from files or from memory.
//! - `verify` decides whom to believe, and who it is: `identity_of` a certificate is in its names.
//! - [`Endpoint`] secures connections on both sides.
//! - `words` says what went wrong, and what to do about it, on both sides.
//! - [`Authority`] makes certificates, in memory; a [`Depot`] is one in a directory.
//!
//! A connection is never resumed: each one proves anew who is there, so that what is withdrawn is withdrawn at once.

mod authority;
mod certificate;
mod depot;
mod endpoint;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod material;
mod stream;
mod verify;
mod words;

use std::fmt;

pub use authority::{Authority, CA_DAYS, LEAF_DAYS};
pub use certificate::{Certificate, date};
pub use depot::{Depot, Files, certificates};
pub use endpoint::Endpoint;
pub use material::{Names, Pem, Source, Stamp};
pub use stream::{Secured, SecuredStream};

/// Why certificates cannot be used or made, in words that say what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsError(pub String);

impl TlsError {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}
