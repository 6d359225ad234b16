//! An authority, which makes certificates: P-256, a leaf for 90 days, itself for ten years.

use std::fmt;
use std::time::Duration;

use graft_domain::NodeId;
use graft_services::identity::{Identity, Role};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use time::OffsetDateTime;

use super::TlsError;
use super::material::Pem;

/// Days for which a certificate of a member or client is valid.
pub const LEAF_DAYS: u32 = 90;
/// Days for which an authority is valid.
pub const CA_DAYS: u32 = 3650;
/// Clocks differ: a certificate is valid from a little before it was made.
const BACKDATED: Duration = Duration::from_mins(5);
/// Where clients that look for a host's name find a member on the same machine.
const HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// What makes certificates for one cluster. Its key is a secret: it is not shown.
pub struct Authority {
    cluster: String,
    cert: String,
    issuer: Issuer<'static, KeyPair>,
}

/// How long a certificate is valid, from and to.
#[derive(Clone, Copy, Debug)]
struct Life(OffsetDateTime, OffsetDateTime);

impl Life {
    fn days(days: u32) -> Self {
        let now = OffsetDateTime::now_utc();
        Self(now - BACKDATED, now + Duration::from_hours(24) * days)
    }
}

fn failed(error: &rcgen::Error) -> TlsError {
    TlsError::new(format!("the certificate cannot be made: {error}"))
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
        Ok(Self { cluster: cluster.to_owned(), cert, issuer: Issuer::new(params, key) })
    }

    /// The name of its cluster.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// For the member `id`, with its key: it may accept and dial.
    pub fn node(&self, id: &str) -> Result<Pem, TlsError> {
        let id = NodeId::new(id).map_err(|error| TlsError::new(format!("id {id:?}: {error}")))?;
        let identity = Identity::node(&self.cluster, id).map_err(TlsError::new)?;
        let purposes = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(&identity, purposes, &HOSTS)
    }

    /// For a client, with its key: it may only dial.
    pub fn client(&self, name: &str, role: Role) -> Result<Pem, TlsError> {
        let identity = Identity::client(&self.cluster, name, role).map_err(TlsError::new)?;
        self.issue(&identity, vec![ExtendedKeyUsagePurpose::ClientAuth], &[])
    }

    fn issue(
        &self,
        identity: &Identity,
        purposes: Vec<ExtendedKeyUsagePurpose>,
        hosts: &[&str],
    ) -> Result<Pem, TlsError> {
        let key = KeyPair::generate().map_err(|error| failed(&error))?;
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(hosts).map_err(|error| failed(&error))?;
        params.subject_alt_names.push(uri(&identity.to_string())?);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = purposes;
        params.use_authority_key_identifier_extension = true;
        let Life(from, to) = Life::days(LEAF_DAYS);
        (params.not_before, params.not_after) = (from, to);
        let cert = params.signed_by(&key, &self.issuer).map_err(|error| failed(&error))?;
        let (ca, cert) = (self.cert.clone().into_bytes(), cert.pem().into_bytes());
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
