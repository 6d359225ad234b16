"""A process that is one node: it lives until SIGTERM or Ctrl-C."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType


class Ending(BaseException):
    """Raised by a signal handler, out of the wait that it interrupts."""


@contextmanager
def ending_signals() -> Generator[None]:
    """Within it, both signals raise `Ending`, the first one only. Only the main thread gets signals; served on another
    one, a node ends when somebody stops it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        if not seen:
            seen.append(number)
            raise Ending

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
