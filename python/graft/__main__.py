"""The `graft` command, which is also `python -m graft`."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any, NoReturn

from graft import _engine

# What is known of an interrupted command is told by then.
_TELL_SECONDS = 2.0
# On Windows a thread that waits is not interrupted.
_LOOK_SECONDS = 0.1


def main() -> NoReturn:
    """Does what the command line says, and exits."""
    done = _interruptible(["graft", *sys.argv[1:]])
    if not isinstance(done, int):
        verb = done.pop("verb")
        if verb == "dev":
            from graft._dev import dev

            done = dev(**done)
        elif verb == "check":
            from graft._start import check

            done = check(**done)
        else:
            from graft._start import start

            done = start(**done)
    sys.exit(done)


def _interruptible(words: list[str]) -> int | dict[str, Any]:
    """Runs the command on a thread, since signals come to this one.

    Until a node runs, Ctrl-C ends the process as it ends any command. Where something is under way that may have been
    done, what is known of it is said first."""
    engine = _engine.load()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Of a script's background, or whoever started it does not want it interrupted. A node ends at one all the same.
        status: int | dict[str, Any] = engine.command_line(words)
        return status
    done: list[int | dict[str, Any]] = []
    worker = threading.Thread(target=lambda: done.append(engine.command_line(words)), name="graft", daemon=True)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        worker.start()
        while worker.is_alive():
            worker.join(_LOOK_SECONDS)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if engine.interrupt():
            worker.join(_TELL_SECONDS)
        signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)
    # What it raised has been told.
    return done[0] if done else 1


if __name__ == "__main__":
    main()
