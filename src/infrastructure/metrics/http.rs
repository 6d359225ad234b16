//! The text on a connection: HTTP/1.1, one request, one answer.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE as CONTENT_TYPE_HEADER, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

/// What the text is, as the format wants it said.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PATH: &str = "/metrics";
/// How long whoever asks may take to do so.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// The least that hyper takes; a request for metrics has a few hundred.
const HEADER_BYTES_MAX: usize = 8 << 10;

/// Answers one request with what `text` is then; with none if there is no place for one more who reads.
pub async fn serve<T: Future<Output = Option<String>>>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    text: impl Fn() -> T,
) -> Result<(), hyper::Error> {
    let service = service_fn(|request: Request<Incoming>| {
        let text = answers(request.method(), request.uri().path()).map(|()| text());
        async {
            Ok::<_, Infallible>(match text {
                Ok(text) => text.await.map_or_else(crowded, page),
                Err(refusal) => *refusal,
            })
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

/// Whether this is a request for metrics.
fn answers(method: &Method, path: &str) -> Result<(), Box<Response<Full<Bytes>>>> {
    if path != PATH {
        return Err(Box::new(refusal(StatusCode::NOT_FOUND, "there is /metrics here, and nothing else\n")));
    }
    if method != Method::GET && method != Method::HEAD {
        let mut refusal = refusal(StatusCode::METHOD_NOT_ALLOWED, "metrics are read, with GET\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Err(Box::new(refusal));
    }
    Ok(())
}

fn crowded() -> Response<Full<Bytes>> {
    refusal(StatusCode::SERVICE_UNAVAILABLE, "too many read at a time: ask again in a moment\n")
}

fn refusal(status: StatusCode, words: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(words.as_bytes())));
    *response.status_mut() = status;
    response
}

fn page(text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    response.headers_mut().insert(CONTENT_TYPE_HEADER, HeaderValue::from_static(CONTENT_TYPE));
    response
}
