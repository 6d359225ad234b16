"""The verdict of `make soak`: what grows is told from what goes up and down."""

from __future__ import annotations

import random

import pytest
from scale.report import bounds, quantile
from soak.verdict import LIMITS, judged, slope, verdict

MEMORY, FILES, TIMES = LIMITS[0], LIMITS[3], LIMITS[-2]
ENDED = {"written": 10, "unknown": 0, "failed": 0, "wrong": [], "agree": True}


def samples(count=120, *, seed=1, **of):
    """One every ten seconds; each name has a function of the hour."""
    luck = random.Random(seed)
    found = []
    for number in range(1, count + 1):
        seconds = 10.0 * number
        at = {name: value(seconds / 3600) if callable(value) else value for name, value in of.items()}
        found.append({"seconds": seconds, "bare_ms": 1.0, **{k: v + luck.uniform(-1, 1) for k, v in at.items()}})
    return found


def test_a_saw_is_steady():
    # Up to 40 MiB more, ten times an hour.
    looks = samples(**{"witness.mib": lambda hour: 50 + 40 * (hour * 10 % 1)})
    assert judged(looks, MEMORY).met


def test_a_slow_leak_is_none():
    looks = samples(**{"witness.mib": lambda hour: 50 + 60 * hour})
    found = judged(looks, MEMORY)
    assert found.met is False
    assert found.figures["slope_per_hour"] == pytest.approx(60, rel=0.1)


def test_what_grows_at_the_beginning_only_is_steady():
    looks = samples(count=360, **{"witness.mib": lambda hour: 50 + min(40, 400 * hour)})
    assert judged(looks, MEMORY).met


def test_one_outage_is_no_trend():
    looks = samples(**{"p50.bare": 5.0})
    looks[-3] |= {"p50.bare": 900.0}
    assert judged(looks, TIMES).met


def test_a_file_a_minute_is_found():
    assert judged(samples(**{"witness.files": lambda hour: 13 + int(hour * 60)}), FILES).met is False
    assert judged(samples(**{"witness.files": 13}), FILES).met


def test_times_are_not_judged_on_a_machine_that_others_take():
    slower = samples(**{"p50.bare": lambda hour: 5 + 60 * hour})
    assert judged(slower, TIMES).met is False
    for place, look in enumerate(slower):
        look["bare_ms"] = 1 + place / 40
    found = judged(slower, TIMES)
    assert found.met is None
    assert "where nothing else does" in found.found


def test_a_short_run_is_no_proof():
    found = judged(samples(count=12, **{"witness.mib": 50}), MEMORY)
    assert found.met is False
    assert "too short" in found.found


def test_a_lost_write_is_no_success():
    steady = samples(**{limit.name: 10.0 for limit in LIMITS})
    assert all(one.met for one in verdict(steady, ENDED))
    for trouble in ({"wrong": ["lane-1 came to 7, and must be at 8"]}, {"agree": False}):
        assert [one.what for one in verdict(steady, ENDED | trouble) if one.met is False]


def test_slopes_do_not_hang_on_single_points():
    points = [(float(n), 2.0 * n / 3600) for n in range(100)]
    points[50] = (50.0, 1e9)
    assert slope(points) == pytest.approx(2.0)


def test_quantiles_and_bounds():
    assert [quantile(list(range(1, 101)), share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert quantile([7.0], 0.99) == 7
    assert bounds(list(range(1, 10))) == (2, 8)  # 96 % sure
    assert bounds([1, 2, 3]) == (1, 3)
