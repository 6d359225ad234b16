"""Clusters of real processes: killed with SIGKILL, paused with SIGSTOP, started again. See `process_node.py`.

Nothing here waits for a time to pass: only for conditions, with a deadline.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import graft

DEADLINE_SECONDS = 30.0
_NODE = (sys.executable, "-W", "error", str(Path(__file__).with_name("process_node.py")))
_LOG_BYTES_SHOWN = 6000
_ATTEMPTS = 5


class ProcessError(Exception):
    """What a call in another process raised."""

    def __init__(self, of: str, words: dict[str, Any]) -> None:
        super().__init__(f"{of}: {words['type']} {words['code']}: {words['text']}")
        self.code: str | None = words["code"]
        self.words = words


class Died(Exception):
    """The process ended before it answered."""


def until(condition: Callable[[], Any], what: str, seconds: float = DEADLINE_SECONDS) -> Any:
    """What the condition gives once it is true. Fails at the deadline."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.005)
    return found


def free_ports(number: int) -> list[int]:
    """Ports that nobody uses, and that the system gives to nobody who does not ask for them by number: a node that is
    down for a while finds its port free when it comes back."""
    low = (
        int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]) if sys.platform == "linux" else 32768
    )
    found: set[int] = set()
    while len(found) < number:
        port = random.randrange(10_000, max(low, 12_000))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.add(port)
    return sorted(found)


@dataclass
class Answer:
    """A call that was sent to another process."""

    of: Proc
    number: int

    def value(self, seconds: float = DEADLINE_SECONDS) -> Any:
        """What it returned. Raises `ProcessError` with what it raised, or `Died`."""
        answer = self.of.taken(self.number, seconds)
        if "error" in answer:
            raise ProcessError(self.of.id, answer["error"])
        return answer["value"]


class Proc:
    """One process."""

    def __init__(
        self, id_: str, told: dict[str, Any], log: Path, command: Sequence[str] = _NODE, *, process: Any = None
    ) -> None:
        """Starts it: `command` and what it is told, as JSON, in the last argument. Or it is a `process` that has been
        started and told."""
        self.id = id_
        self.paused = False
        self._calls = 0
        self._sending = threading.Lock()
        self._answers: dict[int, dict[str, Any]] = {}
        self._ended = False
        self._news = threading.Condition()
        if process is None:
            with log.open("ab") as file:
                whole = [*command, json.dumps(told)]
                process = subprocess.Popen(whole, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file)
        self._process = process
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.started = Answer(self, 0)

    @property
    def pid(self) -> int:
        found: int = self._process.pid
        return found

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def send(self, do: str, **arguments: Any) -> Answer:
        """Sends a call. A paused process finds it when it goes on."""
        assert self._process.stdin is not None
        with self._sending:
            self._calls += 1
            number = self._calls
            request = {"call": number, "do": do, **arguments}
            try:
                self._process.stdin.write(json.dumps(request).encode() + b"\n")
                self._process.stdin.flush()
            except (BrokenPipeError, ValueError):
                pass  # the answer says that it died
        return Answer(self, number)

    def call(self, do: str, **arguments: Any) -> Any:
        """Sends a call and waits for its answer."""
        return self.send(do, **arguments).value()

    def taken(self, number: int, seconds: float) -> dict[str, Any]:
        """The answer to a call."""
        with self._news:
            came = self._news.wait_for(lambda: number in self._answers or self._ended, seconds)
            assert came, f"{self.id} did not answer within {seconds:g} s"
            if number not in self._answers:
                raise Died(f"{self.id} ended, with {self._process.wait()}, before it answered")
            return self._answers.pop(number)

    def status(self) -> dict[str, Any]:
        """The node's status."""
        found: dict[str, Any] = self.call("status")
        return found

    def execute(self, name: str, *args: Any, seconds: float = 10.0) -> Any:
        """Executes a command from within that process."""
        return self.call("execute", name=name, args=args, seconds=seconds)

    def query(self, name: str, *args: Any, seconds: float = 10.0, consistency: str = "linearizable") -> Any:
        """Asks a query from within that process."""
        return self.call("query", name=name, args=args, seconds=seconds, consistency=consistency)

    def kill(self) -> None:
        """Ends it at once, paused or not."""
        self._process.kill()

    def pause(self) -> None:
        """Stops it where it is, as a sleeping machine would; its connections stay."""
        self.paused = True
        self._process.send_signal(signal.SIGSTOP)
        # The status file has the state behind the name, which is in parentheses: a small t if its calls are traced.
        stat = Path(f"/proc/{self.pid}/stat")
        until(
            lambda: not stat.exists() or stat.read_text().rpartition(") ")[2].startswith(("T", "t")),
            f"{self.id} stands still",
        )

    def resume(self) -> None:
        """Lets it go on."""
        self._process.send_signal(signal.SIGCONT)
        self.paused = False

    def reap(self) -> None:
        """Waits for its end and frees what it had."""
        self._process.wait(DEADLINE_SECONDS)
        self._reader.join(DEADLINE_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            with self._news:
                self._answers[answer["call"]] = answer
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


class Cluster:
    """Nodes n1, n2, …, each in a process of its own, with a directory each below `directory`.

    `strangers` are members that are on everybody's list and do not exist; an `idle` cluster starts nobody by itself.
    """

    def __init__(
        self,
        directory: Path,
        size: int = 3,
        *,
        strangers: Mapping[str, str] | None = None,
        idle: bool = False,
        **settings: Any,
    ) -> None:
        self.directory = directory
        self.settings = settings
        self._strangers = dict(strangers or {})
        self._idle = idle
        self.ids = [f"n{number + 1}" for number in range(size)]
        self.members: dict[str, str] = {}
        self.data_dirs: dict[str, Path] = {}
        self.joins: dict[str, list[str]] = {}
        self.procs: dict[str, Proc] = {}
        self._runs = 0

    def __enter__(self) -> Cluster:
        for attempt in range(_ATTEMPTS):
            ports = free_ports(len(self.ids))
            self.members = {
                id_: f"127.0.0.1:{port}" for id_, port in zip(self.ids, ports, strict=True)
            } | self._strangers
            if self._idle:
                return self
            try:
                return self.start(*self.ids)
            except ProcessError as error:
                # Somebody took the port in between.
                if error.code != graft.AddressInUse.code or attempt + 1 == _ATTEMPTS:
                    raise
                self.kill(*self.procs)
        raise AssertionError("there is no free port")

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            error.add_note(self.logs())
        self.kill(*[id_ for id_, proc in self.procs.items() if proc.running])

    def __getitem__(self, id_: str) -> Proc:
        return self.procs[id_]

    def home(self, id_: str) -> Path:
        """Where what belongs to a node lies: its journal, its log, and, unless told otherwise, its data."""
        return self.directory / id_

    def start(self, *ids: str) -> Cluster:
        """Starts processes, the first time or again, and waits until their nodes run."""
        for id_ in ids:
            self.home(id_).mkdir(parents=True, exist_ok=True)
            self._runs += 1
            self.procs[id_] = self._launched(id_, self._told(id_))
        for id_ in ids:
            self.procs[id_].started.value()
        return self

    def _told(self, id_: str) -> dict[str, Any]:
        return {
            "id": id_,
            "address": self.members[id_],
            "members": None if id_ in self.joins else self.members,
            "join": self.joins.get(id_) or None,
            "data_dir": str(self.data_dirs.get(id_, self.home(id_) / "data")),
            "directory": str(self.home(id_)),
            "settings": self.settings,
            "run": self._runs * 1000,
        }

    def _launched(self, id_: str, told: dict[str, Any]) -> Proc:
        return Proc(id_, told, self.home(id_) / "log")

    def enlist(self, id_: str, *join: str) -> str:
        """One more node, which enters by those addresses, or, without any, founds a cluster of its own. Gives its
        address. Nothing is started."""
        self.ids.append(id_)
        self.members[id_] = f"127.0.0.1:{free_ports(1)[0]}"
        self.joins[id_] = list(join)
        return self.members[id_]

    def ready(self) -> Self:
        """Waits until all that run are ready."""
        answers = [self.procs[id_].send("wait_ready", seconds=DEADLINE_SECONDS) for id_ in self.running()]
        for answer in answers:
            answer.value(2 * DEADLINE_SECONDS)
        return self

    def kill(self, *ids: str) -> None:
        """Kills them with SIGKILL, all at once."""
        for id_ in ids:
            self.procs[id_].kill()
        for id_ in ids:
            self.procs[id_].reap()

    def running(self) -> list[str]:
        """Those that run and are not paused."""
        return [id_ for id_, proc in self.procs.items() if proc.running and not proc.paused]

    def leader(self, *among: str) -> str:
        """The leader, once all of those (or all that run) agree on it."""

        def agreed() -> str | None:
            found = {(status["leader"], status["term"]) for status in self.statuses(*among).values()}
            leader, _ = found.pop()
            return leader if not found and leader in (among or self.running()) else None

        found: str = until(agreed, "a leader that all agree on")
        return found

    def statuses(self, *among: str) -> dict[str, dict[str, Any]]:
        """The status of each."""
        return {id_: self.procs[id_].status() for id_ in among or self.running()}

    def load(self, writers: int, readers: int = 0, *, pause: float = 0.0, seconds: float = 10.0) -> None:
        """Starts writers and readers, shared out among the nodes that run; each rests for `pause` seconds between two
        calls, which wait for `seconds` at most."""
        chosen = self.running()
        for place, id_ in enumerate(chosen):
            share = [number // len(chosen) + (place < number % len(chosen)) for number in (writers, readers)]
            self.procs[id_].call("load", writers=share[0], readers=share[1], pause=pause, seconds=seconds)

    def end_load(self) -> None:
        """Ends them, once their calls are answered."""
        answers = [self.procs[id_].send("end_load") for id_ in self.running()]
        for answer in answers:
            answer.value()

    def converged(self) -> dict[str, Any]:
        """Waits until all that run have applied the same, up to the end of the log; gives the last status of one."""

        def same() -> dict[str, Any] | None:
            found = list(self.statuses().values())
            places = {(s["last_index"], s["commit_index"], s["applied_index"], s["term"]) for s in found}
            last, commit, applied, _ = next(iter(places))
            return found[0] if len(places) == 1 and last == commit == applied else None

        found: dict[str, Any] = until(same, "all replicas at the same index")
        return found

    def logs(self) -> str:
        """The end of what each process wrote, for whoever looks for the reason of a failure."""
        shown = []
        for id_ in self.ids:
            path = self.home(id_) / "log"
            text = path.read_bytes()[-_LOG_BYTES_SHOWN:].decode(errors="replace") if path.exists() else ""
            shown.append(f"--- {id_} at {self.members.get(id_)} ---\n{text}")
        return "\n".join(shown)


def is_root() -> bool:
    """Whether permissions do not bind this process."""
    return hasattr(os, "geteuid") and os.geteuid() == 0
