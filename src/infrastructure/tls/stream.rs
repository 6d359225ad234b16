//! A secured connection, whose failures are told in words.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use graft_services::identity::Identity;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::words::{Side, told};

/// A connection, and who is at its other end.
#[derive(Debug)]
pub struct Secured {
    pub stream: SecuredStream,
    pub identity: Identity,
}

/// In TLS 1.3 the side that dials hears only with the first bytes that it was refused: errors are translated here.
#[derive(Debug)]
pub struct SecuredStream {
    inner: TlsStream<TcpStream>,
    side: Side,
}

impl SecuredStream {
    pub(super) fn new(inner: TlsStream<TcpStream>, side: Side) -> Self {
        Self { inner, side }
    }

    fn told<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        polled.map_err(|error| told(error, self.side))
    }
}

impl AsyncRead for SecuredStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_read(context, to);
        self.told(polled)
    }
}

impl AsyncWrite for SecuredStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.told(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(context, bytes);
        self.told(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(context);
        self.told(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(context);
        self.told(polled)
    }
}
