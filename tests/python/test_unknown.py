"""Outcomes that are not known, and finding out."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
from types import SimpleNamespace

import graft
import pytest
from graft import _errors, _resolving, _verbs
from graft._plan import COMMAND, QUERY, Catalog
from machines import Bank, Lines
from nodes import DEADLINE_SECONDS, Trio

SLOT = {"session": 7, "sequence": 3, "unanswered": 2}
BODY = Catalog(Bank).plan(COMMAND, Bank.deposit, ("ann", 5), {}).body


class Recorded:
    """An engine that gives recorded answers, and keeps what it was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def execute(self, body, timeout, slot):
        self.asked.append((body, timeout, slot))
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def unknown(*answers, **details):
    """An error of a call, and the engine that it asks."""
    engine = Recorded(*answers)
    access = SimpleNamespace(_catalog=Catalog(Bank), _engine=lambda _verb: engine, _refuse_to_block=lambda _verb: None)
    access._access, access._seconds = access, 9.0
    error = graft.UnknownOutcome("the line went dead", **{**SLOT, **details})
    plan = Catalog(Bank).plan(COMMAND, Bank.deposit, ("ann", 5), {})
    _resolving.remember(error, access, plan, 4.0)
    return error, engine, access


def test_the_same_call_is_made_again_under_its_place():
    error, engine, _ = unknown((b"\x05", 9, 1))
    assert error.resolvable
    assert error.resolve() == 5
    assert engine.asked == [(BODY, 4.0, (7, 3, 2))]


def test_with_a_time_of_its_own():
    error, engine, _ = unknown((b"\x05", 9, 1))
    error.resolve("2s")
    assert engine.asked[0][1] == 2.0
    with pytest.raises(graft.ConfigError, match="timeout="):
        error.resolve(-1)


def test_what_it_raised_is_an_answer():
    error, *_ = unknown((("ValueError", "amount must be positive", ""), 9, 1))
    with pytest.raises(graft.ApplyError, match="positive"):
        error.resolve()


@pytest.mark.parametrize("kind", [graft.Timeout, graft.NoLeader, graft.Busy, graft.Stopped, graft.InvalidCall])
def test_not_applied_this_time_is_still_not_known(kind):
    error, engine, _ = unknown(kind("not now"), (b"\x05", 9, 1))
    with pytest.raises(
        graft.UnknownOutcome, match="still not known whether the command was applied: not now"
    ) as caught:
        error.resolve(1)
    assert isinstance(caught.value.__cause__, kind)
    assert caught.value.resolvable
    assert caught.value.resolve() == 5, "it can be asked again"
    assert [slot for *_, slot in engine.asked] == [(7, 3, 2)] * 2


def test_unknown_again_can_be_asked_again():
    error, *_ = unknown(graft.UnknownOutcome("again", **SLOT), (b"\x05", 9, 1))
    with pytest.raises(graft.UnknownOutcome, match="again") as caught:
        error.resolve()
    assert caught.value.resolve() == 5


def test_a_session_that_is_gone_is_told_as_such():
    error, *_ = unknown(graft.SessionExpired())
    with pytest.raises(graft.SessionExpired, match="an earlier attempt may have been"):
        error.resolve()
    assert not graft.SessionExpired.retryable


def test_without_a_place_it_is_not_advised_to_ask():
    assert "resolve()" in _errors._native("UNKNOWN_OUTCOME", "x", dict(SLOT)).fix
    assert _errors._native("UNKNOWN_OUTCOME", "x", {}).fix.startswith("look at the state")


def test_without_a_place_it_cannot_be_asked():
    error = graft.UnknownOutcome("applied at index 9, and the answer is not kept any more")
    assert not error.resolvable
    with pytest.raises(graft.UnknownOutcome, match=r"cannot be asked again.*index 9"):
        error.resolve()


def test_a_query_is_never_asked_under_a_place():
    error = graft.UnknownOutcome("odd", **SLOT)
    plan = Catalog(Bank).plan(QUERY, Bank.balance, ("ann",), {})
    _resolving.remember(error, None, plan, 1.0)
    assert not error.resolvable
    assert "command" not in error.details


@pytest.mark.parametrize("taken", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy])
def test_elsewhere_somebody_else_has_to_ask(taken):
    error, _, access = unknown((b"\x05", 9, 1), (b"\x06", 9, 1))
    other = taken(error)
    assert (str(other), other.details) == (str(error), error.details)
    assert not other.resolvable
    with pytest.raises(graft.UnknownOutcome, match="from another process") as caught:
        other.resolve()
    assert "via=" in caught.value.fix
    assert other.resolve(via=access) == 5
    assert caught.value.resolve(via=access) == 6


def test_via_has_to_be_of_the_same_machine():
    error, *_ = unknown()
    other = pickle.loads(pickle.dumps(error))
    with graft.Client("127.0.0.1:1", Other) as client, pytest.raises(TypeError, match="another machine than Other"):
        other.resolve(via=client)
    with pytest.raises(graft.ConfigError, match="via="):
        other.resolve(via=7)


class Other(graft.StateMachine):
    @graft.command
    def go(self) -> None: ...


def test_a_raw_command_can_be_asked_elsewhere_too():
    plan = Catalog(Lines).plan_again(b"x")
    assert (plan.body, plan.value(b"\x05", 1)) == (b"x", 5)


# How long a leader takes to notice: longer than the calls of a test.
PATIENCE = "3s"

# With real nodes: the majority goes away while a command is under way.


def interrupted(trio):
    """A leader that takes commands while nobody else is there, for as long as it has not noticed."""
    leader = trio.leader()
    leader.execute(Bank.deposit, "ann", 1)  # its session is open now
    trio.stop(*(node.id for node in trio.followers()))
    return leader


def again(trio, leader):
    trio.start(*(id_ for id_ in trio.members if id_ != leader.id))
    trio.ready()


def test_a_command_that_hung_in_the_air_is_resolved_and_applied_once(tmp_path):
    trio = Trio(tmp_path, election_timeout=PATIENCE).start().ready()
    try:
        leader = interrupted(trio)
        future = leader.options(timeout="500ms").submit(Bank.deposit, "ann", 5)
        error = future.exception(DEADLINE_SECONDS)
        assert isinstance(error, graft.UnknownOutcome), error
        assert error.resolvable
        with pytest.raises(graft.UnknownOutcome):
            error.resolve("300ms")
        again(trio, leader)
        assert error.resolve(DEADLINE_SECONDS) == 6
        assert error.resolve(DEADLINE_SECONDS) == 6, "the first answer, however often"
        assert leader.query(Bank.balance, "ann") == 6
        # Another process knows only what was pickled, and asks through another node.
        other = next(node for node in trio.running() if node is not leader)
        assert pickle.loads(pickle.dumps(error)).resolve(via=other) == 6
        assert asyncio.run(error.aresolve()) == 6
        assert other.query(Bank.balance, "ann") == 6
    finally:
        trio.stop()


def test_every_way_of_calling_gives_what_can_be_resolved(tmp_path):
    trio = Trio(tmp_path, election_timeout=PATIENCE).start().ready()
    try:
        leader = interrupted(trio)
        calls = leader.options(timeout="300ms")
        with pytest.raises(graft.UnknownOutcome) as blocking:
            calls.execute(Bank.deposit, "ann", 1)
        many = [blocking.value]
        many += calls.execute_many([(Bank.deposit, "ann", 1)] * 2, return_errors=True)

        async def awaiting():
            with pytest.raises(graft.UnknownOutcome) as caught:
                await leader.aio.options(timeout="300ms").execute(Bank.deposit, "ann", 1)
            calls = [(Bank.deposit, "ann", 1)] * 2
            return [caught.value, *await leader.aio.options(timeout="300ms").execute_many(calls, return_errors=True)]

        many += asyncio.run(awaiting())
        errors = [error for error in many if isinstance(error, graft.UnknownOutcome)]
        assert len(errors) == len(many) == 6
        again(trio, leader)
        answers = {error.resolve(DEADLINE_SECONDS) for error in errors}
        assert len(answers) == len(errors)
        assert leader.query(Bank.balance, "ann") == 1 + len(errors)
        assert all(error.resolvable for error in errors)
    finally:
        trio.stop()


def test_resolve_in_an_event_loop_names_its_mirror(node):
    error = graft.UnknownOutcome("x", **SLOT)
    _resolving.remember(error, node, node._catalog.plan(COMMAND, Bank.deposit, ("ann", 1), {}), 1.0)

    async def main():
        error.resolve()

    with pytest.raises(RuntimeError, match=r"write `await error\.aresolve\(\)`"):
        asyncio.run(main())


def test_a_stopped_node_leaves_it_unknown(node):
    error = graft.UnknownOutcome("x", **SLOT)
    _resolving.remember(error, node, node._catalog.plan(COMMAND, Bank.deposit, ("ann", 1), {}), 1.0)
    node.stop()
    for ask in (error.resolve, lambda: asyncio.run(error.aresolve())):
        with pytest.raises(graft.UnknownOutcome, match=r"still not known .*node n1 is stopped"):
            ask()


def test_a_session_that_never_was_is_expired(node):
    error = graft.UnknownOutcome("x", session=1 << 40, sequence=1, unanswered=1)
    _resolving.remember(error, node, node._catalog.plan(COMMAND, Bank.deposit, ("ann", 1), {}), 5.0)
    with pytest.raises(graft.SessionExpired):
        error.resolve()
    assert node.query(Bank.balance, "ann") == 0


def test_an_error_does_not_keep_a_notifier_from_ending(tmp_path):
    node = graft.Node(Bank(), id="n1", address="127.0.0.1:0", data_dir=tmp_path).start()
    node.wait_ready(DEADLINE_SECONDS)
    node.submit(Bank.deposit, "ann", 1).result(DEADLINE_SECONDS)
    with pytest.warns(ResourceWarning, match="was running when it was collected"):
        node = gc.collect()


def test_many_commands_raise_what_may_have_been_applied_before_what_was_not():
    plans = [Catalog(Bank).plan(COMMAND, Bank.deposit, ("ann", amount), {}) for amount in range(1, 6)]
    refused, first, second = graft.Busy("not now"), graft.UnknownOutcome("lost"), graft.UnknownOutcome("lost, too")
    outcomes = [refused, (b"\x01", 3, 1), first, (("ValueError", "no", ""), 4, 1), second]
    with pytest.raises(graft.UnknownOutcome) as caught:
        _verbs.gathered(plans, list(outcomes), return_errors=False)
    assert caught.value is first
    *_, note = caught.value.__notes__
    assert "4 of 5 commands failed, 2 of them with an unknown outcome, this one first among these" in note
    results = _verbs.gathered(plans, list(outcomes), return_errors=True)
    assert results[:3] + results[4:] == [refused, 1, first, second]
    assert isinstance(results[3], graft.ApplyError)
