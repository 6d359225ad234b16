"""What commands emit, for those who watch: in log order, once, and resumable."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time

import graft
import pytest
from graft import _watch
from machines import Bank
from nodes import DEADLINE_SECONDS, Trio, free_addresses, until


class News(graft.StateMachine):
    def __init__(self) -> None:
        self.count = 0

    @graft.command
    def tell(self, topic: str, *values: int) -> int:
        self.count += 1
        for value in values:
            self.context.emit(topic, value)
        return self.context.index

    @graft.command
    def fill(self, count: int, size: int) -> int:
        for number in range(count):
            self.context.emit("filling", f"{number}".ljust(size))
        return self.context.index

    @graft.query
    def look(self) -> int:
        return self.count


@pytest.fixture
def node(tmp_path):
    with graft.Node(News(), id="n1", address="127.0.0.1:0", data_dir=tmp_path / "n1") as made:
        yield made.wait_ready(DEADLINE_SECONDS)


def take(watch, count):
    return [next(watch) for _ in range(count)]


def values(items):
    return [(item.topic, item.value) for item in items]


def test_in_the_order_of_the_log(node):
    watch = node.watch(timeout=DEADLINE_SECONDS)
    first = node.execute(News.tell, "a", 1, 2)
    second = node.execute(News.tell, "b", 3)
    assert take(watch, 3) == [
        graft.Emitted(first, 0, "a", 1),
        graft.Emitted(first, 1, "a", 2),
        graft.Emitted(second, 0, "b", 3),
    ]


def test_only_the_topics_that_are_named(node):
    watch = node.watch("b", "c", timeout=DEADLINE_SECONDS)
    for number, topic in enumerate("abcabc"):
        node.execute(News.tell, topic, number)
    assert values(take(watch, 4)) == [("b", 1), ("c", 2), ("b", 4), ("c", 5)]


def test_from_now_on(node):
    node.execute(News.tell, "a", 1)
    watch = node.watch(timeout=0.2)
    assert list(watch) == []
    node.execute(News.tell, "a", 2)
    assert [item.value for item in watch] == [2], "the time over is no end"


def test_since_an_index_and_since_an_item(node):
    first = node.execute(News.tell, "a", 1, 2, 3)
    node.execute(News.tell, "a", 4)
    everything = list(node.watch(since=0, timeout=0.2))
    assert [item.value for item in everything] == [1, 2, 3, 4]
    assert [item.value for item in node.watch(since=first, timeout=0.2)] == [4]
    for place, item in enumerate(everything, 1):
        assert list(node.watch(since=item, timeout=0.2)) == everything[place:], "behind exactly it"
    assert list(node.watch(since=graft.FellBehind(first), timeout=0.2)) == everything[3:]


def test_a_place_that_the_log_has_not_reached_is_waited_for(node, caplog):
    last = node.execute(News.tell, "a", 1)
    watch = node.watch(since=last + 2, timeout=0.2)

    def told():
        node.watch(since=last + 2).close()  # the engine hears of another level within a moment
        return "a watcher waits for a place that the log has not reached" in caplog.text

    with caplog.at_level("INFO", logger="graft"):
        until(told, "the node says so")
    for number in range(2):
        assert node.execute(News.tell, "a", number) == last + 1 + number
        assert list(watch) == []
    node.execute(News.tell, "a", 5)
    assert [item.value for item in watch] == [5]


def test_without_time_it_is_what_is_there_from_afar_too():
    with graft.LocalCluster(News, 3, timeout=DEADLINE_SECONDS) as cluster:
        cluster.execute_many([(News.tell, "a" if number % 2 else "b", number) for number in range(1000)])
        cluster.wait_converged()
        endpoints = [node.address for node in cluster]
        for _ in range(10):  # each is a connection of its own
            with graft.Client(endpoints, News, timeout=DEADLINE_SECONDS) as client:
                assert [item.value for item in client.watch(since=0, timeout=0)] == list(range(1000))
                assert [item.value for item in client.watch("b", since=0, timeout=0)] == list(range(0, 1000, 2))
                assert list(client.watch("c", since=0, timeout=0)) == list(client.watch(timeout=0)) == []

        async def for_await():
            return [item.value async for item in cluster.aio.watch(since=0, timeout=0)]

        assert asyncio.run(for_await()) == list(range(1000))


def test_the_position_is_where_another_one_goes_on(node):
    watch = node.watch(since=0, timeout=DEADLINE_SECONDS)
    node.execute(News.tell, "a", 1, 2)
    assert next(watch).value == 1
    assert next(node.watch(since=watch.position, timeout=DEADLINE_SECONDS)).value == 2
    assert isinstance(watch.position, graft.Emitted)


def test_every_member_tells_the_same_once(tmp_path):
    trio = Trio(tmp_path, News).start().ready()
    try:
        watches = {id_: node.watch(timeout=DEADLINE_SECONDS) for id_, node in trio.nodes.items()}
        nodes = list(trio.nodes.values())
        for number in range(60):
            nodes[number % 3].execute(News.tell, "a", number)
        seen = {id_: take(watch, 60) for id_, watch in watches.items()}
        assert [item.value for item in seen["n1"]] == list(range(60))
        assert seen["n1"] == seen["n2"] == seen["n3"]
        # Another member knows the same places.
        assert [item.value for item in nodes[1].watch(since=seen["n1"][29], timeout=0.5)] == list(range(30, 60))
    finally:
        trio.stop()


def test_who_falls_behind_is_told_and_goes_on(node):
    watch = node.watch(timeout=DEADLINE_SECONDS)
    # More than a node keeps, 64 MiB or 65536 things.
    for _ in range(70):
        last = node.execute(News.fill, 1000, 8)
    behind = next(watch)
    assert isinstance(behind, graft.FellBehind)
    rest = []
    while not rest or (rest[-1].index, rest[-1].number) != (last, 999):
        rest.append(next(watch))
    assert all(isinstance(item, graft.Emitted) and item.index > behind.upto for item in rest)
    places = [(item.index, item.number) for item in rest]
    assert places == sorted(set(places))
    assert rest[0].number == 0, "whole from the index on that it was told"
    assert len(rest) % 1000 == 0


def test_it_ends_with_the_node(node):
    watch = node.watch()
    node.execute(News.tell, "a", 1)
    ended = []

    def read():
        try:
            ended.extend(watch)
        except graft.Stopped as error:
            ended.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    node.stop()
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()
    assert [getattr(one, "value", None) for one in ended[:-1]] == [1]
    assert isinstance(ended[-1], graft.Stopped)
    with pytest.raises(graft.Stopped):
        next(watch)
    with pytest.raises(graft.Stopped):
        node.watch()


def test_closing_it_ends_the_iteration(node):
    watch = node.watch()
    thread = threading.Thread(target=lambda: list(watch))
    thread.start()
    watch.close()
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()
    with node.watch() as other:
        pass
    assert list(other) == []


def test_a_restart_begins_where_the_state_was_restored(tmp_path):
    line = {"id": "n1", "address": free_addresses(1)[0], "data_dir": tmp_path}
    with graft.Node(News(), **line) as node:
        index = node.wait_ready(DEADLINE_SECONDS).execute(News.tell, "a", 1)
        node.snapshot()
    with graft.Node(News(), **line) as node:
        node.wait_ready(DEADLINE_SECONDS)
        watch = node.watch(since=0, timeout=DEADLINE_SECONDS)
        node.execute(News.tell, "a", 2)
        behind, item = take(watch, 2)
    assert isinstance(behind, graft.FellBehind)
    assert behind.upto >= index
    assert item.value == 2


def test_items_are_values():
    item = graft.Emitted(7, 0, "a", {"x": [1]})
    assert pickle.loads(pickle.dumps(item)) == item
    assert hash(item)
    with pytest.raises(AttributeError):
        item.index = 8  # type: ignore[misc]
    assert graft.FellBehind(7) == graft.FellBehind(7)


@pytest.mark.parametrize("since", [-1, "7", True, 1.5, 1 << 64, (7, 0)])
def test_what_since_may_not_be(since):
    with pytest.raises(graft.ConfigError, match="since="):
        _watch._place(since)


@pytest.mark.parametrize(("topic", "words"), [(7, "topic=7 must be a str"), ("", "a topic is a non-empty text")])
def test_what_a_topic_may_not_be(node, topic, words):
    for watch in (node.watch, node.aio.watch):
        with pytest.raises(graft.ConfigError, match=words):
            watch(topic)


def test_a_node_that_does_not_run_has_nothing_to_watch():
    with pytest.raises(graft.Stopped, match="not started"):
        graft.Node(Bank(), id="n1", address="127.0.0.1:0", data_dir=None).watch()


def test_a_blocking_wait_in_an_event_loop_names_its_mirror(node):
    async def wait():
        next(node.watch())

    with pytest.raises(RuntimeError, match=r"`async for event in node\.aio\.watch\(\)`"):
        asyncio.run(wait())


def test_the_same_for_await(node):
    async def main():
        seen = []

        async def read(watch):
            async for item in watch:
                seen.append(item.value)  # noqa: PERF401 - as they come

        several = [node.aio.watch("a") for _ in range(50)]
        reading = [asyncio.create_task(read(watch)) for watch in several]
        for number in range(20):
            await node.aio.execute(News.tell, "a", number)
        assert [item.value async for item in node.aio.watch(since=0, timeout=0.2)] == list(range(20))
        begun = time.monotonic()
        assert [item async for item in node.aio.watch(timeout=0.05)] == []
        assert time.monotonic() - begun < DEADLINE_SECONDS
        while len(seen) < 50 * 20:  # noqa: ASYNC110 - the outer wait has the deadline
            await asyncio.sleep(0.005)
        assert sorted(seen) == sorted(list(range(20)) * 50)
        several[0].close()
        reading[1].cancel()
        await node.aio.stop()
        return await asyncio.gather(*reading, return_exceptions=True)

    closed, cancelled, *stopped = asyncio.run(asyncio.wait_for(main(), 60))
    assert closed is None
    assert isinstance(cancelled, asyncio.CancelledError)
    assert all(isinstance(one, graft.Stopped) for one in stopped)


def test_waiting_again_and_again_leaves_nothing_behind(node):
    async def main():
        watch = node.aio.watch(timeout=0.001)
        for _ in range(100):
            assert [item async for item in watch] == []
        return len(node._loops.of(asyncio.get_running_loop())._waiting)

    assert asyncio.run(main()) == 1
