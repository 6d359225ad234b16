"""Errors put into the system calls of a running process, by strace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from processes import until

_SECONDS = 10.0
_INJECTED = "(INJECTED)"


class Trace:
    """A process some of whose calls fail until it is let go."""

    def __init__(self, pid: int, calls: str, error: str, when: str, notes: Path) -> None:
        """From the `when`-th of these calls of each thread on, as strace has it, they fail with this error."""
        self._notes = notes
        command = ["strace", "-f", "-y", "-qq", "-p", str(pid), "-o", str(notes), "-e", f"trace={calls}"]
        command += ["-e", f"inject={calls}:error={error}:when={when}"]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        until(lambda: is_traced(pid) or self._process.poll() is not None, f"{pid} is traced", _SECONDS)

    @staticmethod
    def trouble() -> str | None:
        """Why it cannot be done here; None if it can."""
        if shutil.which("strace") is None:
            return "errors of system calls need the command strace"
        sleeper = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
        try:
            trace = Trace(sleeper.pid, "fdatasync", "EIO", "1", Path(os.devnull))
            return None if trace.end() else "strace may not attach to a process here"
        finally:
            sleeper.kill()
            sleeper.communicate()

    def end(self) -> bool:
        """Lets the process go; gives whether it was held until now."""
        was_held = self._process.poll() is None
        self._process.terminate()
        self._process.wait(_SECONDS)
        return was_held

    def failed(self) -> list[str]:
        """The calls that have failed, each with the file that it was for."""
        begun: dict[str, str] = {}
        found: list[str] = []
        for line in self._notes.read_text(errors="replace").splitlines():
            thread, _, said = line.partition(" ")
            if "<unfinished" in said:
                begun[thread] = said
            elif _INJECTED in said:
                found.append(begun.pop(thread, "") + said)
        return found


def is_traced(pid: int) -> bool:
    """Whether somebody traces it already: nobody else can."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    return "TracerPid:\t0\n" not in status
