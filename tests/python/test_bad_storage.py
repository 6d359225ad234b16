"""Damaged, missing, full and forbidden data directories: nothing is lost in silence, and the error says what to do."""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import graft
import pytest
from process_node import Tokens
from processes import Cluster, is_root, until

COUNT = 50
READY_SECONDS = 30
SEGMENT_BYTES = 16 << 20
HEADER_BYTES = 4096
needs_root = pytest.mark.skipif(not is_root(), reason="mounting a small file system needs root")


def alone(directory: Path, **settings: Any) -> graft.Node[Tokens]:
    """A node that is its whole cluster."""
    return graft.Node(Tokens(), id="n1", address="127.0.0.1:0", data_dir=directory, **settings)


def tokens(directory: Path) -> list[str]:
    """What a node finds in this directory."""
    with alone(directory) as node:
        return [token for token, _ in node.wait_ready(READY_SECONDS).query(Tokens.since, 0)]


def content(directory: Path) -> dict[str, str]:
    """A hash of every file, but for the lock, which names whoever opened the directory last."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.name != "LOCK")
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def refused(directory: Path) -> graft.Corruption:
    """The error that this directory is refused with, twice, while nothing in it changes."""
    before = content(directory)
    with pytest.raises(graft.Corruption) as first, alone(directory):
        pass
    with pytest.raises(graft.Corruption) as again, alone(directory):
        pass
    assert content(directory) == before
    assert str(again.value) == str(first.value)
    return first.value


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory that holds `COUNT` tokens."""
    with alone(tmp_path / "n1") as node:
        node.wait_ready(READY_SECONDS)
        for number in range(COUNT):
            node.execute(Tokens.append, f"token-{number:02}")
    return tmp_path / "n1"


def segment(directory: Path, number: int = 0) -> Path:
    """A segment of the log."""
    return sorted(directory.glob("log-*"))[number]


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_a_directory_that_goes_away_under_a_node_is_noticed(directory: Path, how: str) -> None:
    """What is written into it is lost with the process, so it must not be acknowledged for long."""
    with alone(directory) as node:
        node.wait_ready(READY_SECONDS)
        if how == "removed":
            shutil.rmtree(directory)
        else:
            directory.rename(directory.with_name("elsewhere"))
        begun = time.monotonic()

        def refused() -> bool:
            try:
                node.execute(Tokens.append, "lost")
            except (graft.Halted, graft.UnknownOutcome):
                return True
            return False

        until(refused, "it is noticed")
        assert time.monotonic() - begun < 5
        words = str(node.health())
        assert f"{directory}: the data directory was removed or moved while the node ran" in words
        assert node.status().role == "failed"


def test_a_damaged_byte_in_the_middle_is_refused_and_nothing_is_cut(directory: Path) -> None:
    path = segment(directory)
    whole = path.read_bytes()
    place = whole.index(b"token-25")
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    error = refused(directory)
    assert error.code == "CORRUPTION"
    assert error.file == str(path)
    assert error.offset is not None
    assert place - 512 < error.offset <= place
    assert f"{path} is damaged at byte {error.offset}" in str(error)
    assert error.fix in error.__notes__
    path.write_bytes(whole)
    assert tokens(directory) == [f"token-{number:02}" for number in range(COUNT)]


def flip(path: Path, place: int) -> None:
    """Damages one byte."""
    whole = bytearray(path.read_bytes())
    whole[place] ^= 1
    path.write_bytes(whole)


DAMAGE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a missing segment": (lambda home: segment(home).unlink(), "", "it has an identity but no log"),
    "an empty segment": (lambda home: segment(home).write_bytes(b""), "log-0000000001", "it ends within its header"),
    "a damaged header": (lambda home: flip(segment(home), 100), "log-0000000001", "checksum"),
    "a log cut to its header": (
        lambda home: segment(home).write_bytes(segment(home).read_bytes()[:HEADER_BYTES]),
        "log-0000000001",
        "the log is empty, but the node has belonged to a cluster",
    ),
    "a log of zeros": (
        lambda home: segment(home).write_bytes(segment(home).read_bytes()[:HEADER_BYTES] + bytes(1 << 20)),
        "log-0000000001",
        "the log is empty, but the node has belonged to a cluster",
    ),
    "a missing identity": (lambda home: (home / "identity").unlink(), "identity", "it is missing"),
    "a damaged identity": (lambda home: flip(home / "identity", 20), "identity", "it fails the checksum"),
    "an empty identity": (lambda home: (home / "identity").write_bytes(b""), "identity", "it ends within its header"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named(directory: Path, what: str) -> None:
    damage, file, words = DAMAGE[what]
    damage(directory)
    error = refused(directory)
    assert error.file == str(directory / file)
    assert words in str(error)


def test_a_segment_of_another_directory_is_refused(directory: Path, tmp_path: Path) -> None:
    with alone(tmp_path / "other") as node:
        node.wait_ready(READY_SECONDS)
    shutil.copy(segment(tmp_path / "other"), segment(directory))
    assert "it comes from another directory" in str(refused(directory))


def test_a_file_of_a_newer_version_is_left_alone(directory: Path) -> None:
    # What a later version would write: another number, under a checksum that holds.
    path = directory / "identity"
    body = path.read_bytes()
    start = body[:8] + (2).to_bytes(4, "little")
    path.write_bytes(start + crc32c(start).to_bytes(4, "little") + body[16:])
    before = content(directory)
    with pytest.raises(graft.StorageError, match="format version 2; this program knows up to 1") as caught:
        alone(directory).start()
    assert not isinstance(caught.value, graft.Corruption)
    assert content(directory) == before


def crc32c(data: bytes) -> int:
    """The checksum of Castagnoli, a bit at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_a_torn_tail_is_cut_and_noted(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = segment(directory)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"token-49") + 4])
    with caplog.at_level(logging.WARNING, "graft"):
        found = tokens(directory)
        notes = until(lambda: [r for r in caplog.records if "cut off" in r.getMessage()], "a note of the cut")
    assert found == [f"token-{number:02}" for number in range(COUNT - 1)]
    assert notes[0].name.startswith("graft.")
    assert str(path) in notes[0].getMessage()
    assert tokens(directory) == found


def test_a_deleted_segment_is_missed(tmp_path: Path) -> None:
    home = tmp_path / "n1"
    size = 8 << 20
    with alone(home, command_bytes_max=2 * size) as node:
        node.wait_ready(READY_SECONDS)
        for _ in range(SEGMENT_BYTES // size + 1):
            node.execute(Tokens.store, bytes(size))
        node.execute(Tokens.append, "last")
    first, last = segment(home, 0), segment(home, 1)
    for path in (first, last):
        path.rename(tmp_path / "away")
        assert "missing" in str(refused(home))
        (tmp_path / "away").rename(path)
    assert tokens(home) == ["last"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB, half of it filled by a file named `filler`."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(path)], check=True)
    try:
        (path / "filler").write_bytes(bytes(4 << 20))
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@needs_root
def test_a_full_disk_is_waited_out(small_disk: Path) -> None:
    applied = 0
    outcomes: list[graft.GraftError] = []
    with alone(small_disk / "n1") as node:
        calls = node.wait_ready(READY_SECONDS).options(timeout=1)
        term = node.status().term
        calls.execute(Tokens.append, "before")

        def is_busy() -> bool:
            nonlocal applied
            try:
                applied += calls.execute(Tokens.store, bytes(256 << 10)) > 0
            except graft.GraftError as error:
                outcomes.append(error)
                return isinstance(error, graft.Busy)
            return False

        until(is_busy, "the disk is full")
        assert 0 < applied < 32
        # What was under way when the space ended may still be written.
        assert {type(error) for error in outcomes} <= {graft.Busy, graft.UnknownOutcome}
        assert "no space is left" in str(outcomes[-1])
        assert outcomes[-1].retryable
        assert calls.query(Tokens.count) == 1, "it can still be asked"
        assert node.status().role == "leader"
        (small_disk / "filler").unlink()

        def goes_on() -> bool:
            try:
                return calls.execute(Tokens.append, "after")[1] == 2
            except graft.Busy:
                return False

        until(goes_on, "it goes on by itself")
        assert node.status().term == term
    assert tokens(small_disk / "n1") == ["before", "after"]


@needs_root
def test_a_full_disk_of_a_follower_stops_nobody_else(small_disk: Path, tmp_path: Path) -> None:
    with Cluster(tmp_path, election_timeout="1s", heartbeat="100ms") as cluster:
        leader = cluster.ready().leader()
        full = next(id_ for id_ in cluster.ids if id_ != leader)
        cluster.kill(full)
        cluster.data_dirs[full] = small_disk / full
        shutil.move(cluster.home(full) / "data", small_disk / full)
        cluster.start(full).ready()
        now = cluster[cluster.leader()].status()
        for _ in range(24):
            assert cluster[leader].call("store", size=256 << 10, seconds=20) == 256 << 10
        last = cluster[leader].status()["last_index"]
        behind = cluster[full].status()
        assert behind["applied_index"] < last, "more was written than its disk can hold"
        assert behind["error"] is None
        # Whoever watches hears of it, there and from the leader.
        until(lambda: cluster[full].status()["trouble"] == "no space is left on its disk", "it says so")
        until(lambda: "no space is left on its disk" in str(cluster[leader].call("health")), "the leader knows")
        (small_disk / "filler").unlink()
        assert cluster.converged()["last_index"] >= last
        status = cluster[leader].status()
        assert (status["leader"], status["term"]) == (now["leader"], now["term"])


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A directory in which this user may not write."""
    path = tmp_path / "read-only"
    path.mkdir()
    if is_root():
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", str(path)], check=True)
    else:
        path.chmod(0o500)
    yield path
    if is_root():
        subprocess.run(["umount", "--lazy", str(path)], check=True)
    else:
        path.chmod(0o700)


def test_a_read_only_directory_is_named(read_only: Path) -> None:
    for path in (read_only, read_only / "below"):
        with pytest.raises(graft.StorageError, match=r"Read-only file system|Permission denied") as caught:
            alone(path).start()
        assert caught.value.code == "STORAGE"
        assert str(path) in str(caught.value)
        assert "may it be written" in caught.value.fix


@needs_root
def test_a_disk_without_room_for_a_log_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tiny"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)], check=True)
    try:
        with pytest.raises(graft.StorageError, match="no space left for") as caught:
            alone(path / "n1").start()
        assert "is there space" in caught.value.fix
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
