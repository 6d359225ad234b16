"""What a command knows of its entry: the same everywhere, and only inside a command."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import threading
import uuid

import pytest
from graft import _context
from graft._context import Context
from machines import Everything

TIME = 1_700_000_000_123_456_789


def test_luck_is_defined_by_the_entry_alone():
    entry = (7).to_bytes(8, "big") + (3).to_bytes(8, "big") + TIME.to_bytes(8, "big")
    seed = hashlib.blake2b(b"graft.random.1" + entry, digest_size=32).digest()
    expected = random.Random(int.from_bytes(seed, "big"))
    context = Context(7, 3, TIME)
    assert [context.random.random() for _ in range(5)] == [expected.random() for _ in range(5)]


def test_luck_is_pinned_for_ever():
    # These numbers are in the logs of running clusters: a change here is a change of what old logs mean.
    context = Context(1, 1, 1)
    assert context.random.getrandbits(64) == 3074067224303976820
    assert str(context.uuid()) == "6e6c6f78-fd6c-4562-a3af-45d8bf9eb75a"


def test_uuids_differ_and_are_of_version_4():
    context = Context(7, 3, TIME)
    made = [context.uuid() for _ in range(100)]
    assert len(set(made)) == 100
    assert {one.version for one in made} == {4}
    assert {one.variant for one in made} == {uuid.RFC_4122}
    assert made == [Context(7, 3, TIME).uuid() if n == 0 else one for n, one in enumerate(made)]


def test_uuids_do_not_depend_on_the_luck_used_before():
    a, b = Context(7, 3, TIME), Context(7, 3, TIME)
    a.random.random()
    assert a.uuid() == b.uuid()


@pytest.mark.parametrize("other", [(8, 3, TIME), (7, 4, TIME), (7, 3, TIME + 1)])
def test_another_entry_is_another_luck(other):
    assert Context(*other).random.random() != Context(7, 3, TIME).random.random()
    assert Context(*other).uuid() != Context(7, 3, TIME).uuid()


def test_the_same_in_a_process_with_another_hash_seed():
    code = "from graft._context import Context; c = Context(7, 3, 9); print(c.random.random(), c.uuid())"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_time_is_in_seconds_and_exact_in_nanoseconds():
    context = Context(7, 3, TIME)
    assert context.time == TIME / 1e9
    assert context.time_ns == TIME


def test_outside_of_a_command_there_is_none():
    with pytest.raises(RuntimeError, match="only while a command is applied"):
        _ = Everything().context


def test_another_thread_sees_none():
    seen: list[object] = []

    def look() -> None:
        try:
            seen.append(_context.current())
        except RuntimeError as error:
            seen.append(error)

    _context.here.running.context = Context(1, 1, 1)
    try:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        assert _context.current().index == 1
    finally:
        _context.here.running.context = None
    assert isinstance(seen[0], RuntimeError)
