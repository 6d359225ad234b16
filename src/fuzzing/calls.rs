//! What clients and administrators send, what members say of themselves, and what clients are answered: protobuf that is
//! understood or refused. What was understood is said again, and that is understood as the same.

use graft::infrastructure::grpc::fuzzing::{Said, metered, single_calls};
use graft::infrastructure::grpc::said_samples;

use crate::input::Input;
use crate::samples::{Sample, id};

/// Also tried: the body of a request, in pieces.
const BODY: usize = Said::ALL.len();
const MESSAGE_BYTES_MAX: usize = 200;
const INTAKE_BYTES_MAX: usize = 300;

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let kind = usize::from(input.u8()) % (BODY + 1);
    let Some(said) = Said::ALL.get(kind) else { return body(&mut input) };
    let message = input.rest();
    let _ = single_calls(message);
    if let Some((understood, again)) = said.understood(message) {
        let again = said.understood(&again).map(|(understood, _)| understood);
        assert_eq!(again, Some(understood), "{said:?} is understood as another");
    }
}

/// Pieces come through up to the first message that is too large, and whatever is counted is given back.
fn body(input: &mut Input<'_>) {
    let mut pieces = Vec::new();
    while !input.is_empty() {
        let length = usize::from(input.u8());
        pieces.push(input.take(length));
    }
    let (through, held) = metered(&pieces, MESSAGE_BYTES_MAX, INTAKE_BYTES_MAX);
    assert_eq!(held, 0, "bytes stay counted");
    let all = pieces.concat();
    let (mut rest, mut fits) = (&all[..], true);
    while let Some((head, after)) = rest.split_first_chunk::<5>() {
        let [_, length @ ..] = *head;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        fits &= length <= MESSAGE_BYTES_MAX;
        rest = after.get(length..).unwrap_or_default();
    }
    assert_eq!(through == pieces.len(), fits, "{through} of {} pieces", pieces.len());
}

pub(crate) fn samples() -> Vec<Sample> {
    let mut all = Vec::new();
    for (number, (said, bytes)) in said_samples(id(1), id(2)).into_iter().enumerate() {
        let kind = Said::ALL.iter().position(|known| *known == said).and_then(|kind| u8::try_from(kind).ok());
        let name = format!("{number:02}-{}", format!("{said:?}").to_lowercase());
        // Beyond a failure's and an event's fields nothing has an order of its own; theirs are in a map.
        let is_unordered = matches!(said, Said::Failure | Said::Event) || bytes.windows(5).any(|w| w == b"graft");
        let sample = Sample::new(&name, [&[kind.unwrap_or_default()][..], &bytes].concat());
        all.push(Sample { is_made_anew: is_unordered, ..sample });
    }
    let message = [&[0, 0, 0, 0, 12][..], b"twelve bytes"].concat();
    let pieces = [&[u8::try_from(BODY).unwrap_or_default(), 3][..], &message[..3], &[14], &message[3..]].concat();
    all.push(Sample::new("body", pieces));
    all
}
