"""Settings: units, ranges, and what a newcomer is told."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from datetime import timedelta

import graft
import pytest
from graft import _address, _config


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("300ms", 0.3),
        ("1.5s", 1.5),
        (" 2 s ", 2.0),
        ("500000us", 0.5),
        ("1min", 60.0),
        (2, 2.0),
        (0.25, 0.25),
        (timedelta(seconds=3), 3.0),
    ],
)
def test_durations(text, seconds):
    assert graft.Config(election_timeout=text).election_timeout == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"), [("8MiB", 8 << 20), ("64KiB", 65536), ("1GB", 10**9), ("1.5 KiB", 1536), ("512B", 512), (77, 77)]
)
def test_sizes(text, size):
    assert graft.Config(command_bytes_max=text, log_bytes_max="2GiB").command_bytes_max == size


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"election_timeout": "300"}, "election_timeout='300' has no unit; write it like \"300ms\""),
        ({"election_timeout": "300 mS"}, "did you mean ms?"),
        ({"election_timeout": "3 fortnights"}, "unknown unit 'fortnights'"),
        ({"election_timeout": "soon"}, "is not a number with a unit"),
        ({"election_timeout": "-1s"}, "is not a number with a unit"),
        ({"election_timeout": True}, "must be a duration"),
        ({"election_timeout": None}, "must be a duration"),
        ({"election_timeout": float("nan")}, "finite"),
        ({"election_timeout": float("inf")}, "finite"),
        ({"timeout": 0}, "above 0"),
        ({"timeout": timedelta(seconds=-1)}, "above 0"),
        ({"command_bytes_max": "8mib"}, "did you mean MiB?"),
        ({"command_bytes_max": 1.5}, "must be a size"),
        ({"command_bytes_max": 0}, "above 0"),
        ({"inflight_max": "256"}, "must be an int above 0"),
        ({"heartbeat": "200ms"}, "more than a third of election_timeout"),
        ({"election_timeout": "5ms", "heartbeat": "1ms"}, "below 0.01s"),
        ({"log_bytes_max": "1MiB"}, "would never fit"),
        ({"log_bytes_max": "100MiB"}, "the log would be full before a snapshot could shorten it"),
        ({"snapshot_every_bytes": 0}, "above 0"),
        ({"snapshot_every_entries": "1000"}, "must be an int above 0"),
        ({"snapshot_bytes_per_second": 1e6}, "must be a size"),
        ({"election_timeot": "1s"}, "there is no setting 'election_timeot'; did you mean 'election_timeout'?"),
        ({"qqq": 1}, "there are: batch_bytes_max"),
    ],
)
def test_what_is_wrong_is_said(settings, words):
    with pytest.raises(graft.ConfigError) as caught:
        graft.Config(**settings)
    assert words in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_replace_keeps_the_rest_and_checks_again():
    config = graft.Config(heartbeat="10ms").replace(election_timeout="100ms")
    assert (config.heartbeat, config.election_timeout) == (0.01, 0.1)
    with pytest.raises(graft.ConfigError, match="more than a third"):
        config.replace(heartbeat="90ms")


def test_every_setting_says_its_unit_default_and_reason():
    tree = ast.parse(inspect.getsource(_config.Config)).body[0]
    assert isinstance(tree, ast.ClassDef)
    texts = {
        before.target.id: after.value.value
        for before, after in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(before, ast.AnnAssign) and isinstance(after, ast.Expr)
    }
    fields = [field.name for field in dataclasses.fields(graft.Config)]
    assert set(texts) == set(fields) == set(_config._PARSERS) == set(_config.Settings.__annotations__)
    for name in fields:
        assert texts[name].split(";")[0] in ("Seconds", "Bytes", "Calls", "Connections", "Entries", "Bytes a second"), (
            name
        )
        assert "default" in texts[name], name
        assert len(texts[name]) > 100, f"{name} gives no reason"


@pytest.mark.parametrize("value", ["n1", "a.b-c_d:e", "x" * 63, "7"])
def test_good_ids(value):
    assert _address.checked_id("id", value) == value


@pytest.mark.parametrize("value", ["", "x" * 64, "n 1", "ä", "a/b", "n1\n", 1, None, b"n1"])
def test_bad_ids(value):
    with pytest.raises(graft.ConfigError, match="id="):
        _address.checked_id("id", value)


@pytest.mark.parametrize(
    "value", ["127.0.0.1:7001", "localhost:1", "n1.example.org:65535", "[::1]:7001", "[fe80::1%eth0]:1"]
)
def test_good_addresses(value):
    assert _address.checked_address("address", value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "7001",
        ":7001",
        "host:",
        "host:port",
        "host:70000",
        "host:0",
        "::1:7001",
        "http://h:1",
        "a b:1",
        "h:1\n",
        7001,
        None,
    ],
)
def test_bad_addresses(value):
    with pytest.raises(graft.ConfigError, match="address="):
        _address.checked_address("address", value)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"n2": "h:2"}, "members has no 'n1'"),
        ({"n1": "h:9"}, "but this node's address is 'h:1'"),
        ({"n1": "h:1", "n2": "h:1"}, "have the same address"),
        ({"n1": "h:1", "n 2": "h:2"}, "must be 1 to 63 letters"),
        ({"n1": "h:1", "n2": "h"}, "must have the form"),
        ({}, "members has no 'n1'"),
        (["n1"], "must be a dict"),
    ],
)
def test_bad_members(members, words):
    with pytest.raises(graft.ConfigError, match=words.replace("(", r"\(")):
        _address.checked_members(members, "n1", "h:1")


def test_good_members():
    assert _address.checked_members({"n1": "h:1", "n2": "h:2"}, "n1", "h:1") == {"n1": "h:1", "n2": "h:2"}
    assert _address.checked_members(None, "n1", "h:1") is None
