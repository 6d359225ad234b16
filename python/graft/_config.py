"""The settings of a node, each with its unit, its default and the reason for it."""

from __future__ import annotations

import dataclasses
import difflib
from typing import TYPE_CHECKING, Any, TypedDict

from graft import _units
from graft._errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from graft._units import Duration, Size


class Settings(TypedDict, total=False):
    """The settings as keyword arguments: see `Config`."""

    election_timeout: Duration
    heartbeat: Duration
    timeout: Duration
    command_bytes_max: Size
    batch_bytes_max: Size
    inflight_max: int
    clients_max: int
    log_bytes_max: Size
    snapshot_every_bytes: Size
    snapshot_every_entries: int
    snapshot_bytes_per_second: Size
    session_ttl: Duration


@dataclasses.dataclass(frozen=True, kw_only=True, init=False)
class Config:
    """The settings of a node. Durations are seconds or text such as "300ms", sizes bytes or text such as "8MiB".

    Raises `ConfigError` naming the setting that is wrong, and the nearest name for one that does not exist.
    """

    election_timeout: float = 0.3
    """Seconds; default 300 ms. A member that hears nothing of a leader for this long, and up to twice as long, drawn
    anew each time, asks to be elected. Ten heartbeats fit in, or five at rest, so that one lost packet costs nothing;
    between continents take "1s" or more. The same on every member."""

    heartbeat: float = 0.03
    """Seconds; default 30 ms. How often a leader is heard; half as often while every member has everything, but at
    least once a second and five times in `election_timeout`, unless `heartbeat` itself is rarer. A tenth of
    `election_timeout`; it must be at most a third of it."""

    timeout: float = 10.0
    """Seconds; default 10 s. How long a call waits unless `options(timeout=...)` says otherwise: long enough for a
    change of leaders, short enough that nobody waits for ever."""

    command_bytes_max: int = 8 << 20
    """Bytes; default 8 MiB. A larger command is refused with `TooLarge`: one huge command holds up all that come
    after it. The same on every member."""

    batch_bytes_max: int = 1 << 20
    """Bytes; default 1 MiB. Log entries sent to a member in one message; a single larger entry goes alone. About what
    a 10 Gb/s link carries in a millisecond, so that heartbeats are never stuck behind it for long."""

    inflight_max: int = 65_536
    """Calls; default 65536. How many may wait for an answer on this node; further ones are refused with `Busy` at once.
    Enough for every task of a busy program, few enough that a cluster that stands still does not fill the memory."""

    clients_max: int = 4096
    """Connections; default 4096, or as many as the limit on open files (`ulimit -n`) leaves if that is fewer. How many
    clients may be connected to this node. One that is idle is told to go when another one comes; only if all of them
    have calls open is the next one refused with `Busy`. Members and operators are not counted among them, and one
    certificate has half of these places at most."""

    log_bytes_max: int = 1 << 30
    """Bytes; default 1 GiB. Log kept since the last snapshot; at this size commands are refused with `Busy`, for a
    member that runs out of memory helps nobody."""

    snapshot_every_bytes: int = 64 << 20
    """Bytes; default 64 MiB. After so much log a snapshot is taken, or after as many bytes as the last snapshot
    had if that is more, so that snapshots never cost more than they save. A restart reads at most that much log. At
    most half of `log_bytes_max`, so that commands go on while a snapshot is written."""

    snapshot_every_entries: int = 1_000_000
    """Entries; default 1 000 000. After so many a snapshot is taken, however small they are: applying them
    again is what a restart costs."""

    snapshot_bytes_per_second: int = 128 << 20
    """Bytes a second; default 128 MiB. A snapshot is sent to a member that is far behind at most this fast, so that it
    leaves room for the log: a gigabit link carries about that."""

    session_ttl: float = 3600.0
    """Seconds; default 1 h. A session that is not used for so long, by the stamps of the log, is forgotten, and with it
    what its commands answered: `UnknownOutcome.resolve()` works for so long. Longer costs memory for programs that came
    once, shorter leaves less time to come back after an outage. A client may ask for another one for itself."""

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            election_timeout: Duration = ...,
            heartbeat: Duration = ...,
            timeout: Duration = ...,
            command_bytes_max: Size = ...,
            batch_bytes_max: Size = ...,
            inflight_max: int = ...,
            clients_max: int = ...,
            log_bytes_max: Size = ...,
            snapshot_every_bytes: Size = ...,
            snapshot_every_entries: int = ...,
            snapshot_bytes_per_second: Size = ...,
            session_ttl: Duration = ...,
        ) -> None: ...

    else:

        def __init__(self, **settings: Any) -> None:
            refuse_unknown(settings, _PARSERS, "setting")
            for field in dataclasses.fields(self):
                value = settings.get(field.name, field.default)
                object.__setattr__(self, field.name, _PARSERS[field.name](field.name, value))
            self._check()

    def _check(self) -> None:
        if self.heartbeat * 3 > self.election_timeout:
            raise ConfigError(
                f"heartbeat={self.heartbeat:g}s is more than a third of election_timeout={self.election_timeout:g}s: "
                "one late heartbeat would cost an election; a tenth is usual"
            )
        if self.election_timeout < _ELECTION_TIMEOUT_MIN:
            raise ConfigError(
                f"election_timeout={self.election_timeout:g}s is below {_ELECTION_TIMEOUT_MIN:g}s: "
                "any pause of the machine would cost an election"
            )
        if self.election_timeout > _ELECTION_TIMEOUT_MAX:
            raise ConfigError(
                f"election_timeout={self.election_timeout:g}s is above {_ELECTION_TIMEOUT_MAX:g}s: a cluster whose "
                "leader is gone would stand still for longer than that"
            )
        if self.session_ttl < _SESSION_TTL_MIN:
            raise ConfigError(
                f"session_ttl={self.session_ttl:g}s is below {_SESSION_TTL_MIN:g}s: a session would end between two "
                "calls"
            )
        if self.log_bytes_max < self.command_bytes_max:
            raise ConfigError(
                f"log_bytes_max={self.log_bytes_max} is below command_bytes_max={self.command_bytes_max}: "
                "a command that may be sent would never fit"
            )
        if self.snapshot_every_bytes * 2 > self.log_bytes_max:
            raise ConfigError(
                f"snapshot_every_bytes={self.snapshot_every_bytes} is more than half of "
                f"log_bytes_max={self.log_bytes_max}: the log would be full before a snapshot could shorten it"
            )

    def replace(self, **settings: Any) -> Config:
        """A copy with other values for some settings."""
        return Config(**{**dataclasses.asdict(self), **settings})


_ELECTION_TIMEOUT_MIN = 0.01
_ELECTION_TIMEOUT_MAX = 600.0
_SESSION_TTL_MIN = 1.0

_PARSERS: dict[str, Callable[[str, object], float | int]] = {
    "election_timeout": _units.seconds,
    "heartbeat": _units.seconds,
    "timeout": _units.seconds,
    "command_bytes_max": _units.size,
    "batch_bytes_max": _units.size,
    "inflight_max": _units.count,
    "clients_max": _units.count,
    "log_bytes_max": _units.size,
    "snapshot_every_bytes": _units.size,
    "snapshot_every_entries": _units.count,
    "snapshot_bytes_per_second": _units.size,
    "session_ttl": _units.seconds,
}


def refuse_unknown(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raises `ConfigError` for the first name that is not known, naming the nearest that is."""
    names = list(known)
    for name in given:
        if name not in names:
            raise ConfigError(f"there is no {what} {name!r}; {nearest(name, names)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """What somebody may have meant who gave a name that is not known."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(names)) or 'none'}"
