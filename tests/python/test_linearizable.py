"""The checker of histories: known good and bad ones, and thousands of random ones against trying every order."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from linearizable import FAILED, OK, UNKNOWN, History, Journal, Operation, Scalar, check
from linearizable.__main__ import main
from linearizable.brute_force import explains
from linearizable.models import MODELS, Malformed, Mark, model_of
from linearizable.problem import moves_of
from linearizable.shrink import Part, fails, window
from linearizable.simulated import Fault, simulated

DRAWN = 2000


def history(key: str, *lines: str) -> History:
    """Operations as they are told below: `who begin-end verb arguments -> result`; `-` alone for no end, `!` for one
    that failed."""
    operations: list[Operation] = []
    for line in lines:
        said, _, result = line.partition(" -> ")
        who, times, verb, *arguments = said.split()
        failed = times.endswith("!")
        begin, _, end = times.removesuffix("!").partition("-")
        outcome = FAILED if failed else OK if end else UNKNOWN
        value = None if not result else tuple(map(word, result.split())) if " " in result else word(result)
        operations.append(
            Operation(
                who, key, verb, tuple(map(word, arguments)), int(begin), int(end) if end else None, outcome, value
            )
        )
    return History(operations)


def word(text: str) -> str | int | None:
    return {"None": None, "True": True, "False": False}.get(text, int(text) if text.lstrip("-").isdigit() else text)


GOOD = {
    "nothing happened": ("register/r", []),
    "one after the other": ("register/r", ["a 1-2 write x", "b 3-4 read -> x", "a 5-6 write y", "b 7-8 read -> y"]),
    "a read beside a write may see either": ("register/r", ["a 1-9 write x", "b 2-3 read -> None", "c 4-5 read -> x"]),
    "the order of two writes is open while they overlap": (
        "register/r",
        ["a 1-9 write x", "b 2-8 write y", "c 10-11 read -> x", "d 12-13 read -> x"],
    ),
    "what begins at the time of an end is beside it": ("register/r", ["a 1-5 write x", "b 5-6 read -> None"]),
    "an unknown write that never came": ("register/r", ["a 1- write x", "b 2-3 read -> None", "b 4-5 read -> None"]),
    "an unknown write that came late": ("register/r", ["a 1- write x", "b 2-3 read -> None", "b 9-10 read -> x"]),
    "an unknown write after another write": (
        "register/r",
        ["a 1- write x", "b 2-3 write y", "b 4-5 read -> y", "b 6-7 read -> x"],
    ),
    "a failed write that nobody sees": ("register/r", ["a 1-2! write x", "b 3-4 read -> None"]),
    "a swap, and one that saw why not": (
        "register/r",
        ["a 1-2 write x", "b 3-9 cas x y -> True x", "c 4-8 cas x z -> False y", "d 10-11 read -> y"],
    ),
    "an unknown swap on an unknown write": (
        "register/r",
        ["a 1- write x", "b 2- cas x y", "c 3-4 read -> None", "c 5-6 read -> y"],
    ),
    "increments beside one another, answered in any order": (
        "counter/c",
        ["a 1-9 increment 1 -> 3", "b 1-9 increment 1 -> 1", "c 1-9 increment 1 -> 2", "a 10-11 read -> 3"],
    ),
    "an unknown increment fills a gap": (
        "counter/c",
        ["a 1- increment 1", "b 5-6 increment 1 -> 1", "b 7-8 increment 1 -> 3"],
    ),
    "increments by different numbers": (
        "counter/c",
        ["a 1- increment 5", "a 2- increment 2", "b 3-4 read -> 0", "b 5-6 read -> 2", "b 7-8 read -> 7"],
    ),
    "a lease read is a read": ("register/r", ["a 1-2 write x", "b 3-4 read lease -> x"]),
    "a stale read by a client that knows nothing": ("register/r", ["a 1-2 write x", "b 8-9 read stale -> None"]),
    "a stale read beside what its client is told": (
        "register/r",
        ["a.0 1-2 write x", "b.0 3-9 read -> x", "b.1 4-5 read stale -> None", "b.1 6-7 read stale -> x"],
    ),
    "a stale read of what was when the client's last answer was asked for": (
        "register/r",
        ["a 1-2 write x", "b 3-6 read -> x", "c 4-5 write y", "b 8-9 read stale -> x"],
    ),
    "what its client does not know to be applied binds no stale read": (
        "register/r",
        ["b.0 1- write x", "b.0 2-3! write y", "a 4-5 write z", "b.0 6-7 read stale -> None"],
    ),
    "a stale read of a value that may have come back": (
        "map/k",
        [
            "a 1-2 put x",
            "b 3-4 delete -> x",
            "a 5- delete",
            "a 6-7 put y",
            "b 8-9 get -> y",
            "b 10-11 get stale -> None",
        ],
    ),
    "a stale read of nothing, which came back after the swap that met it": (
        "map/k",
        ["c 1-2 cas None x -> True None", "b 3-4 get -> x", "a 5-6 delete -> x", "b 7-8 get stale -> None"],
    ),
    "a stale read of a value that may have come after": (
        "register/r",
        ["a 1-20 write x", "c 2-6 write y", "b 7-8 read -> y", "b 9-10 read stale -> y", "b 11-12 read stale -> x"],
    ),
    "a stale read as old as it may be": (
        "register/r",
        ["a 1-2 write x", "a 9000000-9000001 write y", "b 11000000-11000001 read stale 2 -> x"],
    ),
    "a key that was put, deleted and put": (
        "map/k",
        ["a 1-2 put x", "b 3-4 delete -> x", "b 5-6 delete -> None", "a 7-8 put y", "b 9-10 get -> y"],
    ),
}

BAD = {
    "a lease read that is stale": ("register/r", ["a 1-2 write x", "b 3-4 read lease -> None"]),
    "a stale read without its client's own write": (
        "register/r",
        ["b.0 1-2 write x", "b.1 3-4 read stale -> None"],
    ),
    "a stale read that goes back behind what another lane of its client saw": (
        "counter/c",
        ["a 1-2 increment 1 -> 1", "a 3-4 increment 1 -> 2", "b.0 5-6 read -> 2", "b.1 7-8 read stale -> 1"],
    ),
    "stale reads that go back": (
        "register/r",
        ["a 1-2 write x", "a 3-4 write y", "b 5-6 read stale -> y", "b 7-8 read stale -> x"],
    ),
    "a stale read of what a swap ended that its client saw": (
        "map/k",
        ["a 1-9 put x", "c 2-9 cas x y -> True x", "b 3-4 get -> y", "b 5-6 get stale -> x"],
    ),
    "a stale read of what comes later": ("register/r", ["b 1-2 read stale -> x", "a 3-4 write x"]),
    "a stale read that is too old": (
        "register/r",
        ["a 1-2 write x", "a 8999998-8999999 write y", "b 11000000-11000001 read stale 2 -> x"],
    ),
    "a stale read": ("register/r", ["a 1-2 write x", "a 3-4 write y", "b 5-6 read -> x"]),
    "a lost update": ("counter/c", ["a 1-4 increment 1 -> 1", "b 2-3 increment 1 -> 1"]),
    "a lost update that only the end shows": (
        "register/r",
        ["a 1-2 write x", "b 3-5 cas x y -> True x", "c 4-6 cas x z -> True x"],
    ),
    "an increment that was applied twice": (
        "counter/c",
        ["a 1-2 increment 1 -> 1", "b 3-4 increment 1 -> 3", "a 5-6 read -> 3"],
    ),
    "an increment that was applied twice, one unknown being no excuse for two": (
        "counter/c",
        ["a 1- increment 1", "b 3-4 increment 1 -> 1", "b 5-6 increment 1 -> 4"],
    ),
    "an unknown increment is applied once": (
        "counter/c",
        ["a 1- increment 1", "b 2-3 read -> 0", "b 4-5 read -> 1", "b 6-7 read -> 2"],
    ),
    "a value that nobody wrote": ("register/r", ["a 1-2 write x", "b 3-4 read -> y"]),
    "a value that was written later": ("register/r", ["b 1-2 read -> x", "a 3-4 write x"]),
    "a value whose write failed": ("register/r", ["a 1-2! write x", "b 3-4 read -> x"]),
    "two readers see two writes in two orders": (
        "register/r",
        ["a 1-20 write x", "b 1-20 write y", "c 2-3 read -> x", "d 4-5 read -> y", "c 6-7 read -> x"],
    ),
    "an unknown write seen, then unseen, then seen": (
        "register/r",
        [
            "a 1-2 write x",
            "b 3- write y",
            "c 4-5 read -> y",
            "c 6-7 read -> x",
            "c 8-9 read -> y",
        ],
    ),
    "an unknown write that was seen and went away": (
        "register/r",
        ["a 1-2 write x", "b 3- write y", "c 4-5 read -> y", "d 6-7 read -> x"],
    ),
    "a read of an old state between reads of the new one": (
        "map/k",
        ["a 1-9 put x", "b 2-3 get -> x", "c 4-5 get -> None"],
    ),
    "two deletes of the same value": ("map/k", ["a 1-2 put x", "a 3-6 delete -> x", "b 4-5 delete -> x"]),
    "a swap that contradicts itself": ("map/k", ["a 1-2 put x", "b 3-4 cas x y -> False x"]),
    "an unknown swap is no write": ("register/r", ["a 1-2 write x", "b 3- cas w y", "c 4-5 read -> y"]),
    "a delete that was applied again": (
        "map/k",
        ["a 1-2 put x", "b 3-4 delete -> x", "a 5-6 put y", "a 7-8 get -> None"],
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_can_be_explained_is(name: str) -> None:
    key, lines = GOOD[name]
    verdict = check(history(key, *lines))
    assert verdict.is_linearizable, verdict


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_explained_is_told(name: str) -> None:
    key, lines = BAD[name]
    verdict = check(history(key, *lines))
    assert not verdict.is_linearizable
    assert not verdict.undecided
    (failure,) = verdict.failures
    assert failure.key == key
    assert failure.culprit.outcome == OK
    assert key in str(verdict)
    assert str(failure.part.culprit.operation) in str(verdict)


def drawn(luck: random.Random, name: str) -> History:
    """A few operations on one object, mostly as they may have been, sometimes with a lie among them."""
    operations: list[Operation] = []
    state: str | int | None = MODELS[name].initial
    values = ["x", "y", None] if name == "map" else ["x", "y"]
    clock = 0
    for number in range(luck.randrange(1, 8)):
        # Each takes effect at `clock`, about; some results are made up.
        clock += luck.choice((2, 4, 8))
        call, end = max(0, clock - luck.randrange(1, 12)), clock + luck.randrange(1, 12)
        verb = luck.choice(list(MODELS[name].steps))
        seen = luck.choice((0, 1, 2, 3)) if name == "counter" else luck.choice([*values, None])
        seen = seen if luck.random() < 0.5 else state
        outcome = luck.choice((OK, OK, OK, OK, UNKNOWN, FAILED))
        applied = outcome == OK or (outcome == UNKNOWN and luck.random() < 0.6)
        arguments: tuple[str | int | None, ...] = ()
        result: str | int | tuple[bool, str | int | None] | None = None
        after = state
        match verb:
            case "read" | "get":
                result = seen
            case "write" | "put":
                arguments = (luck.choice(values),)
                after = arguments[0]
            case "delete":
                result, after = seen, None
            case "cas":
                arguments = (luck.choice([*values, state]), luck.choice(values))
                result = (seen == arguments[0], seen)
                after = arguments[1] if state == arguments[0] else state
            case _:
                by = luck.choice((1, 1, 2, -1) if luck.random() < 0.3 else (1, 2))
                assert isinstance(state, int)
                assert isinstance(seen, int)
                arguments, result, after = (by,), seen + by, state + by
        state = after if applied else state
        result = result if outcome == OK else None
        operations.append(Operation(f"p{number}", f"{name}/it", verb, arguments, call, end, outcome, result))
    return History(operations)


def starts(name: str, part: Part) -> list[Scalar]:
    """The states that a part may begin in."""
    if part.initial is not Mark.ANY:
        return [MODELS[name].initial]
    return list(range(-9, 15)) if name == "counter" else ["x", "y", "a value of its own", None]


@pytest.mark.parametrize("name", list(MODELS))
def test_it_agrees_with_trying_every_order(name: str) -> None:
    luck = random.Random(f"{name} 1")
    good = 0
    for number in range(DRAWN):
        made = drawn(luck, name)
        expected = explains(made.operations, MODELS[name].initial)
        verdict = check(made)
        assert verdict.is_linearizable == expected, f"number {number}: trying every order says {expected}: {made}"
        good += expected
        for failure in verdict.failures:
            # What is told is a part that cannot be explained by itself.
            unknown = [replace(move.operation, outcome=UNKNOWN) for move in failure.part.maybe]
            told = [*(move.operation for move in failure.part.known), *unknown]
            explained = [start for start in starts(name, failure.part) if explains(told, start)]
            assert not explained, f"number {number}: {failure}\n{explained}"
    assert DRAWN * 0.2 < good < DRAWN * 0.8, "both kinds are drawn"


MANY = ("counter/a", "counter/b", "register/a", "register/b", "register/c", "map/a", "map/b", "map/c")


@pytest.mark.parametrize("keys", [("counter/a",), ("register/a",), ("map/a",), MANY])
def test_a_long_history_of_a_sound_cluster_is_explained(keys: tuple[str, ...]) -> None:
    made = simulated(1, 100_000, keys=keys)
    assert made.outcomes()[UNKNOWN] > 250
    verdict = check(made)
    assert verdict.is_linearizable, verdict
    assert verdict.configurations < 5 * len(made), "the search does not wander"


@pytest.mark.parametrize("fault", ["lease", "sessions"])
@pytest.mark.parametrize("keys", [("counter/a",), ("register/a",), ("map/a",), MANY])
def test_a_cluster_with_a_fault_is_found_out(fault: Fault, keys: tuple[str, ...]) -> None:
    for seed in range(4):
        verdict = check(simulated(seed, 2000, keys=keys, failures=15, unknown=0.001, fault=fault))
        assert verdict.failures, f"seed {seed}"
        for failure in verdict.failures:
            assert len(failure.part.known) < 25, failure


def test_every_window_of_a_sound_history_is_explained_from_any_state() -> None:
    luck = random.Random(1)
    for key in ("counter/a", "register/a", "map/a"):
        for seed in range(3):
            made = simulated(seed, 1500, keys=(key,), failures=5, unknown=0.02)
            moves = moves_of(model_of(key), made)
            ends = sorted(move.end for move in moves if move.end is not None)
            for _ in range(60):
                first = luck.randrange(len(ends))
                last = min(len(ends) - 1, first + luck.randrange(64))
                kept = window(moves, ends[first], ends[last])
                assert not fails(kept, Mark.ANY), f"{key}, seed {seed}, from {ends[first]} to {ends[last]}"


def test_the_story_shows_the_few_that_matter() -> None:
    lines = [f"w{number % 3} {10 * number}-{10 * number + 8} write v{number}" for number in range(1, 400)]
    lines += [f"r {10 * number + 9}-{10 * number + 10} read -> v{number}" for number in range(1, 400) if number != 300]
    lines += ["r 3009-3010 read -> v298"]
    (failure,) = check(history("register/r", *lines)).failures
    assert len(failure.part.known) <= 4
    story = str(failure)
    assert "read() -> 'v298', needs the state 'v298'; when it ended, the state could only be 'v" in story
    assert "It began after the end of " in story
    assert len(story.splitlines()) < 12


def test_the_story_leaves_out_nothing_that_would_explain_it() -> None:
    key, lines = BAD["two readers see two writes in two orders"]
    (failure,) = check(history(key, *lines)).failures
    told = [str(move.operation) for move in (*failure.part.known, *failure.part.maybe)]
    assert "write('y') -> None" in told, "without it the read of y would be the fault, which it is not"
    assert "write('y')" in str(failure)


def test_a_history_survives_its_file(tmp_path: Path) -> None:
    made = simulated(3, 500, keys=MANY)
    made.save(tmp_path / "history")
    loaded = History.load([tmp_path / "history"])
    assert sorted(map(repr, loaded)) == sorted(map(repr, made))


def test_a_journal_that_was_cut_short_has_calls_of_unknown_outcome(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    for value in ("x", "y"):
        journal.ended(journal.called("c1", "register/r", "write", (value,)), OK)
    journal.close()
    path.write_bytes(path.read_bytes()[:-10])
    assert History.load([path]).outcomes() == {OK: 1, UNKNOWN: 1}


@pytest.mark.parametrize(
    "line",
    [
        "no JSON",
        "[]",
        '{"id": 0}',
        '{"id": 0, "process": "a", "at": 1, "outcome": "great", "result": 1}',
        '{"id": 5, "process": "a", "at": 1, "outcome": "ok", "result": 1}',
    ],
)
def test_a_file_that_is_no_history_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "journal"
    path.write_text(line + "\n")
    with pytest.raises(ValueError, match="journal"):
        History.load([path])


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("register/r", "a 1-2 increment 1 -> 1"),
        ("counter/c", "a 1-2 increment x -> 1"),
        ("counter/c", "a 1-2 increment 1 -> x"),
        ("counter/c", "a 1-2 read -> x"),
        ("register/r", "a 1-2 write"),
        ("register/r", "a 1-2 cas x y"),
        ("register/r", "a 1-2 read hastily -> x"),
        ("register/r", "a 1-2 read stale soon -> x"),
        ("queue/q", "a 1-2 read"),
        ("register", "a 1-2 read"),
    ],
)
def test_an_operation_that_no_model_has_is_refused(key: str, line: str) -> None:
    with pytest.raises(Malformed):
        check(history(key, line))


def test_what_a_client_knows_of_one_object_binds_its_stale_reads_of_another() -> None:
    known = history("counter/c", "b.0 1-3 increment 1 -> 1", "b.0 8-9 increment 1 -> 2")
    late = history("register/r", "a 4-5 write x", "b.1 10-11 read stale -> None")
    both = History([*known, *late])
    assert check(late).is_linearizable
    assert [failure.key for failure in check(both).failures] == ["register/r"]


def test_times_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="before it began"):
        check(history("register/r", "a 2-1 write x"))


def test_the_search_is_given_up_at_its_limit() -> None:
    verdict = check(simulated(1, 2000), configurations_max=100)
    assert verdict.undecided == ["counter/a"]
    assert not verdict.is_linearizable


def test_a_recorded_history_can_be_checked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for made, code in ((simulated(1, 500), 0), (simulated(1, 500, fault="sessions"), 1)):
        made.save(tmp_path / "history")
        monkeypatch.setattr("sys.argv", ["linearizable", str(tmp_path / "history")])
        assert main() == code
