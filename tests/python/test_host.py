"""What becomes of what a command does: an answer, or a halt."""

from __future__ import annotations

import io

import graft
import msgspec
import pytest
from graft import _context
from graft._host import Host
from graft._plan import COMMAND, QUERY, Catalog
from machines import Bank, Everything, Lines, columns

TIME = 1_700_000_000_000_000_000


def entry(machine, index, what, *args):
    return index, 1, TIME + index, Catalog(type(machine)).plan(COMMAND, what, args, {}).body


def apply(machine, *calls):
    host = Host(machine)
    return host.apply(*columns([entry(machine, n, *call) for n, call in enumerate(calls, 1)]))


def ask(machine, what, *args):
    return Host(machine).query([Catalog(type(machine)).plan(QUERY, what, args, {}).body])[0]


def test_commands_run_in_order_and_answer():
    bank = Bank()
    replies, halt, _ = apply(bank, (Bank.deposit, "ann", 5), (Bank.deposit, "ann", 2), (Bank.transfer, "ann", "bob", 3))
    assert halt is None
    assert [msgspec.msgpack.decode(reply) for reply in replies] == [5, 7, True]
    assert bank.accounts == {"ann": 4, "bob": 3}


def test_an_exception_is_an_answer_and_the_next_command_runs():
    bank = Bank()
    replies, halt, _ = apply(bank, (Bank.deposit, "ann", -1), (Bank.deposit, "ann", 1))
    assert halt is None
    type_name, message, trace = replies[0]
    assert (type_name, message) == ("ValueError", "amount must be positive")
    assert 'raise ValueError("amount must be positive")' in trace
    assert "_host.py" not in trace
    assert replies[1] == msgspec.msgpack.encode(1)


@pytest.mark.parametrize("what", ["OSError", "MemoryError", "SystemExit", "Halt"])
def test_trouble_of_this_replica_halts_it(what):
    machine = Everything()
    replies, halt, _ = apply(machine, ("echo", 1), ("raise_this", what), ("raise_this", "ValueError"))
    assert replies == [msgspec.msgpack.encode(1)]
    assert f"Everything.raise_this() at index 2 raised {what}: told so" in halt
    assert "Traceback" in halt
    assert machine.calls == 1, "nothing runs after the entry that halts"


def test_an_error_of_the_system_that_a_command_has_made_comes_with_advice():
    advice = "If the command means to say no, it raises ValueError"
    assert advice in apply(Everything(), ("raise_this", "OSError"))[1]

    class Full(graft.StateMachine):
        @graft.command
        def write(self) -> None:
            raise OSError(28, "No space left on device")

    halt = apply(Full(), (Full.write,))[1]
    assert "No space left on device" in halt
    assert advice not in halt


@pytest.mark.parametrize("what", ["ValueError", "KeyError", "RecursionError"])
def test_other_exceptions_do_not(what):
    replies, halt, _ = apply(Everything(), ("raise_this", what), ("echo", 1))
    assert halt is None
    assert replies[0][0] == what


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
def test_an_exception_that_cannot_be_shown_is_an_answer_all_the_same(kind):
    class Broken(Exception):
        def __str__(self) -> str:
            raise kind("not even this")

    class Machine(graft.StateMachine):
        @graft.command
        def go(self) -> None:
            raise Broken

    replies, halt, _ = apply(Machine(), (Machine.go,))
    assert halt is None
    assert replies[0][:2] == ("Broken", f"(its __str__ raised {kind.__name__})")


def test_a_class_that_was_defined_again_is_told_so():
    def define() -> type[graft.StateMachine]:
        class Again(graft.StateMachine):
            @graft.command
            def go(self) -> None: ...

        return Again

    old, new = define(), define()
    with pytest.raises(TypeError, match="defined again since: make a new node from the new class"):
        Catalog(old).plan(COMMAND, new.go, (), {})
    with pytest.raises(TypeError, match=r"not of this node's machine, Again$"):
        Catalog(old).plan(COMMAND, Bank.deposit, (), {})


def test_an_option_among_the_arguments_is_told_apart():
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'timeout'.*node\.options\(timeout=\.\.\.\)"):
        Catalog(Bank).plan(COMMAND, Bank.deposit, ("ann", 1), {"timeout": 3})
    with pytest.raises(TypeError) as caught:
        Catalog(Bank).plan(COMMAND, Bank.deposit, ("ann", 1), {"who_else": 3})
    assert "options" not in str(caught.value)


def test_a_command_that_this_code_does_not_know_halts():
    bank = Bank()
    replies, halt, _ = Host(bank).apply(*columns([(9, 1, TIME, msgspec.msgpack.encode(["withdraw", {}]))]))
    assert replies == []
    assert "the command 'withdraw' at index 9, which this code of Bank does not know" in halt


@pytest.mark.parametrize(
    "arguments", [{"who": "ann"}, {"who": "ann", "amount": "5"}, {"who": "a", "amount": 1, "x": 1}, []]
)
def test_arguments_that_this_code_does_not_take_halt(arguments):
    bank = Bank()
    _, halt, _ = Host(bank).apply(*columns([(9, 1, TIME, msgspec.msgpack.encode(["deposit", arguments]))]))
    assert "does not take" in halt
    assert bank.accounts == {}


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"hello", msgspec.msgpack.encode(["deposit"]), msgspec.msgpack.encode([1, {}])]
)
def test_a_body_that_is_no_call_halts(body):
    _, halt, _ = Host(Bank()).apply(*columns([(9, 1, TIME, body)]))
    assert "at index 9 that is no command of a typed machine" in halt


def test_a_result_that_cannot_be_encoded_is_an_answer_for_the_command_has_run():
    machine = Everything()
    replies, halt, _ = apply(machine, ("unencodable",), ("unencodable",))
    assert halt is None
    assert [reply[0] for reply in replies] == ["EncodeError", "EncodeError"]
    assert "Everything.unencodable() ran, but its result, a object, cannot be returned" in replies[0][1]
    assert machine.calls == 2


@pytest.mark.parametrize("value", [1 << 70, {1: object()}, "\ud800"])
def test_no_result_is_a_surprise(value):
    class Odd(graft.StateMachine):
        @graft.command
        def go(self):
            return value

    replies, halt, _ = apply(Odd(), ("go",))
    assert halt is None
    assert replies[0][0] == "EncodeError"


def test_a_result_that_contains_itself():
    class Odd(graft.StateMachine):
        @graft.command
        def go(self):
            result = []
            result.append(result)
            return result

    assert apply(Odd(), ("go",))[0][0][0] == "EncodeError"


def test_an_exception_whose_str_raises_is_still_an_answer():
    class Nasty(Exception):
        def __str__(self):
            raise RuntimeError("ha")

    class Odd(graft.StateMachine):
        @graft.command
        def go(self):
            raise Nasty

    replies, halt, _ = apply(Odd(), ("go",), ("go",))
    assert halt is None
    assert replies[0][:2] == ("Nasty", "(its __str__ raised RuntimeError)")


def test_long_and_unencodable_words_are_bounded():
    class Odd(graft.StateMachine):
        @graft.command
        def go(self):
            raise ValueError("\ud800" + "x" * 10**6)

    _, message, trace = apply(Odd(), ("go",))[0][0]
    assert len(message) <= 4096
    assert len(trace) <= 16384
    message.encode()
    trace.encode()


def test_the_context_is_the_entrys_and_ends_with_it():
    machine = Everything()
    first, *_ = apply(machine, ("lucky",), ("lucky",))
    again, *_ = apply(Everything(), ("lucky",), ("lucky",))
    assert first == again
    assert first[0] != first[1]
    assert msgspec.msgpack.decode(first[1])[:3] == [2, 1, (TIME + 2) / 1e9]
    with pytest.raises(RuntimeError):
        _ = machine.context


@pytest.mark.parametrize("what", ["ValueError", "OSError"])
def test_the_context_ends_when_a_command_raises(what):
    apply(Everything(), ("raise_this", what))
    assert _context.here.running.context is None
    assert not _context.here.in_machine


def test_a_query_sees_no_context():
    kind, message, _ = ask(Everything(), "peek")
    assert kind == "RuntimeError"
    assert "only while a command is applied" in message


def test_whatever_a_query_raises_is_its_answer():
    assert ask(Everything(), "gone")[:2] == ("SystemExit", "no")
    assert Host(Bank()).query([msgspec.msgpack.encode(["nope", {}])])[0][:2] == (
        "LookupError",
        "Bank has no query 'nope'",
    )
    assert Host(Bank()).query([b"\xc1"])[0][0] == "DecodeError"
    assert Host(Bank()).query([msgspec.msgpack.encode(["deposit", {"who": "a", "amount": 1}])])[0][0] == "LookupError"


def test_queries_answer_one_by_one():
    replies = Host(Everything()).query([msgspec.msgpack.encode([name, {}]) for name in ("count", "gone", "count")])
    assert [reply if isinstance(reply, bytes) else reply[0] for reply in replies] == [b"\x00", "SystemExit", b"\x00"]


def test_a_raw_machine():
    machine = Lines()
    host = Host(machine)
    replies, halt, _ = host.apply(*columns([(1, 1, TIME, b"a"), (2, 1, TIME, b"boom"), (3, 1, TIME, b"b")]))
    assert halt is None
    assert (replies[0], replies[1][:2], replies[2]) == (b"\x01", ("ValueError", "boom it is"), b"\x02")
    assert host.query([b"0", b"9"])[0] == msgspec.msgpack.encode(b"a")
    assert host.query([b"9"])[0][0] == "IndexError"


def test_a_raw_machine_without_queries():
    class Mute(graft.StateMachine):
        def apply(self, command: bytes) -> None: ...

    assert Host(Mute()).query([b"x"])[0][:2] == (
        "TypeError",
        "Mute answers no queries: it does not define query(self, query: bytes)",
    )


def test_own_snapshot_and_restore():
    machine, other = Lines(), Lines()
    Host(machine).apply(*columns([(1, 1, TIME, b"a"), (2, 1, TIME, b"b")]))
    snapshot = Host(machine).snapshot()
    Host(other).restore(io.BytesIO(snapshot))
    assert other.lines == [b"a", b"b"]
    assert Host(other).digest() == Host(machine).digest()
    Host(other).apply(*columns([(3, 1, TIME, b"c")]))
    assert Host(other).digest() != Host(machine).digest()


class Streaming(Lines):
    def snapshot(self):
        frozen = list(self.lines)
        return lambda file: file.write(msgspec.msgpack.encode(frozen)) and None

    def digest(self) -> bytes:
        return b"d%d" % len(self.lines)


def test_a_snapshot_that_writes_itself_later():
    machine = Streaming()
    host = Host(machine)
    host.apply(*columns([(1, 1, TIME, b"a")]))
    write = host.snapshot()
    host.apply(*columns([(2, 1, TIME, b"b")]))
    file = io.BytesIO()
    write(file)
    assert msgspec.msgpack.decode(file.getvalue()) == [b"a"]
    assert host.digest() == b"d2"


@pytest.mark.parametrize(
    ("made", "good"), [(bytearray(b"x"), True), (memoryview(b"x"), True), ("x", False), (None, False)]
)
def test_what_a_snapshot_may_be(made, good):
    class Odd(Lines):
        def snapshot(self):
            return made

    if good:
        assert Host(Odd()).snapshot() == b"x"
    else:
        with pytest.raises(TypeError, match=r"Odd.snapshot\(\) returned a"):
            Host(Odd()).snapshot()


@pytest.mark.parametrize("made", ["x", b"", None])
def test_what_a_digest_may_not_be(made):
    class Odd(Lines):
        def digest(self):
            return made

    with pytest.raises(TypeError, match=r"Odd.digest\(\) returned"):
        Host(Odd()).digest()


@pytest.mark.parametrize("index", [None, -1, True, "3", 1.0])
def test_what_open_may_not_return(index):
    class Odd(Lines):
        def open(self, directory: str):
            return index

    with pytest.raises(TypeError, match=r"Odd.open\(\) returned"):
        Host(Odd()).open("/nowhere")


def test_open_is_asked_only_if_it_is_there():
    class Durable(Lines):
        def open(self, directory: str) -> int:
            self.directory = directory
            return 12

    machine = Durable()
    assert Host(machine).open("/somewhere") == 12
    assert machine.directory == "/somewhere"
    assert Host(Bank()).open("/somewhere") == 0
