"""What a node tells of what happens."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from types import SimpleNamespace

import graft
import pytest
from graft import _events
from machines import Bank
from nodes import DEADLINE_SECONDS, free_addresses


def made(kind, sequence=7, **data):
    return _events.event_of({"sequence": sequence, "time": 1_700_000_000.25, "kind": kind, **data})


WORDS = [
    (made("leader", term=3, leader="n2"), "n2 leads term 3"),
    (made("leader", term=3, leader=None), "nobody leads in term 3"),
    (made("role", role="candidate", term=4), "this node is candidate in term 4"),
    (made("membership", index=9, step="learner", member="n4", committed=False), "members: learner n4 at index 9"),
    (made("membership", index=9, step="joint", member=None, committed=True), "members: joint at index 9, committed"),
    (made("catch-up", member="n4", matched=5, last=9), "n4 has 5 of 9 entries"),
    (
        made("snapshot", phase="writing", index=9, bytes=0, total=0, peer=None, why=None),
        "snapshot at index 9: writing",
    ),
    (
        made("snapshot", phase="sending", index=9, bytes=1, total=2, peer="n4", why=None),
        "snapshot at index 9: sending to n4, 1 of 2 bytes",
    ),
    (
        made("snapshot", phase="fetching", index=9, bytes=1, total=0, peer="n1", why=None),
        "snapshot at index 9: fetching from n1, 1 byte",
    ),
    (
        made("snapshot", phase="failed", index=9, bytes=0, total=0, peer=None, why="disk full"),
        "snapshot at index 9: failed: disk full",
    ),
    (made("link", member="n2", connected=True, why=None), "n2 is connected"),
    (made("link", member="n2", connected=False, why="refused"), "n2 is not connected: refused"),
    (made("certificate", phase="renewed", expires=7, why=None), "this node's certificate: renewed"),
    (made("certificate", phase="refused", expires=7, why="no"), "this node's certificate: refused: no"),
    (made("stopped"), "this node has stopped"),
    (made("gap", missed=12), "12 events are forgotten"),
    (made("gap", missed=1), "1 event is forgotten"),
    (made("gap", missed=None), "an unknown number of events before this are forgotten"),
    (made("a new kind", x=1), "a new kind x=1"),
]


@pytest.mark.parametrize(("event", "words"), WORDS)
def test_every_kind_in_words(event, words):
    assert str(event).endswith(f".250 #7 {words}")
    assert pickle.loads(pickle.dumps(event)) == event
    assert hash(event)


def cursor(since, *answers):
    """A cursor over recorded answers of an engine."""
    recorded = list(answers)
    reader = SimpleNamespace(next=lambda _timeout: recorded.pop(0))
    native = SimpleNamespace(events=lambda _since: reader)
    return _events.Cursor(SimpleNamespace(_engine=lambda _verb: native), since)


def raw(*numbers, kind="role"):
    return [{"sequence": number, "time": 5.0, "kind": kind, "role": "leader", "term": 1} for number in numbers]


def test_a_gap_is_told_where_it_is():
    reader = cursor(3, (raw(8, 9), None), (raw(10, 12), None))
    found = reader.read(0)
    assert [(event.sequence, event.kind) for event in found] == [(7, "gap"), (8, "role"), (9, "role")]
    assert found[0].data == {"missed": 4}
    assert [event.kind for event in reader.read(0)] == ["role", "gap", "role"], "also in the middle"
    assert cursor(7, (raw(8), None)).read(0)[0].kind == "role"
    assert cursor(None, (raw(8), None)).read(0)[0].kind == "role", "from now on nothing is missing"


def test_a_number_of_another_run_is_a_gap():
    found = cursor(500, (raw(1, 2), None)).read(0)
    assert [(event.kind, event.data.get("missed")) for event in found] == [
        ("gap", None),
        ("role", None),
        ("role", None),
    ]
    assert [event.sequence for event in found] == [0, 1, 2], "all of this run is new"


def test_nothing_kept_is_no_gap():
    assert cursor(0, ([], None)).read(0) == []


def test_a_number_of_another_run_begins_anew(node):
    found = list(node.events(since=1 << 40, timeout=0))
    assert found[0].kind == "gap"
    assert found[1:] == list(node.events(since=0, timeout=0))


def idle():
    return graft.Node(Bank(), id="n1", address="127.0.0.1:0", data_dir=None)


@pytest.mark.parametrize("since", [-1, "1", True, 1.5, 1 << 64])
def test_what_since_may_not_be(since):
    with pytest.raises(graft.ConfigError, match="since="):
        idle().events(since=since)


@pytest.mark.parametrize("timeout", [-1, "soon", True, float("nan")])
def test_what_a_timeout_may_not_be(timeout):
    for events in (idle().events, idle().aio.events):
        with pytest.raises(graft.ConfigError, match="timeout="):
            events(timeout=timeout)


def test_events_of_a_node_that_does_not_run():
    with pytest.raises(graft.Stopped, match="not started"):
        idle().events()


def test_all_that_is_kept_from_the_start(node):
    events = list(node.events(since=0, timeout=0))
    numbers = [event.sequence for event in events]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert any(event.kind == "leader" and event.data["leader"] == "n1" for event in events)
    assert any(event.kind == "role" and event.data["role"] == "leader" for event in events)
    assert all(abs(event.time - time.time()) < 60 for event in events)
    assert not [event for event in events if event.kind == "gap"]


def test_it_goes_on_where_somebody_stopped(node):
    first = next(iter(node.events(since=0, timeout=DEADLINE_SECONDS)))
    rest = list(node.events(since=first.sequence, timeout=0))
    assert [first, *rest] == list(node.events(since=0, timeout=0))
    assert list(node.events(timeout=0)) == [], "from now on nothing has happened"


def test_a_client_is_told_all_there_is_without_waiting_for_more(node):
    kept = list(node.events(since=0, timeout=0))
    for _ in range(20):  # each is a connection of its own
        with graft.Client(node.address, Bank, timeout=DEADLINE_SECONDS) as client:
            assert list(client.events(since=0, timeout=0)) == kept
            assert list(client.events(since=kept[-2].sequence, timeout=0)) == kept[-1:]
            assert list(client.events(timeout=0)) == [], "from now on nothing has happened"

    async def for_await():
        async with graft.AsyncClient(node.address, Bank, timeout=DEADLINE_SECONDS) as client:
            return [event async for event in client.events(since=0, timeout=0)]

    assert asyncio.run(for_await()) == kept


def test_a_client_that_is_not_told_says_so():
    (nowhere,) = free_addresses(1)
    with graft.Client(nowhere, Bank, timeout=0.2) as client:
        assert list(client.events(since=0, timeout=0.05)) == []
        for told in (client.events, client.watch):
            with pytest.raises(graft.Timeout, match=r"was not answered within 0\.2 s"):
                list(told(since=0, timeout=0))

    async def for_await(told):
        async with graft.AsyncClient(nowhere, Bank, timeout=0.2) as client:
            return [item async for item in getattr(client, told)(since=0, timeout=0)]

    for told in ("events", "watch"):
        with pytest.raises(graft.Timeout, match=r"was not answered within 0\.2 s"):
            asyncio.run(for_await(told))


def test_it_ends_when_nothing_happens(node):
    events = node.events(timeout="200ms")
    begun = time.monotonic()
    assert list(events) == []
    assert time.monotonic() - begun < DEADLINE_SECONDS


def test_it_ends_with_the_node(group):
    n1 = group.found("n1")
    seen: list[graft.Event] = []
    reading = threading.Event()

    def watch() -> None:
        events = n1.events()
        reading.set()
        seen.extend(events)

    thread = threading.Thread(target=watch)
    thread.start()
    assert reading.wait(DEADLINE_SECONDS)
    n1.stop()
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()
    assert seen[-1].kind == "stopped"


def test_a_newcomer_step_by_step(group):
    n1 = group.grow("n1", "n2")
    events = n1.events(timeout=DEADLINE_SECONDS)
    group.join("n3", "n1")
    steps = []
    for event in events:
        if event.kind == "membership" and event.data["member"] == "n3" and event.data["committed"]:
            steps.append(event.data["step"])
        if steps[-1:] == ["voter"]:
            break
    assert steps == ["learner", "voter"]


def test_who_is_gone_and_who_leads_then(group):
    group.grow("n1", "n2", "n3")
    old, watcher = group.leader(), group.follower()
    events = watcher.events(timeout=DEADLINE_SECONDS)
    old.stop()
    news = []
    for event in events:
        news.append(event)
        gone = any(one.kind == "link" and one.data["member"] == old.id and not one.data["connected"] for one in news)
        led = [one.data["leader"] for one in news if one.kind == "leader" and one.data["leader"] not in (None, old.id)]
        if gone and led:
            break
    assert led[-1] in {"n1", "n2", "n3"} - {old.id}


def test_a_blocking_wait_in_an_event_loop_names_its_mirror(node):
    async def wait() -> None:
        next(node.events())

    with pytest.raises(RuntimeError, match=r"`async for event in node\.aio\.events\(\)`"):
        asyncio.run(wait())


def test_the_same_for_await(group):
    n1 = group.found("n1")

    async def watch() -> list[graft.Event]:
        kept = [event async for event in n1.aio.events(since=0, timeout=0)]
        assert kept == list(n1.events(since=0, timeout=0))
        assert [event async for event in n1.aio.events(timeout=0.05)] == []

        async def all_until_the_end() -> list[graft.Event]:
            return [event async for event in n1.aio.events()]

        watching = asyncio.create_task(all_until_the_end())
        cancelled = asyncio.create_task(all_until_the_end())
        await asyncio.sleep(0)
        cancelled.cancel()
        await n1.aio.stop()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        return await asyncio.wait_for(watching, DEADLINE_SECONDS)

    assert asyncio.run(watch())[-1].kind == "stopped"
