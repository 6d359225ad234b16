//! An authority, which makes certificates: P-256, a leaf for 90 days, itself for ten years.

use std::fmt;
use std::time::Duration;

use graft_domain::NodeId;
use graft_services::identity::{Identity, Role, Who};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::TlsError;
use super::certificate::{Certificate, chain};
use super::material::Pem;

/// Days for which a certificate of a member or client is valid.
pub const LEAF_DAYS: u32 = 90;
/// Days for which an authority is valid.
pub const CA_DAYS: u32 = 3650;
/// Clocks differ: a certificate is valid from a little before it was made.
const BACKDATED: Duration = Duration::from_mins(5);
/// After every certificate in PEM.
const END: &str = "-----END CERTIFICATE-----";
/// Where clients that look for a host's name find a member on the same machine.
const HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// What makes certificates for one cluster. Its key is a secret: it is not shown.
pub struct Authority {
    cluster: String,
    cert: String,
    /// Those whose certificates are believed as well, while it takes their place.
    before: String,
    issuer: Issuer<'static, KeyPair>,
}

/// How long a certificate is valid, from and to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life(pub(super) OffsetDateTime, pub(super) OffsetDateTime);

impl Life {
    fn days(days: u32) -> Self {
        let now = OffsetDateTime::now_utc();
        Self(now - BACKDATED, now + Duration::from_hours(24) * days)
    }
}

fn failed(error: &rcgen::Error) -> TlsError {
    TlsError::new(format!("the certificate cannot be made: {error}"))
}

/// Whether one of these authorities signed the first of these certificates.
fn is_signed(cert: &[u8], authorities: &str) -> Result<bool, TlsError> {
    let bad = |_| TlsError::new("it is no X.509 certificate");
    let (leaf, authorities) = (chain(cert)?, chain(authorities.as_bytes())?);
    let (_, leaf) = X509Certificate::from_der(&leaf[0]).map_err(bad)?;
    for authority in &authorities {
        let (_, authority) = X509Certificate::from_der(authority).map_err(bad)?;
        if leaf.verify_signature(Some(authority.public_key())).is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Authority {
    /// A new one for the cluster of this name, known to nobody yet.
    pub fn new(cluster: &str) -> Result<Self, TlsError> {
        let probe = NodeId::new("n").map_err(|error| TlsError::new(error.to_string()))?;
        Identity::node(cluster, probe).map_err(TlsError::new)?;
        let key = KeyPair::generate().map_err(|error| failed(&error))?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("Graft authority of {cluster}"));
        params.subject_alt_names = vec![uri(&format!("spiffe://{cluster}"))?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let Life(from, to) = Life::days(CA_DAYS);
        (params.not_before, params.not_after) = (from, to);
        let cert = params.self_signed(&key).map_err(|error| failed(&error))?.pem();
        Ok(Self { cluster: cluster.to_owned(), cert, before: String::new(), issuer: Issuer::new(params, key) })
    }

    /// What [`Authority::trusted`] and [`Authority::key_pem`] gave.
    pub(super) fn from_pem(trusted: &str, key: &str) -> Result<Self, TlsError> {
        let all = chain(trusted.as_bytes())?;
        let own = Certificate::parse(&all[0])?;
        let cluster = own.uris.iter().find_map(|uri| uri.strip_prefix("spiffe://")).filter(|_| own.is_authority);
        let cluster =
            cluster.ok_or_else(|| TlsError::new("the first certificate is not that of an authority of Graft's"))?;
        let key = KeyPair::from_pem(key).map_err(|_| TlsError::new("the key is no private key in PEM"))?;
        let end = trusted.find(END).map_or(trusted.len(), |at| at + END.len());
        let (cert, before) = trusted.split_at(end);
        if X509Certificate::from_der(&all[0])
            .is_ok_and(|(_, own)| own.public_key().subject_public_key.data != key.public_key_raw())
        {
            return Err(TlsError::new("the key is not that of the first certificate"));
        }
        let issuer = Issuer::from_ca_cert_pem(cert, key).map_err(|error| failed(&error))?;
        let (cert, before) = (format!("{}\n", cert.trim()), before.trim_start().to_owned());
        Ok(Self { cluster: cluster.to_owned(), cert, before, issuer })
    }

    /// Those to believe, in PEM, this one first.
    pub(super) fn trusted(&self) -> String {
        format!("{}{}", self.cert, self.before)
    }

    /// Its key, in PEM.
    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Another one of the same cluster, which is to take its place: both are believed.
    pub(super) fn successor(&self) -> Result<Self, TlsError> {
        Ok(Self { before: self.trusted(), ..Self::new(&self.cluster)? })
    }

    /// From now on it alone is believed.
    pub(super) fn stand_alone(&mut self) {
        self.before.clear();
    }

    /// Whether a certificate, the first of these in PEM, is of its making.
    pub(super) fn has_signed(&self, cert: &[u8]) -> Result<bool, TlsError> {
        is_signed(cert, &self.cert)
    }

    /// Whether it is of its making, or of the authority that it replaces.
    pub(super) fn has_made(&self, cert: &[u8]) -> Result<bool, TlsError> {
        is_signed(cert, &self.trusted())
    }

    /// Whether the one before it is still believed.
    pub(super) fn replaces_another(&self) -> bool {
        !self.before.is_empty()
    }

    /// The name of its cluster.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// For the member `id`, with its key: it may accept and dial.
    pub fn node(&self, id: &str) -> Result<Pem, TlsError> {
        self.issue(&self.node_identity(id)?)
    }

    pub(super) fn node_identity(&self, id: &str) -> Result<Identity, TlsError> {
        let id = NodeId::new(id).map_err(|error| TlsError::new(format!("id {id:?}: {error}")))?;
        Identity::node(&self.cluster, id).map_err(TlsError::new)
    }

    /// For a client, with its key: it may only dial.
    pub fn client(&self, name: &str, role: Role) -> Result<Pem, TlsError> {
        self.issue(&self.client_identity(name, role)?)
    }

    pub(super) fn client_identity(&self, name: &str, role: Role) -> Result<Identity, TlsError> {
        Identity::client(&self.cluster, name, role).map_err(TlsError::new)
    }

    pub(super) fn issue(&self, identity: &Identity) -> Result<Pem, TlsError> {
        self.issue_for(identity, Life::days(LEAF_DAYS))
    }

    pub(super) fn issue_for(&self, identity: &Identity, Life(from, to): Life) -> Result<Pem, TlsError> {
        use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        let (purposes, hosts) = match &identity.who {
            Who::Node(_) => (vec![ServerAuth, ClientAuth], &HOSTS[..]),
            Who::Client { .. } => (vec![ClientAuth], &[][..]),
        };
        let key = KeyPair::generate().map_err(|error| failed(&error))?;
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(hosts).map_err(|error| failed(&error))?;
        params.subject_alt_names.push(uri(&identity.to_string())?);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = purposes;
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (from, to);
        let cert = params.signed_by(&key, &self.issuer).map_err(|error| failed(&error))?;
        let (ca, cert) = (self.trusted().into_bytes(), cert.pem().into_bytes());
        Ok(Pem { ca, cert, key: key.serialize_pem().into_bytes() })
    }
}

fn uri(text: &str) -> Result<SanType, TlsError> {
    text.try_into().map(SanType::URI).map_err(|error| failed(&error))
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}
