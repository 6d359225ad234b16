"""Snapshots as files: what users are given to read and to write, and what they hear if they misuse it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import pickle
import shutil
import subprocess
import sys
import threading
import zipfile

import graft
import pytest
from graft import _files
from graft._context import machine_thread
from graft._host import Host
from machines import Bank, Lines

MIB = 1 << 20


class Engine:
    """The engine's side of a snapshot, with what was asked of it."""

    def __init__(self, data: bytes = b"", most: int = 1 << 30, full_after: int | None = None) -> None:
        self.data = bytearray(data)
        self.most = most
        self.full_after = full_after
        self.calls: list[int] = []
        self._place = 0

    def read(self, size: int) -> bytes:
        self.calls.append(size)
        found = bytes(self.data[self._place : self._place + min(size, self.most, MIB)])
        self._place += len(found)
        return found

    def write(self, data: bytes) -> None:
        assert type(data) is bytes
        assert len(data) <= MIB
        self.calls.append(len(data))
        if self.full_after is not None and len(self.data) + len(data) > self.full_after:
            raise OSError(28, "No space left on device")
        self.data += data


DATA = bytes(range(256)) * 10_000


def test_everything_that_a_file_can_do_when_it_is_read():
    assert _files.reading(Engine(DATA)).read() == DATA
    assert _files.reading(Engine(DATA, most=7)).read() == DATA
    file = _files.reading(Engine(b"one\ntwo\nthree"))
    assert file.readline() == b"one\n"
    into = bytearray(2)
    assert file.readinto(into) == 2  # type: ignore[attr-defined]
    assert (bytes(into), list(file), file.read()) == (b"tw", [b"o\n", b"three"], b"")
    assert pickle.load(_files.reading(Engine(pickle.dumps({"a": 1})))) == {"a": 1}
    to = io.BytesIO()
    shutil.copyfileobj(_files.reading(Engine(DATA)), to)
    assert to.getvalue() == DATA


def test_reading_asks_for_a_buffer_at_a_time():
    engine = Engine(bytes(3 * MIB))
    file = _files.reading(engine)
    while file.read(1000):
        pass
    another = Engine(bytes(3 * MIB))
    assert len(_files.reading(another).read()) == 3 * MIB
    assert len(another.calls) <= 5
    assert max(engine.calls) <= MIB
    assert len(engine.calls) <= 5


@pytest.mark.parametrize("make", [lambda: _files.reading(Engine(DATA)), lambda: _files.writing(Engine())])
@pytest.mark.parametrize(
    "misuse",
    [
        lambda file: file.seek(0), lambda file: file.tell(), lambda file: file.truncate(0), lambda file: file.fileno(),
        lambda file: subprocess.run([sys.executable, "-c", ""], stdin=file, check=True),
    ],
)  # fmt: skip
def test_what_a_stream_cannot_do_is_said_in_words(make, misuse):
    file = make()
    assert not file.seekable()
    with pytest.raises(
        io.UnsupportedOperation, match=r"a snapshot is a stream and cannot .*copy it into a temporary file"
    ):
        misuse(file)


def test_a_zip_file_says_why_it_cannot_be_read():
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("a", b"b")
    with pytest.raises(zipfile.BadZipFile) as caught:
        zipfile.ZipFile(_files.reading(Engine(archive.getvalue())))
    assert "cannot seek in it: copy it into a temporary file" in str(caught.value.__context__)


def test_a_zip_file_can_be_written():
    engine = Engine()
    file = _files.writing(engine)
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("a", b"b")
    file.finish()
    assert zipfile.ZipFile(io.BytesIO(engine.data)).read("a") == b"b"


def write(machine, engine):
    host = Host(machine)
    host.write_snapshot(host.snapshot(), engine)


def made(returned) -> graft.StateMachine:
    class Made(Lines):
        def snapshot(self):
            return returned

    return Made()


@pytest.mark.parametrize("size", [0, 1, MIB, 2 * MIB + 1])
def test_bytes_are_written_in_slices(size):
    engine = Engine()
    write(made(bytes(size)), engine)
    assert (len(engine.data), max(engine.calls, default=0) <= MIB) == (size, True)


@pytest.mark.parametrize(
    "function",
    [
        lambda file: file.write(DATA),
        lambda file: [file.write(DATA[n : n + 1000]) for n in range(0, len(DATA), 1000)],
        lambda file: shutil.copyfileobj(io.BytesIO(DATA), file),
        lambda file: file.writelines([DATA[:10], DATA[10:]]),
        lambda file: (file.write(memoryview(DATA)), file.flush(), file.close()),
    ],
)
def test_a_function_writes_however_it_likes(function):
    engine = Engine()
    write(made(function), engine)
    assert engine.data == DATA


def boom(file):
    file.write(b"half")
    raise LookupError("no such table")


async def coroutine(file):
    file.write(b"x")


def generator(file):
    file.write(b"x")
    yield


@pytest.mark.parametrize(
    ("returned", "kind", "words"),
    [
        (boom, RuntimeError, r"the function that Made\.snapshot\(\) returned raised LookupError: no such table"),
        (lambda _: sys.exit(3), RuntimeError, "raised SystemExit: 3"),
        (lambda _: b"state", TypeError, "returned a bytes; it must write to the file that it is given"),
        (lambda _: (n for n in [1]), TypeError, "returned a generator; it must write"),
        (lambda file: coroutine(file), TypeError, "is asynchronous"),
        (coroutine, TypeError, r"Made\.snapshot\(\) returned a coroutine function; return bytes, or a plain function"),
        (generator, TypeError, "return bytes, or a plain function"),
        ({"a": 1}, TypeError, r"Made\.snapshot\(\) returned a dict; return bytes, or a plain function"),
        (None, TypeError, "returned a NoneType"),
    ],
)
def test_garbage_is_told_in_words_and_nothing_of_it_is_kept(returned, kind, words):
    engine = Engine()
    with pytest.raises(kind, match=words):
        write(made(returned), engine)
    assert engine.data == b""


def test_a_snapshot_that_raises():
    class Broken(Lines):
        def snapshot(self):
            raise LookupError("not today")

    with pytest.raises(RuntimeError, match=r"Broken\.snapshot\(\) raised LookupError: not today"):
        write(Broken(), Engine())


@pytest.mark.parametrize("full_after", [0, MIB])
def test_a_full_disk_is_the_disks_word_not_the_functions(full_after):
    with pytest.raises(OSError, match="No space left") as caught:
        write(made(lambda file: file.write(bytes(5 * MIB))), Engine(full_after=full_after))
    assert caught.value.errno == 28


def test_a_full_disk_cannot_be_overlooked():
    def careless(file):
        with contextlib.suppress(OSError):
            file.write(bytes(5 * MIB))

    with pytest.raises(OSError, match="No space left"):
        write(made(careless), Engine(full_after=MIB))


def test_the_file_ends_with_the_function():
    kept = []
    write(made(kept.append), Engine())
    with pytest.raises(ValueError, match="closed"):
        kept[0].write(b"late")


def test_a_snapshot_function_has_neither_context_nor_node(tmp_path):
    class Curious(Bank):
        def snapshot(self):
            return self.write

        def write(self, file):
            for call in (
                lambda: self.context,
                lambda: node.execute(Bank.deposit, "ann", 1),
                lambda: self.deposit("ann", 1),
                node.stop,
            ):
                with pytest.raises(RuntimeError) as caught:
                    call()
                file.write(str(caught.value).encode() + b"\n")

        def restore(self, file): ...

    machine = Curious()
    with graft.Node(machine, id="n1", address="127.0.0.1:0", data_dir=tmp_path / "n1") as node:
        engine = Engine()
        host = Host(machine)
        thread = threading.Thread(target=lambda: host.write_snapshot(machine.write, engine))
        thread.start()
        thread.join()
    words = engine.data.decode().splitlines()
    assert "only while a command is applied" in words[0]
    assert "execute() was called from within a state machine" in words[1]
    assert "one replica only: call node.execute" in words[2]
    assert "stop() was called from within a state machine" in words[3]


def test_restoring_reads_a_file_of_python():
    engine = Engine()
    lines = Lines()
    lines.lines = [b"a" * MIB, b"b"]
    write(lines, engine)
    other = Lines()
    Host(other).restore(Engine(bytes(engine.data), most=999))
    assert other.lines == lines.lines


def test_a_restore_that_fails_says_whose_it_was_and_where():
    with pytest.raises(RuntimeError) as caught:
        Host(Lines()).restore(Engine(b"\xc1"))
    words = str(caught.value)
    assert "Lines.restore(), which is to make the state of a snapshot, raised DecodeError" in words
    assert "machines.py" in words, "with the traceback"


def test_the_default_digest_reads_what_a_snapshot_writes():
    one, two = made(lambda file: file.write(b"state")), made(b"state")
    assert Host(one).digest() == Host(two).digest() != Host(made(b"other")).digest()


def test_a_machine_may_call_its_own_commands_while_it_restores():
    class Replaying(Bank):
        def restore(self, file):
            for line in file:
                self.deposit(line.decode().strip(), 1)

        def snapshot(self):
            return b"".join(who.encode() + b"\n" for who in self.accounts)

    bank = Replaying()
    Host(bank).restore(Engine(b"ann\nbob\n"))
    assert bank.accounts == {"ann": 1, "bob": 1}
    with machine_thread():
        assert bank.deposit("ann", 1) == 2


def test_a_function_that_is_asynchronous_leaves_no_coroutine_behind():
    with pytest.raises(TypeError, match="asynchronous"):
        write(made(lambda _: asyncio.sleep(0)), Engine())  # a coroutine that is never awaited would warn
