//! The newest things that commands emitted, in log order, within bounds of count and bytes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;

use graft_domain::Index;
use graft_services::api::Cursor;
use graft_services::ports::Emitted;

/// Things that are kept: some seconds of the fastest log whose every command emits one.
pub(super) const KEPT_MAX: usize = 65_536;
/// Bytes that are kept, what each costs besides counted: a small part of what the log may take.
pub(super) const KEPT_BYTES_MAX: usize = 64 << 20;
/// What a thing costs besides its topic and value.
const THING_BYTES: usize = 96;
/// Topics of which it is known since when all is kept, and the bytes of their names. Of further ones it is known only that
/// something may be missing.
const DROPPED_MAX: usize = 16_384;
const DROPPED_BYTES_MAX: usize = 4 << 20;

/// Things of whole commands: of one command either all that it emitted is kept, or nothing.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    kept: VecDeque<Emitted>,
    /// The place of the first of `kept`: places number the things that ever were here.
    first: u64,
    bytes: usize,
    /// The topics that have something here, or had.
    topics: BTreeMap<Arc<str>, Topic>,
    /// Topics by what was dropped of them last.
    dropped: BTreeMap<Cursor, Arc<str>>,
    dropped_bytes: usize,
    /// Of topics that are not known here something may be missing up to and with this place.
    unknown: Option<Cursor>,
    newest: Option<Cursor>,
    upto: Index,
}

#[derive(Debug, Default)]
struct Topic {
    places: VecDeque<u64>,
    dropped: Option<Cursor>,
}

fn cursor(thing: &Emitted) -> Cursor {
    Cursor { index: thing.index, number: thing.number }
}

fn weight(thing: &Emitted) -> usize {
    THING_BYTES + thing.topic.len() + thing.value.len()
}

impl Ring {
    /// Everything that commands up to here emitted went through here.
    pub(crate) fn upto(&self) -> Index {
        self.upto
    }

    /// Where what is kept begins, if so many topics are gone that it may soon not be known of another whether it was quiet
    /// before.
    pub(crate) fn begins(&self) -> Option<Index> {
        let may_forget = 4 * self.dropped.len() > DROPPED_MAX || 4 * self.dropped_bytes > DROPPED_BYTES_MAX;
        may_forget.then(|| self.kept.front().map_or(self.upto, |thing| thing.index))
    }

    /// Forgets all: what was emitted up to and with this index is not known here.
    pub(crate) fn begin(&mut self, upto: Index) {
        let unknown = (upto > Index::ZERO).then_some(Cursor { index: upto, number: u32::MAX });
        let first = self.first + self.kept.len() as u64;
        *self = Self { first, unknown, newest: unknown, upto, ..Self::default() };
    }

    /// Takes in what the commands up to `upto` emitted, and answers its topics. What was here before is not taken again.
    pub(crate) fn push(&mut self, emitted: Vec<Emitted>, upto: Index) -> BTreeSet<Arc<str>> {
        let mut topics = BTreeSet::new();
        for thing in emitted {
            let at = cursor(&thing);
            if self.newest.is_some_and(|newest| at <= newest) {
                continue;
            }
            self.newest = Some(at);
            let topic = self.name(&thing.topic);
            let place = self.first + self.kept.len() as u64;
            self.topics.entry(Arc::clone(&topic)).or_default().places.push_back(place);
            topics.insert(topic);
            self.bytes += weight(&thing);
            self.kept.push_back(thing);
        }
        self.upto = self.upto.max(upto);
        while self.kept.len() > KEPT_MAX || self.bytes > KEPT_BYTES_MAX {
            self.drop_oldest_command();
        }
        topics
    }

    fn name(&self, topic: &str) -> Arc<str> {
        self.topics.get_key_value(topic).map_or_else(|| Arc::from(topic), |(name, _)| Arc::clone(name))
    }

    fn drop_oldest_command(&mut self) {
        let Some(index) = self.kept.front().map(|thing| thing.index) else { return };
        while let Some(thing) = self.kept.pop_front_if(|thing| thing.index == index) {
            self.first += 1;
            self.bytes -= weight(&thing);
            self.note_dropped(&thing);
        }
    }

    fn note_dropped(&mut self, thing: &Emitted) {
        let at = cursor(thing);
        let name = self.name(&thing.topic);
        let topic = self.topics.entry(Arc::clone(&name)).or_default();
        topic.places.pop_front();
        match topic.dropped.replace(at).and_then(|before| self.dropped.remove(&before)) {
            Some(_) => {}
            None => self.dropped_bytes += name.len(),
        }
        self.dropped.insert(at, name);
        while self.dropped.len() > DROPPED_MAX || self.dropped_bytes > DROPPED_BYTES_MAX {
            let Some((at, name)) = self.dropped.pop_first() else { return };
            self.dropped_bytes -= name.len();
            self.unknown = self.unknown.max(Some(at));
            if let Some(topic) = self.topics.get_mut(&name) {
                topic.dropped = None;
                if topic.places.is_empty() {
                    self.topics.remove(&name);
                }
            }
        }
    }

    /// Whether something of these topics (of any, if there are none) behind `at` may be missing, and up to which index.
    pub(crate) fn missed(&self, topics: &[Arc<str>], at: Cursor) -> Option<Index> {
        let known = |topic: &Arc<str>| self.topics.get(topic).and_then(|topic| topic.dropped);
        let newest = match topics {
            [] => self.dropped.last_key_value().map(|(at, _)| *at),
            topics => topics.iter().filter_map(known).max(),
        };
        newest.max(self.unknown).filter(|dropped| *dropped > at).map(|dropped| dropped.index)
    }

    /// What is kept of these topics (of all, if there are none) behind `at`, at most `max`.
    pub(crate) fn after(&self, topics: &[Arc<str>], at: Cursor, max: usize) -> Vec<Emitted> {
        let begin = self.kept.partition_point(|thing| cursor(thing) <= at);
        if topics.is_empty() {
            return self.kept.range(begin..).take(max).cloned().collect();
        }
        let begin = self.first + begin as u64;
        // The next place of each topic, the first of all on top.
        let mut rests: Vec<_> = topics
            .iter()
            .filter_map(|topic| self.topics.get(topic))
            .map(|topic| topic.places.range(topic.places.partition_point(|place| *place < begin)..))
            .collect();
        let mut next: BinaryHeap<_> = rests
            .iter_mut()
            .enumerate()
            .filter_map(|(topic, rest)| rest.next().map(|place| Reverse((*place, topic))))
            .collect();
        let mut found = Vec::new();
        while found.len() < max
            && let Some(Reverse((place, topic))) = next.pop()
        {
            found.extend(usize::try_from(place - self.first).ok().and_then(|place| self.kept.get(place)).cloned());
            next.extend(rests[topic].next().map(|place| Reverse((*place, topic))));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn topics_that_are_gone_are_remembered_within_bounds() {
        let mut ring = Ring::default();
        let thing =
            |index: usize, topic: String| Emitted { index: Index(index as u64), number: 0, topic, value: Bytes::new() };
        let many = 2 * DROPPED_MAX;
        let once = (1..=many).map(|n| thing(n, format!("topic {n}")));
        let loud = (many + 1..=many + 1 + KEPT_MAX).map(|n| thing(n, "loud".to_owned()));
        ring.push(once.chain(loud).collect(), Index((many + 1 + KEPT_MAX) as u64));
        assert!(ring.topics.len() <= DROPPED_MAX + 1 && ring.dropped.len() <= DROPPED_MAX);
        let missed = |topic: &str, index: usize| {
            let at = Cursor { index: Index(index as u64), number: u32::MAX };
            ring.missed(&[Arc::from(topic)], at).map(|index| usize::try_from(index.0).expect("it fits"))
        };
        // Up to here topics were forgotten: one of them may be the one that is asked for.
        let forgotten = missed("never", 0).expect("some were");
        assert_eq!(forgotten, many + 1 - DROPPED_MAX);
        assert_eq!((missed("topic 1", 0), missed("never", forgotten)), (Some(forgotten), None));
        // Of those that are remembered it is known what was dropped.
        let (last, name) = (many - 1, format!("topic {}", many - 1));
        assert_eq!((missed(&name, last - 1), missed(&name, last)), (Some(last), None));
    }

    #[test]
    fn long_names_are_not_remembered_for_ever() {
        let mut ring = Ring::default();
        let thing = |index: usize| {
            let topic = format!("{index}{}", "x".repeat(DROPPED_BYTES_MAX / 2));
            Emitted { index: Index(index as u64), number: 0, topic, value: Bytes::new() }
        };
        let count = 2 * KEPT_BYTES_MAX / (DROPPED_BYTES_MAX / 2);
        (1..=count).for_each(|n| drop(ring.push(vec![thing(n)], Index(n as u64))));
        assert!(ring.bytes <= KEPT_BYTES_MAX && ring.dropped_bytes <= DROPPED_BYTES_MAX && ring.dropped.len() <= 2);
        assert_eq!(ring.dropped_bytes, ring.dropped.values().map(|name| name.len()).sum::<usize>());
    }
}
