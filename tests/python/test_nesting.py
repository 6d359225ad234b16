"""How deep calls and answers may nest: what passes anywhere must be readable, and keepable, on every replica."""

from __future__ import annotations

import io
from typing import Any

import graft
import msgspec
import pytest
from graft._host import Host
from graft._plan import COMMAND, QUERY, Catalog
from machines import columns

encode = msgspec.msgpack.encode
EXTENSION = msgspec.msgpack.Ext(5, b"x")
DEPTH_MAX = 98
"""Of an argument: the call itself is an array and a map."""
TOO_DEEP = "nested more than 100 deep"


class Keeper(graft.StateMachine):
    """Keeps, gives and tells whatever it is sent."""

    def __init__(self) -> None:
        self.kept: Any = None

    @graft.command
    def keep(self, value: Any) -> None:
        self.kept = value

    @graft.command
    def pile(self, depth: int, tell: bool = False) -> Any:
        if tell:
            self.context.emit("piles", piled(depth))
        return piled(depth)

    @graft.command
    def extended(self) -> Any:
        return EXTENSION

    @graft.query
    def look(self, depth: int) -> Any:
        return piled(depth)

    @graft.query
    def compare(self, value: Any) -> bool:
        return bool(self.kept == value)


KEEPER = Catalog(Keeper)


def piled(depth: int) -> Any:
    value: Any = None
    for _ in range(depth):
        value = [value]
    return value


def call(depth: int, head: bytes = b"\x91", name: str = "keep") -> bytes:
    return b"\x92" + encode(name) + b"\x81" + encode("value") + head * depth + b"\xc0"


HEADS = pytest.mark.parametrize("head", [b"\x91", b"\x81\xa1k", b"\xdd\x00\x00\x00\x01"])


@HEADS
def test_what_passes_the_door_is_kept_by_every_snapshot(head):
    host, again = Host(Keeper()), Host(Keeper())
    body = call(DEPTH_MAX, head)
    assert host.check(COMMAND, [body]) == [None]
    assert host.apply(*columns([(1, 1, 1, body)])) == ([b"\xc0"], None, [])
    file = io.BytesIO()
    host.write_snapshot(host.snapshot(), file)
    again.restore(io.BytesIO(file.getvalue()))
    assert again.digest() == host.digest()
    assert again.machine.kept == host.machine.kept is not None


@HEADS
@pytest.mark.parametrize("depth", [DEPTH_MAX + 1, 1_500, 9_997, 200_000])
def test_what_nests_deeper_is_refused_alone(head, depth):
    good = call(1)
    for kind, name in ((COMMAND, "keep"), (QUERY, "compare")):
        bodies = [call(1, name=name), call(depth, head, name), call(2, name=name)]
        first, second, third = Host(Keeper()).check(kind, bodies)
        assert (first, third) == (None, None)
        assert TOO_DEEP in second
    # Whatever else is where the name belongs, or follows it.
    for body in (head * (depth + 2) + b"\xc0", b"\x92" + head * (depth + 2) + b"\xc0\x80"):
        first, second = Host(Keeper()).check(COMMAND, [good, body])
        assert first is None
        assert TOO_DEEP in second


def test_extensions_that_no_snapshot_could_keep_are_refused():
    moment = b"\x92\xa4keep\x81\xa5value\xd6\xff\x00\x00\x00\x01"
    bodies = [encode(["keep", {"value": [EXTENSION]}]), moment]
    refused, passed = Host(Keeper()).check(COMMAND, bodies)
    assert "msgpack extension 5" in refused
    assert passed is None
    with pytest.raises(ValueError, match="argument 'value' cannot be replicated: it holds the msgpack extension 5"):
        KEEPER.plan(COMMAND, "keep", (EXTENSION,), {})
    replies, halt, _ = Host(Keeper()).apply(*columns([(1, 1, 1, encode(["extended", {}]))]))
    assert (replies, halt) == ([encode(EXTENSION)], None), "nobody keeps an answer as a state"


@pytest.mark.parametrize("depth", [DEPTH_MAX + 1, 900, 5_000, 100_000])
def test_callers_of_this_process_are_held_to_the_same(depth):
    assert KEEPER.plan(COMMAND, "keep", (piled(DEPTH_MAX),), {}).body == call(DEPTH_MAX)
    with pytest.raises(ValueError, match=f"argument 'value' cannot be .*{TOO_DEEP}"):
        KEEPER.plan(COMMAND, "keep", (piled(depth),), {})


@pytest.mark.parametrize("depth", [101, 900, 5_000, 100_000])
def test_an_answer_that_nests_deeper_is_the_same_error_everywhere(depth):
    host = Host(Keeper())
    bodies = [encode(["pile", {"depth": depth}]) for depth in (100, depth)]
    (good, bad), halt, _ = host.apply(*columns([(at, 1, 1, body) for at, body in enumerate(bodies, 1)]))
    assert (good, halt) == (encode(piled(100)), None)
    words = f"Keeper.pile() ran, but its result, a list, cannot be returned: it is {TOO_DEEP}"
    assert bad == ("EncodeError", words, "")
    assert host.query([encode(["look", {"depth": depth}])])[0][1] == words.replace("pile", "look")


@pytest.mark.parametrize("depth", [101, 900, 5_000])
def test_what_is_told_to_watchers_nests_no_deeper(depth):
    body = encode(["pile", {"depth": depth, "tell": True}])
    ((kind, message, _),), halt, told = Host(Keeper()).apply(*columns([(1, 1, 1, body)]))
    assert (kind, halt, told) == ("TypeError", None, [])
    assert message == f"emit('piles', ...): the value cannot be told to others: it is {TOO_DEEP}"


@pytest.mark.parametrize("body", [call(200_000), b"\x92" + b"\x91" * 200_000 + b"\xc0\x80", b"\x92\xa2\xff\xfe\x80"])
def test_what_is_in_the_log_all_the_same_halts_with_clear_words(body):
    good = call(1)
    replies, halt, _ = Host(Keeper()).apply(*columns([(7, 1, 1, good), (8, 1, 1, body), (9, 1, 1, good)]))
    assert replies == [b"\xc0"]
    assert "the log holds" in halt
    assert "at index 8" in halt
