"""What the class of a machine may look like, and what is refused while it is being defined."""

from __future__ import annotations

import inspect

import graft
import pytest
from graft._host import Host
from graft._machine import operations
from machines import Bank, Lines, SavingsBank


def test_on_an_instance_a_command_is_a_plain_method():
    bank = Bank()
    assert bank.deposit("ann", 5) == 5
    assert bank.transfer("ann", "bob", amount=2) is True
    assert bank.accounts == {"ann": 3, "bob": 2}
    with pytest.raises(ValueError, match="positive"):
        bank.deposit("ann", 0)


def test_on_the_class_it_names_itself():
    assert isinstance(Bank.deposit, graft.Command)
    assert isinstance(Bank.balance, graft.Query)
    assert repr(Bank.deposit) == "<graft.command Bank.deposit>"
    assert (Bank.deposit.name, Bank.deposit.since, Bank.transfer.since) == ("deposit", 1, 2)
    assert list(inspect.signature(Bank.deposit.function).parameters) == ["self", "who", "amount"]


@pytest.mark.parametrize(("operation", "verb"), [(Bank.deposit, "execute"), (Bank.balance, "query")])
def test_on_the_class_it_is_not_called(operation, verb):
    title = f"Bank.{operation.attribute}"
    with pytest.raises(TypeError, match=rf"pass it to node\.{verb}\({title}, \.\.\.\), do not call it"):
        operation(Bank(), "ann")


def test_a_subclass_has_the_commands_of_its_base():
    assert set(operations(SavingsBank)) == {"deposit", "transfer", "balance", "total", "interest"}
    assert SavingsBank.deposit is Bank.deposit


def test_no_super_init_is_needed():
    assert Host(Bank()).machine.accounts == {}


def test_a_renamed_command_keeps_its_name_in_the_log():
    class Renamed(graft.StateMachine):
        @graft.command(name="deposit")
        def pay_in(self, who: str) -> None: ...

    assert list(operations(Renamed)) == ["deposit"]


def test_async_commands_are_refused():
    with pytest.raises(TypeError, match=r"async def.*cannot await"):

        class Bad(graft.StateMachine):
            @graft.command
            async def deposit(self) -> None: ...


def test_generators_are_refused():
    with pytest.raises(TypeError, match="contains `yield`"):

        class Bad(graft.StateMachine):
            @graft.query
            def rows(self):
                yield 1


def _selfless() -> None: ...


def _keywords(*, x: int) -> None: ...


def _of_a_number(x: int) -> None: ...


def _of_numbers(x: list[int], y: str) -> None: ...


@pytest.mark.parametrize("mark", [graft.command, graft.query, graft.command(name="f")])
@pytest.mark.parametrize(
    ("method", "words"),
    [
        (_selfless, r"_selfless\(\) takes no machine: begin its parameters with `self`"),
        (_keywords, r"_keywords\(\) takes no machine"),
        (_of_a_number, r"first parameter of _of_a_number\(\) is the machine, and 'x' is annotated as int"),
        (_of_numbers, r"'x' is annotated as list\[int\]: begin"),
    ],
)
def test_a_method_without_self_is_refused(mark, method, words):
    with pytest.raises(TypeError, match=words):
        mark(method)


def test_self_may_have_another_name_and_a_type():
    class Fine(graft.StateMachine):
        @graft.command
        def a(this: Fine) -> None: ...

        @graft.query
        def b(*args: int) -> None: ...

    assert set(vars(Fine)) >= {"a", "b"}


def test_async_apply_is_refused():
    with pytest.raises(TypeError, match="apply is `async def`"):

        class Bad(graft.StateMachine):
            async def apply(self, command: bytes) -> None: ...


@pytest.mark.parametrize("hook", ["apply", "query"])
def test_raw_and_typed_do_not_mix(hook):
    body = {hook: lambda self, data: None, "go": graft.command(_go)}
    with pytest.raises(TypeError, match=rf"defines {hook}\(\), as a raw machine.*_go|go\(\)"):
        type("Bad", (graft.StateMachine,), body)


def _go(self) -> None: ...


def test_mixing_by_inheritance_is_refused_too():
    with pytest.raises(TypeError, match="as a raw machine does"):

        class Bad(Bank):
            def apply(self, command: bytes) -> None: ...


@pytest.mark.parametrize(
    "name", ["apply", "query", "snapshot", "restore", "digest", "open", "context", "version", "migrate"]
)
def test_names_the_machine_itself_uses_are_refused(name):
    with pytest.raises(TypeError, match="has its own use for this name"):
        type("Bad", (graft.StateMachine,), {name: graft.command(_go)})


def test_overriding_a_command_without_a_mark_is_refused():
    with pytest.raises(TypeError, match=r"Bad.deposit overrides a command and is none: mark it with @graft.command"):

        class Bad(Bank):
            def deposit(self, who: str, amount: int) -> int:  # type: ignore[override]
                return 0


def test_a_query_cannot_become_a_command():
    with pytest.raises(TypeError, match="overrides a query"):

        class Bad(Bank):
            @graft.command
            def balance(self, who: str) -> int:  # type: ignore[override]
                return 0


def test_two_commands_of_one_name_are_refused():
    with pytest.raises(TypeError, match="share the name 'a'"):

        class Bad(graft.StateMachine):
            @graft.command
            def a(self) -> None: ...

            @graft.command(name="a")
            def b(self) -> None: ...


@pytest.mark.parametrize("since", [0, -1, True, "2", 1.5])
def test_since_is_a_version(since):
    with pytest.raises(TypeError, match="since="):
        graft.command(since=since)


@pytest.mark.parametrize("name", ["", 7, b"x"])
def test_name_is_text(name):
    with pytest.raises(TypeError, match="name="):
        graft.command(name=name)


def test_the_mark_goes_on_a_method():
    with pytest.raises(TypeError, match="goes directly on a method"):
        graft.command(staticmethod(_go))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (Bank, r"pass an instance, Bank\(\), not the class"),
        (object(), "must be an instance of a subclass of graft.StateMachine"),
        (None, "must be an instance"),
        (graft.StateMachine(), "has no command"),
    ],
)
def test_what_is_no_machine(machine, words):
    with pytest.raises(TypeError, match=words):
        Host(machine)


def test_only_queries_are_no_machine():
    class Bad(graft.StateMachine):
        @graft.query
        def a(self) -> None: ...

    with pytest.raises(TypeError, match="Bad has no command"):
        Host(Bad())


def test_snapshot_without_restore_is_refused():
    class Bad(Bank):
        def snapshot(self) -> bytes:
            return b""

    with pytest.raises(TypeError, match=r"snapshot\(\) but not restore"):
        Host(Bad())


def test_state_on_disk_needs_its_own_snapshot():
    class Bad(Bank):
        def open(self, directory: str) -> int:
            return 0

    with pytest.raises(TypeError, match="its state lies on disk"):
        Host(Bad())


def test_a_hook_that_is_no_method_is_refused():
    class Bad(Bank):
        digest = b"no"

    with pytest.raises(TypeError, match="digest must be a method"):
        Host(Bad())


def test_annotations_may_name_what_is_local():
    from dataclasses import dataclass

    @dataclass
    class Local:
        x: int

    class Machine(graft.StateMachine):
        @graft.command
        def go(self, local: Local) -> Local:
            return local

    shape = Machine.go.shape
    from graft._codec import split_call

    args, _ = shape.decode(split_call(shape.encode((Local(3),), {}))[1])
    assert args == (Local(3),)


def test_an_annotation_that_cannot_be_found_is_refused_when_the_node_is_made():
    class Bad(graft.StateMachine):
        @graft.command
        def go(self, x: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(TypeError, match=r"Bad.go\(\): the annotation name 'Nowhere' cannot be found"):
        Host(Bad())


def test_an_annotation_that_cannot_be_replicated_is_refused_when_the_node_is_made():
    class Bad(graft.StateMachine):
        @graft.command
        def go(self, x: dict[str, int] | Bank | str) -> None: ...

    with pytest.raises(TypeError, match=r"Bad.go\(\): argument 'x' cannot be replicated"):
        Host(Bad())


def test_a_raw_machine_may_inherit():
    class More(Lines):
        pass

    assert Host(More()).raw
