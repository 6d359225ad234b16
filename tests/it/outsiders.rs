//! Everybody who does not belong, at every door: refused with an error, counted, and nothing has changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use graft::domain::NodeId;
use graft::infrastructure::runtime::certificates::Depot;
use graft::infrastructure::runtime::{Node, NodeConfig};
use graft::services::Consistency;
use graft::services::api::{Api, Caller};
use graft::services::change::{Ask, Change};
use graft::services::identity::Role;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::cluster::{Lines, PATIENCE, count, execute, free_address, id, value, wait};

/// Where members speak, where clients do, and where operators do.
const PEER: &str = "/graft.v1.Peer/Link";
const JOIN: &str = "/graft.v1.Peer/Join";
const QUERY: &str = "/graft.v1.Client/Query";
const EXECUTE: &str = "/graft.v1.Client/Execute";
const CHANGE: &str = "/graft.v1.Admin/ChangeMembership";

/// What an outsider shows.
enum Shown {
    /// Bytes that are no handshake, or one of another time.
    Bytes(Vec<u8>),
    NoCertificate,
    Certificate(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
}

struct Cluster {
    directory: tempfile::TempDir,
    depot: Depot,
    nodes: Vec<Node>,
}

impl Cluster {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let depot = Depot::create(&directory.path().join("tls"), "bank").unwrap();
        let members: BTreeMap<NodeId, String> = (0..3).map(|n| (id(n), free_address())).collect();
        let start = |(id, address): (&NodeId, &String)| {
            let mut config = NodeConfig::new(*id, address, directory.path().join(id.as_str()));
            config.members = Some(members.clone());
            let tls = depot.node(id.as_str()).unwrap().source();
            Node::start_secured(&config, Box::new(Lines::default()), Some(&tls)).unwrap()
        };
        let nodes: Vec<Node> = members.iter().map(start).collect();
        assert_eq!(value(execute(&nodes[0], "one")), "1");
        Self { directory, depot, nodes }
    }

    /// A certificate of this cluster's authority, or of another, good from so many days from now to so many.
    fn certificate(&self, directory: &str, uri: &str, days: (i64, i64)) -> Shown {
        let file = |name: &str| std::fs::read_to_string(self.directory.path().join(directory).join(name)).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&file("ca.pem"), KeyPair::from_pem(&file("ca.key")).unwrap()).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let at = |days: i64| OffsetDateTime::now_utc() + time::Duration::days(days);
        (params.not_before, params.not_after) = (at(days.0), at(days.1));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        Shown::Certificate(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    fn client(&self, role: Role) -> Shown {
        let files = self.depot.client(&format!("web-{role}"), role).unwrap();
        let chain = CertificateDer::pem_file_iter(files.cert).unwrap().map(Result::unwrap).collect();
        Shown::Certificate(chain, PrivateKeyDer::from_pem_file(files.key).unwrap())
    }

    /// What must not change: how many commands were applied, and the membership.
    fn state(&self) -> (String, graft::domain::Index, usize) {
        let count = count(&self.nodes[0], Consistency::Linearizable);
        let status = self.nodes[0].status();
        (count, status.membership_index, status.members.len())
    }

    fn refused(&self, what: &str) -> u64 {
        let (name, text) = (format!("graft_refused_total{{what=\"{what}\"}} "), self.nodes[0].metrics());
        text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
    }

    /// Knocks with this and makes the call, which has to fail, in these words if it came so far, and to be counted so.
    #[track_caller]
    fn refuses(&self, who: &str, shown: &Shown, path: &str, (what, words): (&str, &str)) {
        let (before, counted) = (self.state(), self.refused(what));
        let answer = knock(self.nodes[0].address(), shown, path);
        if words.is_empty() {
            assert!(answer.is_err(), "{who} at {path}: {answer:?}");
        } else {
            let (status, message) = answer.unwrap_or_else(|error| panic!("{who} at {path}: {error}"));
            assert!(status != "0" && message.contains(words), "{who} at {path}: {status} {message}");
        }
        wait(&format!("{who} at {path} to be counted as {what}"), || (self.refused(what) > counted).then_some(()));
        assert_eq!(self.state(), before, "{who} at {path}");
    }
}

/// Believes anybody: what is tried here is the other side.
#[derive(Debug)]
struct Gullible(Arc<CryptoProvider>);

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The gRPC status of the answer and its message, or what went wrong before there was one.
fn knock(address: &str, shown: &Shown, path: &str) -> Result<(String, String), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let knocking = async {
        let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let (chain, key) = match shown {
            Shown::Bytes(bytes) => {
                stream.write_all(bytes).await.map_err(|error| error.to_string())?;
                let mut answer = Vec::new();
                // An alert, or nothing; then the end.
                stream.read_to_end(&mut answer).await.map_err(|error| error.to_string())?;
                return Err(format!("hung up after {} bytes", answer.len()));
            }
            Shown::NoCertificate => (Vec::new(), None),
            Shown::Certificate(chain, key) => (chain.clone(), Some(key.clone_key())),
        };
        call(stream, chain, key, path).await.map_err(|error| error.to_string())
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, knocking).await }).expect("it is refused in time")
}

async fn call(
    stream: TcpStream,
    chain: Vec<CertificateDer<'static>>,
    key: Option<PrivateKeyDer<'static>>,
    path: &str,
) -> Result<(String, String), Box<dyn std::error::Error>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible(provider)));
    let mut config = match key {
        None => config.with_no_client_auth(),
        Some(key) => config.with_client_auth_cert(chain, key)?,
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let secured = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("member")?, stream).await?;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(secured)).await?;
    tokio::spawn(connection);
    let request = hyper::Request::post(format!("https://member{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("graft-hello-bin", hello())
        // An empty message, not compressed.
        .body(Full::new(Bytes::from_static(&[0; 5])))?;
    let response = sender.send_request(request).await?;
    let mut found = response.headers().clone();
    if let Some(trailers) = response.into_body().collect().await?.trailers() {
        found.extend(trailers.clone());
    }
    let text = |name: &str| found.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    Ok((text("grpc-status").ok_or("no status")?, text("grpc-message").unwrap_or_default().replace("%20", " ")))
}

/// "I am n3, and you are n1", as a `Hello` in base64.
fn hello() -> String {
    let (own, other) = (id(2), id(0));
    let mut bytes = vec![0x08, 1, 0x10, 1];
    for (field, text) in [(4, own.as_str()), (6, "127.0.0.1:1"), (7, other.as_str())] {
        bytes.extend([field << 3 | 2, u8::try_from(text.len()).unwrap()]);
        bytes.extend(text.as_bytes());
    }
    base64(&bytes)
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let bits = chunk.iter().chain([&0; 3]).take(3).fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        (0..=chunk.len()).map(|place| char::from(LETTERS[bits >> (18 - 6 * place) & 63])).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

#[test]
fn whoever_proves_nothing_is_refused_at_every_door() {
    let cluster = Cluster::start();
    for other in ["other", "shop"] {
        Depot::create(&cluster.directory.path().join(other), if other == "shop" { "shop" } else { "bank" }).unwrap();
    }
    let (now, member) = ((-1, 1), "spiffe://bank/node/n3");
    let outsiders = [
        ("no certificate", Shown::NoCertificate),
        ("another authority", cluster.certificate("other", member, now)),
        ("expired", cluster.certificate("tls", member, (-9, -1))),
        ("not yet valid", cluster.certificate("tls", member, (1, 9))),
        ("another cluster", cluster.certificate("tls", "spiffe://shop/node/n3", now)),
        ("another authority of another cluster", cluster.certificate("shop", "spiffe://shop/node/n3", now)),
        ("plain text", Shown::Bytes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec())),
        ("TLS 1.2", Shown::Bytes(tls_1_2())),
        ("garbage", Shown::Bytes((0..=255).cycle().take(5000).collect())),
    ];
    for (who, shown) in &outsiders {
        for path in [PEER, QUERY] {
            cluster.refuses(who, shown, path, ("connection", ""));
        }
    }
}

#[test]
fn whoever_is_somebody_does_no_more_than_he_may() {
    let cluster = Cluster::start();
    let (reader, writer, operator) =
        (cluster.client(Role::Reader), cluster.client(Role::Writer), cluster.client(Role::Operator));
    for (who, shown) in [("reader", &reader), ("writer", &writer), ("operator", &operator)] {
        for path in [PEER, JOIN] {
            cluster.refuses(who, shown, path, ("peer_call", "for members only"));
        }
    }
    cluster.refuses("a reader", &reader, EXECUTE, ("call", "takes the role writer"));
    cluster.refuses("a writer", &writer, CHANGE, ("call", "takes the role operator"));
    let n2 = cluster.certificate("tls", "spiffe://bank/node/n2", (-1, 1));
    cluster.refuses("n2 that says it is n3", &n2, PEER, ("link", "n2"));
    let n9 = cluster.certificate("tls", "spiffe://bank/node/n9", (-1, 1));
    cluster.refuses("no member", &n9, QUERY, ("call", "no member of this cluster"));
    cluster.refuses("no member", &n9, PEER, ("link", "n9"));
}

#[test]
fn a_member_that_was_removed_is_refused_at_every_door() {
    let cluster = Cluster::start();
    let n3 = cluster.certificate("tls", &format!("spiffe://bank/node/{}", id(2)), (-1, 1));
    let waiting = graft::infrastructure::runtime::Waiting::new(1);
    let caller = Caller { sink: waiting.clone(), token: 0 };
    cluster.nodes[0].ask(Ask::Change { change: Change::Remove { id: id(2) }, guard: None }, caller, PATIENCE);
    assert!(waiting.wait(PATIENCE + Duration::from_secs(1)));
    wait("the removal to be known", || cluster.nodes[0].status().former.contains(&id(2)).then_some(()));
    cluster.refuses("a removed member", &n3, QUERY, ("call", "was removed from the cluster"));
    cluster.refuses("a removed member", &n3, PEER, ("link", "removed"));
}

/// A hello of TLS 1.2, as any old client sends it: no extension offers another version.
fn tls_1_2() -> Vec<u8> {
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    record
}
