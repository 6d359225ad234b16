"""The machine under test: registers, counters and a map, each object with a name.

The names of its operations are those of the checker's models: `register_write` is the write of a "register/...".
"""

from __future__ import annotations

import hashlib
from typing import Any

import graft


class Store(graft.StateMachine):
    """What `linearizable.models` describes."""

    def __init__(self) -> None:
        self.registers: dict[str, str] = {}
        self.counters: dict[str, int] = {}
        self.entries: dict[str, str] = {}

    @graft.command
    def register_write(self, name: str, value: str) -> None:
        """Sets it."""
        self.registers[name] = value

    @graft.command
    def register_cas(self, name: str, old: str | None, new: str) -> list[Any]:
        """Sets it if it is `old`; gives whether it was, and what it was."""
        return _swap(self.registers, name, old, new)

    @graft.query
    def register_read(self, name: str) -> str | None:
        """What it is."""
        return self.registers.get(name)

    @graft.command
    def counter_increment(self, name: str, by: int) -> int:
        """Adds to it; gives what it is then."""
        self.counters[name] = self.counters.get(name, 0) + by
        return self.counters[name]

    @graft.query
    def counter_read(self, name: str) -> int:
        """What it is."""
        return self.counters.get(name, 0)

    @graft.command
    def map_put(self, name: str, value: str) -> None:
        """Puts the value there."""
        self.entries[name] = value

    @graft.command
    def map_delete(self, name: str) -> str | None:
        """Removes it; gives what was there."""
        return self.entries.pop(name, None)

    @graft.command
    def map_cas(self, name: str, old: str | None, new: str) -> list[Any]:
        """Puts it there if `old` is; gives whether it was, and what was."""
        return _swap(self.entries, name, old, new)

    @graft.query
    def map_get(self, name: str) -> str | None:
        """What is there."""
        return self.entries.get(name)

    @graft.command
    def ballast(self, blob: bytes) -> int:
        """Nothing but much to write."""
        return len(blob)

    @graft.query
    def fingerprint(self) -> str:
        """The same on two replicas if they have the same state."""
        parts = (sorted(self.registers.items()), sorted(self.counters.items()), sorted(self.entries.items()))
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def _swap(values: dict[str, str], name: str, old: str | None, new: str) -> list[Any]:
    seen = values.get(name)
    if seen == old:
        values[name] = new
    return [seen == old, seen]
