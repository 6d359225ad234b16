//! What stands in logs and snapshots under their checksums: sessions, metadata, memberships, payloads, commands. Bytes that
//! are taken for one are what it is written as, but where the order of a list is free.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use graft_domain::{ClusterId, EntryId, Index, Membership, Payload, Target, Term};
use graft_services::Committed;
use graft_services::applier::{Applied, Applier};
use graft_services::commands::{self, Act, Slot, session_id};
use graft_services::ports::{Raised, Reply, Ticket};
use graft_services::sessions::Sessions;
use graft_services::snapshot_meta::SnapshotMeta;

use crate::echo::Echo;
use crate::input::{Input, put_block};
use crate::samples::{Sample, id, membership};

const SESSIONS: u8 = 0;
const META: u8 = 1;
const MEMBERSHIP: u8 = 2;
const PAYLOAD: u8 = 3;
const COMMAND: u8 = 4;
const KINDS: u8 = 5;

/// Commands that one input applies.
const COMMANDS_MAX: usize = 64;

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.u8() % KINDS {
        SESSIONS => {
            let table = input.block();
            sessions_go_on(table, &mut input);
        }
        META => {
            let Ok(meta) = SnapshotMeta::decode(input.rest()) else { return };
            assert_eq!(SnapshotMeta::decode(&meta.encode()), Ok(meta));
        }
        MEMBERSHIP => {
            let Ok(membership) = Membership::decode(input.rest()) else { return };
            let again = membership.encode();
            assert_eq!(again.len(), membership.size());
            assert_eq!(Membership::decode(&again), Ok(membership));
        }
        PAYLOAD => {
            let (kind, data) = (input.u8(), Bytes::copy_from_slice(input.rest()));
            let Ok(payload) = Payload::decode(kind, data) else { return };
            assert_eq!(Payload::decode(payload.kind(), payload.data()), Ok(payload));
        }
        _ => {
            let Ok(logged) = commands::decode(&Bytes::copy_from_slice(input.rest())) else { return };
            let again = commands::encode(&mut BytesMut::new(), logged.time, logged.ticket, &logged.act);
            assert_eq!(commands::decode(&again), Ok(logged));
        }
    }
}

/// A table is what its bytes say; commands are applied with it, and what comes of them is a table again.
fn sessions_go_on(table: &[u8], input: &mut Input<'_>) {
    let Ok(sessions) = Sessions::decode(table) else { return };
    assert_eq!(&sessions.encode()[..], table, "a table has one encoding");
    let state = [&(table.len() as u64).to_le_bytes()[..], table].concat();
    let mut applier = Applier::new(Box::new(Echo::default()));
    let restored = applier.restore(Box::new(Cursor::new(state)), Index::ZERO);
    assert_eq!(restored, Ok(()));
    let first = sessions.upto().0;
    if first >= Index::LAST.0 {
        return;
    }
    let (mut commands, mut at) = (Vec::new(), first);
    while !input.is_empty() && commands.len() < COMMANDS_MAX {
        at += u64::from(input.u8() % 4);
        let (time, command) = (input.u64(), Bytes::copy_from_slice(input.block()));
        let Ok(logged) = commands::decode(&command) else { continue };
        commands.push(Committed { index: Index(at), term: Term(3), time, act: logged.act });
        at += 1;
    }
    let mut made = Applied::default();
    assert_eq!(applier.apply(&commands, &mut made), Ok(()));
    assert_eq!(made.answers.len(), commands.len());
    let after = applier.sessions().encode();
    let again = Sessions::decode(&after).map(|sessions| sessions.encode());
    assert_eq!(again.as_ref(), Ok(&after), "what came of it is a table");
}

/// A table with sessions of every kind of use.
pub(crate) fn sessions() -> Sessions {
    let mut applier = Applier::new(Box::new(Echo::default()));
    let opened = |index, key| (index, Act::OpenSession { ttl: Duration::from_secs(9), key });
    let used = |index, session, sequence, unanswered, body: &'static [u8]| {
        let slot = Some(Slot { session, sequence, unanswered });
        (index, Act::Command { slot, body: Bytes::from_static(body) })
    };
    let (one, other) = (session_id(Index(2), 1), session_id(Index(3), 2));
    let acts = vec![
        opened(2, 1),
        opened(3, 2),
        used(4, one, 1, 1, b"one"),
        used(5, one, 2, 1, b"raise"),
        used(6, other, 3, 2, b"other"),
        used(7, one, 2, 2, b"again"),
        (8, Act::Command { slot: None, body: Bytes::from_static(b"without") }),
    ];
    let commands: Vec<Committed> = acts
        .into_iter()
        .map(|(index, act)| Committed { index: Index(index), term: Term(1), time: index * 10, act })
        .collect();
    let done = applier.apply(&commands, &mut Applied::default());
    assert_eq!(done, Ok(()));
    applier.sessions().clone()
}

pub(crate) fn samples() -> Vec<Sample> {
    let mut members = Membership { cluster: ClusterId(7), ..membership(3) };
    members.removed.insert(id(4));
    if let Some(member) = members.members.get_mut(&id(3)) {
        (member.voter, member.outgoing, member.target) = (false, true, Target::Gone);
    }
    let meta =
        SnapshotMeta { last: EntryId::new(3, 9), command: Index(8), time: 7, membership: Arc::new(members.clone()) };
    let of = |kind: u8, bytes: &[u8]| [&[kind][..], bytes].concat();
    let mut all = vec![
        Sample::new("meta", of(META, &meta.encode())),
        Sample::new("membership", of(MEMBERSHIP, &members.encode())),
        Sample::new("payload", of(PAYLOAD, &[&[2][..], &members.encode()].concat())),
    ];
    let session = session_id(Index(2), 1);
    let slot = Some(Slot { session, sequence: 3, unanswered: 2 });
    let acts = [
        ("plain", Act::Command { slot: None, body: Bytes::from_static(b"body") }),
        ("slot", Act::Command { slot, body: Bytes::from_static(b"body") }),
        ("open", Act::OpenSession { ttl: Duration::from_secs(5), key: 6 }),
        ("verify", Act::Verify { origin: id(1) }),
    ];
    let mut used = vec![SESSIONS];
    put_block(&mut used, &sessions().encode());
    for (name, act) in &acts {
        let command = commands::encode(&mut BytesMut::new(), 5, Ticket { session: 1, sequence: 2 }, act);
        all.push(Sample::new(&format!("command-{name}"), of(COMMAND, &command)));
        used.push(1);
        used.extend_from_slice(&100_u64.to_le_bytes());
        put_block(&mut used, &command);
    }
    let empty = Sessions::default().encode();
    let mut unused = vec![SESSIONS];
    put_block(&mut unused, &empty);
    all.extend([Sample::new("sessions", used), Sample::new("no-sessions", unused)]);
    all
}

/// A reply of either kind.
pub(crate) fn reply(body: &[u8]) -> Reply {
    if body == b"raise" {
        let raised = Raised { type_name: "Error".to_owned(), message: "no".to_owned(), traceback: "at".to_owned() };
        return Reply::Raised(Box::new(raised));
    }
    Reply::Value(Bytes::copy_from_slice(body))
}
