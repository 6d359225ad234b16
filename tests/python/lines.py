"""A connection of this process with itself, through cables: what they do can be looked at from both ends."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Set as AbstractSet
from pathlib import Path

import pytest
from chaos.cables import Pair
from chaos.network import Proxies

_SECONDS = 10.0
_SILENCE_SECONDS = 0.2


class Line:
    """From here to there and back."""

    def __init__(self, directory: Path, *, cuts: AbstractSet[Pair] = frozenset(), is_placed: bool = True) -> None:
        self.network = Proxies(directory, ["there"])
        if is_placed:
            self.network.placed("here", os.getpid())
        self.network.shape(cuts, {})
        self._server = socket.create_server(_parted(self.network.bind("there")))
        self._near = socket.create_connection(_parted(self.network.address("there")), _SECONDS)
        self._far: socket.socket | None = None

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._near, self._far, self._server):
            if one is not None:
                one.close()
        self.network.close()

    def say(self, text: str) -> None:
        self._near.sendall(text.encode())

    def hears(self, text: str) -> float:
        """What arrives there; gives how many seconds that took."""
        began = time.monotonic()
        assert _received(self._there(), len(text)) == text
        return time.monotonic() - began

    def hears_nothing(self) -> None:
        assert not _is_readable(self._there())

    def answer(self, text: str) -> None:
        self._there().sendall(text.encode())

    def is_answered(self, text: str) -> None:
        assert _received(self._near, len(text)) == text

    def is_not_answered(self) -> None:
        assert not _is_readable(self._near)

    def is_not_connected(self) -> None:
        assert not _is_readable(self._server)

    def is_reset(self) -> None:
        with pytest.raises(ConnectionResetError):
            self._near.recv(1)

    def _there(self) -> socket.socket:
        if self._far is None:
            self._server.settimeout(_SECONDS)
            self._far, _ = self._server.accept()
            self._far.settimeout(_SECONDS)
        return self._far


def _parted(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def _received(connection: socket.socket, size: int) -> str:
    data = b""
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        assert chunk, f"it ended after {data!r}"
        data += chunk
    return data.decode()


def _is_readable(connection: socket.socket) -> bool:
    """Whether anything comes within a while: that nothing comes can only be waited for."""
    return bool(select.select([connection], [], [], _SILENCE_SECONDS)[0])
