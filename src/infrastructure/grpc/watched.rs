//! A connection whose failures to believe one another are noted: layers above keep words of an error, not what it is.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use graft_services::identity::Distrust;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::security::Io;

/// What a connection failed for, if it is that the two sides do not believe one another.
#[derive(Clone, Debug, Default)]
pub(super) struct Fault(Arc<OnceLock<Distrust>>);

impl Fault {
    pub(super) fn get(&self) -> Option<&Distrust> {
        self.0.get()
    }

    fn note(&self, distrust: &Distrust) {
        // The first one is the reason of the others.
        let _ = self.0.set(distrust.clone());
    }
}

/// Either kind of connection. One in plain text sees whether the other side begins with TLS.
pub(super) struct Watched<S> {
    inner: S,
    fault: Fault,
    /// What to say if the other side begins with TLS, as long as it has not begun.
    if_tls: Option<&'static str>,
}

/// The first bytes of a record of TLS: alert or handshake, and the version, of which HTTP/2 begins with none.
const TLS_RECORDS: [u8; 2] = [0x15, 0x16];

pub(super) const ACCEPTED: &str = "the other side speaks TLS, and this member does not: start this member with `tls=`, or leave `tls=` \
                                   out over there";
pub(super) const DIALLED: &str =
    "the other side speaks TLS and nothing else: give `tls=` here, with a certificate of its cluster";

impl<S> Watched<S> {
    pub(super) fn secured(inner: S) -> (Self, Fault) {
        let fault = Fault::default();
        (Self { inner, fault: fault.clone(), if_tls: None }, fault)
    }

    pub(super) fn plain(inner: S, if_tls: &'static str) -> (Self, Fault) {
        let fault = Fault::default();
        (Self { inner, fault: fault.clone(), if_tls: Some(if_tls) }, fault)
    }

    fn noted<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled
            && let Some(distrust) = error.get_ref().and_then(|inner| inner.downcast_ref())
        {
            self.fault.note(distrust);
        }
        polled
    }
}

impl<S: Io> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, to);
        if let Some(words) = self.if_tls
            && let Some(first) = to.filled().get(before)
        {
            self.if_tls = None;
            if TLS_RECORDS.contains(first) {
                let distrust = Distrust(words.to_owned());
                self.fault.note(&distrust);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, distrust)));
            }
        }
        self.noted(polled)
    }
}

impl<S: Io> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.noted(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(context, bytes);
        self.noted(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(context);
        self.noted(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(context);
        self.noted(polled)
    }
}
