"""A network cable that a test can pull: a TCP port that passes everything on to another one, while it may."""

from __future__ import annotations

import contextlib
import socket
import threading

_CHUNK_BYTES = 4096


class Proxy:
    """Passes on what comes to `address`. What goes to the target stops after `hold_after` bytes, if told so, until
    `release()`; connections stay up all the while."""

    def __init__(self, port: int, target: str, *, hold_after: int | None = None) -> None:
        self.address = f"127.0.0.1:{port}"
        host, _, target_port = target.rpartition(":")
        self._target = host, int(target_port)
        self._left = hold_after
        self._flows = threading.Condition()
        self._closed = False
        self._sockets: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def holds(self) -> bool:
        """Whether something is being held back."""
        with self._flows:
            return self._left is not None and self._left <= 0

    def release(self) -> None:
        """Lets everything through."""
        with self._flows:
            self._left = None
            self._flows.notify_all()

    def close(self) -> None:
        """Ends all connections."""
        with self._flows:
            self._closed = True
            self._left = None
            self._flows.notify_all()
            sockets = [self._server, *self._sockets]
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                try:
                    far = socket.create_connection(self._target)
                except OSError:
                    near.close()
                    continue
                with self._flows:
                    self._sockets += [near, far]
                threading.Thread(target=self._pass, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(far, near, False), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, is_held: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK_BYTES):
                if is_held and not self._may_pass(len(data)):
                    return
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _may_pass(self, size: int) -> bool:
        with self._flows:
            if self._left is not None:
                self._left -= size
            self._flows.wait_for(lambda: self._left is None or self._left > 0 or self._closed)
            return not self._closed
