//! What is on the wire: whatever was ever sent and can still matter, as a set. A message in it may arrive now, later, again or
//! never, so it need be there once only, and is never taken off for having arrived.

use graft_domain::{Envelope, Message};

use crate::kept::Kept;
use crate::member::Member;

/// Whether a message is nothing to its recipient any more, and will never be: then it is as good as lost, and states that
/// differ only in such are the same.
///
/// It rests on the term that the recipient's *disk* has, below which no crash takes it. To a message of an earlier term
/// it answers, if that is an append, an offer of a snapshot or a request for a vote; any other it drops. And whoever does not
/// stand or lead in its durable term never will, so that answers of that term come too late. A state in which a member has more
/// terms in memory than on its disk keeps what a crash may bring to life again.
pub(crate) fn is_void(envelope: &Envelope, to: &Member) -> bool {
    let (durable, core) = (to.disk.term, &to.core);
    let is_past = envelope.term < durable;
    let stands = matches!(core.role(), "candidate" | "leader") && core.term() == envelope.term;
    match &envelope.message {
        Message::TimeoutNow | Message::Read { .. } | Message::ReadReply { .. } => is_past,
        Message::VoteReply(_) | Message::AppendReply(_) => is_past || (envelope.term == durable && !stands),
        Message::PreVoteReply(reply) if reply.granted => reply.term <= durable,
        Message::PreVoteReply(reply) => envelope.term <= durable && reply.term <= durable,
        Message::PreVote(_) | Message::Vote(_) | Message::Append(_) | Message::Snapshot(_) => false,
    }
}

/// The wire with what was sent, without what is void; in an order that depends on nothing but what is in it.
pub(crate) fn after(
    wire: &[Kept<Envelope>],
    sends: &[Kept<Envelope>],
    matters: impl Fn(&Envelope) -> bool,
) -> Box<[Kept<Envelope>]> {
    let news = sends.iter().filter(|sent| !wire.contains(sent));
    let mut next: Vec<Kept<Envelope>> = wire.iter().chain(news).copied().filter(|envelope| matters(envelope)).collect();
    next.sort_unstable_by_key(|envelope| envelope.digest());
    next.dedup();
    next.into_boxed_slice()
}
