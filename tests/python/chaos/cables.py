"""The cables between all processes: TCP ports that pass on to others, in a process of its own.

Who calls is found by its socket: the kernel tells its inode, and the processes that were placed have it open or not. So
each pair of processes has a cable of its own, though all call the same port.

Where a direction is cut nothing more comes through; what was on its way waits, as it would for TCP to send it again. A
new connection needs both directions. Nobody is told anything, unless a cable is `reset`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
import sys
import threading
import time
from collections.abc import Coroutine
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, TypeAlias

from process_node import Answering

from chaos.sockets import Address, has_open, inode

Pair: TypeAlias = tuple[str, str]
_CHUNK_BYTES = 1 << 16
_CHUNKS_MAX = 64
_PLACE_SECONDS = 2.0
_RETRY_SECONDS = 0.1


class Cables(Answering):
    """All of them."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__()
        self._ports: list[dict[str, Any]] = told["ports"]
        self._pids: dict[int, str] = {}
        self._cuts: set[Pair] = set()
        self._delays: dict[Pair, float] = {}
        self._up: dict[asyncio.StreamWriter, Pair] = {}
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Condition()

    def _start(self) -> int:
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._on_loop(self._listen())
        return super()._start()

    def do_place(self, pid: int, place: str) -> None:
        """This process is at that place."""
        self._on_loop(self._placed(pid, place))

    def do_shape(self, cuts: list[Pair], delays: list[tuple[str, str, float]]) -> None:
        """From now on nothing comes through in these directions, and that much later in those."""
        self._on_loop(self._shaped({(a, b) for a, b in cuts}, {(a, b): seconds for a, b, seconds in delays}))

    def do_reset(self, pairs: list[Pair]) -> None:
        """Ends the connections between these, as a firewall does that forgot them."""
        self._on_loop(self._ended({frozenset(pair) for pair in pairs}))

    def _on_loop(self, task: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(task, self._loop).result()

    async def _listen(self) -> None:
        for port in self._ports:
            place, target = port["place"], port["target"]

            async def connected(
                near: asyncio.StreamReader, back: asyncio.StreamWriter, place: str = place, target: str = target
            ) -> None:
                await self._connected(near, back, place, target)

            host, _, number = port["address"].rpartition(":")
            await asyncio.start_server(connected, host, int(number), limit=_CHUNK_BYTES)

    async def _placed(self, pid: int, place: str) -> None:
        self._pids[pid] = place

    async def _shaped(self, cuts: set[Pair], delays: dict[Pair, float]) -> None:
        self._cuts, self._delays = cuts, delays
        async with self._changed:
            self._changed.notify_all()

    async def _ended(self, pairs: set[frozenset[str]]) -> None:
        for writer, pair in list(self._up.items()):
            if frozenset(pair) in pairs:
                _abort(writer)

    async def _connected(self, near: asyncio.StreamReader, back: asyncio.StreamWriter, place: str, target: str) -> None:
        source = await self._source(back)
        if source is None:
            _abort(back)
            return
        self._up[back] = (source, place)
        forth: asyncio.StreamWriter | None = None
        try:
            await self._passes((source, place), (place, source))
            host, _, port = target.rpartition(":")
            far, forth = await asyncio.open_connection(host, int(port), limit=_CHUNK_BYTES)
            self._up[forth] = (source, place)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(near, forth, (source, place)))
                both.create_task(self._pass(far, back, (place, source)))
        except* OSError:
            pass
        finally:
            for writer in (back, forth):
                if writer is not None:
                    self._up.pop(writer, None)
                    _abort(writer)

    async def _source(self, writer: asyncio.StreamWriter) -> str | None:
        """The place of who called; None for nobody's that was placed, or who has gone already."""
        ours: Address = writer.get_extra_info("sockname")
        theirs: Address = writer.get_extra_info("peername")
        deadline = time.monotonic() + _PLACE_SECONDS
        while (number := inode(theirs, ours)) is not None and time.monotonic() < deadline:
            for pid, place in list(self._pids.items()):
                if has_open(pid, number):
                    return place
            await asyncio.sleep(_RETRY_SECONDS)
        return None

    async def _passes(self, *pairs: Pair) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: not any(pair in self._cuts for pair in pairs))

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, pair: Pair) -> None:
        """Takes in what comes, and gives it out later, in order; ends with the end of both."""
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_MAX)

        async def take_in() -> None:
            while True:
                try:
                    data = await source.read(_CHUNK_BYTES)
                except OSError:
                    data = b""
                await chunks.put((time.monotonic() + self._delays.get(pair, 0.0), data))
                if not data:
                    return

        async with asyncio.TaskGroup() as group:
            group.create_task(take_in())
            while True:
                due, data = await chunks.get()
                if (wait := due - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                if pair in self._cuts:
                    await self._passes(pair)
                if not data:
                    sink.write_eof()
                    return
                sink.write(data)
                await sink.drain()


def _abort(writer: asyncio.StreamWriter) -> None:
    """Ends a connection with a reset, so that the other end does not wait for the rest."""
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


if __name__ == "__main__":
    Cables(json.loads(sys.argv[1])).serve()
    os._exit(0)
