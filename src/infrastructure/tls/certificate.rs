//! What a certificate says.

use std::time::{SystemTime, UNIX_EPOCH};

use graft_services::identity::Identity;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::TlsError;
use super::material::Names;

/// Certificates in one file. An authority has one or two, a chain a few.
const CERTIFICATES_MAX: usize = 64;

/// A certificate, as far as Graft reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certificate {
    pub subject: String,
    pub issuer: String,
    /// Hexadecimal, as openssl shows it.
    pub serial: String,
    /// Seconds since the epoch; it is valid from here to there.
    pub not_before: i64,
    pub not_after: i64,
    /// It may sign others.
    pub is_authority: bool,
    /// Names in it: URIs, and hosts by name or address.
    pub uris: Vec<String>,
    pub hosts: Vec<String>,
    pub common_name: Option<String>,
}

impl Certificate {
    pub(super) fn parse(der: &[u8]) -> Result<Self, TlsError> {
        let bad = |error: &dyn std::fmt::Display| TlsError::new(format!("it is no X.509 certificate: {error}"));
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| bad(&error))?;
        let (mut uris, mut hosts) = (Vec::new(), Vec::new());
        let names = parsed.subject_alternative_name().map_err(|error| bad(&error))?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                GeneralName::DNSName(host) => hosts.push((*host).to_owned()),
                GeneralName::IPAddress(bytes) => hosts.extend(ip(bytes)),
                _ => {}
            }
        }
        let common_name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        Ok(Self {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            serial: parsed.raw_serial_as_string(),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            is_authority: parsed.is_ca(),
            uris,
            hosts,
            common_name: common_name.map(str::to_owned),
        })
    }

    /// Who it says that its holder is: by the one URI of the kind, or by a name that the user has listed.
    pub(super) fn identity(&self, names: &Names) -> Result<Identity, String> {
        let spiffe: Vec<&String> = self.uris.iter().filter(|uri| uri.starts_with("spiffe://")).collect();
        match spiffe[..] {
            [uri] => return Identity::parse(uri),
            [] => {}
            _ => {
                return Err(format!("it has {} identities, and must have one: {}", spiffe.len(), self.uris.join(", ")));
            }
        }
        let hosts = self.hosts.iter().chain(&self.common_name);
        let mut listed: Vec<&Identity> = hosts.filter_map(|name| names.get(name)).collect();
        listed.dedup();
        match listed[..] {
            [identity] => Ok(identity.clone()),
            [] => Err(format!(
                "it says nowhere who its holder is: make it with a URI among its subject alternative names such as \
                 spiffe://<cluster>/node/<id>, or list one of its names in `names` ({})",
                self.hosts.iter().chain(&self.common_name).cloned().collect::<Vec<_>>().join(", ")
            )),
            _ => Err("`names` lists several of its names, as different identities".to_owned()),
        }
    }
}

/// The certificates of a PEM file.
pub(super) fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).take(CERTIFICATES_MAX + 1).collect();
    let found = found.map_err(|error| TlsError::new(format!("it is no PEM file: {error}")))?;
    match found.len() {
        0 => Err(TlsError::new("it has no certificate: a PEM file with -----BEGIN CERTIFICATE----- is wanted")),
        1..=CERTIFICATES_MAX => Ok(found),
        _ => Err(TlsError::new(format!("it has more than {CERTIFICATES_MAX} certificates"))),
    }
}

/// A point in time as people write it.
pub fn date(seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(seconds).map_or_else(
        |_| format!("{seconds} s"),
        |at| {
            let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
            format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", at.hour(), at.minute(), at.second())
        },
    )
}

pub(super) fn seconds(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

fn ip(bytes: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(four).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|sixteen| std::net::Ipv6Addr::from(sixteen).to_string())
}
