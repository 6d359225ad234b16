//! What happens to a node and what commands emit, between their forms in the services and on the wire.

use std::collections::HashMap;

use graft_domain::{Index, NodeId, Term};
use graft_services::Notice;
use graft_services::api::{Cursor, Happening, News, Watch};
use graft_services::ports::Emitted;

use super::convert::{BadFrame, few, node_id, within};
use super::convert_status::text;
use super::wire::member_event::Value;
use super::wire::member_event::value::Value as Kind;
use super::wire::watch_response::Item;
use super::wire::watch_response::item::Item as WireNews;
use super::{wire, words};

/// Bytes that one topic of a request may have.
pub(super) const TOPIC_BYTES_MAX: usize = 1 << 10;

/// What there is to tell beside the kind. What is not known is not in it.
#[derive(Default)]
struct Details(HashMap<String, Value>);

impl Details {
    fn put(&mut self, name: &str, value: Kind) {
        self.0.insert(name.to_owned(), Value { value: Some(value) });
    }

    fn put_text(&mut self, name: &str, text: impl Into<String>) {
        self.put(name, Kind::Text(text.into()));
    }

    fn put_number(&mut self, name: &str, number: u64) {
        self.put(name, Kind::Number(number));
    }

    fn put_id(&mut self, name: &str, id: Option<NodeId>) {
        if let Some(id) = id {
            self.put_text(name, text(id));
        }
    }

    fn put_why(&mut self, why: Option<String>) {
        if let Some(why) = why {
            self.put_text("why", why);
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        match &self.0.get(name)?.value {
            Some(Kind::Text(text)) => Some(text),
            _ => None,
        }
    }

    fn number(&self, name: &'static str) -> Result<u64, BadFrame> {
        match self.0.get(name).and_then(|value| value.value.as_ref()) {
            Some(Kind::Number(number)) => Ok(*number),
            _ => Err(BadFrame::Empty(name)),
        }
    }

    fn flag(&self, name: &'static str) -> Result<bool, BadFrame> {
        match self.0.get(name).and_then(|value| value.value.as_ref()) {
            Some(Kind::Flag(flag)) => Ok(*flag),
            _ => Err(BadFrame::Empty(name)),
        }
    }

    fn id(&self, name: &str) -> Result<Option<NodeId>, BadFrame> {
        self.text(name).map(node_id).transpose()
    }

    fn member(&self) -> Result<NodeId, BadFrame> {
        self.id("member")?.ok_or(BadFrame::Empty("member"))
    }

    fn why(&self) -> Option<String> {
        self.text("why").map(str::to_owned)
    }
}

pub(super) fn encode(happening: Happening) -> wire::MemberEvent {
    let Happening { sequence, at, notice } = happening;
    let kind = words::kind(notice.as_ref()).to_owned();
    let mut details = Details::default();
    if let Some(notice) = notice {
        put_notice(&mut details, notice);
    }
    wire::MemberEvent { sequence, at, kind, details: details.0 }
}

fn put_notice(details: &mut Details, notice: Notice) {
    match notice {
        Notice::Leader { term, leader } => {
            details.put_number("term", term.0);
            details.put_id("leader", leader);
        }
        Notice::Role { role, term } => {
            details.put_text("role", role);
            details.put_number("term", term.0);
        }
        Notice::Membership { index, step, member, committed } => {
            details.put_number("index", index.0);
            details.put_text("step", step);
            details.put_id("member", member);
            details.put("committed", Kind::Flag(committed));
        }
        Notice::CatchUp { member, matched, last } => {
            details.put_id("member", Some(member));
            details.put_number("matched", matched.0);
            details.put_number("last", last.0);
        }
        Notice::Snapshot { phase, index, bytes, total, peer, why } => {
            details.put_text("phase", phase);
            details.put_number("index", index.0);
            details.put_number("bytes", bytes);
            details.put_number("total", total);
            details.put_id("peer", peer);
            details.put_why(why);
        }
        Notice::Link { member, connected, why } => {
            details.put_id("member", Some(member));
            details.put("connected", Kind::Flag(connected));
            details.put_why(why);
        }
        Notice::Certificate { phase, expires, why } => {
            details.put_text("phase", phase);
            details.put_number("expires", u64::try_from(expires).unwrap_or(0));
            details.put_why(why);
        }
    }
}

/// None for a kind of a newer version, which is left out.
pub(super) fn decode(event: wire::MemberEvent) -> Result<Option<Happening>, BadFrame> {
    let wire::MemberEvent { sequence, at, kind, details } = event;
    let details = Details(details);
    let word = |name, words| words::known(details.text(name).unwrap_or_default(), words);
    let notice = match kind.as_str() {
        "leader" => Notice::Leader { term: Term(details.number("term")?), leader: details.id("leader")? },
        "role" => Notice::Role { role: word("role", words::ROLES), term: Term(details.number("term")?) },
        "membership" => Notice::Membership {
            index: Index(details.number("index")?),
            step: word("step", words::STEPS),
            member: details.id("member")?,
            committed: details.flag("committed")?,
        },
        "catch-up" => Notice::CatchUp {
            member: details.member()?,
            matched: Index(details.number("matched")?),
            last: Index(details.number("last")?),
        },
        "snapshot" => Notice::Snapshot {
            phase: word("phase", words::PHASES),
            index: Index(details.number("index")?),
            bytes: details.number("bytes")?,
            total: details.number("total")?,
            peer: details.id("peer")?,
            why: details.why(),
        },
        "link" => Notice::Link { member: details.member()?, connected: details.flag("connected")?, why: details.why() },
        "certificate" => Notice::Certificate {
            phase: word("phase", words::RENEWALS),
            expires: i64::try_from(details.number("expires")?).unwrap_or(i64::MAX),
            why: details.why(),
        },
        "stopped" => return Ok(Some(Happening { sequence, at, notice: None })),
        _ => return Ok(None),
    };
    Ok(Some(Happening { sequence, at, notice: Some(notice) }))
}

pub(super) fn encode_watch(watch: Watch) -> wire::WatchRequest {
    let since = watch.since.map(|Cursor { index, number }| wire::Cursor {
        index: index.0,
        number: (number != u32::MAX).then_some(number),
    });
    wire::WatchRequest { topics: watch.topics, since }
}

pub(super) fn decode_watch(request: wire::WatchRequest) -> Result<Watch, BadFrame> {
    few("topics", request.topics.len())?;
    let topics = request.topics.into_iter().map(|topic| within("a topic", topic, TOPIC_BYTES_MAX));
    let since = request
        .since
        .map(|wire::Cursor { index, number }| Cursor { index: Index(index), number: number.unwrap_or(u32::MAX) });
    Ok(Watch { topics: topics.collect::<Result<_, _>>()?, since })
}

pub(super) fn encode_news(news: News) -> Item {
    let item = match news {
        News::Emitted(Emitted { index, number, topic, value }) => {
            WireNews::Emitted(wire::Emitted { index: index.0, number, topic, value })
        }
        News::Behind { upto } => WireNews::Behind(upto.0),
        News::Upto(index) => WireNews::Upto(index.0),
    };
    Item { item: Some(item) }
}

pub(super) fn decode_news(item: Item) -> Result<News, BadFrame> {
    Ok(match item.item.ok_or(BadFrame::Empty("news"))? {
        WireNews::Emitted(wire::Emitted { index, number, topic, value }) => {
            News::Emitted(Emitted { index: Index(index), number, topic, value })
        }
        WireNews::Behind(upto) => News::Behind { upto: Index(upto) },
        WireNews::Upto(index) => News::Upto(Index(index)),
    })
}

#[cfg(test)]
#[path = "tests/convert_events.rs"]
mod tests;
