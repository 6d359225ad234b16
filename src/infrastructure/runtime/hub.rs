//! What commands emit, for those who watch: the newest things in log order, and any number of watchers at their own pace.
//!
//! A watcher is a place in the log and has no buffer, so that a slow one costs nothing; who falls out of what is kept is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use graft_domain::Index;
use graft_services::api::{Cursor, News, Reader, Taken, Wake, Watch};
use graft_services::error::Refusal;
use graft_services::ports::Emitted;

use super::ring::Ring;
use super::wakes::{Wakes, wake};

/// Watchers at a time. Each costs some hundred bytes and, when woken, one look.
const WATCHERS_MAX: usize = 16_384;
/// Things that are copied for a watcher in one go: the machine, which feeds the hub, waits no longer than for these.
const COPY_MAX: usize = 512;
/// Entries after which one that heard nothing is told so, so that it can go on elsewhere, where the log behind a snapshot may be
/// all that is known of it; seldom enough that a thousand who hear nothing cost nothing. Where topics are about to be forgotten it
/// is told as well when what is kept has passed it.
const QUIET_ENTRIES: u64 = 131_072;

/// The ring, and who watches.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ring: Ring,
    wakes: Wakes,
    /// Who waits for a topic, and who for any.
    by_topic: BTreeMap<Arc<str>, BTreeSet<u64>>,
    any: BTreeSet<u64>,
    /// Who waits, by the place that it was last told.
    told: BTreeSet<(Index, u64)>,
    ended: bool,
}

impl Hub {
    /// What the commands up to `upto` emitted, in log order.
    pub(crate) fn publish(&self, emitted: Vec<Emitted>, upto: Index) {
        let mut state = self.lock();
        if state.ended {
            return;
        }
        let topics = state.ring.push(emitted, upto);
        let wakes = state.rouse(&topics);
        drop(state);
        wake(wakes);
    }

    /// The state is that of a snapshot up to `upto`: what was emitted before is not known here.
    pub(crate) fn begin(&self, upto: Index) {
        let mut state = self.lock();
        state.ring.begin(upto);
        wake_all(state);
    }

    /// The node has ended; watchers get what is left.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        wake_all(state);
    }

    pub(crate) fn watch(self: &Arc<Self>, watch: Watch, wake: Wake) -> Box<dyn Reader<News>> {
        let mut state = self.lock();
        let topics: BTreeSet<Arc<str>> = watch.topics.into_iter().map(Arc::from).collect();
        let now = Cursor { index: state.ring.upto(), number: u32::MAX };
        let at = watch.since.unwrap_or(now);
        let number = (state.wakes.len() < WATCHERS_MAX).then(|| state.wakes.add(wake));
        let watcher = Watcher {
            hub: Arc::clone(self),
            number,
            topics: topics.into_iter().collect(),
            at,
            told: watch.since.map(|since| since.index),
            waits_at: at.index,
        };
        let upto = state.ring.upto();
        if let Some(number) = number {
            state.wait(number, &watcher.topics, at.index);
        }
        drop(state);
        if at.index > upto {
            tracing::info!(since = %at.index, applied = %upto, "a watcher waits for a place that the log has not reached here");
        }
        Box::new(watcher)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake_all(mut state: MutexGuard<'_, State>) {
    state.by_topic.clear();
    state.any.clear();
    state.told.clear();
    let wakes = state.wakes.rouse_all();
    drop(state);
    wake(wakes);
}

impl State {
    /// This watcher has looked, and waits for one of these topics, or to be told how far things are.
    fn wait(&mut self, number: u64, topics: &[Arc<str>], told: Index) {
        self.wakes.waits(number);
        for topic in topics {
            self.by_topic.entry(Arc::clone(topic)).or_default().insert(number);
        }
        if topics.is_empty() {
            self.any.insert(number);
        }
        self.told.insert((told, number));
    }

    /// It waits for nothing any more.
    fn rest(&mut self, number: u64, topics: &[Arc<str>], told: Index) {
        for topic in topics {
            if let Some(waiting) = self.by_topic.get_mut(topic) {
                waiting.remove(&number);
                if waiting.is_empty() {
                    self.by_topic.remove(topic);
                }
            }
        }
        self.any.remove(&number);
        self.told.remove(&(told, number));
    }

    /// What wakes those who wait for one of these topics, and those who have heard nothing for long.
    fn rouse(&mut self, topics: &BTreeSet<Arc<str>>) -> Vec<Wake> {
        let mut roused: Vec<u64> = Vec::new();
        if !topics.is_empty() {
            roused.extend(std::mem::take(&mut self.any));
        }
        for topic in topics {
            roused.extend(self.by_topic.remove(topic).unwrap_or_default());
        }
        while let Some(first) = self.told.first().copied().filter(|(told, _)| self.is_long_ago(*told)) {
            self.told.remove(&first);
            roused.push(first.1);
        }
        roused.into_iter().filter_map(|number| self.wakes.rouse(number)).collect()
    }

    /// Whether one that knows how it was at `told` is to be told how it is.
    fn is_long_ago(&self, told: Index) -> bool {
        let is_passed = || self.ring.begins().is_some_and(|begins| told < begins);
        self.ring.upto().0.saturating_sub(told.0) >= QUIET_ENTRIES || is_passed()
    }
}

/// One who watches.
struct Watcher {
    hub: Arc<Hub>,
    /// None: there were too many.
    number: Option<u64>,
    /// None for all of them.
    topics: Vec<Arc<str>>,
    /// It has everything up to here.
    at: Cursor,
    /// The last index that it was told of; none if it does not even know where it began.
    told: Option<Index>,
    /// Under which index it stands among those who wait.
    waits_at: Index,
}

impl Watcher {
    /// What there is, in one go; whether that is all.
    fn look(&mut self, number: u64, max: usize, items: &mut Vec<News>) -> (bool, bool) {
        let hub = Arc::clone(&self.hub);
        let mut state = hub.lock();
        state.rest(number, &self.topics, self.waits_at);
        let room = max.saturating_sub(items.len());
        if room > 0
            && let Some(upto) = state.ring.missed(&self.topics, self.at)
        {
            items.push(News::Behind { upto });
            self.pass(Cursor { index: upto, number: u32::MAX });
        }
        let room = max.saturating_sub(items.len()).min(COPY_MAX);
        let emitted = state.ring.after(&self.topics, self.at, room);
        let all = emitted.len() < room;
        if let Some(last) = emitted.last() {
            self.pass(Cursor { index: last.index, number: last.number });
        }
        items.extend(emitted.into_iter().map(News::Emitted));
        let upto = state.ring.upto();
        if all && upto >= self.at.index && self.told.is_none_or(|told| state.is_long_ago(told)) {
            items.push(News::Upto(upto));
            self.pass(Cursor { index: upto, number: u32::MAX });
        }
        self.waits_at = self.told.unwrap_or(self.at.index);
        state.wait(number, &self.topics, self.waits_at);
        (all, state.ended)
    }

    fn pass(&mut self, at: Cursor) {
        self.at = at;
        self.told = Some(at.index);
    }
}

impl Reader<News> for Watcher {
    fn take(&mut self, max: usize) -> Taken<News> {
        let mut items = Vec::new();
        let Some(number) = self.number else {
            let why = format!("{WATCHERS_MAX} watchers follow this node already");
            return Taken { items, ended: Some(Refusal::Busy(why)) };
        };
        loop {
            let (all, ended) = self.look(number, max, &mut items);
            if all || items.len() >= max {
                let ended = (all && ended).then_some(Refusal::Stopped);
                return Taken { items, ended };
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let mut state = self.hub.lock();
            state.rest(number, &self.topics, self.waits_at);
            state.wakes.remove(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;

    use super::*;
    use crate::infrastructure::runtime::ring::{KEPT_BYTES_MAX, KEPT_MAX};

    fn thing(index: u64, number: u32, topic: &str) -> Emitted {
        Emitted { index: Index(index), number, topic: topic.to_owned(), value: Bytes::from(index.to_string()) }
    }

    fn hub() -> Arc<Hub> {
        Arc::default()
    }

    /// Commands in this range emit one thing each.
    fn emit(hub: &Hub, range: std::ops::RangeInclusive<u64>, topic: &str) {
        let upto = Index(*range.end());
        hub.publish(range.map(|index| thing(index, 0, topic)).collect(), upto);
    }

    fn watch(hub: &Arc<Hub>, topics: &[&str], since: Option<(u64, u32)>) -> Box<dyn Reader<News>> {
        counted(hub, topics, since, &Arc::default())
    }

    fn counted(
        hub: &Arc<Hub>,
        topics: &[&str],
        since: Option<(u64, u32)>,
        woken: &Arc<AtomicUsize>,
    ) -> Box<dyn Reader<News>> {
        let woken = Arc::clone(woken);
        let since = since.map(|(index, number)| Cursor { index: Index(index), number });
        let wake = move || {
            woken.fetch_add(1, Ordering::Relaxed);
        };
        hub.watch(Watch { topics: topics.iter().map(ToString::to_string).collect(), since }, Arc::new(wake))
    }

    /// `7.0` is what command 7 emitted first, `<7` that something up to 7 is lost, `=7` that there is nothing up to 7.
    fn told(reader: &mut Box<dyn Reader<News>>, max: usize) -> Vec<String> {
        let word = |news| match news {
            News::Emitted(Emitted { index, number, .. }) => format!("{index}.{number}"),
            News::Behind { upto } => format!("<{upto}"),
            News::Upto(upto) => format!("={upto}"),
        };
        reader.take(max).items.into_iter().map(word).collect()
    }

    #[test]
    fn everyone_gets_everything_in_order_from_where_he_was() {
        let hub = hub();
        hub.publish(vec![thing(2, 0, "a"), thing(2, 1, "b"), thing(4, 0, "a")], Index(5));
        assert_eq!(told(&mut watch(&hub, &[], Some((0, u32::MAX))), 9), ["2.0", "2.1", "4.0"]);
        assert_eq!(told(&mut watch(&hub, &[], Some((2, 0))), 9), ["2.1", "4.0"]);
        assert_eq!(told(&mut watch(&hub, &["b"], Some((0, 0))), 9), ["2.1"]);
        let mut both = watch(&hub, &["b", "a", "b", "none"], Some((0, 0)));
        assert_eq!(told(&mut both, 2), ["2.0", "2.1"]);
        assert_eq!(told(&mut both, 2), ["4.0"]);
        assert_eq!(told(&mut both, 2), [""; 0]);
        let mut late = watch(&hub, &[], None);
        assert_eq!(told(&mut late, 9), ["=5"], "where to go on, should it be cut off before anything happens");
        hub.publish(vec![thing(6, 0, "a")], Index(6));
        assert_eq!((told(&mut late, 9), told(&mut both, 9)), (vec!["6.0".to_owned()], vec!["6.0".to_owned()]));
    }

    #[test]
    fn nothing_is_told_twice() {
        let hub = hub();
        emit(&hub, 1..=3, "a");
        emit(&hub, 2..=4, "a");
        assert_eq!(told(&mut watch(&hub, &[], Some((0, 0))), 9), ["1.0", "2.0", "3.0", "4.0"]);
    }

    #[test]
    fn who_is_ahead_of_this_node_waits() {
        let hub = hub();
        emit(&hub, 1..=5, "a");
        let mut ahead = watch(&hub, &[], Some((7, u32::MAX)));
        assert_eq!(told(&mut ahead, 9), [""; 0]);
        emit(&hub, 6..=8, "a");
        assert_eq!(told(&mut ahead, 9), ["8.0"]);
    }

    #[test]
    fn who_fell_behind_is_told_once_and_goes_on() {
        let (hub, max) = (hub(), KEPT_MAX as u64);
        let mut slow = watch(&hub, &[], Some((0, 0)));
        emit(&hub, 1..=max, "a");
        assert_eq!(told(&mut slow, 1), ["1.0"]);
        emit(&hub, max + 1..=max + 1, "a");
        assert_eq!(told(&mut slow, 1), ["2.0"], "what it had seen was dropped");
        emit(&hub, max + 2..=max + 5, "a");
        assert_eq!(told(&mut slow, 2), ["<5", "6.0"]);
        assert_eq!(slow.take(usize::MAX).items.len(), KEPT_MAX - 1);
        assert_eq!(told(&mut slow, 9), [""; 0]);
    }

    #[test]
    fn of_a_topic_only_what_was_of_it_can_be_missed() {
        let (hub, max) = (hub(), KEPT_MAX as u64);
        emit(&hub, 1..=2, "quiet");
        emit(&hub, 3..=max + 1, "loud");
        let mut quiet = watch(&hub, &["quiet"], Some((1, 0)));
        emit(&hub, max + 2..=max + 10, "loud");
        assert_eq!(told(&mut watch(&hub, &["quiet"], Some((1, 0))), 1), ["<2"]);
        assert_eq!(told(&mut watch(&hub, &["quiet"], Some((2, 0))), 1), [""; 0]);
        assert_eq!(told(&mut watch(&hub, &["new"], Some((1, 0))), 1), [""; 0]);
        assert_eq!(told(&mut watch(&hub, &["loud", "quiet"], Some((1, 0))), 1), ["<10"]);
        assert_eq!(told(&mut quiet, 9), ["<2"]);
    }

    #[test]
    fn bytes_are_bounded_and_commands_are_kept_whole() {
        let hub = hub();
        let large =
            |index, number| Emitted { value: Bytes::from(vec![0; KEPT_BYTES_MAX / 3]), ..thing(index, number, "a") };
        hub.publish(vec![large(1, 0), large(1, 1)], Index(1));
        assert_eq!(told(&mut watch(&hub, &[], Some((0, 0))), 9), ["1.0", "1.1"]);
        hub.publish(vec![large(2, 0)], Index(2));
        assert_eq!(told(&mut watch(&hub, &[], Some((0, 0))), 9), ["<1", "2.0"]);
        assert_eq!(told(&mut watch(&hub, &[], Some((1, 1))), 9), ["2.0"], "it has seen all that was dropped");
        hub.publish(vec![large(3, 0), large(3, 1), large(3, 2)], Index(3));
        assert_eq!(told(&mut watch(&hub, &[], Some((1, 1))), 9), ["<3"]);
    }

    #[test]
    fn a_snapshot_begins_anew() {
        let hub = hub();
        hub.begin(Index::ZERO);
        let mut from_the_first = watch(&hub, &[], Some((0, 0)));
        emit(&hub, 1..=3, "a");
        assert_eq!(told(&mut from_the_first, 9), ["1.0", "2.0", "3.0"], "nothing was before");
        let (woken, mut old) = (Arc::default(), watch(&hub, &["a"], Some((2, 0))));
        let mut waits = counted(&hub, &["b"], Some((3, 0)), &woken);
        assert_eq!(told(&mut waits, 9), [""; 0]);
        hub.begin(Index(9));
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        hub.publish(vec![thing(10, 0, "a")], Index(10));
        assert_eq!(
            (told(&mut old, 9), told(&mut waits, 9)),
            (vec!["<9".to_owned(), "10.0".to_owned()], vec!["<9".to_owned()])
        );
        assert_eq!(told(&mut watch(&hub, &[], Some((9, 0))), 9), ["<9", "10.0"], "there may have been more at 9");
        assert_eq!(told(&mut watch(&hub, &[], Some((9, u32::MAX))), 9), ["10.0"]);
    }

    #[test]
    fn who_hears_nothing_is_told_now_and_then() {
        let (hub, woken) = (hub(), Arc::default());
        let mut quiet = counted(&hub, &["quiet"], Some((0, 0)), &woken);
        assert_eq!(told(&mut quiet, 9), [""; 0]);
        hub.publish(Vec::new(), Index(QUIET_ENTRIES - 1));
        assert_eq!((woken.load(Ordering::Relaxed), told(&mut quiet, 9)), (0, vec![]));
        hub.publish(Vec::new(), Index(QUIET_ENTRIES));
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        assert_eq!(told(&mut quiet, 9), [format!("={QUIET_ENTRIES}")]);
        hub.publish(Vec::new(), Index(2 * QUIET_ENTRIES - 1));
        assert_eq!((woken.load(Ordering::Relaxed), told(&mut quiet, 9)), (1, vec![]));
    }

    #[test]
    fn who_hears_nothing_misses_nothing_though_topics_are_forgotten() {
        // Things at a time, of how many bytes, and how many times later it looks that was woken.
        for (batch, bytes, late) in [(256, 0, 40), (1024, 0, 8), (1024, 4200, 3), (8192, 0, 0)] {
            let (hub, woken) = (hub(), Arc::new(AtomicUsize::new(0)));
            let mut quiet = counted(&hub, &["quiet"], Some((0, u32::MAX)), &woken);
            let mut idle = watch(&hub, &["quiet"], Some((0, u32::MAX)));
            assert_eq!(told(&mut quiet, 9), [""; 0]);
            let value = Bytes::from(vec![0; bytes]);
            let (mut seen, mut look_in, mut words) = (0, None, Vec::new());
            for first in (0..4 * KEPT_MAX as u64 / batch).map(|publish| publish * batch + 1) {
                let thing = |index| Emitted { value: value.clone(), ..thing(index, 0, &format!("topic {index}")) };
                hub.publish((first..first + batch).map(thing).collect(), Index(first + batch - 1));
                if std::mem::replace(&mut seen, woken.load(Ordering::Relaxed)) != seen {
                    look_in = Some(late);
                }
                if look_in == Some(0) {
                    words.extend(told(&mut quiet, 9));
                }
                look_in = look_in.and_then(|times: u32| times.checked_sub(1));
            }
            assert!(words.iter().all(|word| word.starts_with('=')), "{batch} of {bytes}: {words:?}");
            assert!((3..100).contains(&words.len()), "{batch} of {bytes}: {words:?}");
            assert!(told(&mut idle, 1)[0].starts_with('<'), "topics were forgotten, and it did not look");
        }
    }

    /// So that a thousand of them cost nothing.
    #[test]
    fn who_hears_nothing_of_few_topics_is_told_seldom() {
        let (hub, woken) = (hub(), Arc::new(AtomicUsize::new(0)));
        let mut quiet = counted(&hub, &["quiet"], Some((0, u32::MAX)), &woken);
        assert_eq!(told(&mut quiet, 9), [""; 0]);
        let mut words = Vec::new();
        for first in (1..=8 * KEPT_MAX as u64).step_by(1024) {
            emit(&hub, first..=first + 1023, "loud");
            words.extend(told(&mut quiet, 9));
        }
        assert_eq!(words.len(), 4, "{words:?}");
    }

    #[test]
    fn who_waits_is_woken_once_for_its_topics_only() {
        let (hub, woken) = (hub(), Arc::default());
        let mut reader = counted(&hub, &["a", "b"], None, &woken);
        assert_eq!(told(&mut reader, 9), ["=0"]);
        emit(&hub, 1..=1, "c");
        assert_eq!(woken.load(Ordering::Relaxed), 0);
        emit(&hub, 2..=2, "a");
        emit(&hub, 3..=3, "b");
        assert_eq!(woken.load(Ordering::Relaxed), 1, "it has not looked yet");
        assert_eq!(told(&mut reader, 9), ["2.0", "3.0"]);
        emit(&hub, 4..=4, "b");
        assert_eq!(woken.load(Ordering::Relaxed), 2);
        hub.end();
        let end = reader.take(1);
        assert_eq!((end.items.len(), end.ended), (1, None));
        assert_eq!(reader.take(1).ended, Some(Refusal::Stopped));
        drop(reader);
        let state = hub.lock();
        assert_eq!((state.wakes.len(), state.by_topic.len(), state.any.len(), state.told.len()), (0, 0, 0, 0));
    }

    #[test]
    fn a_wake_may_call_back_and_readers_keep_nobody_up() {
        let hub = hub();
        let inner = Arc::clone(&hub);
        let mut readers: Vec<_> = (0..5_000).map(|n| watch(&hub, &[["a", "b"][n % 2]], Some((0, 0)))).collect();
        let wake: Wake = Arc::new(move || drop(inner.watch(Watch::default(), Arc::new(|| {}))));
        let mut calls_back = hub.watch(Watch::default(), wake);
        calls_back.take(9);
        for index in 1..=100 {
            emit(&hub, index..=index, "a");
        }
        assert_eq!(readers[0].take(1_000).items.len(), 100);
        assert_eq!(told(&mut readers[1], 9), [""; 0]);
        assert_eq!(calls_back.take(1_000).items.len(), 100);
    }

    #[test]
    fn watchers_have_a_limit() {
        let hub = hub();
        let readers: Vec<_> = (0..WATCHERS_MAX).map(|_| watch(&hub, &[], None)).collect();
        assert!(matches!(watch(&hub, &[], None).take(1).ended, Some(Refusal::Busy(_))));
        drop(readers);
        assert_eq!(watch(&hub, &[], None).take(1).ended, None);
    }
}
