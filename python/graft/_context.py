"""What a command may know of its entry, and which thread is a machine's.

Whatever a command needs besides its arguments comes from the log entry, so that it is the same on every replica.
"""

from __future__ import annotations

import hashlib
import random as _random
import struct
import threading
import uuid as _uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

_ENTRY = struct.Struct(">QQQ")

TOPIC_CHARS_MAX = 256
"""Characters of a topic."""
EMITTED_MAX = 1_024
"""Things that one command may emit: more are a log of their own, and belong into the state."""
EMITTED_BYTES_MAX = 1 << 20
"""Bytes that one command may emit, topics and values together: each node keeps the newest of all commands in memory."""


class Context:
    """The entry that a command is applied from. All of it is identical on every replica."""

    # One is made for every command, and most commands use little of it.
    __slots__ = ("_bytes", "_emitted", "_random", "_uuids", "index", "term", "time_ns")

    index: int
    """Where the entry stands in the log. It only ever grows: use it as a revision or as a fencing token."""
    term: int
    """The term of the leader that took the command."""
    time_ns: int
    """Nanoseconds since the epoch, stamped by the leader; never goes back along the log."""

    def __init__(self, index: int, term: int, time_ns: int) -> None:
        self.index = index
        self.term = term
        self.time_ns = time_ns
        self._random: _random.Random | None = None
        self._uuids = 0
        # None once the command has ended.
        self._emitted: list[tuple[str, bytes]] | tuple[()] | None = ()
        self._bytes = 0

    @property
    def time(self) -> float:
        """The same in seconds."""
        return self.time_ns / 1e9

    @property
    def random(self) -> _random.Random:
        """Luck that every replica has alike.

        A Mersenne twister, seeded with the 32 bytes (as a big-endian number) of
        `blake2b(b"graft.random.1" + index + term + time_ns)`, the three being unsigned 64-bit big-endian numbers.
        """
        if self._random is None:
            self._random = _random.Random(int.from_bytes(self._hash(b"graft.random.1", 32), "big"))  # noqa: S311 - luck, not a secret
        return self._random

    def uuid(self) -> _uuid.UUID:
        """A new UUID (version 4 in form), unlike any other of this or another entry.

        The n-th of a command is the first 16 bytes of `blake2b(b"graft.uuid.1" + index + term + time_ns + n)`.
        """
        self._uuids += 1
        return _uuid.UUID(bytes=self._hash(b"graft.uuid.1", 16, struct.pack(">Q", self._uuids)), version=4)

    def emit(self, topic: str, value: object) -> None:
        """Tells whoever watches: `node.watch(topic)` gives it, on every node and client, in the order of the log, once.

        The topic is a non-empty text of at most 256 characters, the value anything that a command may return. It is
        told when the command has ended, also if it raises then, for what a command did before it raised stands as well.
        A command emits at most 1024 things, and 1 MiB of them.

        Raises `TypeError` or `ValueError`, which are the command's answer unless it catches them, on every replica
        alike; `RuntimeError` once the command has ended.
        """
        if self._emitted is None:
            raise RuntimeError("the command of this context has ended: it emits only while it runs")
        if not isinstance(topic, str):
            raise TypeError(f"topic={topic!r:.80} must be a str")
        if not 0 < len(topic) <= TOPIC_CHARS_MAX:
            raise ValueError(f"a topic has 1 to {TOPIC_CHARS_MAX} characters, not {len(topic)}: {topic!r:.80}")
        try:
            bytes_ = len(topic.encode())
        except UnicodeEncodeError:
            raise ValueError(f"topic={topic!r:.80} has lone surrogates, which have no encoding") from None
        try:
            encoded = _encoded(value)
        except TypeError as error:
            raise TypeError(f"emit({topic!r:.80}, ...): the value cannot be told to others: {error}") from None
        if len(self._emitted) >= EMITTED_MAX:
            raise ValueError(f"a command emits at most {EMITTED_MAX} things: emit one list instead of many values")
        total = self._bytes + bytes_ + len(encoded)
        if total > EMITTED_BYTES_MAX:
            raise ValueError(
                f"a command emits at most {EMITTED_BYTES_MAX} bytes, and this would make {total}: emit where the value "
                "is to be found, and let watchers ask for it"
            )
        self._bytes = total
        if isinstance(self._emitted, tuple):
            self._emitted = []
        self._emitted.append((topic, encoded))

    def close(self) -> Sequence[tuple[str, bytes]]:
        """What the command has emitted, which has ended."""
        emitted, self._emitted = self._emitted, None
        return emitted or ()

    def _hash(self, purpose: bytes, size: int, more: bytes = b"") -> bytes:
        entry = _ENTRY.pack(self.index, self.term, self.time_ns)
        return hashlib.blake2b(purpose + entry + more, digest_size=size).digest()

    def __repr__(self) -> str:
        return f"Context(index={self.index}, term={self.term}, time={self.time!r})"


def _encoded(value: object) -> bytes:
    from graft._codec import encode_result

    return encode_result(value)


class Running:
    """What a thread applies. To change it costs less than to change what is local to a thread, and that is done for
    every command."""

    __slots__ = ("context",)

    def __init__(self) -> None:
        self.context: Context | None = None


class _Here(threading.local):
    # Of each thread its own: several nodes in one process have a machine thread each.
    in_machine: bool = False
    writing: bool = False

    def __init__(self) -> None:
        self.running = Running()


here = _Here()


def current() -> Context:
    """The context of the command that this thread is applying."""
    context = here.running.context
    if context is None:
        raise RuntimeError(
            "self.context exists only while a command is applied; a query, __init__ or a snapshot has none"
        )
    return context


class machine_thread:  # noqa: N801 - as one of contextlib's, but for what these cost, which a lone command feels
    """Marks that the user's machine is running on this thread, from which no node may be called."""

    __slots__ = ("_outer",)

    def __enter__(self) -> None:
        self._outer = here.in_machine
        here.in_machine = True

    def __exit__(self, *_: object) -> None:
        here.in_machine = self._outer


@contextmanager
def snapshot_thread() -> Generator[None]:
    """Marks that a function which `snapshot()` returned is running on this thread. It may call neither a node, which
    waits for it when it stops, nor a command, for the machine's thread goes on meanwhile."""
    outer = here.writing
    here.writing = True
    try:
        with machine_thread():
            yield
    finally:
        here.writing = outer
