"""Snapshots as files: what `restore(file)` and `write(file)` of a state machine are given.

The engine's side of a snapshot only reads the next bytes, or takes them. Here it becomes a real, buffered, binary file
of Python, which streams: it never holds more than one buffer of the snapshot.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO, NoReturn, Protocol

if TYPE_CHECKING:
    from typing_extensions import Buffer

BUFFER_BYTES = 1 << 20
"""Of a file; and the engine gives and takes at most so much in a call."""


class Source(Protocol):
    """The engine's side of a snapshot that is read."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most so many; none at the end."""
        ...


class Sink(Protocol):
    """The engine's side of a snapshot that is written."""

    def write(self, data: bytes, /) -> None:
        """Takes all of them, `BUFFER_BYTES` at the most."""
        ...


def reading(source: Source) -> BinaryIO:
    """A file that reads a snapshot from its beginning to its end."""
    return _Reader(_RawSource(source), BUFFER_BYTES)


def writing(sink: Sink) -> SnapshotWriter:
    """A file that writes a snapshot. It ends with `finish()` or with `abandon()`."""
    return SnapshotWriter(_RawSink(sink))


class _Stream:
    # What a stream cannot do, said better than Python's own words would.

    def seek(self, *_: object) -> NoReturn:
        raise _unsupported("seek in it")

    def tell(self) -> NoReturn:
        raise _unsupported("tell a position")

    def truncate(self, *_: object) -> NoReturn:
        raise _unsupported("cut it")

    def fileno(self) -> NoReturn:
        raise _unsupported("hand out a file descriptor")

    def seekable(self) -> bool:
        return False


class _Reader(_Stream, io.BufferedReader):
    pass


class SnapshotWriter(_Stream, io.BufferedWriter):
    """What a function that `snapshot()` returned writes to."""

    def __init__(self, raw: _RawSink) -> None:
        super().__init__(raw, BUFFER_BYTES)
        self._sink = raw

    @property
    def failure(self) -> BaseException | None:
        """What the engine's side raised, once it has; whatever was written after that is lost."""
        return self._sink.failure

    def finish(self) -> None:
        """Hands the rest over. Raises what the engine's side raised, now or before."""
        if not self.closed:
            self.close()
        if self._sink.failure is not None:
            raise self._sink.failure

    def abandon(self) -> None:
        """Nothing more goes to the engine: what is in the buffer is dropped."""
        self._sink.abandoned = True
        if not self.closed:
            self.close()


class _RawSource(io.RawIOBase):
    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._source.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        pieces = []
        while piece := self._source.read(BUFFER_BYTES):
            pieces.append(piece)
        return b"".join(pieces)


class _RawSink(io.RawIOBase):
    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._to = sink
        self.failure: BaseException | None = None
        self.abandoned = False

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        view = memoryview(data).cast("B")
        if self.abandoned:
            return len(view)
        if self.failure is not None:
            raise self.failure
        piece = view[:BUFFER_BYTES]  # the buffer comes back with the rest
        try:
            self._to.write(bytes(piece))
        except BaseException as error:
            # Closing tries once more to hand over what is buffered, which must not look like a second failure.
            self.failure = error
            raise
        return len(piece)


def _unsupported(what: str) -> io.UnsupportedOperation:
    return io.UnsupportedOperation(
        f"a snapshot is a stream and cannot {what}: copy it into a temporary file, or an io.BytesIO, and use that"
    )
