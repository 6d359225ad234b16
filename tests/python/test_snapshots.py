"""Snapshots: taken, kept, sent, put back, and everything that may go wrong with them."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any, ClassVar

import graft
import msgspec
import pytest
from machines import Bank
from nodes import DEADLINE_SECONDS, Group, until

SMALL = {"snapshot_every_bytes": "256KiB"}
PAYLOAD = "x" * 1000


class Notes(graft.StateMachine):
    """Keeps the last of what it was told. What it knows of its own life is no state."""

    def __init__(self) -> None:
        self.count = 0
        self.last = ""
        self._applied = 0
        self._restored = 0

    @graft.command
    def note(self, text: str) -> int:
        self._applied += 1
        self.count += 1
        self.last = text
        return self.count

    @graft.query
    def counted(self) -> int:
        return self.count

    def restore(self, file: Any) -> None:
        super().restore(file)
        self._restored += 1


class Streamed(Notes):
    """Its snapshots are written by a function, which waits as long as it is told to."""

    gate: ClassVar[threading.Event] = threading.Event()
    begun: ClassVar[threading.Event] = threading.Event()

    def snapshot(self) -> Any:
        frozen = msgspec.msgpack.encode([self.count, self.last])

        def write(file: Any) -> None:
            file.write(frozen[:1])
            file.flush()
            Streamed.begun.set()
            Streamed.gate.wait(2 * DEADLINE_SECONDS)
            file.write(frozen[1:])

        return write

    def restore(self, file: Any) -> None:
        self.count, self.last = msgspec.msgpack.decode(file.read())
        self._restored += 1


class Sick(Notes):
    """Its snapshots are whatever the test says."""

    made: Any = None

    def snapshot(self) -> Any:
        made = type(self).made
        if isinstance(made, Exception):
            raise made
        return super().snapshot() if made is None else made


@pytest.fixture
def group(tmp_path):
    made = Group(tmp_path, Notes)
    yield made
    Streamed.gate.set()
    made.stop()


@pytest.fixture(autouse=True)
def _healthy():
    Streamed.gate.clear()
    Streamed.begun.clear()
    Sick.made = None


def write(node, number):
    return node.options(timeout=DEADLINE_SECONDS).execute_many([(Notes.note, f"{PAYLOAD}{n}") for n in range(number)])


def counted(node):
    return node.options(consistency="stale").query(Notes.counted)


def bytes_in(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def test_asked_for_it_covers_all_that_was_applied(group):
    n1 = group.found("n1")
    write(n1, 10)
    applied = n1.status().applied_index
    assert n1.snapshot() == applied
    status = n1.status()
    assert status.snapshot_index == applied
    assert status.snapshot_bytes is not None
    assert status.snapshot_bytes > 0
    assert (status.snapshot_phase, status.snapshot_error) == (None, None)
    assert n1.snapshot() >= applied, "nothing has changed, so it may be the same one"
    write(n1, 1)
    assert asyncio.run(n1.aio.snapshot()) > applied


def test_a_restart_begins_with_the_snapshot(group):
    n1 = group.found("n1")
    write(n1, 50)
    covered = n1.snapshot()
    write(n1, 5)
    group.stop()
    n1 = group.start("n1").wait_ready(DEADLINE_SECONDS)
    assert (n1.machine.count, n1.machine.last) == (55, f"{PAYLOAD}4")
    assert (n1.machine._restored, n1.machine._applied) == (1, 5)
    assert n1.status().snapshot_index == covered
    assert write(n1, 1) == [56]


def test_they_are_taken_by_themselves_and_the_log_stays_short(group):
    group.settings |= SMALL
    n1 = group.found("n1")
    for _ in range(8):
        write(n1, 1000)
    status = until(lambda: s if (s := n1.status()).snapshot_index > 6000 else None, "a snapshot not long ago")
    assert status.log_bytes < 8 << 20, "the log in memory"
    events = [event for event in n1.events(since=0, timeout=0) if event.kind == "snapshot"]
    phases = [event.data["phase"] for event in events]
    assert phases.count("written") >= 2
    assert "failed" not in phases
    group.stop()
    n1 = group.start("n1").wait_ready(DEADLINE_SECONDS)
    assert n1.machine.count == 8000
    assert n1.machine._applied < 8000


def test_the_disk_does_not_grow_with_the_number_of_commands(group):
    group.settings |= SMALL
    n1 = group.found("n1")
    write(n1, 4000)
    n1.snapshot()
    before = bytes_in(group.directory / "n1")
    for _ in range(10):
        write(n1, 4000)
    n1.snapshot()
    assert bytes_in(group.directory / "n1") < before + (64 << 20)


def test_entries_count_as_well_as_bytes(group):
    group.settings |= {"snapshot_every_entries": 100}
    n1 = group.found("n1")
    n1.execute_many([(Notes.note, "x")] * 1000)
    until(lambda: n1.status().snapshot_index > 0, "a snapshot, however small the log is")


def test_a_new_member_gets_a_snapshot(group):
    n1 = group.found("n1")
    for _ in range(12):
        write(n1, 1000)  # more than what is kept of the log below a snapshot
        n1.snapshot()
    n2 = group.join("n2", "n1")
    until(lambda: counted(n2) == 12_000, "it has everything")
    assert n2.machine._restored == 1
    assert n2.machine._applied < 12_000
    phases = [event.data["phase"] for event in n2.events(since=0, timeout=0) if event.kind == "snapshot"]
    assert [phase for phase in ("fetching", "applying", "installed") if phase in phases] == [
        "fetching",
        "applying",
        "installed",
    ]
    sent = [event for event in n1.events(since=0, timeout=0) if event.kind == "snapshot" and event.data["peer"] == "n2"]
    assert sent[-1].data["bytes"] == sent[-1].data["total"] > 0
    group.stop("n2")
    n2 = group.start("n2").wait_ready(DEADLINE_SECONDS)
    until(lambda: counted(n2) == 12_000, "it keeps what it was sent")
    assert write(n2, 1) == [12_001]


def test_a_member_that_was_down_for_long_gets_a_snapshot(group):
    n1 = group.grow("n1", "n2", "n3")
    group.stop("n3")
    for _ in range(12):
        write(n1, 1000)

    def cut() -> bool:
        write(n1, 100)
        leader = group.leader()
        leader.snapshot()
        return leader.status().log_bytes < 8 << 20

    until(cut, "the log is not kept for it any more")
    n3 = group.start("n3").wait_ready(DEADLINE_SECONDS)
    until(lambda: counted(n3) == counted(n1), "it has everything")
    assert n3.machine._restored == 1


def test_commands_go_on_while_a_snapshot_is_written(group):
    group.machine = Streamed
    n1 = group.found("n1")
    write(n1, 10)
    taken: list[int] = []
    thread = threading.Thread(target=lambda: taken.append(n1.snapshot(timeout=2 * DEADLINE_SECONDS)))
    thread.start()
    assert Streamed.begun.wait(DEADLINE_SECONDS)
    term = n1.status().term
    assert write(n1, 100)[-1] == 110
    assert n1.query(Notes.counted) == 110
    assert n1.status().snapshot_phase == "writing"
    Streamed.gate.set()
    thread.join(2 * DEADLINE_SECONDS)
    assert taken[0] < n1.status().applied_index
    assert n1.status().term == term
    group.stop()
    n1 = group.start("n1").wait_ready(DEADLINE_SECONDS)
    assert n1.machine.count == 110
    assert n1.machine._applied == 100, "it holds what was there when it was made"


def test_one_that_never_ends_harms_nobody(group):
    group.machine = Streamed
    n1 = group.found("n1")
    write(n1, 10)
    with pytest.raises(graft.Timeout, match=r"not written after 0\.5 s, and goes on without this call"):
        n1.snapshot(timeout="500ms")
    assert Streamed.begun.is_set()
    assert write(n1, 10)[-1] == 20
    assert n1.status().error is None
    assert n1.status().snapshot_index == 0
    n1.stop(timeout=DEADLINE_SECONDS)  # and it does not hold up the end
    Streamed.gate.set()
    n1 = group.start("n1").wait_ready(DEADLINE_SECONDS)
    assert n1.machine.count == 20, "half a snapshot is none"


def boom(file):
    file.write(b"half")
    raise LookupError("no such table")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (LookupError("not today"), r"Sick\.snapshot\(\) raised LookupError: not today"),
        (boom, r"the function that Sick\.snapshot\(\) returned raised LookupError: no such table"),
        (lambda _: b"state", "returned a bytes; it must write to the file"),
        ({"no": "bytes"}, "returned a dict; return bytes, or a plain function"),
        (17, "returned a int"),
    ],
)
def test_one_that_fails_is_told_and_the_node_goes_on(group, made, words):
    group.machine = Sick
    n1 = group.found("n1")
    write(n1, 10)
    Sick.made = made
    with pytest.raises(graft.StorageError, match=words) as caught:
        n1.snapshot()
    assert "the machine's snapshot()" in caught.value.fix
    status = n1.status()
    assert status.snapshot_error is not None
    assert words.replace("\\", "") in status.snapshot_error
    assert not status.snapshot_error.startswith("Traceback"), "what happened is said first, and then where"
    assert (status.error, status.snapshot_index, status.role) == (None, 0, "leader")
    failed = [event for event in n1.events(since=0, timeout=0) if event.kind == "snapshot"][-1]
    assert failed.data["phase"] == "failed"
    assert "snapshot failed" in n1.why()
    assert write(n1, 1) == [11]
    Sick.made = None
    assert n1.snapshot() > 0, "asked again, it is tried again"
    assert n1.status().snapshot_error is None


def test_a_damaged_one_is_never_put_back(group):
    n1 = group.found("n1")
    write(n1, 50)
    n1.snapshot()
    group.stop()
    [path] = [path for path in (group.directory / "n1").rglob("snapshot-*") if path.is_file()]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    node = graft.Node(Notes(), **group.lines["n1"])
    with pytest.raises((graft.Corruption, graft.Halted)) as caught:
        node.start().wait_ready(DEADLINE_SECONDS)
    node.stop()
    assert path.name in str(caught.value)
    assert path.read_bytes() == bytes(data), "nothing is cut or overwritten"
    assert node.machine.count == 0


def test_a_restore_that_raises_halts_the_replica_and_says_so(group):
    n1 = group.found("n1")
    write(n1, 5)
    n1.snapshot()
    group.stop()

    class Other(Notes):
        def restore(self, file: Any) -> None:
            raise LookupError("written by other code")

    node = graft.Node(Other(), **group.lines["n1"])
    try:
        with pytest.raises(graft.GraftError, match="written by other code"):
            node.start().wait_ready(DEADLINE_SECONDS)
    finally:
        node.stop()
    n1 = group.start("n1").wait_ready(DEADLINE_SECONDS)
    assert n1.machine.count == 5, "with the right code it is all there"


def test_a_snapshot_of_another_machine_halts_the_replica_and_says_so(group):
    n1 = group.found("n1")
    write(n1, 5)
    n1.snapshot()
    group.stop()
    node = graft.Node(Bank(), **group.lines["n1"])
    try:
        with pytest.raises(graft.GraftError, match=r"it has count, last, and Bank.__init__ makes accounts"):
            node.start().wait_ready(DEADLINE_SECONDS)
    finally:
        node.stop()
    assert group.start("n1").wait_ready(DEADLINE_SECONDS).machine.count == 5, "with the right machine it is all there"


class Ledger(graft.StateMachine):
    """Keeps its state, and the index of the last command in it, in a database of its own."""

    def __init__(self) -> None:
        self._database: sqlite3.Connection | None = None
        self._applied = 0
        self._restored = 0

    def open(self, directory: str) -> int:
        self._database = sqlite3.connect(Path(directory) / "ledger", check_same_thread=False)
        with self._database as database:
            database.execute("CREATE TABLE IF NOT EXISTS ledger (at INTEGER, count INTEGER)")
            database.execute("INSERT INTO ledger SELECT 0, 0 WHERE NOT EXISTS (SELECT * FROM ledger)")
        return self._row()[0]

    def _row(self) -> tuple[int, int]:
        assert self._database is not None
        return self._database.execute("SELECT at, count FROM ledger").fetchone()

    @graft.command
    def note(self, text: str) -> int:
        self._applied += 1
        assert self._database is not None
        with self._database as database:
            database.execute("UPDATE ledger SET at = ?, count = count + 1", [self.context.index])
        return self._row()[1]

    @graft.query
    def counted(self) -> int:
        return self._row()[1]

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode(self._row())

    def restore(self, file: Any) -> None:
        assert self._database is not None
        self._restored += 1
        with self._database as database:
            database.execute("UPDATE ledger SET at = ?, count = ?", msgspec.msgpack.decode(file.read()))

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


@pytest.fixture
def ledgers(group):
    group.machine = Ledger
    yield group
    group.stop()
    for node in group.nodes.values():
        node.machine.close()


def note(node, number, payload=PAYLOAD):
    return node.options(timeout=DEADLINE_SECONDS).execute_many([(Ledger.note, f"{payload}{n}") for n in range(number)])


def restarted(ledgers, id_):
    """Stops a node and starts it again on a machine of its own."""
    ledgers.stop(id_)
    ledgers[id_].machine.close()
    return ledgers.start(id_).wait_ready(DEADLINE_SECONDS)


def test_a_machine_on_disk_skips_what_it_has(ledgers):
    n1 = ledgers.found("n1")
    note(n1, 100)
    n1 = restarted(ledgers, "n1")
    assert (n1.machine._applied, n1.machine._restored) == (0, 0)
    assert n1.query(Ledger.counted) == 100
    n1.snapshot()
    assert note(n1, 10)[-1] == 110
    n1 = restarted(ledgers, "n1")
    assert (n1.machine._applied, n1.machine._restored) == (0, 0), "it has come past its snapshot"
    assert note(n1, 1) == [111]


def test_a_machine_on_disk_that_is_behind_its_snapshot_gets_it(ledgers):
    n1 = ledgers.found("n1")
    note(n1, 100)
    n1.snapshot()
    note(n1, 5)
    ledgers.stop("n1")
    n1.machine.close()
    [database] = (ledgers.directory / "n1").rglob("ledger")
    database.unlink()
    n1 = ledgers.start("n1").wait_ready(DEADLINE_SECONDS)
    assert n1.machine._restored == 1
    assert n1.machine._applied <= 105
    assert n1.query(Ledger.counted) == 105


def test_a_new_member_with_a_machine_on_disk(ledgers):
    n1 = ledgers.found("n1")
    for _ in range(12):
        note(n1, 10, "x" * 100_000)  # more than what is kept of the log beside a snapshot
        n1.snapshot()
    n2 = ledgers.join("n2", "n1")
    until(lambda: n2.options(consistency="stale").query(Ledger.counted) == 120, "it has everything")
    assert n2.machine._restored == 1
    n2 = restarted(ledgers, "n2")
    assert (n2.machine._restored, n2.machine._applied) == (0, 0), "what it was sent is on its own disk"
    assert note(n2, 1) == [121]


def test_a_snapshot_of_a_node_that_does_not_run():
    node = graft.Node(Bank(), id="n1", address="127.0.0.1:0", data_dir=None)
    with pytest.raises(graft.Stopped, match="not started"):
        node.snapshot()
    with pytest.raises(graft.ConfigError, match="timeout=0"):
        node.snapshot(timeout=0)
