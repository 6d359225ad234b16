//! Secures connections, accepted and dialled, with one certificate for both.

use std::sync::Arc;
use std::time::SystemTime;

use graft_services::identity::{Distrust, Identity};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier as _;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::TlsError;
use super::certificate::seconds;
use super::material::{Material, Source};
use super::stream::{Secured, SecuredStream};
use super::verify::{OfClients, OfMembers, Reading};
use super::words::{Side, words};

/// HTTP/2: what gRPC speaks.
const PROTOCOL: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// One certificate, and whom its holder believes.
#[derive(Clone)]
pub struct Endpoint {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    identity: Identity,
    reading: Arc<Reading>,
    /// Seconds since the epoch, from and to.
    life: (i64, i64),
}

impl Endpoint {
    /// Reads the material; an error names the file and says what to do.
    pub fn open(source: &Source) -> Result<Self, TlsError> {
        Self::open_at(source, SystemTime::now())
    }

    pub(super) fn open_at(source: &Source, now: SystemTime) -> Result<Self, TlsError> {
        Self::of(&Material::parse(&source.read()?, source, &source.names(), now)?, source)
    }

    fn of(material: &Material, source: &Source) -> Result<Self, TlsError> {
        let names = source.names();
        let provider = Arc::new(ring::default_provider());
        let reading = Arc::new(Reading { cluster: material.identity.cluster.clone(), names });
        let unusable = |error: rustls::Error| {
            TlsError::new(format!(
                "{} and {} do not fit one another: {error}: give the key that was made with the certificate",
                source.label("cert"),
                source.label("key")
            ))
        };
        let server = server(material, &provider, &reading)?.map_err(unusable)?;
        let client = client(material, &provider, &reading).map_err(unusable)?;
        let identity = material.identity.clone();
        Ok(Self { server: Arc::new(server), client: Arc::new(client), identity, reading, life: material.life })
    }

    /// When its certificate is good for nothing any more, in seconds since the epoch.
    pub fn expires(&self) -> i64 {
        self.life.1
    }

    /// Whether less than a third of its life is left.
    pub fn is_expiring(&self, now: SystemTime) -> bool {
        let (from, to) = self.life;
        to.saturating_sub(seconds(now)) < to.saturating_sub(from) / 3
    }

    /// As [`Endpoint::open`]; refuses as well what would be believed by nobody who believes the same authorities.
    pub fn open_believed(source: &Source) -> Result<Self, TlsError> {
        let material = Material::parse(&source.read()?, source, &source.names(), SystemTime::now())?;
        let endpoint = Self::of(&material, source)?;
        let provider = Arc::new(ring::default_provider());
        let verifier = OfClients::new(&material.roots, &provider, Arc::clone(&endpoint.reading))?;
        // No chain is empty.
        let (leaf, others) = (&material.chain[0], &material.chain[1..]);
        verifier.verify_client_cert(leaf, others, UnixTime::now()).map_err(|error| {
            TlsError::new(format!(
                "{} is not believed by those who believe {} ({error}): take the certificate and the authority of one cluster",
                source.label("cert"),
                source.label("ca")
            ))
        })?;
        Ok(endpoint)
    }

    /// Who this side is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Secures an accepted connection, and says who it is.
    pub async fn accept(&self, stream: TcpStream) -> Result<Secured, Distrust> {
        self.accept_by(Arc::clone(&self.server), stream).await
    }

    /// The same, on which HTTP/1.1 is to be spoken.
    pub async fn accept_http1(&self, stream: TcpStream) -> Result<Secured, Distrust> {
        let mut server = ServerConfig::clone(&self.server);
        server.alpn_protocols = vec![HTTP1.to_vec()];
        self.accept_by(Arc::new(server), stream).await
    }

    async fn accept_by(&self, server: Arc<ServerConfig>, stream: TcpStream) -> Result<Secured, Distrust> {
        let accepted = TlsAcceptor::from(server).accept(stream).await;
        let stream = accepted.map_err(|error| words(&error, Side::Accepting))?;
        let identity = self.identity_of(stream.get_ref().1.peer_certificates())?;
        Ok(Secured { stream: SecuredStream::new(stream.into(), Side::Accepting), identity })
    }

    /// Secures a dialled connection, and says which member answered.
    pub async fn connect(&self, stream: TcpStream) -> Result<Secured, Distrust> {
        // Members are known by their identities; no name is sent.
        let name = ServerName::try_from("graft.invalid").map_err(|error| Distrust(error.to_string()))?;
        let connected = TlsConnector::from(Arc::clone(&self.client)).connect(name, stream).await;
        let stream = connected.map_err(|error| words(&error, Side::Dialling))?;
        let identity = self.identity_of(stream.get_ref().1.peer_certificates())?;
        Ok(Secured { stream: SecuredStream::new(stream.into(), Side::Dialling), identity })
    }

    fn identity_of(&self, chain: Option<&[CertificateDer<'static>]>) -> Result<Identity, Distrust> {
        let leaf = chain.and_then(<[_]>::first);
        let leaf = leaf.ok_or_else(|| Distrust("the other side showed no certificate".to_owned()))?;
        self.reading.identity_of(leaf)
    }
}

fn server(
    material: &Material,
    provider: &Arc<CryptoProvider>,
    reading: &Arc<Reading>,
) -> Result<Result<ServerConfig, rustls::Error>, TlsError> {
    let verifier = Arc::new(OfClients::new(&material.roots, provider, Arc::clone(reading))?);
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider)).with_protocol_versions(&[&TLS13]);
    let config = builder.and_then(|builder| {
        builder.with_client_cert_verifier(verifier).with_single_cert(material.chain.clone(), material.key.clone_key())
    });
    Ok(config.map(|mut config| {
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config
    }))
}

fn client(
    material: &Material,
    provider: &Arc<CryptoProvider>,
    reading: &Arc<Reading>,
) -> Result<ClientConfig, rustls::Error> {
    let verifier = Arc::new(OfMembers {
        roots: material.roots.clone(),
        algorithms: provider.signature_verification_algorithms,
        reading: Arc::clone(reading),
    });
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider)).with_protocol_versions(&[&TLS13])?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = builder.with_client_auth_cert(material.chain.clone(), material.key.clone_key())?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("identity", &self.identity).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "tests/matrix.rs"]
mod tests;
