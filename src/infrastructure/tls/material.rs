//! What a user gives: the authorities to believe, a certificate to show, and its key.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use graft_services::identity::Identity;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;
use super::certificate::{Certificate, chain, date, seconds};

/// Bytes of a file: more than any chain takes, and a wrong path is not read into memory.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Identities of certificates without a URI, by a host or common name in them.
pub type Names = BTreeMap<String, Identity>;

/// The three in PEM. The key is a secret: it is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    pub ca: Vec<u8>,
    pub cert: Vec<u8>,
    pub key: Vec<u8>,
}

/// Where they come from.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    Files {
        ca: PathBuf,
        cert: PathBuf,
        key: PathBuf,
    },
    Memory(Pem),
    /// As the inner one, and certificates without an identity of their own are known by these names.
    Listed(Box<Self>, Names),
}

/// Read and understood. The key is a secret: it is not shown.
pub(super) struct Material {
    pub(super) roots: RootCertStore,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) identity: Identity,
    pub(super) life: (i64, i64),
}

/// How files are: another one is another state of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stamp([Option<(SystemTime, u64)>; 3]);

impl Source {
    pub(super) fn read(&self) -> Result<Pem, TlsError> {
        match self {
            Self::Memory(pem) => Ok(pem.clone()),
            Self::Listed(source, _) => source.read(),
            Self::Files { ca, cert, key } => {
                refuse_open_key(key)?;
                Ok(Pem { ca: read(ca, "ca")?, cert: read(cert, "cert")?, key: read(key, "key")? })
            }
        }
    }

    /// How the files are now; none if there are none.
    pub fn stamp(&self) -> Option<Stamp> {
        let (ca, cert, key) = match self {
            Self::Files { ca, cert, key } => (ca, cert, key),
            Self::Memory(_) => return None,
            Self::Listed(source, _) => return source.stamp(),
        };
        Some(Stamp([ca, cert, key].map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })))
    }

    /// Whom certificates stand for that do not say it themselves.
    pub(super) fn names(&self) -> Names {
        if let Self::Listed(_, names) = self { names.clone() } else { Names::new() }
    }

    /// What each is called when something is wrong with it.
    pub(super) fn label(&self, of: &str) -> String {
        match self {
            Self::Memory(_) => format!("the {of} in memory"),
            Self::Listed(source, _) => source.label(of),
            Self::Files { ca, cert, key } => {
                let path = match of {
                    "ca" => ca,
                    "cert" => cert,
                    _ => key,
                };
                format!("{of}={}", path.display())
            }
        }
    }
}

impl Material {
    /// Understands what was read; `source` is for the words.
    pub(super) fn parse(pem: &Pem, source: &Source, names: &Names, now: SystemTime) -> Result<Self, TlsError> {
        let wrong = |of: &str| {
            let label = source.label(of);
            move |error: TlsError| TlsError::new(format!("{label}: {error}"))
        };
        let authorities = chain(&pem.ca).map_err(wrong("ca"))?;
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            let added = roots.add(authority.clone());
            added.map_err(|error| wrong("ca")(TlsError::new(format!("it is no authority's certificate: {error}"))))?;
        }
        let chain = chain(&pem.cert).map_err(wrong("cert"))?;
        let leaf = Certificate::parse(&chain[0]).map_err(wrong("cert"))?;
        let identity = leaf.identity(names).map_err(|why| wrong("cert")(TlsError::new(why)))?;
        refuse_out_of_date(&leaf, now).map_err(wrong("cert"))?;
        let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|_| {
            // What the parser says may have bytes of the key in it.
            wrong("key")(TlsError::new("it has no private key in PEM: -----BEGIN PRIVATE KEY----- is wanted"))
        })?;
        Ok(Self { roots, chain, key, identity, life: (leaf.not_before, leaf.not_after) })
    }
}

fn refuse_out_of_date(leaf: &Certificate, now: SystemTime) -> Result<(), TlsError> {
    let at = seconds(now);
    if at > leaf.not_after {
        return Err(TlsError::new(format!(
            "it expired at {} (it is {} now): put a new one in its place",
            date(leaf.not_after),
            date(at)
        )));
    }
    if at < leaf.not_before {
        return Err(TlsError::new(format!(
            "it is not valid before {}, and it is {} here: is the clock of this machine right?",
            date(leaf.not_before),
            date(at)
        )));
    }
    Ok(())
}

pub(super) fn read(path: &Path, of: &str) -> Result<Vec<u8>, TlsError> {
    let shown = path.display();
    let wrong = |error: std::io::Error| {
        let what = match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file: make it, or correct the path",
            std::io::ErrorKind::PermissionDenied => "this user may not read it",
            _ => "it cannot be read",
        };
        TlsError::new(format!("{of}={shown}: {what} ({error})"))
    };
    let bytes = fs::metadata(path).map_err(wrong)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(TlsError::new(format!("{of}={shown} has {bytes} bytes: is it the right file?")));
    }
    fs::read(path).map_err(wrong)
}

/// A key that every user of the machine can read is none.
#[cfg(unix)]
fn refuse_open_key(path: &Path) -> Result<(), TlsError> {
    use std::os::unix::fs::PermissionsExt as _;
    let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
    let mode = metadata.permissions().mode() & 0o777;
    if mode.trailing_zeros() >= 3 {
        return Ok(());
    }
    let shown = path.display();
    Err(TlsError::new(format!(
        "key={shown} can be used by every user of this machine (mode {mode:o}): chmod 600 {shown}"
    )))
}

#[cfg(not(unix))]
fn refuse_open_key(_path: &Path) -> Result<(), TlsError> {
    Ok(())
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pem").finish_non_exhaustive()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listed(source, _) => source.fmt(f),
            Self::Files { ca, cert, key } => {
                f.debug_struct("Files").field("ca", ca).field("cert", cert).field("key", key).finish()
            }
            Self::Memory(pem) => pem.fmt(f),
        }
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").field("identity", &self.identity).finish_non_exhaustive()
    }
}
