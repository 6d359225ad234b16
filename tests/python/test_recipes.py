"""The machines that are ready to use."""

from __future__ import annotations

import graft
import pytest
from graft.recipes import Conflict, Entry, KeyValue
from nodes import DEADLINE_SECONDS, until


@pytest.fixture(scope="module")
def cluster():
    with graft.LocalCluster(KeyValue, 3, timeout=DEADLINE_SECONDS) as made:
        yield made


def test_keys_have_values_and_revisions(cluster):
    for value in ("green", 5, 2.5, None, True, b"\0", [1, {"a": [None]}], {"k": "v"}):
        revision = cluster.execute(KeyValue.set, "colour", value)
        assert cluster.query(KeyValue.get, "colour") == value
        assert cluster.query(KeyValue.entry, "colour") == Entry(value, revision)
    assert cluster.query(KeyValue.get, "nothing") is None
    assert cluster.query(KeyValue.entry, "nothing") is None
    assert cluster.execute(KeyValue.delete, "colour")
    assert not cluster.execute(KeyValue.delete, "colour")
    for bad in ("", "x" * 257):
        with pytest.raises(graft.ApplyError, match="characters"):
            cluster.execute(KeyValue.set, bad, 1)


def test_what_watchers_cannot_get_changes_nothing(cluster):
    revision = cluster.execute(KeyValue.set, "large", "small")
    with pytest.raises(graft.ApplyError, match="1048576 bytes"):
        cluster.execute(KeyValue.set, "large", b"x" * (2 << 20))
    assert cluster.query(KeyValue.entry, "large") == Entry("small", revision)


def test_a_key_that_is_set_for_ever_takes_no_more_room(cluster):
    before = len(cluster["n1"].machine.entries)
    for n in range(300):
        cluster["n1"].execute(KeyValue.set, "busy", n, ttl=86_400)
    assert cluster["n1"].query(KeyValue.get, "busy") == 299
    assert len(cluster["n1"].machine.endings) <= 2 * (before + 1) + 64


def test_a_change_may_depend_on_the_revision(cluster):
    first = cluster.execute(KeyValue.set, "lock", "ann", if_revision=0)
    with pytest.raises(graft.ApplyError, match="is at revision") as raised:
        cluster.execute(KeyValue.set, "lock", "bob", if_revision=0)
    assert raised.value.type_name == Conflict.__name__
    assert cluster.execute(KeyValue.set, "lock", "bob", if_revision=first) > first
    with pytest.raises(graft.ApplyError):
        cluster.execute(KeyValue.delete, "lock", if_revision=first)
    assert cluster.query(KeyValue.get, "lock") == "bob"


def test_keys_are_listed_in_order_and_in_parts(cluster):
    for n in range(7):
        cluster.execute(KeyValue.set, f"list/{n}", n)
    keys = cluster.query(KeyValue.keys, "list/", limit=4)
    assert keys == [f"list/{n}" for n in range(4)]
    assert cluster.query(KeyValue.keys, "list/", keys[-1]) == [f"list/{n}" for n in range(4, 7)]


def test_a_key_may_end_by_itself(cluster):
    cluster.execute(KeyValue.set, "short", 1, ttl=0.2)
    cluster.execute(KeyValue.set, "again", 1, ttl=0.2)
    cluster.execute(KeyValue.set, "again", 2)

    def gone() -> bool:
        cluster.execute(KeyValue.set, "other", 1)
        return cluster.query(KeyValue.get, "short") is None

    until(gone)
    assert cluster.query(KeyValue.get, "again") == 2
    for bad in (0, -1, float("inf"), float("nan")):
        with pytest.raises(graft.ApplyError, match="ttl"):
            cluster.execute(KeyValue.set, "bad", 1, ttl=bad)


def test_changes_are_told_to_whoever_watches(cluster):
    with cluster.watch("seen", timeout=DEADLINE_SECONDS) as watch:
        revision = cluster.execute(KeyValue.set, "seen", 5)
        cluster.execute(KeyValue.set, "unseen", 6)
        cluster.execute(KeyValue.delete, "seen")
        told = [next(watch).value, next(watch).value]
    assert told == [{"value": 5, "revision": revision, "expires": None}, None]


def test_it_is_the_same_after_a_snapshot_and_a_restart(cluster):
    cluster.execute(KeyValue.set, "kept", [1, 2], ttl=1000)
    entry = cluster.query(KeyValue.entry, "kept")
    for node in cluster:
        node.snapshot()
    cluster.kill("n1")
    cluster.restart("n1")
    assert cluster.query(KeyValue.entry, "kept") == entry
    assert cluster.verify()
