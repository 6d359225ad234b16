use graft_services::change::{Ask, Change};
use prost::Message as _;

use super::super::tests::{append, command, id, numbered, raft, samples};
use super::*;

fn decode_one(frame: wire::Frame) -> Result<PeerMessage, BadFrame> {
    decode_batch(vec![frame], id("n1"), id("n2")).map(|mut messages| messages.remove(0))
}

/// Through the bytes, as a peer would see it.
fn reread(frame: &wire::Frame) -> wire::Frame {
    wire::Frame::decode(Bytes::from(frame.encode_to_vec())).expect("its own encoding")
}

#[test]
fn every_message_survives_the_wire() {
    for message in samples(id("n1"), id("n2")) {
        let frame = reread(&encode(message.clone()));
        assert_eq!(decode_one(frame), Ok(message));
    }
}

#[test]
fn numbers_survive_at_their_extremes() {
    let (from, to) = (id("n1"), id("n2"));
    for number in [0, 1, 127, 128, u64::from(u32::MAX), u64::MAX] {
        let entry = EntryId::new(number, number);
        let messages = [
            Message::Vote(VoteRequest { term: entry.term, last: entry, commit: entry.index, transfer: false }),
            Message::Append(Append {
                session: number,
                round: number,
                prev: entry,
                entries: vec![Entry { index: entry.index, term: entry.term, payload: Payload::Noop }],
                commit: entry.index,
            }),
            Message::AppendReply(AppendReply {
                session: number,
                round: number,
                promise: Duration::from_nanos(number),
                outcome: AppendOutcome::Missing { prev: entry.index, hint: entry },
            }),
            Message::Snapshot(SnapshotOffer { session: number, round: number, last: entry }),
            Message::Read { read: ReadId(number), lease: true },
            Message::ReadReply { read: ReadId(number), index: Some(entry.index) },
        ];
        for message in messages {
            let message = PeerMessage::Raft(Envelope { from, to, term: Term(number), message });
            let frame = encode(message.clone());
            // The frame itself stands in a batch, with a tag and a length.
            assert!(frame.encoded_len() + 6 <= wire_bytes_max(&message), "{message:?}");
            assert_eq!(decode_one(reread(&frame)), Ok(message));
        }
    }
}

#[test]
fn sizes_are_never_underestimated() {
    let mut messages = samples(id("n1"), id("n2"));
    let long = id(&"x".repeat(NodeId::BYTES_MAX));
    let ticket = Ticket { session: u64::MAX, sequence: u64::MAX };
    messages.push(PeerMessage::Refused { to: id("n2"), ticket, refusal: Refusal::NotLeader { leader: Some(long) } });
    messages.push(append(id("n1"), id("n2"), (0..100).map(|at| command(at, vec![7; 300])).collect()));
    let members = (0..100).map(|at| (id(&format!("{}-{at:03}", "x".repeat(50))), "a".repeat(300))).collect();
    let ask = Ask::Change { change: Change::Apply { members }, guard: None };
    messages.push(PeerMessage::Ask { from: id("n1"), ticket, ask });
    messages.push(PeerMessage::Links { from: id("n1"), connected: vec![long; 100], failure: Some("why".repeat(500)) });
    for message in messages {
        let size = wire_bytes_max(&message);
        let encoded = encode(message.clone()).encoded_len() + 6;
        assert!(encoded <= size, "{encoded} of {size}: {message:?}");
    }
}

#[test]
fn a_commands_bytes_are_not_copied_into_the_frame() {
    let body = Bytes::from(vec![7; 100]);
    let frame = encode(append(id("n1"), id("n2"), vec![command(1, body.clone())]));
    let Some(Wire::Append(wire)) = frame.message else { panic!("not an append") };
    assert_eq!(wire.entries[0].data.as_ptr(), body.as_ptr());
}

fn bad(message: Wire) -> BadFrame {
    decode_one(wire::Frame { term: 1, message: Some(message) }).expect_err("an error")
}

#[test]
fn what_is_no_message_is_an_error() {
    assert_eq!(decode_one(wire::Frame::default()), Err(BadFrame::Empty("message")));
    assert_eq!(bad(Wire::AppendReply(wire::AppendReply::default())), BadFrame::Empty("outcome"));
    assert_eq!(bad(Wire::Refused(wire::Refused::default())), BadFrame::Empty("refusal"));
    let leader = Why::NotLeader(refusal::NotLeader { leader: "no id!".to_owned() });
    let refusal = Some(wire::Refusal { why: Some(leader) });
    let refused = wire::Refused { refusal, ..wire::Refused::default() };
    assert!(matches!(bad(Wire::Refused(refused)), BadFrame::NodeId(_)));
    assert_eq!(bad(Wire::Answered(wire::Answered::default())), BadFrame::Empty("answer"));
    assert_eq!(bad(Wire::Ask(wire::Ask::default())), BadFrame::Empty("request"));
    let links = |connected| bad(Wire::Links(wire::Links { connected, failure: None }));
    assert!(matches!(links(vec![String::new()]), BadFrame::NodeId(_)));
    assert_eq!(
        links(vec!["n1".to_owned(); MEMBERS_MAX + 1]),
        BadFrame::TooMany { what: "links", count: MEMBERS_MAX + 1, max: MEMBERS_MAX }
    );
    let with = |kind, data: &'static [u8]| {
        let entry = wire::Entry { kind, data: Bytes::from_static(data), ..wire::Entry::default() };
        bad(Wire::Append(wire::Append { entries: vec![entry], ..wire::Append::default() }))
    };
    assert_eq!(with(3, b""), BadFrame::Payload(BadPayload::UnknownKind(3)));
    // 257 is 1 if it is cut to a byte.
    assert_eq!(with(257, b""), BadFrame::Kind(257));
    assert_eq!(with(0, b"x"), BadFrame::Payload(BadPayload::NoopWithData));
    assert!(matches!(with(2, b"x"), BadFrame::Payload(BadPayload::Membership(_))));
}

#[test]
fn who_does_not_speak_of_leases_has_no_part_in_any() {
    let outcome = Some(Outcome::Matched(1));
    let reply = wire::AppendReply { outcome, ..wire::AppendReply::default() };
    let read = |message| match decode_one(wire::Frame { term: 1, message: Some(message) }) {
        Ok(PeerMessage::Raft(envelope)) => envelope.message,
        other => panic!("{other:?}"),
    };
    assert!(matches!(
        read(Wire::AppendReply(reply)),
        Message::AppendReply(AppendReply { promise: Duration::ZERO, .. })
    ));
    assert!(matches!(read(Wire::Read(wire::Read::default())), Message::Read { lease: false, .. }));
    // More than fits, on the way out.
    let promise = Duration::MAX;
    let matched = AppendOutcome::Matched(Index(1));
    let long = Message::AppendReply(AppendReply { session: 1, round: 1, promise, outcome: matched });
    let Some(Wire::AppendReply(reply)) = encode(raft(id("n1"), id("n2"), long)).message else { panic!("another kind") };
    assert_eq!(reply.promise, u64::MAX);
}

#[test]
fn one_bad_frame_spoils_its_batch() {
    let good = encode(numbered(id("n1"), id("n2"), 1));
    let batch = vec![good.clone(), wire::Frame::default(), good];
    assert_eq!(decode_batch(batch, id("n1"), id("n2")), Err(BadFrame::Empty("message")));
}

#[test]
fn cut_and_flipped_bytes_never_panic() {
    let frames = samples(id("n1"), id("n2")).into_iter().map(encode).collect();
    let batch = wire::Frames { frames, ..wire::Frames::default() };
    let whole = batch.encode_to_vec();
    let attempt = |bytes: Vec<u8>| {
        let Ok(batch) = wire::Frames::decode(Bytes::from(bytes)) else { return 0 };
        usize::from(decode_batch(batch.frames, id("n1"), id("n2")).is_ok())
    };
    let cut: usize = (0..whole.len()).map(|end| attempt(whole[..end].to_vec())).sum();
    let flipped: usize = (0..whole.len() * 8)
        .map(|bit| {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            attempt(bytes)
        })
        .sum();
    assert!(cut > 0 && cut < whole.len(), "{cut}");
    assert!(flipped > 0 && flipped < whole.len() * 8, "{flipped}");
}

/// Whether payloads of a batch are still slices of what it was read from.
fn shared(messages: &[PeerMessage]) -> bool {
    let frames = messages.iter().cloned().map(encode).collect();
    let buffer = Bytes::from(wire::Frames { frames, ..wire::Frames::default() }.encode_to_vec());
    let range = buffer.as_ptr_range();
    let batch = wire::Frames::decode(buffer.clone()).expect("its own encoding");
    let decoded = decode_batch(batch.frames, id("n1"), id("n2")).expect("good messages");
    assert_eq!(decoded, messages);
    let payload = decoded.iter().find_map(|message| match message {
        PeerMessage::Forward { act: Act::Command { body, .. }, .. } => Some(body.clone()),
        PeerMessage::Raft(Envelope { message: Message::Append(append), .. }) => Some(append.entries[0].payload.data()),
        _ => None,
    });
    range.contains(&payload.expect("a payload").as_ptr())
}

#[test]
fn bulk_is_shared_and_crumbs_are_moved() {
    let (from, to) = (id("n1"), id("n2"));
    let bulk = |count: u64, bytes| append(from, to, (1..=count).map(|at| command(at, vec![7; bytes])).collect());
    let forward = |bytes| PeerMessage::Forward {
        from,
        term: Term(7),
        ticket: Ticket::default(),
        act: Act::Command { slot: None, body: Bytes::from(vec![7; bytes]) },
    };
    assert!(shared(&[bulk(1, 8192)]));
    assert!(shared(&[bulk(100, 64)]));
    assert!(shared(&[forward(8192)]));
    assert!(!shared(&[bulk(3, 64)]));
    assert!(!shared(&[forward(64)]));
    // Enough bytes by themselves, but few for a buffer of so many messages.
    let mut crumbs = vec![bulk(1, 8192)];
    crumbs.extend((0..1000).map(|_| raft(from, to, Message::TimeoutNow)));
    assert!(!shared(&crumbs));
}

#[test]
fn long_words_are_cut_when_sent_and_not_taken_when_received() {
    let long = "é".repeat(TEXT_BYTES_MAX);
    for refusal in [Refusal::Busy(long.clone()), Refusal::Halted(long.clone()), Refusal::Membership(long.clone())] {
        let message = PeerMessage::Refused { to: id("n2"), ticket: Ticket::default(), refusal };
        assert!(encode(message.clone()).encoded_len() <= wire_bytes_max(&message));
        let Ok(PeerMessage::Refused { refusal, .. }) = decode_one(encode(message)) else { panic!("not taken") };
        assert!(refusal.to_string().contains(&"é".repeat(TEXT_BYTES_MAX / 2)));
    }
    for why in [Why::Busy(long.clone()), Why::Halted(long.clone()), Why::Membership(long.clone())] {
        let refused = wire::Refused { refusal: Some(wire::Refusal { why: Some(why) }), ..wire::Refused::default() };
        assert!(matches!(bad(Wire::Refused(refused)), BadFrame::TooLong { bytes, .. } if bytes == long.len()));
    }
}
