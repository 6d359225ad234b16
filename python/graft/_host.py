"""Between the engine's machine thread and the user's state machine: who is called, and what its exceptions mean.

An `Exception` that a command raises is its answer, the same on every replica. Trouble of this replica alone - an
`OSError`, a `MemoryError`, `graft.Halt`, anything that is not an `Exception`, a command that this code does not know -
halts it: to go on past such an entry would be to differ from the others for ever.
"""

from __future__ import annotations

import inspect
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from graft import _codec, _files, _state
from graft._context import Context, here, machine_thread, snapshot_thread
from graft._errors import Halt
from graft._machine import Command, Operation, Query, StateMachine, callable_operations, is_raw, refuse_unsuited
from graft._plan import QUERY

if TYPE_CHECKING:
    from collections.abc import Callable

    from graft._engine import Reply
    from graft._files import Sink, Source

Told = tuple[int, str, bytes]
"""The place in its batch of a command that emitted something, the topic, and the encoded value."""

_NONE = _codec.encode_result(None)
_MESSAGE_CHARS_MAX = 4_096
_TRACEBACK_CHARS_MAX = 16_384
_NAME_CHARS_MAX = 100
_HALTING = (OSError, MemoryError, Halt)
# What to do about an OSError that no call of the system has raised.
_OF_CODE = (
    "a {kind} is trouble of one machine, and halts its replica. If the command means to say no, it raises ValueError "
    "or an exception of your own; change that on every member, then start them again"
)


class _Halting(BaseException):
    # Carries the words of a halt out of a command; not an Exception, so that nothing takes it for an answer.
    pass


class Host:
    """Runs one state machine. Its methods are called by the engine, one at a time, except what `snapshot` returns."""

    def __init__(self, machine: StateMachine) -> None:
        """Raises `TypeError` if the machine cannot be replicated, and says why."""
        if not isinstance(machine, StateMachine):
            raise TypeError(_not_a_machine(machine))
        self.machine: Any = machine
        self.raw = is_raw(type(machine))
        self.operations = callable_operations(type(machine))
        self._name = type(machine).__name__
        self._check_hooks()
        self._commands = {name: op for name, op in self.operations.items() if isinstance(op, Command)}
        self._queries = {name: op for name, op in self.operations.items() if isinstance(op, Query)}

    def prepare(self) -> None:
        """Tries, before the node starts, whether the state can be kept. Raises `TypeError` if not."""
        if self._default_snapshot:
            with machine_thread():
                _state.prepare(self.machine)

    # What the engine calls.

    def open(self, directory: str) -> int:
        """The index of the last command that the machine has on its own disk, 0 if it keeps nothing there."""
        if not self._opens:
            return 0
        Path(directory).mkdir(mode=0o700, parents=True, exist_ok=True)
        with machine_thread():
            index = self.machine.open(directory)
        if type(index) is not int or index < 0:
            raise TypeError(f"{self._name}.open() returned {index!r}; it must be the index it has applied, 0 or more")
        return index

    def apply(
        self, indices: list[int], terms: list[int], times_ns: list[int], bodies: list[bytes]
    ) -> tuple[list[Reply], str | None, list[Told]]:
        """Applies commands in order, of which each list has one thing. The answers; why this replica halts, if it does:
        the answers are then those of the commands before; and what these have emitted, in order."""
        # A tuple for each command would have the interpreter look for garbage amid every large batch.
        replies: list[Reply] = []
        told: list[Told] = []
        run = self._run_raw if self.raw else self._run_typed
        running = here.running
        with machine_thread():
            try:
                for index, term, time_ns, body in zip(indices, terms, times_ns, bodies, strict=True):
                    running.context = context = Context(index, term, time_ns)
                    reply = run(body, index)
                    if emitted := context.close():
                        place = len(replies)
                        told += [(place, topic, value) for topic, value in emitted]
                    replies.append(reply)
            except _Halting as halting:
                if running.context is not None:
                    running.context.close()
                return replies, str(halting), told
            finally:
                running.context = None
        return replies, None, told

    def query(self, batch: list[bytes]) -> list[Reply]:
        """Answers queries; whatever one raises is its answer."""
        with machine_thread():
            return [self._answer(body) for body in batch]

    @property
    def checks(self) -> bool:
        """Whether `check` has anything to say: a raw machine takes any bytes."""
        return not self.raw or not self._answers

    def check(self, kind: int, bodies: list[bytes]) -> list[str | None]:
        """For each call of a client in another program why no replica could make anything of it; None if it will do.
        On a thread of its own, beside the machine's: it looks at no state."""
        if self.raw:
            return [self._no_queries() if kind == QUERY and not self._answers else None] * len(bodies)
        known: dict[str, Operation[Any, ..., Any]] = {**(self._queries if kind == QUERY else self._commands)}
        return [self._trouble(body, known) for body in bodies]

    def snapshot(self) -> bytes | Callable[[BinaryIO], None]:
        """The state, or a function that writes it. Raises in words for the user what the machine raised."""
        try:
            with machine_thread():
                made: Any = self.machine.snapshot()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it must not end the machine's thread
            raise self._failed(f"{self._name}.snapshot()", error) from None
        if isinstance(made, (bytearray, memoryview)):
            return bytes(made)
        if isinstance(made, bytes):
            return made
        if inspect.iscoroutinefunction(made) or inspect.isgeneratorfunction(made) or not callable(made):
            raise TypeError(
                f"{self._name}.snapshot() returned a {_kind(made)}; return bytes, or a plain function write(file)"
            )
        return made  # type: ignore[no-any-return]

    def write_snapshot(self, made: bytes | Callable[[BinaryIO], object], sink: Sink) -> None:
        """Puts down what `snapshot` returned, on any thread but the machine's. Raises in words for the user what the
        function raised; what the sink raises passes through."""
        if isinstance(made, bytes):
            for begin in range(0, len(made), _files.BUFFER_BYTES):
                sink.write(made[begin : begin + _files.BUFFER_BYTES])
            return
        file = _files.writing(sink)
        try:
            with snapshot_thread():
                self._write(made, file)
            file.finish()
        finally:
            file.abandon()

    def _write(self, write: Callable[[BinaryIO], object], file: _files.SnapshotWriter) -> None:
        words = f"the function that {self._name}.snapshot() returned"
        try:
            returned = write(file)
        except BaseException as error:
            if error is file.failure:
                raise
            raise self._failed(words, error) from None
        if isinstance(returned, (bytes, bytearray, memoryview)) or inspect.isgenerator(returned):
            raise TypeError(f"{words} returned a {_kind(returned)}; it must write to the file that it is given")
        if inspect.isawaitable(returned):
            if inspect.iscoroutine(returned):
                returned.close()
            raise TypeError(f"{words} is asynchronous; it runs in a thread of its own, so write it with plain `def`")

    def restore(self, source: Source) -> None:
        """Makes the state what a snapshot says."""
        with machine_thread(), _files.reading(source) as file:
            try:
                self.machine.restore(file)
            except BaseException as error:  # noqa: BLE001 - whatever it is, this replica has no state now
                raise self._failed(
                    f"{self._name}.restore(), which is to make the state of a snapshot,", error
                ) from None

    def digest(self) -> bytes:
        """A few bytes that are equal on two replicas exactly if their states are."""
        if self._digests:
            with machine_thread():
                made: Any = self.machine.digest()
            if not isinstance(made, bytes) or not made:
                raise TypeError(f"{self._name}.digest() returned {made!r:.80}; return some bytes")
            return made
        hasher = _state.Digest()
        self.write_snapshot(self.snapshot(), hasher)
        return hasher.digest()

    def _failed(self, what: str, error: BaseException) -> RuntimeError:
        # The traceback goes into the text: the engine shows nothing else.
        kind, message, trace = _raised(error)
        return RuntimeError(f"{what} raised {kind}: {message}\n{trace}")

    # Calls from outside.

    def _trouble(self, body: bytes, known: dict[str, Operation[Any, ..., Any]]) -> str | None:
        trouble = _codec.call_trouble(body)
        if trouble is not None:
            return f"this is no call of {self._name}, which is a msgpack array [name, {{parameter: value}}]: {trouble}"
        try:
            name, encoded = _codec.split_call(body)
        except msgspec.DecodeError as error:
            return f"this is no call of {self._name}, which is a msgpack array [name, {{parameter: value}}]: {error}"
        except UnicodeDecodeError:
            return f"this is no call of {self._name}: its name is not UTF-8"
        except RecursionError:
            return f"this is no call of {self._name}: it is nested too deep"
        operation = known.get(name)
        if operation is None:
            return self._unknown(name, known)
        try:
            operation.shape.decode(encoded)
        except Exception as error:  # noqa: BLE001 - it may be of the user's own types, which check themselves
            return f"{self._name}.{operation.attribute}(): {_sound(_words(error))[:_MESSAGE_CHARS_MAX]}"
        return None

    def _unknown(self, name: str, known: dict[str, Operation[Any, ..., Any]]) -> str:
        other = self.operations.get(name)
        if other is not None:
            return f"{self._name}.{other.attribute} is a {other._kind}: send it as one"
        return f"{self._name} has no {name[:_NAME_CHARS_MAX]!r}; it has {', '.join(sorted(known)) or 'none'}"

    def _no_queries(self) -> str:
        return f"{self._name} answers no queries: it does not define query(self, query: bytes)"

    # Commands.

    def _run_typed(self, body: bytes, index: int) -> Reply:
        try:
            name, encoded = _codec.split_call(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _Halting(
                f"the log holds something at index {index} that is no command of a typed machine ({error}): "
                f"it was written for another kind of machine than {self._name}"
            ) from None
        command = self._commands.get(name)
        if command is None:
            raise _Halting(
                f"the log holds the command {name!r} at index {index}, which this code of {self._name} does not "
                "know: start the node with the code that brought it"
            )
        try:
            args, kwargs = command.shape.decode(encoded)
        except msgspec.ValidationError as error:
            raise _Halting(
                f"the log holds the command {name!r} at index {index} with arguments that this code of {self._name} "
                f"does not take ({error}): start the node with the code that sent it"
            ) from None
        except Exception as error:  # noqa: BLE001 - of the user's own types, or of an interpreter that reads less deep
            kind, message, trace = _raised(error)
            raise _Halting(
                f"the log holds the command {name!r} at index {index} with arguments that could not be read here: "
                f"{kind}: {message}\n{trace}"
            ) from None
        try:
            value = command.function(self.machine, *args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - not even SystemExit may end the machine thread unseen
            return self._ended(command.attribute, index, error)
        return self._encoded(command.attribute, value)

    def _run_raw(self, body: bytes, index: int) -> Reply:
        try:
            value = self.machine.apply(body)
        except BaseException as error:  # noqa: BLE001 - as above
            return self._ended("apply", index, error)
        return self._encoded("apply", value)

    def _ended(self, title: str, index: int, error: BaseException) -> Reply:
        # What a command raises is its answer, or halts this replica.
        if isinstance(error, _HALTING) or not isinstance(error, Exception):
            raise self._halt(title, index, error) from None
        return _raised(error)

    def _halt(self, title: str, index: int, error: BaseException) -> _Halting:
        kind, message, trace = _raised(error)
        # The system's own errors have a number. One that a command has made is the same on every replica, always.
        of_code = isinstance(error, OSError) and error.errno is None
        advice = f": {_OF_CODE.format(kind=kind)}" if of_code else ""
        return _Halting(f"{self._name}.{title}() at index {index} raised {kind}: {message}{advice}\n{trace}")

    def _encoded(self, title: str, value: object) -> Reply:
        if value is None:
            return _NONE
        try:
            return _codec.encode_result(value)
        except TypeError as error:
            words = f"{self._name}.{title}() ran, but its result, a {type(value).__name__}, cannot be returned: {error}"
            return "EncodeError", words, ""

    # Queries.

    def _answer(self, body: bytes) -> Reply:
        try:
            title, value = self._ask(body)
        except BaseException as error:  # noqa: BLE001 - a query changes nothing: all it can do is answer
            return _raised(error)
        return self._encoded(title, value)

    def _ask(self, body: bytes) -> tuple[str, object]:
        if self.raw:
            if not self._answers:
                raise TypeError(self._no_queries())
            return "query", self.machine.query(body)
        name, encoded = _codec.split_call(body)
        query = self._queries.get(name)
        if query is None:
            raise LookupError(f"{self._name} has no query {name!r}")
        args, kwargs = query.shape.decode(encoded)
        return query.attribute, query.function(self.machine, *args, **kwargs)

    # What the machine defines.

    def _check_hooks(self) -> None:
        kind = type(self.machine)
        self._answers = hasattr(kind, "query")
        self._opens = hasattr(kind, "open")
        self._digests = hasattr(kind, "digest")
        self._default_snapshot = kind.snapshot is StateMachine.snapshot
        own_restore = kind.restore is not StateMachine.restore
        if not self._default_snapshot and not own_restore:
            raise TypeError(f"{self._name} defines snapshot() but not restore(file): a replica could not catch up")
        if self._opens and self._default_snapshot:
            raise TypeError(
                f"{self._name} defines open(), so its state lies on disk: define snapshot() and restore(file) too"
            )
        for hook in ("apply", "query", "snapshot", "restore", "digest", "open"):
            method = getattr(kind, hook, None)
            if method is None:
                continue
            if not callable(method):
                raise TypeError(f"{self._name}.{hook} must be a method; a state machine has its own use for this name")
            refuse_unsuited(method)


def _words(error: Exception) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - the user's own __str__
        return f"(its __str__ raised {type(broken).__name__})"


def _raised(error: BaseException) -> tuple[str, str, str]:
    try:
        message = str(error)
    except BaseException as broken:  # noqa: BLE001 - the user's own __str__, which may raise anything
        message = f"(its __str__ raised {type(broken).__name__})"
    try:
        # The frames of this module say nothing to the user.
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
            frames = frames.tb_next
        trace = "".join(traceback.format_exception(type(error), error, frames))
    except BaseException as broken:  # noqa: BLE001 - formatting calls the user's code, too
        trace = f"(the traceback cannot be shown: {type(broken).__name__})"
    return type(error).__name__, _sound(message)[:_MESSAGE_CHARS_MAX], _sound(trace)[-_TRACEBACK_CHARS_MAX:]


def _sound(text: str) -> str:
    # Lone surrogates have no UTF-8, and this text leaves Python.
    return text.encode("utf-8", "backslashreplace").decode()


def _kind(value: object) -> str:
    return "coroutine function" if inspect.iscoroutinefunction(value) else type(value).__name__


def _not_a_machine(machine: object) -> str:
    if inspect.isclass(machine) and issubclass(machine, StateMachine):
        return f"pass an instance, {machine.__name__}(), not the class: each node has a machine of its own"
    return f"the machine must be an instance of a subclass of graft.StateMachine, not {machine!r:.80}"


__all__ = ["Host", "Operation"]
