"""The door: calls that come from other programs are checked before they are replicated."""

from __future__ import annotations

import graft
import msgspec
import pytest
from graft._host import Host
from graft._plan import COMMAND, QUERY, Catalog
from machines import Bank, Everything, Lines, columns

encode = msgspec.msgpack.encode


def check(kind, *bodies, machine=Bank):
    return Host(machine()).check(kind, list(bodies))


def test_what_callers_here_send_passes():
    plan = Catalog(Bank).plan
    deposit = plan(COMMAND, Bank.deposit, ("ann", 5), {}).body
    assert check(COMMAND, deposit, plan(COMMAND, "transfer", ("a", "b"), {}).body) == [None, None]
    assert check(QUERY, plan(QUERY, Bank.balance, ("ann",), {}).body) == [None]


def test_parameters_with_defaults_may_be_left_out():
    assert check(COMMAND, encode(["transfer", {"a": "x", "b": "y"}])) == [None]


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        (COMMAND, encode(["deposti", {}]), "Bank has no 'deposti'; it has deposit, transfer"),
        (COMMAND, encode(["x" * 10_000, {}]), f"Bank has no '{'x' * 100}'; it has"),
        (COMMAND, encode(["balance", {"who": "ann"}]), "Bank.balance is a query: send it as one"),
        (QUERY, encode(["deposit", {"who": "ann", "amount": 1}]), "Bank.deposit is a command: send it as one"),
        (QUERY, encode(["nothing", {}]), "Bank has no 'nothing'; it has balance, total"),
        (COMMAND, encode(["deposit", {"who": "ann"}]), "missing required field `amount`"),
        (COMMAND, encode(["deposit", {"who": 7, "amount": 1}]), "Expected `str`, got `int` - at `$.who`"),
        (COMMAND, encode(["deposit", {"who": "ann", "amount": 1, "more": 1}]), "unknown field `more`"),
        (COMMAND, encode(["deposit", ["ann", 1]]), "Bank.deposit(): "),
        (COMMAND, encode(["deposit"]), "this is no call of Bank"),
        (COMMAND, encode([7, {}]), "this is no call of Bank"),
        (COMMAND, b"", "this is no call of Bank"),
        (COMMAND, b"\xc1garbage", "this is no call of Bank"),
        (COMMAND, b"\x92\xa2\xff\xfe\x80", "this is no call of Bank"),
        (COMMAND, encode(["deposit", {"who": "ann", "amount": 1}])[:-1], "Bank"),
        (COMMAND, encode(["deposit", {"who": "ann", "amount": 1}]) + b"\x01", "Bank"),
    ],
)
def test_what_no_replica_could_make_anything_of_is_told(kind, body, words):
    (trouble,) = check(kind, body)
    assert trouble is not None
    assert words in trouble
    assert len(trouble) < 5_000


def test_whatever_passes_is_no_halt():
    # The other way round: of these bytes none halts a replica that the door lets through.
    bodies = [encode(["deposit", {"who": "ann", "amount": 1}])[:cut] for cut in range(1, 40)]
    bodies += [encode([name, {}]) for name in ("deposit", "balance", "", "__init__")]
    host = Host(Bank())
    for body, trouble in zip(bodies, host.check(COMMAND, bodies), strict=True):
        _, halt, _ = host.apply(*columns([(1, 1, 1, body)]))
        assert (halt is None) == (trouble is None), body


def test_one_bad_call_does_not_harm_the_others():
    good = encode(["deposit", {"who": "ann", "amount": 1}])
    first, second, third = check(COMMAND, good, b"bad", good)
    assert (first, third) == (None, None)
    assert second is not None


def test_types_that_check_themselves_have_their_say():
    body = Catalog(Everything).plan(COMMAND, Everything.echo, (1,), {}).body
    assert check(COMMAND, body, machine=Everything) == [None]
    rich = {"point": {"x": 1}, "money": {"amount": "-1"}, "order": {"id": 1}, "colour": "red", "ids": []}
    (trouble,) = check(COMMAND, encode(["rich", rich]), machine=Everything)
    assert "no debts" in trouble


def test_a_raw_machine_takes_any_bytes():
    assert not Host(Lines()).checks
    assert check(COMMAND, b"", b"\xc1", machine=Lines) == [None, None]
    assert check(QUERY, b"anything", machine=Lines) == [None]


def test_a_raw_machine_without_queries_says_so():
    class Deaf(graft.StateMachine):
        def apply(self, command: bytes) -> None: ...
        def snapshot(self) -> bytes: ...
        def restore(self, file) -> None: ...

    assert Host(Deaf()).checks
    assert check(COMMAND, b"x", machine=Deaf) == [None]
    assert "Deaf answers no queries" in check(QUERY, b"x", machine=Deaf)[0]


def test_a_typed_machine_has_a_door():
    assert Host(Bank()).checks
