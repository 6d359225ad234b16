"""State machines that are ready to use."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

from graft._machine import StateMachine, command, query

KEY_CHARS_MAX = 256
"""Characters of a key: each is a topic for watchers."""
KEYS_MAX = 10_000
"""Keys that one query gives."""


class Conflict(ValueError):
    """A key is at another revision than the caller expected. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a key has."""

    value: Any
    revision: int
    """The index in the log of the command that set it: greater than that of every change before."""
    expires: float | None = None
    """When it ends, in seconds since the epoch by the stamps of the log; None for never."""


class KeyValue(StateMachine):
    """Keys with values, revisions, compare-and-set and an end.

    ```python
    with graft.LocalCluster(KeyValue, 3) as cluster:
        revision = cluster.execute(KeyValue.set, "colour", "green")
        cluster.execute(KeyValue.set, "colour", "blue", if_revision=revision)
        cluster.query(KeyValue.get, "colour")
    ```

    A value is anything that a command may take: None, bool, int, float, str, bytes, lists and dicts of them, of less
    than 1 MiB, for watchers get it. Every change of a key is emitted with the key as its topic, so that
    `watch("colour")` gives an `Entry`, or None for a key that is gone.
    """

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.endings: list[tuple[float, str, int]] = []

    @command
    def set(self, key: str, value: Any, *, ttl: float | None = None, if_revision: int | None = None) -> int:
        """Sets a key, and gives its new revision.

        - `ttl`: seconds after which it is gone, counted by the stamps of the log: with the first command after that.
        - `if_revision`: only if the key is at this revision, 0 for one that is not there. Raises `Conflict` otherwise.
        """
        if not 0 < len(key) <= KEY_CHARS_MAX:
            raise ValueError(f"a key has 1 to {KEY_CHARS_MAX} characters, not {len(key)}")
        if ttl is not None and not 0 < ttl < float("inf"):
            raise ValueError(f"ttl={ttl!r} must be a number of seconds above 0, or None")
        self._end_old()
        self._expect(key, if_revision)
        expires = None if ttl is None else self.context.time + ttl
        entry = Entry(value, self.context.index, expires)
        # It refuses what is too large for watchers: before anything is changed.
        self.context.emit(key, {"value": value, "revision": entry.revision, "expires": expires})
        self.entries[key] = entry
        if expires is not None:
            self._end_later(key, entry.revision, expires)
        return entry.revision

    @command
    def delete(self, key: str, *, if_revision: int | None = None) -> bool:
        """Removes a key, and says whether it was there. `if_revision` as that of `set`."""
        self._end_old()
        self._expect(key, if_revision)
        return self._remove(key)

    @query
    def get(self, key: str) -> Any:
        """The value of a key; None if it is not there."""
        entry = self.entries.get(key)
        return None if entry is None else entry.value

    @query
    def entry(self, key: str) -> Entry | None:
        """The value of a key with its revision; None if it is not there."""
        return self.entries.get(key)

    @query
    def keys(self, prefix: str = "", after: str = "", limit: int = 1000) -> list[str]:
        """Keys with this prefix behind `after`, in order: at most `limit` of them (default 1000), and 10 000."""
        found = (key for key in self.entries if key.startswith(prefix) and key > after)
        return heapq.nsmallest(min(limit, KEYS_MAX), found)

    def _expect(self, key: str, revision: int | None) -> None:
        entry = self.entries.get(key)
        found = 0 if entry is None else entry.revision
        if revision is not None and revision != found:
            is_at = f"is at revision {found}" if found else "is not there"
            raise Conflict(f"{key!r} {is_at}, not at {revision}")

    def _remove(self, key: str) -> bool:
        if self.entries.pop(key, None) is None:
            return False
        self.context.emit(key, None)
        return True

    def _end_later(self, key: str, revision: int, expires: float) -> None:
        heapq.heappush(self.endings, (expires, key, revision))
        # A key that is set again and again leaves its old ends behind: most of what is here is of use.
        if len(self.endings) > 2 * len(self.entries) + 64:
            kept = ((entry.expires, key, entry.revision) for key, entry in self.entries.items())
            self.endings = sorted((expires, key, revision) for expires, key, revision in kept if expires is not None)

    def _end_old(self) -> None:
        """A few of those whose time is over: a command emits only so much, and none has to pay for all."""
        for _ in range(100):
            if not self.endings or self.endings[0][0] > self.context.time:
                return
            _, key, revision = heapq.heappop(self.endings)
            entry = self.entries.get(key)
            # It may have been set again since.
            if entry is not None and entry.revision == revision:
                self._remove(key)
