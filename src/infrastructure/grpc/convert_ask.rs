//! Changes of the membership between their form in the services and their form on the wire, and lists of members.

use std::collections::BTreeMap;

use graft_domain::{Incarnation, Index, NodeId};
use graft_services::change::{Ask, Change};
use graft_services::ports::Ticket;

use super::convert::{BadFrame, MEMBERS_MAX, few, node_id, within};
use super::handshake::ADDRESS_BYTES_MAX;
use super::wire;
use super::wire::ask::Ask as WireAsk;
use super::wire::change::{self, Change as WireChange};

/// More than any id takes on the wire, in a list.
pub(super) const ID_BYTES_MAX: usize = NodeId::BYTES_MAX + 2;
/// More than any member takes beside its address.
const MEMBER_OVERHEAD: usize = ID_BYTES_MAX + 16;

/// Never less than the bytes that it takes on the wire beside its frame.
pub(super) fn wire_bytes_max(ask: &Ask) -> usize {
    let Ask::Change { change, .. } = ask else { return MEMBER_OVERHEAD };
    MEMBER_OVERHEAD
        + match change {
            Change::Add { address, .. } => address.len(),
            Change::Replace { address, .. } => MEMBER_OVERHEAD + address.len(),
            Change::Apply { members } => members.values().map(|address| MEMBER_OVERHEAD + address.len()).sum(),
            Change::Remove { .. } | Change::Promote { .. } | Change::Demote { .. } | Change::Cancel => 0,
        }
}

/// Whether [`decode`] would take it.
pub(super) fn is_sendable(ask: &Ask) -> bool {
    let Ask::Change { change, .. } = ask else { return true };
    match change {
        Change::Add { address, .. } | Change::Replace { address, .. } => address.len() <= ADDRESS_BYTES_MAX,
        Change::Apply { members } => {
            members.len() <= MEMBERS_MAX && members.values().all(|address| address.len() <= ADDRESS_BYTES_MAX)
        }
        Change::Remove { .. } | Change::Promote { .. } | Change::Demote { .. } | Change::Cancel => true,
    }
}

pub(super) fn encode(ticket: Ticket, ask: Ask) -> wire::Ask {
    let ask = match ask {
        Ask::Change { change, guard } => WireAsk::Change(encode_change(change, guard)),
        Ask::Transfer { to } => WireAsk::Transfer(wire::ask::Transfer { to: to.map(text).unwrap_or_default() }),
    };
    wire::Ask { session: ticket.session, sequence: ticket.sequence, ask: Some(ask) }
}

pub(super) fn decode(ask: wire::Ask) -> Result<(Ticket, Ask), BadFrame> {
    let ticket = Ticket { session: ask.session, sequence: ask.sequence };
    let ask = match ask.ask.ok_or(BadFrame::Empty("request"))? {
        WireAsk::Change(change) => {
            let (change, guard) = decode_change(change)?;
            Ask::Change { change, guard }
        }
        WireAsk::Transfer(wire::ask::Transfer { to }) if to.is_empty() => Ask::Transfer { to: None },
        WireAsk::Transfer(wire::ask::Transfer { to }) => Ask::Transfer { to: Some(node_id(&to)?) },
    };
    Ok((ticket, ask))
}

pub(super) fn encode_change(change: Change, guard: Option<Index>) -> wire::Change {
    let change = match change {
        Change::Add { id, address, voter, incarnation } => {
            WireChange::Add(change::Add { id: text(id), address, voter, incarnation: incarnation.0 })
        }
        Change::Remove { id } => WireChange::Remove(text(id)),
        Change::Promote { id } => WireChange::Promote(text(id)),
        Change::Demote { id } => WireChange::Demote(text(id)),
        Change::Replace { old, new, address } => {
            WireChange::Replace(change::Replace { old: text(old), new: text(new), address })
        }
        Change::Apply { members } => WireChange::Apply(change::Apply { members: encode_members(members) }),
        Change::Cancel => WireChange::Cancel(change::Cancel {}),
    };
    wire::Change { guard: guard.map(|index| index.0), change: Some(change) }
}

/// The change, and the index that the last one must stand at for it to be made.
pub(super) fn decode_change(said: wire::Change) -> Result<(Change, Option<Index>), BadFrame> {
    let change = said.change.ok_or(BadFrame::Empty("change"))?;
    let change = match change {
        WireChange::Add(change::Add { id, address, voter, incarnation }) => Change::Add {
            id: node_id(&id)?,
            address: decode_address(address)?,
            voter,
            incarnation: Incarnation(incarnation),
        },
        WireChange::Remove(id) => Change::Remove { id: node_id(&id)? },
        WireChange::Promote(id) => Change::Promote { id: node_id(&id)? },
        WireChange::Demote(id) => Change::Demote { id: node_id(&id)? },
        WireChange::Replace(change::Replace { old, new, address }) => {
            Change::Replace { old: node_id(&old)?, new: node_id(&new)?, address: decode_address(address)? }
        }
        WireChange::Apply(change::Apply { members }) => Change::Apply { members: decode_members(members)? },
        WireChange::Cancel(change::Cancel {}) => Change::Cancel,
    };
    Ok((change, said.guard.map(Index)))
}

fn text(id: NodeId) -> String {
    id.as_str().to_owned()
}

pub(super) fn encode_members(members: impl IntoIterator<Item = (NodeId, String)>) -> Vec<wire::Member> {
    let member = |(id, address)| wire::Member { id: text(id), address };
    members.into_iter().map(member).collect()
}

/// Every one has a place of its own: a list that names one twice says nothing certain.
pub(super) fn decode_members(members: Vec<wire::Member>) -> Result<BTreeMap<NodeId, String>, BadFrame> {
    few("members", members.len())?;
    let mut all = BTreeMap::new();
    for member in members {
        if all.insert(node_id(&member.id)?, decode_address(member.address)?).is_some() {
            return Err(BadFrame::Twice(member.id));
        }
    }
    Ok(all)
}

fn decode_address(address: String) -> Result<String, BadFrame> {
    within("an address", address, ADDRESS_BYTES_MAX)
}

#[cfg(test)]
#[path = "tests/convert_ask.rs"]
mod tests;
