//! A batch of calls, as it is read: a call may take two bytes on the wire and a hundred in memory, so that what is beyond the
//! most that a batch may have is not decoded.

use bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, message, skip_field};
use prost::{DecodeError, Message};

use super::wire::NumberedCall;

/// `graft.v1.CallBatch`. Of one that has too many calls, one more than it may have is there.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct CallBatch {
    pub calls: Vec<NumberedCall>,
}

/// Calls of one batch: as many as may be in flight on a stream.
pub(super) const CALLS_MAX: usize = 16 << 10;
/// Of the field.
const CALLS_TAG: u32 = 1;

impl CallBatch {
    pub(super) fn is_too_long(&self) -> bool {
        self.calls.len() > CALLS_MAX
    }
}

impl Message for CallBatch {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        message::encode_repeated(CALLS_TAG, &self.calls, buffer);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        if self.is_too_long() {
            // Nothing of the batch will be done.
            buffer.advance(buffer.remaining());
            return Ok(());
        }
        match tag {
            CALLS_TAG => message::merge_repeated(wire_type, &mut self.calls, buffer, context),
            _ => skip_field(wire_type, tag, buffer, context),
        }
    }

    fn encoded_len(&self) -> usize {
        message::encoded_len_repeated(CALLS_TAG, &self.calls)
    }

    fn clear(&mut self) {
        self.calls.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_the_most_is_not_decoded() {
        let empty = [10, 0].repeat(9 << 20);
        let batch = CallBatch::decode(&*empty).unwrap();
        assert!(batch.is_too_long());
        assert_eq!(batch.calls.len(), CALLS_MAX + 1);
        let most = CallBatch::decode(&empty[..2 * CALLS_MAX]).unwrap();
        assert!(!most.is_too_long() && most.calls.len() == CALLS_MAX);
    }

    #[test]
    fn a_batch_travels_as_the_schema_says() {
        let call = |number| NumberedCall { number, timeout: 3, call: None };
        let batch = CallBatch { calls: vec![call(1), call(300)] };
        let bytes = batch.encode_to_vec();
        assert_eq!(bytes, [10, 4, 8, 1, 16, 3, 10, 5, 8, 172, 2, 16, 3]);
        assert_eq!(bytes.len(), batch.encoded_len());
        // A field of a newer version.
        let newer = [&bytes[..], &[16, 9]].concat();
        assert_eq!(CallBatch::decode(&*newer).unwrap(), batch);
    }
}
