"""What a newcomer gets wrong, and what strangers send: an error that says what to do, and a cluster that goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import graft
import pytest
from histories import History
from process_node import Tokens
from processes import Cluster, ProcessError, free_ports, until

# Five times the longest time after which a node campaigns, with the default of 300 ms.
LONG_SECONDS = 3
CALM = {"election_timeout": "1s", "heartbeat": "100ms"}


def make(directory: Path, **settings: Any) -> graft.Node[Tokens]:
    """A node that was not started yet."""
    return graft.Node(Tokens(), **{"id": "n1", "address": "127.0.0.1:0", "data_dir": directory, **settings})


def complaint(error: graft.GraftError) -> str:
    """All that an error shows, once it is plain that the advice is shown too."""
    assert error.fix in error.__notes__
    return f"{error.code}: {error}\n{error.fix}"


@pytest.fixture
def taken() -> Iterator[str]:
    """An address that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_port_in_use(tmp_path: Path, taken: str) -> None:
    with pytest.raises(graft.AddressInUse) as caught:
        make(tmp_path, address=taken).start()
    words = complaint(caught.value)
    assert words.startswith(f"ADDRESS_IN_USE: {taken} is in use by another program")
    assert "choose another port" in words


@pytest.mark.parametrize(
    ("setting", "address", "words"),
    [
        ("address", "no-such-host.invalid:7001", "the host cannot be resolved"),
        ("bind", "no-such-host.invalid:7001", "the host cannot be resolved"),
        ("address", "203.0.113.1:7001", "is not an address of this machine: listen on one that is, or on 0.0.0.0"),
    ],
)
def test_an_address_that_cannot_be_listened_on(tmp_path: Path, setting: str, address: str, words: str) -> None:
    with pytest.raises(graft.ConfigError) as caught:
        make(tmp_path, **{"address": "127.0.0.1:7001", setting: address}).start()
    found = complaint(caught.value)
    assert found.startswith(f"CONFIG: {address}")
    assert words in found


def test_a_directory_of_another_node_and_one_in_use(tmp_path: Path) -> None:
    with make(tmp_path):
        with pytest.raises(graft.StorageError) as in_use:
            make(tmp_path).start()
        words = complaint(in_use.value)
        assert words.startswith(f"STORAGE: {tmp_path} is in use by process {os.getpid()}")
        assert "stop that process" in words
    with pytest.raises(graft.IdentityMismatch) as others:
        make(tmp_path, id="n2").start()
    words = complaint(others.value)
    assert words.startswith(f"IDENTITY_MISMATCH: {tmp_path} belongs to node n1, not to n2")
    assert "check `id` and `data_dir`" in words


def test_members_that_cannot_be_found_are_named(tmp_path: Path) -> None:
    home, lost = f"127.0.0.1:{free_ports(1)[0]}", "no-such-host.invalid:7001"
    with (
        make(tmp_path, address=home, members={"n1": home, "n2": lost, "n3": "n3.invalid:1"}) as node,
        pytest.raises(graft.Timeout) as caught,
    ):
        node.wait_ready(timeout="500ms")
    words = complaint(caught.value)
    assert "1 of 3 members reachable (n1); 2 needed; waiting for n2 at no-such-host.invalid:7001" in words


def test_one_member_that_cannot_be_found_stops_nobody(tmp_path: Path) -> None:
    with Cluster(tmp_path, 2, strangers={"n3": "no-such-host.invalid:7001"}, **CALM) as cluster:
        cluster.ready()
        assert cluster["n1"].execute("append", "a")[1] == 1
        known = {member["id"]: member["reachable"] for member in cluster[cluster.leader()].status()["members"]}
        assert known["n3"] is False


def log_of(cluster: Cluster, id_: str) -> str:
    """All that this process has logged."""
    return (cluster.home(id_) / "log").read_text()


def test_founders_with_different_lists_found_nothing_together(tmp_path: Path) -> None:
    with Cluster(tmp_path, idle=True) as cluster:
        large = cluster.members
        cluster.members = {id_: large[id_] for id_ in ("n1", "n2")}
        cluster.start("n1")
        cluster.members = large
        cluster.start("n2")
        advice = "Start every founding member with the same `members=`: the same ids and the same addresses."
        for id_ in ("n1", "n2"):
            until(lambda of=id_: advice in log_of(cluster, of), f"{id_} says what is wrong")
            with pytest.raises(ProcessError) as caught:
                cluster[id_].call("wait_ready", seconds=1)
            assert caught.value.code == "TIMEOUT"
            status = cluster[id_].status()
            assert (status["leader"], status["commit_index"], status["cluster"]) == (None, 0, None)
        # Those who agree are a majority of what they were told, and go on without the other.
        cluster.start("n3")
        assert cluster.leader("n2", "n3") in ("n2", "n3")
        cluster["n3"].execute("append", "a")
        assert cluster["n1"].status()["cluster"] is None


def test_a_member_of_another_cluster_is_a_stranger(tmp_path: Path) -> None:
    with Cluster(tmp_path / "ours", **CALM) as ours, Cluster(tmp_path / "theirs", **CALM) as theirs:
        ours.ready()
        theirs.ready()
        ours["n1"].execute("append", "ours")
        theirs["n1"].execute("append", "theirs")
        theirs.converged()
        ours.kill("n1")
        theirs.kill(*theirs.ids)
        ours.data_dirs["n1"] = theirs.home("n1") / "data"
        before = ours[ours.leader("n2", "n3")].status()
        ours.start("n1")
        for id_ in ours.ids:
            until(lambda of=id_: "belongs to the cluster" in log_of(ours, of), f"{id_} says what is wrong")
        stranger = ours["n1"].status()
        assert stranger["leader"] is None
        assert stranger["cluster"] not in (None, before["cluster"])
        assert ours["n1"].query("since", 0, consistency="stale") == []
        assert ours["n2"].execute("append", "more")[1] == 2
        after = ours["n2"].status()
        assert (after["leader"], after["term"]) == (before["leader"], before["term"])


def test_a_node_with_the_wrong_id_is_a_stranger(tmp_path: Path) -> None:
    with Cluster(tmp_path, **CALM) as cluster:
        cluster.ready()
        cluster.kill("n3")
        before = cluster[cluster.leader("n1", "n2")].status()
        cluster.ids.append("n9")
        cluster.members["n9"] = cluster.members.pop("n3")
        cluster.start("n9")
        for id_ in ("n1", "n2"):
            words = f"{id_} looked for n3 at {cluster.members['n9']}, but there is n9"
            until(lambda of=id_, words=words: words in log_of(cluster, of), f"{id_} says what is wrong")
        assert cluster["n1"].execute("append", "a")[1] == 1
        after = cluster["n1"].status()
        assert (after["leader"], after["term"]) == (before["leader"], before["term"])
        assert cluster["n9"].status()["cluster"] is None


def test_a_wiped_disk_never_costs_a_write(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.ready()
        cluster["n1"].execute("append", "all have it")
        cluster.converged()
        cluster.kill("n3")
        for number in range(5):
            cluster["n1"].execute("append", f"n3 lacks it, {number}")
        cluster.kill("n1", "n2")
        shutil.rmtree(cluster.home("n2") / "data")
        # Together they were a majority, but only n1 has what was acknowledged. n2 has forgotten its promises, so n3
        # does not take it for n2.
        cluster.start("n2", "n3")
        until(lambda: cluster["n2"].status()["error_code"] == "IDENTITY_MISMATCH", "n2 is told what it is")
        with pytest.raises(ProcessError) as told:
            cluster["n2"].call("wait_ready", seconds=LONG_SECONDS)
        assert told.value.code == "IDENTITY_MISMATCH"
        with pytest.raises(ProcessError, match="1 of 3 members reachable"):
            cluster["n3"].call("wait_ready", seconds=LONG_SECONDS)
        with pytest.raises(ProcessError) as refused:
            cluster["n3"].execute("append", "too soon", seconds=0.2)
        assert refused.value.code in ("NO_LEADER", "NO_QUORUM")
        assert {status["leader"] for status in cluster.statuses().values()} == {None}
        cluster.kill("n2")
        cluster.start("n1").ready()
        cluster.converged()
        for id_ in ("n1", "n3"):
            found = [token for token, _ in cluster[id_].query("since", 0)]
            assert found == ["all have it", *(f"n3 lacks it, {number}" for number in range(5))]


HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GARBAGE = {
    "zeros": bytes(1 << 16),
    "noise": os.urandom(1 << 20),
    "HTTP/1": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/1 that does not end": b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 4096,
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(195),
    "HTTP/2 and noise": HTTP2 + os.urandom(1 << 16),
    "an HTTP/2 frame without end": HTTP2 + b"\xff\xff\xff\x00\x00" + struct.pack(">I", 1) + bytes(1 << 16),
    "HTTP/2 settings for ever": HTTP2 + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" * 20_000,
    "half open": b"",
    "half a greeting": HTTP2[:10],
}


def disturb(address: str, ending: threading.Event) -> None:
    """Sends every kind of garbage, again and again, and keeps the last connections open."""
    host, port = address.rsplit(":", 1)
    kept: list[socket.socket] = []
    try:
        while not ending.is_set():
            for garbage in GARBAGE.values():
                with contextlib.suppress(OSError):
                    peer = socket.create_connection((host, int(port)), timeout=5)
                    kept.append(peer)
                    peer.settimeout(0.2)
                    peer.sendall(garbage)
            while len(kept) > 5 * len(GARBAGE):
                kept.pop(0).close()
            ending.wait(0.02)
    finally:
        for peer in kept:
            peer.close()


def test_garbage_on_every_port_harms_nobody(tmp_path: Path) -> None:
    with Cluster(tmp_path, **CALM) as cluster:
        history = History(cluster)
        leader = cluster.ready().leader()
        term = cluster[leader].status()["term"]
        ending = threading.Event()
        strangers = [threading.Thread(target=disturb, args=(cluster.members[id_], ending)) for id_ in cluster.ids * 2]
        cluster.load(writers=12, readers=3, pause=0.002)
        for stranger in strangers:
            stranger.start()
        try:
            history.wait_for(500, "writes among garbage")
            assert cluster[leader].status()["term"] == term, "garbage costs no election"
            cluster.kill(leader)
            cluster.start(leader).ready()
        finally:
            ending.set()
            for stranger in strangers:
                stranger.join()
        cluster.end_load()
        history.check()
        for id_ in cluster.ids:
            assert "panic" not in log_of(cluster, id_)
            assert cluster[id_].status()["error"] is None


def test_a_command_that_is_too_large_is_refused_everywhere(tmp_path: Path) -> None:
    with Cluster(tmp_path, command_bytes_max="64KiB", **CALM) as cluster:
        cluster.ready()
        last = cluster.converged()["last_index"]
        for id_ in cluster.ids:
            with pytest.raises(ProcessError) as caught:
                cluster[id_].call("store", size=100_000, seconds=5)
            words = caught.value.words
            assert words["code"] == "TOO_LARGE"
            assert "65536" in words["text"]
            assert "command_bytes_max" in words["fix"]
        assert cluster.converged()["last_index"] == last, "nothing of it was replicated"
        assert cluster["n1"].call("store", size=60_000, seconds=5) == 60_000
