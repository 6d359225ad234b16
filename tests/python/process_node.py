"""One node in a process of its own: what `processes.py` starts.

It is told what to be in its first argument, as JSON, and what to do on standard input, one JSON object a line:
`{"call": 7, "do": "status", ...}`. It answers `{"call": 7, "value": ...}` or `{"call": 7, "error": {...}}` on standard
output, out of order. When the input ends, so does it.

What its writers and readers do goes into journals, a line a system call: a line that was written stays when the process
is killed.

    S token time                     about to be sent
    A token time index position      acknowledged: applied at this index, as this many-th token
    N token time code                refused: certainly not applied
    U token time code                unknown
    R start end count                a linearizable read that began and ended then saw so many tokens
    F start end code                 a read that failed
"""

from __future__ import annotations

import asyncio
import ctypes
import dataclasses
import hashlib
import itertools
import json
import logging
import os
import sys
import threading
import time
from typing import Any

import graft


class Tokens(graft.StateMachine):
    """An append-only list of tokens, each with the index of the entry that brought it."""

    def __init__(self) -> None:
        self.tokens: list[list[Any]] = []
        self.chain = b""

    @graft.command
    def append(self, token: str) -> list[int]:
        index = self.context.index
        self.tokens.append([token, index])
        self.chain = hashlib.sha256(self.chain + f"{token} {index}".encode()).digest()
        return [index, len(self.tokens)]

    @graft.command
    def refuse(self, why: str) -> None:
        raise ValueError(why)

    @graft.command
    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    @graft.command
    def spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass

    @graft.command
    def hold_interpreter(self, seconds: int) -> None:
        # Unlike `time.sleep`, a call through PyDLL keeps the interpreter's lock all the while.
        ctypes.PyDLL(None).sleep(seconds)

    @graft.command
    def store(self, blob: bytes) -> int:
        return len(blob)

    @graft.query
    def since(self, position: int) -> list[list[Any]]:
        return self.tokens[position:]

    @graft.query
    def summary(self) -> list[Any]:
        return [len(self.tokens), self.chain.hex()]

    @graft.query
    def count(self) -> int:
        return len(self.tokens)


class Journal:
    """Lines that outlive the process."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def line(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())


class Load:
    """Writers and readers, each in one way of those that a program may call a node in."""

    def __init__(self, calls: graft.Calls[Tokens], directory: str, prefix: str) -> None:
        self._calls = calls
        self._journal = Journal(os.path.join(directory, "journal"))
        self._prefix = prefix
        self._names = itertools.count()
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, writers: int, readers: int, pause: float) -> None:
        """Starts them; `pause` is how many seconds each rests between two calls."""
        for number in range(readers):
            self._start(self._read, number, pause)
        tasks = writers // 3
        if tasks:
            self._start(lambda *_: asyncio.run(self._write_tasks(tasks, pause)))
        for number in range(writers - tasks):
            self._start(self._write, number, pause)

    def _start(self, run: Any, *args: Any) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        """Ends them; each finishes its call."""
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _write(self, number: int, pause: float) -> None:
        while not self._ending.wait(pause):
            with self._noted() as token:
                if number % 2:
                    token.acknowledged(*self._calls.execute(Tokens.append, token.name))
                else:
                    result = self._calls.submit(Tokens.append, token.name).result()
                    assert result.index == result.value[0], f"{result}: the caller and the machine differ on the index"
                    token.acknowledged(*result.value)

    async def _write_tasks(self, tasks: int, pause: float) -> None:
        async def write() -> None:
            while not self._ending.is_set():
                with self._noted() as token:
                    token.acknowledged(*await self._calls.aio.execute(Tokens.append, token.name))
                await asyncio.sleep(pause)

        await asyncio.gather(*(write() for _ in range(tasks)))

    def _noted(self) -> Token:
        return Token(f"{self._prefix}.{next(self._names)}", self._journal)

    def _read(self, _: int, pause: float) -> None:
        while not self._ending.wait(pause):
            start = time.monotonic_ns()
            try:
                count = self._calls.query(Tokens.count)
                self._journal.line("R", start, time.monotonic_ns(), count)
            except graft.GraftError as error:
                self._journal.line("F", start, time.monotonic_ns(), error.code)


class Token:
    """One write, from before it is sent to what became of it. Any other error than Graft's ends the process, loudly."""

    def __init__(self, name: str, journal: Journal) -> None:
        self.name = name
        self._journal = journal

    def acknowledged(self, index: int, position: int) -> None:
        self._journal.line("A", self.name, time.monotonic_ns(), index, position)

    def __enter__(self) -> Token:
        self._journal.line("S", self.name, time.monotonic_ns())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, graft.GraftError):
            mark = "U" if isinstance(error, graft.UnknownOutcome) else "N"
            self._journal.line(mark, self.name, time.monotonic_ns(), error.code)
            time.sleep(0.001)
            return True
        if error is not None:
            sys.excepthook(type(error), error, error.__traceback__)
            os._exit(70)
        return False


class Answering:
    """Answers its parent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def serve(self) -> None:
        """Starts, and does what it is told until the input ends."""
        if not self._answer(0, self._start):
            return
        for line in sys.stdin:
            request = json.loads(line)
            call, do = request.pop("call"), request.pop("do")
            verb = getattr(self, f"do_{do}")
            threading.Thread(target=self._answer, args=(call, verb), kwargs=request, daemon=True).start()

    def _start(self) -> int:
        return os.getpid()

    def _answer(self, call: int, verb: Any, **arguments: Any) -> bool:
        try:
            answer = {"call": call, "value": verb(**arguments)}
        except Exception as error:
            answer = {"call": call, "error": _words(error)}
        text = json.dumps(answer) + "\n"
        with self._lock:
            sys.stdout.write(text)
            sys.stdout.flush()
        return "error" not in answer


class Process(Answering):
    """A process with a node."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__()
        self._directory: str = told["directory"]
        self._node = graft.Node(
            self._machine(),
            id=told["id"],
            address=told["address"],
            bind=told.get("bind"),
            # Some listen in network namespaces of their own.
            insecure=True,
            data_dir=told["data_dir"],
            members=told["members"],
            join=told["join"],
            **told["settings"],
        )
        self._run = told["run"]
        self._load: Load | None = None

    def _machine(self) -> Any:
        return Tokens()

    def _start(self) -> int:
        self._node.start()
        return super()._start()

    def do_status(self) -> dict[str, Any]:
        return dataclasses.asdict(self._node.status())

    def do_health(self) -> str:
        return str(self._node.health())

    def do_wait_ready(self, seconds: float) -> None:
        self._node.wait_ready(seconds)

    def do_execute(self, name: str, args: list[Any], seconds: float) -> Any:
        return self._node.options(timeout=seconds).execute(name, *args)

    def do_store(self, size: int, seconds: float) -> int:
        return self._node.options(timeout=seconds).execute(Tokens.store, bytes(size))

    def do_query(self, name: str, args: list[Any], seconds: float, consistency: Any) -> Any:
        return self._node.options(timeout=seconds, consistency=consistency).query(name, *args)

    def do_change(self, change: str, args: list[Any], seconds: float) -> list[str]:
        getattr(self._node.members, change)(*args, timeout=seconds)
        return [member.id for member in self._node.members]

    def do_load(self, writers: int, readers: int, pause: float, seconds: float) -> None:
        assert self._load is None, "a load runs already"
        self._run += 1
        calls = self._node.options(timeout=seconds)
        self._load = Load(calls, self._directory, f"{self._node.id}.{self._run}")
        self._load.start(writers, readers, pause)

    def do_end_load(self) -> None:
        if self._load is not None:
            self._load.stop()
            self._load = None

    def do_stop(self) -> None:
        self._node.stop()


def _words(error: Exception) -> dict[str, Any]:
    found = {name: getattr(error, name, None) for name in ("code", "fix", "type_name", "index", "retryable")}
    return {**found, "type": type(error).__name__, "text": str(error)}


if __name__ == "__main__":
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )
    Process(json.loads(sys.argv[1])).serve()
    os._exit(0)
