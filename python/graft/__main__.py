"""The `graft` command, which is also `python -m graft`."""

from __future__ import annotations

import signal
import sys
from typing import Any, NoReturn

from graft import _engine


def main() -> NoReturn:
    """Does what the command line says, and exits."""
    # Until a node runs, Ctrl-C ends the process as it ends any command.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    done: int | dict[str, Any] = _engine.load().command_line(["graft", *sys.argv[1:]])
    if not isinstance(done, int):
        signal.signal(signal.SIGINT, before)
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


if __name__ == "__main__":
    main()
