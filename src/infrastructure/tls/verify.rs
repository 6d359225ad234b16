//! Whom to believe: a chain to an authority that is trusted, and an identity of the same cluster.

use std::sync::Arc;

use graft_services::identity::{Distrust, Identity, Who};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible, RootCertStore,
    SignatureScheme,
};

use super::TlsError;
use super::certificate::Certificate;
use super::material::Names;

/// How the names of certificates are read, and of which cluster they must be.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) cluster: String,
    pub(super) names: Names,
}

impl Reading {
    /// Whose certificate this is.
    pub(super) fn identity_of(&self, leaf: &CertificateDer<'_>) -> Result<Identity, Distrust> {
        let certificate = Certificate::parse(leaf).map_err(|error| Distrust(error.to_string()))?;
        let identity = certificate.identity(&self.names);
        let identity = identity.map_err(|why| Distrust(format!("the other side's certificate is refused: {why}")))?;
        if identity.cluster != self.cluster {
            return Err(Distrust(format!(
                "the other side is {identity}, of the cluster {:?}, and this one is of {:?}: correct the address, or use a \
                 certificate of the same cluster on both sides",
                identity.cluster, self.cluster
            )));
        }
        Ok(identity)
    }
}

fn refused(distrust: Distrust) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(distrust))))
}

/// Verifies whoever connects.
#[derive(Debug)]
pub(super) struct OfClients {
    chain: Arc<dyn ClientCertVerifier>,
    reading: Arc<Reading>,
}

impl OfClients {
    pub(super) fn new(
        roots: &RootCertStore,
        provider: &Arc<CryptoProvider>,
        reading: Arc<Reading>,
    ) -> Result<Self, TlsError> {
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), Arc::clone(provider)).build();
        let chain = chain.map_err(|error| TlsError::new(format!("the authorities cannot be used: {error}")))?;
        Ok(Self { chain, reading })
    }
}

impl ClientCertVerifier for OfClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(leaf, intermediates, now)?;
        self.reading.identity_of(leaf).map_err(refused)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Verifies whoever was dialled: a member of the cluster, by its identity and not by the name of its host.
#[derive(Debug)]
pub(super) struct OfMembers {
    pub(super) roots: RootCertStore,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
    pub(super) reading: Arc<Reading>,
}

impl ServerCertVerifier for OfMembers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, self.algorithms.all)?;
        let identity = self.reading.identity_of(leaf).map_err(refused)?;
        match identity.who {
            Who::Node(_) => Ok(ServerCertVerified::assertion()),
            Who::Client { .. } => Err(refused(Distrust(format!(
                "{identity} answered where a member should: a client's certificate cannot be a member's"
            )))),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
