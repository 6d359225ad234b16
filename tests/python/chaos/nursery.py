"""A process that has imported everything, and has children at once: a node starts in a hundredth of the time.

It is told of each child through a socket, with the ends of the pipes that are to be its standard streams.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from process_node import Process
from processes import Proc

from chaos.network import run
from chaos.receipts import Receipts

_MESSAGE_BYTES_MAX = 1 << 16


class Child:
    """A process that is somebody else's child, with what `subprocess.Popen` has for one's own."""

    def __init__(self, pid: int, stdin: IO[bytes], stdout: IO[bytes]) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self._handle: int | None = None
        with contextlib.suppress(ProcessLookupError):
            self._handle = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Waits until it has ended. With what, its parent alone knows."""
        found = self._ended(timeout)
        if found is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        return found

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """Any other one."""
        if self._handle is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    def _ended(self, timeout: float | None) -> int | None:
        if self._handle is None or select.select([self._handle], [], [], timeout)[0]:
            return -1
        return None


class Nursery:
    """The parent's side."""

    def __init__(self, log: Path, environment: Mapping[str, str] | None = None) -> None:
        near, far = socket.socketpair()
        with far, log.open("ab") as file:
            settings = [f"{name}={value}" for name, value in (environment or {}).items()]
            command = ["env", *settings, *run("chaos.nursery"), str(far.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[far.fileno()], stdin=subprocess.DEVNULL, stderr=file)
        self._socket = near

    def have(self, id_: str, told: dict[str, Any], log: Path) -> Proc:
        """Another node, which is told this."""
        theirs_in, stdin = os.pipe()
        stdout, theirs_out = os.pipe()
        with log.open("ab") as file:
            ends = [theirs_in, theirs_out, file.fileno()]
            socket.send_fds(self._socket, [json.dumps(told).encode()], ends)
            pid = int(self._socket.recv(_MESSAGE_BYTES_MAX))
        for end in (theirs_in, theirs_out):
            os.close(end)
        return Proc(id_, told, log, process=Child(pid, open(stdin, "wb"), open(stdout, "rb")))

    def close(self) -> None:
        """Ends it; its children live on."""
        self._socket.close()
        self._process.wait()


class Member(Process):
    """A process with a node that keeps `Receipts`."""

    def _machine(self) -> Receipts:
        return Receipts()


def main(own: socket.socket) -> None:
    """Has a child whenever it is told of one."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        told, ends, _, _ = socket.recv_fds(own, _MESSAGE_BYTES_MAX, 3)
        if not told:
            return
        pid = os.fork()
        if pid == 0:
            own.close()
            _live(told, ends)
        own.send(str(pid).encode())
        for end in ends:
            os.close(end)


def _live(told: bytes, ends: list[int]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for place, end in enumerate(ends):
        os.dup2(end, place)
        os.close(end)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )
    try:
        Member(json.loads(told)).serve()
    finally:
        os._exit(0)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
