"""Recordings of a cluster, and what things look like where nothing is alive: text and HTML."""

from __future__ import annotations

import gc
import sys
import time
import weakref
from html.parser import HTMLParser

import graft
import pytest
from machines import Bank
from nodes import DEADLINE_SECONDS, until


@pytest.fixture
def cluster():
    with graft.LocalCluster(Bank, 3, name="shown", timeout=DEADLINE_SECONDS) as made:
        yield made


class Reader(HTMLParser):
    """Fails on what a browser would have to guess about."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        assert tag in ("div", "span", "b", "p", "table", "thead", "tbody", "tr", "th", "td", "ol", "li", "img")
        for name, value in attrs:
            # Nothing comes from elsewhere, nothing runs.
            assert name in ("style", "scope", "aria-hidden", "alt", "src")
            assert name != "src" or value.startswith("data:")
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(html: str) -> str:
    reader = Reader()
    reader.feed(html)
    assert not reader.open
    return reader.text


def test_a_recording_has_what_was_done_and_what_came_of_it(cluster):
    with cluster.record(0.05) as timeline:
        assert timeline.is_recording
        old = cluster.leader.id
        cluster.kill(old)
        cluster.execute(Bank.deposit, "ann", 5)
        new = cluster.leader.id
        cluster.restart(old)
        cluster.wait_converged()
        until(lambda: any(event.kind == "leader" for event in timeline.events), "the new leader")
    assert not timeline.is_recording
    words = [event.words for event in timeline.events]
    term = cluster.status().term
    assert words.index(f"{old} was killed") < words.index(f"{new} leads term {term}")
    assert words.count(f"{new} leads term {term}") == 1  # though each node tells
    assert f"{old} was started again" in words
    assert len(timeline) == len(words)
    times = [event.time for event in timeline.events]
    assert times == sorted(times)
    roles = {(row["id"], row["role"]) for moment in timeline.moments for row in moment["nodes"]}
    assert {(old, "leader"), (old, "down"), (old, "follower"), (new, "leader")} <= roles
    assert sum(moment["calls"]["count"] for moment in timeline.moments) >= 1
    strip = next(row for row in timeline.moments[-1]["nodes"] if row["id"] == new)["strip"]
    assert strip[-1] == (cluster[new].status().last_index, term)


def test_a_recording_is_saved_and_loaded(cluster, tmp_path):
    with cluster.record(0.05) as timeline:
        cluster.heal()
    timeline.save(tmp_path / "recording")
    loaded = graft.Timeline.load(tmp_path / "recording")
    assert loaded.events == timeline.events
    assert [moment["time"] for moment in loaded.moments] == [moment["time"] for moment in timeline.moments]
    assert read(loaded._repr_mimebundle_()["text/html"])
    for bad in (b"", b"{}", b'{"format": "graft-timeline-9"}', b'{"format": "graft-timeline-1", "events": [1]}'):
        (tmp_path / "bad").write_bytes(bad)
        with pytest.raises(graft.ConfigError, match="no recording"):
            graft.Timeline.load(tmp_path / "bad")


def test_a_recording_ends_with_its_cluster_and_does_not_keep_it_alive():
    cluster = graft.LocalCluster(Bank, 1)
    timeline = cluster.record(0.02)
    cluster.close()
    until(lambda: not timeline.is_recording, "the end of the recording")
    timeline.stop()
    gone = weakref.ref(cluster)
    del cluster
    gc.collect()
    until(lambda: gone() is None, "that nobody holds the cluster")


def test_nodes_and_clients_are_recorded_too(cluster):
    with cluster["n1"].record(0.05) as of_node:
        until(lambda: len(of_node.moments) > 2, "moments")
    assert {row["id"] for row in of_node.moments[-1]["nodes"]} == {"n1", "n2", "n3"}
    with graft.Client([cluster["n1"].address], Bank) as client, client.record(0.05) as of_client:
        until(lambda: len(of_client.moments) > 2, "moments")
    assert of_client.moments[-1]["leader"] == cluster.leader.id


def test_everything_has_a_picture_in_html_and_in_text(cluster):
    with graft.Client([cluster["n1"].address], Bank) as client:
        shown = [cluster, cluster["n1"], client, cluster.status(), cluster.members, cluster["n2"].members]
        for one in shown:
            bundle = one._repr_mimebundle_()
            assert set(bundle) == {"text/plain", "text/html"}
            text = read(bundle["text/html"])
            assert all(id_ in text for id_ in ("n1", "n2", "n3", "leader")), text
            assert bundle["text/plain"] == repr(one)
    assert "healthy" in read(cluster._repr_mimebundle_()["text/html"])
    follower = cluster.followers[0]
    cluster.kill(follower)
    text = read(cluster._repr_mimebundle_()["text/html"])
    assert "degraded" in text
    assert "can lose 0 nodes" in text
    cluster.kill(cluster.leader)
    until(lambda: "no majority" in read(cluster._repr_mimebundle_()["text/html"]), "that the majority is gone")


def test_what_is_closed_or_unreachable_has_a_picture_too():
    cluster = graft.LocalCluster(Bank, 1, name="a-b")
    node = cluster["n1"]
    client = graft.Client(cluster["n1"].address, Bank, timeout=0.2)
    cluster.close()
    assert read(node._repr_mimebundle_()["text/html"])
    assert read(cluster._repr_mimebundle_()["text/html"])
    since = time.monotonic()
    assert read(client._repr_mimebundle_()["text/html"])
    assert read(client.members._repr_mimebundle_()["text/html"])
    assert time.monotonic() - since < DEADLINE_SECONDS
    client.close()


@pytest.mark.parametrize(
    ("package", "command", "draw"),
    [
        ("pandas", "pip install pandas", lambda timeline: timeline.to_pandas()),
        ("matplotlib.figure", 'pip install "graft-raft[notebook]"', lambda timeline: timeline.plot()),
    ],
)
def test_what_is_not_installed_is_named_and_how_to_get_it(monkeypatch, package, command, draw):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError) as caught:
        draw(graft.Timeline())
    assert f"needs {package.partition('.')[0]}" in str(caught.value)
    assert f"install it with `{command}`" in str(caught.value)
    assert graft.Timeline()._repr_png_() is None or package == "pandas"


def test_html_in_names_stays_text():
    from graft._display import cluster_html
    from graft._moment import of_status
    from graft._status import idle

    html = cluster_html("<script>", of_status(idle("<b>", "<i>:1")))
    assert "<script>" not in html
    assert "<b>" in read(html)


def test_load_makes_calls_until_it_is_stopped(cluster):
    with cluster.load() as load:
        until(lambda: load.done > 20, "calls")
        assert cluster.is_loaded
        cluster.kill(cluster.leader)
        done = load.done
        until(lambda: load.done > done + 20, "calls after an election")
    assert not cluster.is_loaded
    assert load.failed == 0, load.last_error
    assert cluster.query(Bank.balance, "load") == load.done
    assert "begins" not in cluster.toggle_load()
    assert cluster.is_loaded
    assert "ended" in cluster.toggle_load()
    mine: list[int] = []
    with cluster.load(lambda: mine.append(1), threads=1):
        until(lambda: mine, "a call of my own")


def test_load_says_so_if_it_cannot_guess_a_command():
    class Odd(graft.StateMachine):
        def __init__(self) -> None:
            self.seen: list[list[int]] = []

        @graft.command
        def put(self, values: list[int]) -> None:
            self.seen.append(values)

    with graft.LocalCluster(Odd, 1) as cluster, pytest.raises(graft.ConfigError, match="without knowing more"):
        cluster.load()
