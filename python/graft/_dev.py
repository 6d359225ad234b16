"""`graft dev`: a cluster in one terminal, to try things out."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from graft._cluster import LocalCluster
from graft._errors import GraftError
from graft._machine import Command, Query, callable_operations, is_raw
from graft._start import UsageError, failed, machine_of
from graft._units import counted

if TYPE_CHECKING:
    import os
    from collections.abc import Generator
    from types import FrameType

    from graft._machine import Operation, StateMachine
    from graft._node import Node
    from graft._status import Status

_PAUSE_SECONDS = 0.5
_PREFIX = "graft-dev-"
_LOCK = "lock"
_EXAMPLES = {"str": "ann", "int": "5", "float": "2.5", "bool": "true"}


def dev(*, machine: str | None, nodes: int, data_dir: os.PathLike[str] | None, json: bool) -> int:
    """Runs a cluster until it is told to end. Gives the status to exit with."""
    try:
        return _run(_kind(machine), nodes, data_dir)
    except (UsageError, TypeError, GraftError) as error:
        return failed(error, json)


def _kind(machine: str | None) -> type[StateMachine]:
    if machine is not None:
        return machine_of(machine)
    from graft.recipes import KeyValue

    return KeyValue


def _refuse_another_number(nodes: int, data_dir: os.PathLike[str] | None) -> None:
    """What a cluster of so many left there cannot go on with more or fewer by itself."""
    if data_dir is None or not Path(data_dir).is_dir():
        return
    kept = {path.name for path in Path(data_dir).iterdir() if re.fullmatch(r"n\d+", path.name)}
    if kept and kept != {f"n{number}" for number in range(1, nodes + 1)}:
        raise UsageError(f"{data_dir} has a cluster of {len(kept)}: say --nodes {len(kept)}, or another --data-dir")


def _run(kind: type[StateMachine], nodes: int, data_dir: os.PathLike[str] | None) -> int:
    _refuse_another_number(nodes, data_dir)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _directory() as directory, LocalCluster(kind, nodes, data_dir=data_dir or directory / "nodes") as cluster:
            print(_head(kind, cluster, directory), flush=True)  # noqa: T201 - a command speaks
            _follow(cluster)
    except KeyboardInterrupt:
        _say("\nthe cluster has ended" + ("" if data_dir else ", and nothing of it is left"))
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


@contextlib.contextmanager
def _directory() -> Generator[Path]:
    """For what is gone with this process. What one that was killed left is removed by the next."""
    _sweep()
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name, Path(name, "lock.new").open("wb") as lock:
        # Under its name it is held already: who finds it free finds that nobody lives.
        if _is_taken(lock):
            Path(name, "lock.new").rename(Path(name, _LOCK))
        yield Path(name)


def _sweep() -> None:
    """Removes this user's directories whose process is surely dead: their locks are free."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        # One that is not this user's cannot be opened or removed; one without a lock may be about to begin.
        with contextlib.suppress(OSError), (left / _LOCK).open("rb") as lock:
            if not left.is_symlink() and _is_taken(lock):
                shutil.rmtree(left, ignore_errors=True)


def _is_taken(lock: IO[bytes]) -> bool:
    """Takes a lock for as long as the file is open. Where locks are others there is none, and nothing is swept."""
    if sys.platform == "win32":
        return False
    import fcntl

    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True


def _interrupt(signum: int, frame: FrameType | None) -> None:
    del signum, frame
    raise KeyboardInterrupt


def _head(kind: type[StateMachine], cluster: LocalCluster[Any], directory: Path) -> str:
    """What to paste into another terminal."""
    environment = {"GRAFT_CLUSTER": ",".join(node.address for node in cluster), **_certificate(cluster, directory)}
    exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
    calls = [
        f"  graft {verb} {words}" for verb, words in (("execute", _call(kind, Command)), ("query", _call(kind, Query)))
        if words
    ]  # fmt: skip
    return "\n".join(
        [
            f"{kind.__name__} on {counted(len(cluster), 'node')} of this process. In another terminal:",
            "",
            f"  export {exports}",
            "  graft status",
            *calls,
            "  graft top",
            "",
            "Ctrl-C ends it.",
            "",
        ]
    )


def _certificate(cluster: LocalCluster[Any], directory: Path) -> dict[str, str]:
    """An operator's, in files that end with this process."""
    authority = cluster._authority
    if authority is None:
        return {}
    environment = {}
    for name, pem in zip(("ca", "cert", "key"), authority.client("dev", "operator")._material, strict=True):
        path = directory / f"{name}.pem"
        path.touch(0o600)
        assert isinstance(pem, bytes), "an authority in memory gives no paths"  # noqa: S101
        path.write_bytes(pem)
        environment[f"GRAFT_{name.upper()}"] = str(path)
    return environment


def _call(kind: type[StateMachine], which: type[Command[Any, ..., Any] | Query[Any, ..., Any]]) -> str:
    """An example of a call of this kind; empty if there is none."""
    if is_raw(kind):
        return "--raw TEXT" if which is Command or hasattr(kind, "query") else ""
    for name, operation in _declared(kind):
        if isinstance(operation, which):
            needed = [
                f"{parameter.name}={_example(parameter.annotation)}"
                for parameter in operation.shape.parameters
                if parameter.default is parameter.empty
            ]
            return " ".join([name, *needed])
    return ""


def _declared(kind: type[StateMachine]) -> list[tuple[str, Operation[Any, ..., Any]]]:
    """Commands and queries as they stand in the class: by what comes first one begins."""
    places = [attribute for cls in kind.__mro__ for attribute in vars(cls)]
    return sorted(callable_operations(kind).items(), key=lambda item: places.index(item[1].attribute))


def _example(annotation: object) -> str:
    return _EXAMPLES.get(str(getattr(annotation, "__name__", annotation)), "1")


def _follow(cluster: LocalCluster[Any]) -> None:
    """Shows the nodes until it is interrupted: a table that is drawn anew, or a line for every change of leader."""
    is_live = sys.stdout.isatty()
    drawn, shown, rates = 0, "", _Rates()
    while True:
        statuses = [_status(node) for node in cluster]
        if is_live:
            lines = _table([status for status in statuses if status is not None], rates)
            back = f"\x1b[{drawn}A" if drawn else ""
            sys.stdout.write(back + "".join(f"\x1b[2K{line}\n" for line in lines) + "\x1b[J")
            drawn = len(lines)
        else:
            leaders = {status.leader: status.term for status in statuses if status is not None and status.leader}
            now = ", ".join(f"{leader} leads in term {term}" for leader, term in sorted(leaders.items()))
            if now and now != shown:
                sys.stdout.write(f"{now}\n")
                shown = now
        sys.stdout.flush()
        time.sleep(_PAUSE_SECONDS)


def _status(node: Node[Any]) -> Status | None:
    try:
        return node.status()
    except GraftError:
        return None


class _Rates:
    """How many entries are committed in a second."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._commit: int | None = None

    def of(self, commit: int) -> float:
        now = time.monotonic()
        seconds, before = now - self._at, self._commit
        self._at, self._commit = now, commit
        return 0.0 if before is None or seconds <= 0 else max(0, commit - before) / seconds


def _table(statuses: list[Status], rates: _Rates) -> list[str]:
    heads = ("id", "address", "role", "term", "committed", "applied", "snapshot")
    rows = [
        (s.id, s.address, s.role, str(s.term), str(s.commit_index), str(s.applied_index), str(s.snapshot_index))
        for s in statuses
    ]
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [heads, *rows]]
    commit = max((status.commit_index for status in statuses), default=0)
    return [*(line.rstrip() for line in lines), f"{rates.of(commit):.0f} entries/s"]


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)  # noqa: T201 - a command speaks
