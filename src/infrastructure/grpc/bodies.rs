//! Requests of clients as they come in, message by message, and what becomes of them as it goes out.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
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
    /// The beginning of a large message, as long as little of it is here. Whoever decodes it makes room for all of it
    /// as soon as he has read its length: five bytes would take 64 MiB of addresses, which not every system has for the
    /// asking.
    kept_back: BytesMut,
}

/// Where one is in a stream of gRPC messages: each has a flag and its length in four bytes before it.
#[derive(Debug, Default)]
struct Scan {
    prefix: [u8; PREFIX_BYTES],
    filled: usize,
    /// Of the message.
    length: usize,
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
/// A message of so many bytes is kept back until one part of so many is here.
const LARGE_BYTES: usize = 1 << 20;
const KEPT_BACK_PART: usize = 16;

impl Scan {
    /// What of the message is here, with what is before it.
    fn came(&self) -> usize {
        if self.left > 0 { PREFIX_BYTES + self.length - self.left } else { self.filled }
    }

    fn has_little(&self) -> bool {
        self.left > 0 && self.length >= LARGE_BYTES && self.length - self.left < self.length / KEPT_BACK_PART
    }
}

impl<B> Metered<B> {
    pub(super) fn new(body: B, share: Option<&Arc<Share>>, message_bytes_max: usize) -> Self {
        let half = share.map(Half::new);
        Self { body, message_bytes_max, scan: Scan::default(), half, kept_back: BytesMut::new() }
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
                (self.scan.length, self.scan.left) = (length, length);
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

    /// What can be handed on, once this has been looked at.
    fn hand_on(&mut self, mut data: Bytes) -> Option<Bytes> {
        if self.kept_back.is_empty() {
            if !self.scan.has_little() {
                return Some(data);
            }
            let before = data.len() - self.scan.came().min(data.len());
            self.kept_back.extend_from_slice(&data.split_off(before));
            return (before > 0).then_some(data);
        }
        self.kept_back.extend_from_slice(&data);
        (!self.scan.has_little()).then(|| self.kept_back.split().freeze())
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
        loop {
            let frame = match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
                Poll::Ready(None) => {
                    // Cut short: whoever decodes it says so.
                    let rest = std::mem::take(&mut self.kept_back).freeze();
                    return Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))));
                }
                Poll::Pending => {
                    let Some(half) = &mut self.half else { return Poll::Pending };
                    return half.poll_given_up(context).map(|refusal| Some(Err(refused(refusal))));
                }
            };
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            };
            self.scan(&data).map_err(refused)?;
            if let Some(data) = self.hand_on(data) {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.kept_back.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.kept_back.is_empty() { self.body.size_hint() } else { SizeHint::default() }
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
