# ruff: noqa: E501 - tables read best unbroken
"""What is wrong with a change of the membership in itself is said before anything is sent."""

from __future__ import annotations

import asyncio
import io
from types import SimpleNamespace

import graft
import pytest
from graft import _changes, _members, _progress, _readiness, _status, _what_if
from machines import Bank


@pytest.fixture
def idle() -> graft.Node[Bank]:
    """A node that does not run: what is sent is refused as `Stopped`."""
    return graft.Node(Bank(), id="n1", address="127.0.0.1:7001", data_dir="never-made")


GOOD = "127.0.0.1:7004"
REFUSALS = [
    (lambda m: m.add("n 4", GOOD), "id='n 4' must be 1 to 63 letters"),
    (lambda m: m.add(4, GOOD), "id=4 must be a str"),
    (lambda m: m.add("n4", "localhost"), 'must have the form "host:port"'),
    (lambda m: m.add("n4", ("localhost", 7004)), "must be a str"),
    (lambda m: m.add("n4", "127.0.0.1:0"), "the port, so it cannot be 0"),
    (lambda m: m.add("n4", "127.0.0.1:70000"), "at most 65535"),
    (lambda m: m.add("n4", "0.0.0.0:7004"), 'nobody can dial 0.0.0.0, which stands for every address of a machine; name one at which the others reach it (a node may still listen everywhere: bind="0.0.0.0:7004")'),
    (lambda m: m.add("n4", "[::]:7004"), "nobody can dial [::]"),
    (lambda m: m.add("n4", "[0:0::0]:7004"), "nobody can dial [0:0::0]"),
    (lambda m: m.add("n4", "*:7004"), "nobody can dial *"),
    (lambda m: m.add("n4", GOOD, voter="no"), "voter='no' must be True, or False for a learner"),
    (lambda m: m.add("n4", GOOD, timeout=0), "timeout=0 must be a finite time above 0"),
    (lambda m: m.add("n4", GOOD, timeout="soon"), "timeout='soon'"),
    (lambda m: m.add("n4", GOOD, if_unchanged="7"), "if_unchanged='7' must be a version"),
    (lambda m: m.add("n4", GOOD, if_unchanged=True), "if_unchanged=True must be a version"),
    (lambda m: m.add("n4", GOOD, if_unchanged=-1), "if_unchanged=-1 must be a version"),
    (lambda m: m.add("n4", GOOD, if_unchanged=1 << 64), "must be a version"),
    (lambda m: m.remove(""), "id='' must be 1 to 63"),
    (lambda m: m.promote(None), "id=None must be a str"),
    (lambda m: m.demote("a/b"), "must be 1 to 63"),
    (lambda m: m.replace("n1", "n1", GOOD), "old and new are both 'n1': an id is never used again"),
    (lambda m: m.replace("n!", "n4", GOOD), "old='n!'"),
    (lambda m: m.replace("n1", "n!", GOOD), "new='n!'"),
    (lambda m: m.replace("n1", "n4", "n4"), "address='n4'"),
    (lambda m: m.apply({}), "members is empty: a cluster without members would decide nothing"),
    (lambda m: m.apply(["n1"]), 'must be a dict {id: "host:port"} of all the members to be'),
    (lambda m: m.apply("n1"), "must be a dict"),
    (lambda m: m.apply({"n1": None}), "members['n1']=None must be a str"),
    (lambda m: m.apply({1: GOOD}), "members: id=1 must be a str"),
    (lambda m: m.apply({"n1": GOOD, "n2": GOOD}), "'n1' and 'n2' have the same address"),
    (lambda m: m.apply({"n1": "0.0.0.0:1"}), "nobody can dial 0.0.0.0"),
    (lambda m: m.transfer_leadership(2), "to=2 must be a str"),
    (lambda m: m.transfer_leadership("n 2"), "to='n 2' must be 1 to 63"),
    (lambda m: m.cancel(timeout=-1), "timeout=-1 must be a finite time above 0"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "words"), REFUSALS)
def test_what_is_wrong_in_itself(idle, call, words):
    with pytest.raises(graft.ConfigError) as caught:
        call(idle.members)
    assert words in str(caught.value)


@pytest.mark.parametrize(("call", "words"), REFUSALS)
def test_and_the_same_for_await(idle, call, words):
    with pytest.raises(graft.ConfigError) as caught:
        asyncio.run(call(idle.aio.members))
    assert words in str(caught.value)


@pytest.mark.parametrize("progress", [1, "yes", object()])
def test_progress_is_a_function_or_a_switch(idle, progress):
    with pytest.raises(TypeError, match="must be a function of one Progress, or True"):
        idle.members.add("n4", GOOD, progress=progress)


@pytest.mark.parametrize("keyword", ["voters", "guard", "wait"])
def test_an_unknown_keyword_is_named(idle, keyword):
    with pytest.raises(TypeError, match=keyword):
        idle.members.add("n4", GOOD, **{keyword: True})


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.add("n4", GOOD, voter=False, timeout="1min", progress=True, if_unchanged=0),
        lambda m: m.remove("n1"), lambda m: m.promote("n1"), lambda m: m.demote("n1"),
        lambda m: m.replace("n1", "n4", "[::1]:7004"), lambda m: m.apply({"n4": "db-4.example:7004"}),
        lambda m: m.transfer_leadership(), lambda m: m.cancel(),
    ],
)  # fmt: skip
def test_what_is_right_is_sent(idle, call):
    with pytest.raises(graft.Stopped, match="node n1 is not started"):
        call(idle.members)


def test_a_change_in_an_event_loop_names_its_mirror(tmp_path):
    async def change() -> None:
        node.members.remove("n1")

    with graft.Node(Bank(), id="n1", address="127.0.0.1:0", data_dir=tmp_path / "n1") as node, pytest.raises(
        RuntimeError, match=r"write `await node\.aio\.members\.remove\(\.\.\.\)`"
    ):  # fmt: skip
        asyncio.run(change())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"join": "127.0.0.1:7001"}, "is this node's own address: name another member, or leave it out"),
        ({"join": []}, "join is empty"),
        ({"join": 7001}, 'must be an address "host:port" of a member, or several'),
        ({"join": b"h:1"}, "must be an address"),
        ({"join": {"n2": "h:1"}}, "must be an address"),
        ({"join": ["h:1", None]}, "join=None must be a str"),
        ({"join": "0.0.0.0:7001"}, "nobody can dial 0.0.0.0"),
        ({"join": "h:0"}, "cannot be 0"),
        ({"join": "h:1", "members": {"n1": "127.0.0.1:7001"}}, "but not both"),
        ({"joins": "h:1"}, "did you mean 'join'?"),
        ({"address": "0.0.0.0:7001"}, 'bind="0.0.0.0:7001"'),
        ({"members": {"n1": "127.0.0.1:7001", "n2": "[::]:7002"}}, "nobody can dial [::]"),
    ],
)
def test_what_a_node_may_not_be_told(changes, words):
    arguments = {"id": "n1", "address": "127.0.0.1:7001", "data_dir": "never-made", **changes}
    with pytest.raises(graft.ConfigError) as caught:
        graft.Node(Bank(), **arguments)
    assert words in str(caught.value)


def test_what_a_node_is_told_to_join():
    def made(join, address="127.0.0.1:7001"):
        return graft.Node(Bank(), id="n1", address=address, data_dir=None, join=join)._native_config()["join"]

    assert made("h:1") == ["h:1"]
    assert made(iter(["h:1", "h:2", "h:1"])) == ["h:1", "h:2"]
    assert made(["127.0.0.1:7001", "h:2"]) == ["h:2"], "one list may serve all nodes"
    assert made("h:1", address="127.0.0.1:0") == ["h:1"]
    assert made(None) == []


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({}, "ask about one change"),
        ({"remove": "n1", "add": "n2"}, "ask about one change"),
        ({"remove": None}, "ask about one change"),
        ({"remve": "n1"}, "there is no question 'remve'"),
        ({"remove": "n 1"}, "must be 1 to 63 letters"),
        ({"apply": {}}, "members is empty"),
    ],
)
def test_questions(question, words):
    with pytest.raises(graft.ConfigError) as caught:
        _what_if.change_of(question)
    assert words in str(caught.value)


def test_questions_become_changes():
    assert _what_if.change_of({"remove": "n1"}).what == {"what": "remove", "id": "n1"}
    assert _what_if.change_of({"add": "n4"}).what["what"] == "add"
    assert _what_if.change_of({"apply": {"n1": GOOD}}).what == {"what": "apply", "members": {"n1": GOOD}}


def test_answers_in_words():
    found = {
        "allowed": True,
        "reason": None,
        "voters": ["n1", "n2", "n3"],
        "learners": ["n4"],
        "needed": 2,
        "alive": ["n1", "n2"],
        "tolerates": 0,
    }
    answer = _what_if.from_native(found)
    assert answer
    assert (
        str(answer) == "voters n1, n2, n3, and learners n4; 2 of 3 needed, 2 within reach; then none of them may fail"
    )
    refused = _what_if.from_native({**found, "allowed": False, "reason": "n1 is the last voter"})
    assert not refused
    assert str(refused) == "it would be refused: n1 is the last voter"


def test_every_change_as_the_engine_takes_it():
    assert _changes.addition("n4", GOOD).guarded(7) == {
        "what": "add",
        "id": "n4",
        "address": GOOD,
        "voter": True,
        "guard": 7,
    }
    assert _changes.replacement("n1", "n4", GOOD).guarded(None) == {
        "what": "replace",
        "old": "n1",
        "new": "n4",
        "address": GOOD,
    }
    assert _changes.transfer(None).what == {"what": "transfer", "to": None}
    assert _changes.transfer("n2").verb == "transfer_leadership"
    assert [one.what for one in (_changes.removal("a"), _changes.promotion("b"), _changes.demotion("c"), _changes.cancellation())] == [
        {"what": "remove", "id": "a"}, {"what": "promote", "id": "b"}, {"what": "demote", "id": "c"}, {"what": "cancel"},
    ]  # fmt: skip


def status(**changes):
    member = {
        "address": "h:1",
        "voter": True,
        "target": "voter",
        "incarnation": None,
        "installing": False,
        "reachable": None,
        "match_index": None,
        "last_contact": None,
        "trouble": None,
    }
    members = [
        {**member, "id": f"n{number}", "address": f"h:{number}", **more}
        for number, more in enumerate(changes.pop("members", []), 1)
    ]
    found = {slot: getattr(_status.idle("n1", "h:1"), slot) for slot in _status.Status.__slots__}
    return _status.from_native({**found, "members": members, "role": "follower", **changes}, "h:1")


@pytest.mark.parametrize(
    ("change", "error", "kind", "words"),
    [
        (
            "n4 gets the log",
            graft.Timeout("late"),
            graft.Timeout,
            "adding n4 is not done after 2 s, and goes on without this call: n4 gets the log",
        ),
        (
            "n4 gets the log",
            graft.UnknownOutcome("it goes on"),
            graft.Timeout,
            "goes on without this call: n4 gets the log",
        ),
        (
            None,
            graft.Timeout("no leader"),
            graft.Timeout,
            "is not done after 2 s, and as far as n1 knows it is not under way: no leader",
        ),
        (
            None,
            graft.UnknownOutcome("gone"),
            graft.UnknownOutcome,
            "adding n4: it is not known what came of it: gone",
        ),
    ],
)
def test_a_change_that_is_not_answered_says_whether_it_goes_on(change, error, kind, words):
    made = _changes.unfinished(_changes.addition("n4", GOOD), error, status(change=change), 2.0)
    assert type(made) is kind
    assert words in str(made)
    assert ("members.cancel()" in made.fix) == (change is not None)


def test_of_a_node_that_was_stopped_meanwhile_nothing_is_known():
    stopped = status(change="n4 gets the log", role="stopped")
    made = _changes.unfinished(_changes.addition("n4", GOOD), graft.UnknownOutcome("it stopped"), stopped, 2.0)
    assert type(made) is graft.UnknownOutcome


def test_a_node_that_removes_itself_may_not_be_answered():
    cut_off = graft.UnknownOutcome("removed before the answer came")
    gone = status(removed=True, commit_index=9)
    for change in (_changes.removal("n1"), _changes.replacement("n1", "n4", GOOD), _changes.application({"n2": GOOD})):
        assert _changes.done_or_unfinished(change, cut_off, gone, 2.0) == 9
    for change in (_changes.removal("n2"), _changes.replacement("n2", "n1", GOOD), _changes.application({"n1": GOOD})):
        with pytest.raises(graft.UnknownOutcome):
            _changes.done_or_unfinished(change, cut_off, gone, 2.0)
    with pytest.raises(graft.UnknownOutcome):
        _changes.done_or_unfinished(_changes.removal("n1"), cut_off, status(), 2.0)
    replaced = _members.result(_changes.replacement("n1", "n4", GOOD), gone)
    assert (replaced.id, replaced.address, replaced.voter) == ("n4", GOOD, True)


def test_members_as_a_table():
    found = status(
        leader="n1", last_index=12, membership_index=9, change="n3 gets the log",
        members=[{"match_index": 12}, {"match_index": 10, "reachable": True}, {"voter": False, "reachable": False, "installing": True}],
    )  # fmt: skip
    assert _members.table(found).splitlines() == [
        "id  address  role                          reachable  lag",
        "n1  h:1      leader                        yes        0",
        "n2  h:2      follower                      yes        2",
        "n3  h:3      learner, installing -> voter  no",
        "under way: n3 gets the log",
    ]  # fmt: skip
    roster = _members.Members(SimpleNamespace(status=lambda: found))
    assert (len(roster), roster.version, roster.change) == (3, 9, "n3 gets the log")
    assert [member.id for member in roster] == ["n1", "n2", "n3"]
    assert [who in roster for who in ("n2", roster["n2"], "n4", None)] == [True, True, False, False]
    with pytest.raises(KeyError, match="there is no member 'n4'; there are: n1, n2, n3"):
        roster["n4"]
    assert (
        repr(_members.Members(SimpleNamespace(status=lambda: status())))
        == "no members are known to node n1, which is follower"
    )


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"removed": True}, graft.Removed, "node n1 was removed from the cluster"),
        ({"error": "boom"}, graft.Halted, "node n1 has halted: boom"),
        ({"error": "another disk", "error_code": "IDENTITY_MISMATCH"}, graft.IdentityMismatch, "node n1: another disk"),
        ({"error": "another cluster", "error_code": "CLUSTER_MISMATCH"}, graft.ClusterMismatch, "another cluster"),
        ({"error": "no", "error_code": "MEMBERSHIP_REFUSED"}, graft.MembershipRefused, "no"),
    ],
)
def test_ends_of_a_node_are_errors(changes, kind, words):
    with pytest.raises(kind, match=words):
        _readiness.refuse_ended(status(**changes))
    _readiness.refuse_ended(status())


def test_why_a_joiner_is_not_ready():
    assert _readiness.why_not_ready(status(), ("h:7", "h:8"), ["h:7 does not answer."]) == (
        "it is not a member yet, and asks to be let in at h:7, h:8. h:7 does not answer."
    )
    catching_up = status(members=[{"voter": False}], leader="n2", applied_index=5)
    assert (
        _readiness.why_not_ready(catching_up, ("h:7",), [])
        == "it gets the log, up to index 5 so far, and does not vote yet."
    )
    learner = status(members=[{"voter": False, "target": "learner"}], leader="n2", applied_index=5, commit_index=6)
    assert _readiness.why_not_ready(learner, ("h:7",), []) == "the leader is n2; 5 of 6 entries are applied"


STEPS = [
    (
        {"kind": "membership", "index": 4, "step": "learner", "member": "n4", "committed": False},
        (0, None),
        "n4 gets the log",
    ),
    (
        {"kind": "membership", "index": 5, "step": "joint", "member": None, "committed": True},
        (0, None),
        "the members before and after decide together, for certain",
    ),
    ({"kind": "membership", "index": 5, "step": "new word", "member": None, "committed": False}, (0, None), "new word"),
    ({"kind": "catch-up", "member": "n4", "matched": 5, "last": 20}, (5, 20), "n4 has 5 of 20 entries"),
    (
        {
            "kind": "snapshot",
            "phase": "sending",
            "index": 9,
            "bytes": 1 << 20,
            "total": 4 << 20,
            "peer": "n4",
            "why": None,
        },
        (1 << 20, 4 << 20),
        "n4 gets a snapshot: 1.0 of 4.0 MiB",
    ),
]


@pytest.mark.parametrize(("event", "amounts", "words"), STEPS)
def test_steps_of_a_change(event, amounts, words):
    step = _progress.step_of("adding n4", event)
    assert step is not None
    assert (step.done, step.total) == amounts
    assert str(step) == f"adding n4: {words}"
    assert step.fraction == (amounts[0] / amounts[1] if amounts[1] else None)


@pytest.mark.parametrize(
    "event",
    [{"kind": "leader"}, {"kind": "snapshot", "phase": "writing", "peer": None}, {"kind": "link"}, {"kind": "stopped"}],
)
def test_what_is_no_step(event):
    assert _progress.step_of("adding n4", event) is None


def test_a_watcher_tells_each_step_once():
    recorded = [
        ([{"sequence": 4, **STEPS[0][0]}, {"sequence": 5, "kind": "leader"}], None),
        ([], None),
        ([], None),
        ([{"sequence": 6, **STEPS[3][0]}], None),
        ([], None),
    ]
    closed = []
    reader = SimpleNamespace(next=lambda _timeout: recorded.pop(0), close=lambda: closed.append(True))
    told = []
    native = SimpleNamespace(events=lambda since: reader if since is None else None)
    watcher = _progress.Watcher(_changes.addition("n4", GOOD), native, lambda step: told.append(step.words))
    busy = status(change="n4 gets the log")
    watcher.look(busy), watcher.look(busy), watcher.end(None)
    assert (recorded, closed) == ([], [True])
    assert told == ["asked for", "n4 gets the log", "n4 gets the log", "n4 has 5 of 20 entries", "done"]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_line_of_progress(is_terminal):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return is_terminal

    to = Terminal()
    line = _progress.Line(to)
    for done in (50, 100):
        line(_progress.Progress(what="adding n4", member="n4", done=done, total=100, words="n4 has it"))
    line(_progress.Progress(what="adding n4", member="n4", done=0, total=None, words="done"))
    shown = to.getvalue()
    assert shown.endswith("\n")
    if is_terminal:
        half, whole = "[" + 12 * "#" + 12 * "." + "]  50%", "[" + 24 * "#" + "] 100%"
        assert shown == (
            f"\r{half} adding n4: n4 has it\r{whole} adding n4: n4 has it\radding n4: done" + 37 * " " + "\n"
        )
    else:
        assert shown == "adding n4: n4 has it (50%)\nadding n4: done\n", "one line a second is enough"
