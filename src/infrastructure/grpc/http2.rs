//! HTTP/2 from the calling side, and the calls that are made on a connection of their own.

use std::error::Error;
use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use graft_domain::NodeId;
use graft_services::client::Loss;
use graft_services::identity::Distrust;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::sync::DropGuard;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};

use super::address::Connector;
use super::config::PeerConfig;
use super::plain::plain;
use super::tasks::Tasks;
use super::watched::Fault;
use super::wire::peer_client::PeerClient;

/// Bytes of a status's words that are kept.
const WORDS_BYTES_MAX: usize = 4 << 10;

/// A connection for one call. Dropped, it closes.
pub(super) struct Single {
    pub(super) client: PeerClient<Http2>,
    _closes: DropGuard,
}

/// Why there is no connection, in words.
#[derive(Debug)]
pub(super) enum NoConnection {
    /// Nobody answers.
    Unreachable(String),
    /// Whoever answers speaks something else.
    Foreign(String),
}

impl Single {
    /// Connects, within the times of the configuration.
    pub(super) async fn open(
        connector: &mut Connector,
        config: &PeerConfig,
        tasks: &Tasks,
        answer_bytes_max: usize,
        expected: Option<NodeId>,
    ) -> Result<Self, NoConnection> {
        let words = |error: &dyn Display| error.to_string();
        let stream = connector.connect(config.connect_timeout).await;
        let stream = stream.map_err(|error| NoConnection::Unreachable(words(&error)))?;
        let (tasks, closes) = tasks.subgroup();
        let client = client(stream, config, &tasks, answer_bytes_max, expected).await;
        let client = client.map_err(|error| NoConnection::Foreign(words(&error)))?;
        Ok(Self { client, _closes: closes })
    }
}

/// What libraries say of everyday things, and that in plain words.
const PLAIN: [(&str, &str); 3] = [
    ("error reading a body from connection", "the connection broke"),
    ("peer closed connection without sending TLS close_notify", "the other side closed it without a word"),
    ("stream closed because of a broken pipe", "the other side closed it without a word"),
];

/// An error, with all that is behind it.
fn chained(error: &dyn Error) -> String {
    caused(error.to_string(), error.source())
}

/// What a status says, with all that is behind it.
pub(super) fn words(status: &Status) -> String {
    plain(&caused(status.message().to_owned(), status.source()), WORDS_BYTES_MAX)
}

/// Every cause once, however often libraries repeat those behind it, without links into the documentation of these.
fn caused(first: String, mut cause: Option<&dyn Error>) -> String {
    let mut texts = vec![first];
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    let mut told: Vec<String> = Vec::new();
    for part in texts.iter().flat_map(|text| text.split(": ")) {
        if part.starts_with("https://") {
            continue;
        }
        let part = PLAIN.iter().find(|(theirs, _)| *theirs == part).map_or(part, |(_, ours)| ours);
        if !told.iter().any(|known| known == part) {
            told.push(part.to_owned());
        }
    }
    told.join(": ")
}

/// The `Peer` service at the other end of a connection; a single message of it has at most `answer_bytes_max`.
pub(super) async fn client(
    stream: TcpStream,
    config: &PeerConfig,
    tasks: &Tasks,
    answer_bytes_max: usize,
    expected: Option<NodeId>,
) -> Result<PeerClient<Http2>, String> {
    // The path is what matters; the authority is a formality of HTTP.
    let origin = http::Uri::from_static("http://graft.invalid");
    let http2 = secured(stream, config, tasks, expected).await.map_err(|loss| loss.why)?;
    Ok(PeerClient::with_origin(http2, origin)
        .max_encoding_message_size(config.message_bytes_max)
        .max_decoding_message_size(answer_bytes_max))
}

/// Speaks HTTP/2 on a connection to any member, with tasks of the group.
pub(super) async fn http2(stream: TcpStream, config: &PeerConfig, tasks: &Tasks) -> Result<Http2, Loss> {
    secured(stream, config, tasks, None).await
}

async fn secured(
    stream: TcpStream,
    config: &PeerConfig,
    tasks: &Tasks,
    expected: Option<NodeId>,
) -> Result<Http2, Loss> {
    let stream = config.security.connect(stream, expected, config.handshake_timeout).await;
    let (stream, fault) = stream?;
    let foreign = |error: hyper::Error| {
        let unlike = || Loss::from(format!("it does not speak HTTP/2: {}", chained(&error)));
        fault.get().cloned().map_or_else(unlike, Loss::from)
    };
    let (sender, connection) = http2::Builder::new(tasks.clone())
        .timer(TokioTimer::new())
        .initial_stream_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes)
        .keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(config.keepalive_timeout)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(foreign)?;
    tasks.spawn(connection);
    Ok(Http2 { sender, fault })
}

/// One HTTP/2 connection as tonic's client wants it.
#[derive(Clone, Debug)]
pub(super) struct Http2 {
    sender: http2::SendRequest<Body>,
    fault: Fault,
}

impl Http2 {
    /// Why the two sides do not believe one another, if that is what it failed for.
    pub(super) fn distrust(&self) -> Option<&Distrust> {
        self.fault.get()
    }
}

impl Service<http::Request<Body>> for Http2 {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_told_once_and_in_plain_words() {
        let eof = "peer closed connection without sending TLS close_notify: https://docs.rs/rustls/latest/rustls/#eof";
        let body = "error reading a body from connection";
        let cause = std::io::Error::other(format!("{body}: {eof}"));
        let killed = caused(format!("{body}: {body}: {eof}"), Some(&cause));
        assert_eq!(killed, "the connection broke: the other side closed it without a word");
        let refused = std::io::Error::other("no route");
        assert_eq!(caused("tcp connect error".to_owned(), Some(&refused)), "tcp connect error: no route");
    }
}
