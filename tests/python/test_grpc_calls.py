"""The gRPC service graft.v1.Client, called with the real grpcio."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import graft
import grpc
import pytest
from grpc_schema import DEADLINE_SECONDS, Api, Told, balance, deposit, encoded, value
from machines import Bank
from nodes import Trio, until


class Herald(graft.StateMachine):
    """Tells the world."""

    def __init__(self) -> None:
        self.said: list[str] = []

    @graft.command
    def say(self, topic: str, text: str) -> int:
        self.said.append(text)
        self.context.emit(topic, text)
        return len(self.said)


@pytest.fixture
def api(node: graft.Node[Bank]) -> Iterator[Api]:
    with Api(node.address) as made:
        yield made


def refused(call: Any, *arguments: Any, **options: Any) -> Told:
    with pytest.raises(grpc.RpcError) as error:
        call(*arguments, **options)
    return Told(error.value)


def test_commands_and_queries(api: Api) -> None:
    answer = api.execute(deposit("ann", 5))
    assert (value(answer), answer.term) == (5, 1)
    assert answer.index > 0
    for consistency in (0, 1, 2, 3):
        seen = api.query(balance("ann"), consistency=consistency, at_least=answer.index)
        assert value(seen) == 5
        assert seen.index >= answer.index


def test_an_exception_of_the_machine_is_an_answer(api: Api) -> None:
    answer = api.execute(deposit("ann", -5))
    assert answer.WhichOneof("reply") == "raised"
    assert (answer.raised.type_name, answer.raised.message) == ("ValueError", "amount must be positive")
    assert "machines.py" in answer.raised.traceback


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (encoded("depsit", who="ann", amount=5), "depsit"),
        (encoded("deposit", who="ann"), "amount"),
        (encoded("deposit", who="ann", amount="much"), "amount"),
        (b"\xc1 no msgpack", ""),
        (b"", ""),
    ],
)
def test_what_no_replica_can_apply_is_refused_and_not_replicated(api: Api, command: bytes, words: str) -> None:
    before = api.status().last
    told = refused(api.Client.Execute, api.message("ExecuteRequest", command=command))
    assert (told.code, told.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_CALL")
    assert words in told.message
    assert (told.metadata["applied"], told.retry) == ("no", None)
    assert api.status().last == before
    assert value(api.execute(deposit("ann", 1))) == 1


def test_a_command_that_is_too_large_says_how_large_it_may_be(tmp_path: Path) -> None:
    config = graft.Config(command_bytes_max="2MiB")
    with (
        graft.Node(Bank(), id="n1", address="127.0.0.1:0", data_dir=tmp_path, config=config) as node,
        Api(node.wait_ready().address) as api,
    ):
        for size in (2 << 20, 30 << 20):
            told = refused(api.execute, deposit("x" * size))
            assert (told.code, told.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "TOO_LARGE")
            assert int(told.metadata["bytes"]) > int(told.metadata["limit"])
            assert "command_bytes_max" in told.help.links[0].description
        assert value(api.execute(deposit("x" * (1 << 20)))) == 1


def test_a_command_of_a_session_is_applied_once(api: Api) -> None:
    session = api.Client.OpenSession(api.message("OpenSessionRequest"), timeout=DEADLINE_SECONDS).session
    slot = {"session": session, "sequence": 1, "unanswered": 1}
    first = api.execute(deposit("ann", 5), slot=slot)
    again = api.execute(deposit("ann", 5), slot=slot)
    assert (value(again), again.index, again.term) == (value(first), first.index, first.term)
    assert value(api.execute(deposit("ann", 5), slot={**slot, "sequence": 2})) == 10
    told = refused(api.execute, deposit("ann", 5), slot={**slot, "session": 10**6})
    assert (told.code, told.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SESSION_EXPIRED")
    assert value(api.query(balance("ann"))) == 10


class Stream:
    """Asks on one stream of calls."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.batches: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.answers = api.Client.Calls(iter(self.batches.get, None), timeout=60)

    def ask(self, **calls: Any) -> None:
        self.batches.put(
            self.api.message("CallBatch", calls=[{"number": int(n[1:]), **call} for n, call in calls.items()])
        )

    def hear(self, count: int) -> dict[int, Any]:
        heard: dict[int, Any] = {}
        while len(heard) < count:
            heard |= {answer.number: answer for answer in next(self.answers).answers}
        return heard


def test_many_calls_over_one_stream(api: Api) -> None:
    stream = Stream(api)
    stream.ask(**{f"n{n}": {"execute": {"command": deposit("ann", 1)}} for n in range(1000)})
    heard = stream.hear(1000)
    assert sorted(value(answer.execute) for answer in heard.values()) == list(range(1, 1001))
    stream.ask(
        n1={"query": {"query": balance("ann")}},
        n2={"open_session": {}},
        n3={"execute": {"command": encoded("depsit")}},
        n4={},
    )
    heard = stream.hear(4)
    assert value(heard[1].query) == 1000
    assert heard[2].open_session.session > 0
    assert [heard[n].error.code for n in (3, 4)] == [grpc.StatusCode.INVALID_ARGUMENT.value[0]] * 2
    stream.batches.put(None)
    with pytest.raises(StopIteration):
        next(stream.answers)


def test_a_large_call_fails_alone_on_its_stream(api: Api) -> None:
    stream = Stream(api)
    stream.ask(n1={"execute": {"command": bytes(20 << 20)}}, n2={"execute": {"command": deposit("a", 1)}})
    heard = stream.hear(2)
    assert heard[1].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert value(heard[2].execute) == 1


def test_followers_answer_and_say_who_leads(trio: Trio) -> None:
    leader = trio.leader()
    for node in trio.running():
        with Api(node.address) as api:
            value(api.execute(deposit("ann", 1)))

            def hint(api: Api = api, node: graft.Node[Any] = node) -> bool:
                answer = api.execute(deposit("ann", 1))
                expected = ("", "") if node.id == leader.id else (leader.id, leader.address)
                return (answer.leader.id, answer.leader.address) == expected

            until(hint, f"{node.id} says that {leader.id} leads")
            first = next(Stream(api).answers)
            assert (first.leader.id, first.leader.address) == (leader.id, leader.address)


def test_without_a_majority_the_deadline_is_kept(trio: Trio) -> None:
    leader = trio.leader()
    with Api(leader.address) as api:
        api.execute(deposit("ann", 1))
        trio.stop(*(node.id for node in trio.running() if node.id != leader.id))
        told = refused(api.query, balance("ann"), timeout=1)
        assert told.reason in {"TIMEOUT", "NO_LEADER", "NO_QUORUM"}
        assert told.code in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE}
        assert told.retry is not None
        told = refused(api.execute, deposit("ann", 1), timeout=1)
        assert told.code in {grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
        assert (told.code is grpc.StatusCode.UNKNOWN) == (told.metadata["applied"] == "unknown")


def emitted(stream: Any, count: int) -> list[Any]:
    found: list[Any] = []
    while len(found) < count:
        found += [item.emitted for item in next(stream).items if item.WhichOneof("item") == "emitted"]
    return found


def test_what_commands_emit(tmp_path: Path) -> None:
    with (
        graft.Node(Herald(), id="n1", address="127.0.0.1:0", data_dir=tmp_path) as node,
        Api(node.wait_ready().address) as api,
    ):
        request = api.message("WatchRequest", since={"index": 0})
        watching = api.Client.Watch(request, timeout=60)
        for text in ("one", "two", "three"):
            api.execute(encoded("say", topic="news", text=text))
        api.execute(encoded("say", topic="gossip", text="four"))
        heard = emitted(watching, 4)
        assert [item.topic for item in heard] == ["news"] * 3 + ["gossip"]
        assert [item.index for item in heard] == sorted(item.index for item in heard)
        watching.cancel()
        after = {"index": heard[1].index, "number": heard[1].number}
        again = api.Client.Watch(api.message("WatchRequest", topics=["news"], since=after), timeout=60)
        assert [item.index for item in emitted(again, 1)] == [heard[2].index]
        again.cancel()
