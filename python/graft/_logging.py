"""The engine's log under the loggers `graft.*`.

The engine puts its records into a bounded queue and never waits for Python; one daemon thread takes them out.
"""

from __future__ import annotations

import logging
import sys
import threading

from graft import _engine

# How long the thread waits in the engine, and so how soon a change of the level is heard: each look is a wake-up of a
# node that has nothing to do.
_WAIT_SECONDS = 2.0
# At most, for a handler of the user's that is at it.
_JOIN_SECONDS = 2.0

_LEVEL_MAX = 255

# A library stays silent unless the program asks for its log.
logging.getLogger("graft").addHandler(logging.NullHandler())


class _Forwarder:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()

    def start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._ending.clear()
                self._thread = threading.Thread(target=self._run, name="graft-logs", daemon=True)
                self._thread.start()
            else:
                # Of what the new node says, the level as it is now decides.
                _engine.load().logs_wake()

    def stop(self) -> None:
        with self._lock:
            thread, self._thread = self._thread, None
            self._ending.set()
        if thread is not None:
            _engine.load().logs_wake()
            thread.join(_JOIN_SECONDS)

    def forget(self) -> None:
        # In a forked child the thread does not exist, and the lock may be held by nobody who lives.
        self.__init__()  # type: ignore[misc]

    def _run(self) -> None:
        engine = _engine.load()
        logs = engine.logs
        while not self._ending.is_set():
            # The engine makes no line that nobody wants; whoever changes the level is heard within one wait.
            engine.log_level(min(logging.getLogger("graft").getEffectiveLevel(), _LEVEL_MAX))
            for level, target, message, created in logs(_WAIT_SECONDS):
                _emit(level, target, message, created)
        for level, target, message, created in logs(0.0):
            _emit(level, target, message, created)


def _emit(level: int, target: str, message: str, created: float) -> None:
    name = target.replace("::", ".")
    logger = logging.getLogger(name if name == "graft" or name.startswith("graft.") else f"graft.{name}")
    if not logger.isEnabledFor(level):
        return
    record = logger.makeRecord(logger.name, level, "(engine)", 0, message, (), None)
    record.created = created
    record.msecs = created % 1 * 1000
    try:
        logger.handle(record)
    except Exception as error:  # noqa: BLE001 - a handler of the user's must not end the log
        print(f"graft: a logging handler failed: {error!r}", file=sys.stderr)  # noqa: T201 - there is no log to say it in


forwarder = _Forwarder()
