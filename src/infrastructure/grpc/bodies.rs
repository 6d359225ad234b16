//! Requests of clients as they come in, message by message, and what becomes of them as it goes out.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use graft_services::error::Refusal;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tonic::Status;

use super::admission::OpenCall;
use super::failure::Failure;
use super::intake::{Half, Share};
use super::owing::Owed;

/// A request, message by message.
#[derive(Debug)]
pub(super) struct Metered<B = Incoming> {
    body: B,
    /// Bytes that one message may have.
    message_bytes_max: usize,
    scan: Scan,
    /// What has come of a message that is not whole; none if that is too small to be counted.
    half: Option<Half>,
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

impl<B> Metered<B> {
    pub(super) fn new(body: B, share: Option<&Arc<Share>>, message_bytes_max: usize) -> Self {
        Self { body, message_bytes_max, scan: Scan::default(), half: share.map(Half::new) }
    }

    fn scan(&mut self, mut data: &[u8]) -> Result<(), Refusal> {
        while !data.is_empty() {
            if self.scan.left == 0 {
                let n = data.len().min(PREFIX_BYTES - self.scan.filled);
                self.scan.prefix[self.scan.filled..self.scan.filled + n].copy_from_slice(&data[..n]);
                self.scan.filled += n;
                data.advance(n);
                if self.scan.filled < PREFIX_BYTES {
                    break;
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
            self.scan.left -= n;
            data.advance(n);
            let Some(half) = &mut self.half else { continue };
            half.take(n)?;
            if self.scan.left == 0 {
                half.whole();
            }
        }
        if let Some(half) = &mut self.half {
            half.keep();
        }
        Ok(())
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
        let refused = |refusal| Failure::Refused(refusal).to_status(None);
        let frame = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                let Some(half) = &mut self.half else { return Poll::Pending };
                return half.poll_given_up(context).map(|refusal| Some(Err(refused(refusal))));
            }
        };
        if let Some(data) = frame.data_ref() {
            self.scan(data).map_err(refused)?;
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
