//! What the fuzz targets try: files of certificates and keys, and certificates as the other side of a connection shows them.

use std::time::{Duration, UNIX_EPOCH};

use graft_services::identity::Identity;

use super::Pem;
use super::certificate::{Certificate, chain};
use super::material::{Material, Names, Source};

/// Reads one certificate as it comes over a connection, and who its holder says to be; `names` are those that a user has listed.
///
/// # Errors
/// What is wrong with it, in words.
pub fn identity_of(der: &[u8], names: &Names) -> Result<(Certificate, Result<Identity, String>), String> {
    let certificate = Certificate::parse(der).map_err(|error| error.to_string())?;
    let identity = certificate.identity(names);
    Ok((certificate, identity))
}

/// The certificates of a PEM file.
///
/// # Errors
/// What is wrong with it, in words.
pub fn certificates_of(pem: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let found = chain(pem).map_err(|error| error.to_string())?;
    Ok(found.into_iter().map(|certificate| certificate.to_vec()).collect())
}

/// Reads what a user gives, as of so many seconds since the epoch. Who that makes the node.
///
/// # Errors
/// What is wrong with it, in words.
pub fn material_of(ca: &[u8], cert: &[u8], key: &[u8], seconds: u32) -> Result<Identity, String> {
    let pem = Pem { ca: ca.to_vec(), cert: cert.to_vec(), key: key.to_vec() };
    let now = UNIX_EPOCH + Duration::from_secs(u64::from(seconds));
    let material = Material::parse(&pem, &Source::Memory(pem.clone()), &Names::new(), now);
    material.map(|material| material.identity).map_err(|error| error.to_string())
}
