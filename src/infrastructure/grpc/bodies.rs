//! Requests of clients as they come in: each message within its limit, and all that are half here within one limit.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use graft_services::error::Refusal;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tonic::Status;

use super::admission::OpenCall;
use super::failure::Failure;
use super::owing::Owed;

/// Bytes of requests that have begun to come in and are not whole yet, of all clients together.
#[derive(Debug)]
pub(super) struct Intake {
    bytes: AtomicUsize,
    max: usize,
}

/// A request, message by message.
#[derive(Debug)]
pub(super) struct Metered<B = Incoming> {
    body: B,
    intake: Arc<Intake>,
    /// Bytes that one message may have.
    message_bytes_max: usize,
    scan: Scan,
    /// Counted in the intake: what has come of a message that is not whole.
    held: usize,
}

/// Where one is in a stream of gRPC messages: each has a flag and its length in four bytes before it.
#[derive(Debug, Default)]
struct Scan {
    prefix: [u8; PREFIX_BYTES],
    filled: usize,
    /// Of the message.
    left: usize,
}

/// A response, the call that it ends, and what it owes.
#[derive(Debug)]
pub(super) struct Answering<B> {
    body: B,
    _call: OpenCall,
    owed: Arc<Owed>,
    /// Bytes that were given last. Whoever asks for more has taken them.
    given: usize,
}

const PREFIX_BYTES: usize = 5;

impl Intake {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), max })
    }

    fn take(&self, bytes: usize) -> Result<(), Refusal> {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) <= self.max {
            return Ok(());
        }
        self.release(bytes);
        Err(Refusal::Busy(format!("requests of more than {} bytes are coming in at once", self.max)))
    }

    fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl<B> Metered<B> {
    pub(super) fn new(body: B, intake: Arc<Intake>, message_bytes_max: usize) -> Self {
        Self { body, intake, message_bytes_max, scan: Scan::default(), held: 0 }
    }

    fn scan(&mut self, mut data: &[u8]) -> Result<(), Refusal> {
        while !data.is_empty() {
            if self.scan.left == 0 {
                let n = data.len().min(PREFIX_BYTES - self.scan.filled);
                self.scan.prefix[self.scan.filled..self.scan.filled + n].copy_from_slice(&data[..n]);
                self.scan.filled += n;
                data.advance(n);
                if self.scan.filled < PREFIX_BYTES {
                    return Ok(());
                }
                self.scan.filled = 0;
                let [_, length @ ..] = self.scan.prefix;
                let length = u32::from_be_bytes(length) as usize;
                if length > self.message_bytes_max {
                    let (bytes, limit) = (length as u64, self.message_bytes_max as u64);
                    return Err(Refusal::TooLarge { bytes, limit });
                }
                self.scan.left = length;
                continue;
            }
            let n = data.len().min(self.scan.left);
            self.intake.take(n)?;
            self.held += n;
            self.scan.left -= n;
            data.advance(n);
            if self.scan.left == 0 {
                self.release();
            }
        }
        Ok(())
    }

    fn release(&mut self) {
        self.intake.release(std::mem::take(&mut self.held));
    }
}

impl<B> Drop for Metered<B> {
    fn drop(&mut self) {
        self.release();
    }
}

impl<B> Body for Metered<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
            None => return Poll::Ready(None),
        };
        if let Some(data) = frame.data_ref() {
            self.scan(data).map_err(|refusal| Failure::Refused(refusal).to_status(None))?;
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Answering<B> {
    pub(super) fn new(body: B, call: OpenCall, owed: Arc<Owed>) -> Self {
        Self { body, _call: call, owed, given: 0 }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answering<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if self.given > 0 {
            let given = std::mem::take(&mut self.given);
            self.owed.take(given);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            self.given = frame.data_ref().map_or(0, Bytes::len);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
#[path = "tests/bodies.rs"]
mod tests;
