"""The tables of `make bench` are checked here: ratios are what it is about."""

from __future__ import annotations

import bench_tables
import pytest


def row(subject: str, number: int, rate: float, **more: object) -> bench_tables.Row:
    """A measurement of commands, one in flight."""
    return {
        "part": "depths", "subject": subject, "kind": "command", "round": number, "members": 3, "bytes": 128,
        "depth": 1, "rate": rate, "p50_us": 1e6 / rate, "p99_us": 1e6, "p999_us": 1e6, "cpu_us": 10.0,
        "rss_mib": 9.0, **more,
    }  # fmt: skip


def cells(table: str, name: str) -> dict[str, str]:
    """The line that begins so, by the heads."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "|" in line]
    (found,) = (line for line in lines if line[0] == name)
    return dict(zip(lines[0], found, strict=True))


def test_a_ratio_is_of_one_round_and_their_median_is_shown() -> None:
    ours = {n: row("graft", n, rate) for n, rate in enumerate([100.0, 10.0, 30.0])}
    theirs = {n: row("etcd", n, rate) for n, rate in enumerate([10.0, 10.0, 10.0, 99.0])}
    assert bench_tables.ratios(ours, theirs, "rate") == [10, 1, 3]
    assert bench_tables.spread_short([10, 1, 3]) == "3.00 (1.00-10.0)"


def test_what_was_measured_once_has_no_extremes() -> None:
    assert (bench_tables.spread([2.5]), bench_tables.spread([])) == ("2.50", "")
    assert [bench_tables.short(value) for value in (123.4, 7.25, 0.5, 0.00123)] == ["123", "7.2", "0.50", "0.0012"]


def test_a_subject_stands_beside_floor_etcd_and_limits() -> None:
    written = {"written_bytes": 4096.0, "counted_bytes": 4096.0, "syncs": 1.0}
    rows = [
        row("write and sync", 0, 10_000, **written),
        row("write and sync, all members at once", 0, 5000),
        row("gRPC echo", 0, 20_000, written_bytes=0.0),
        row("gRPC call", 0, 10_000, written_bytes=0.0),
        row("floor", 0, 4000, **written),
        row("graft", 0, 2000, **written),
        row("etcd", 0, 1000, **written),
    ]
    found = cells(bench_tables.of_cluster(rows), "graft")
    assert (found["x floor"], found["x etcd"], found["p50 x etcd"]) == ("0.50", "2.00", "0.50")
    assert (found["x sync"], found["x echo"]) == ("0.20", "0.10")
    assert (found["p50 x sync + call"], found["p50 x syncs + call"]) == ("2.50", "1.67")
    assert (found["syncs"], found["written B"]) == ("1.00", "4096")


def test_reads_stand_beside_what_etcd_has_of_their_kind() -> None:
    rows = [
        row("graft", 0, 800, kind="lease", written_bytes=0.0),
        row("etcd", 0, 100, kind="linearizable", written_bytes=0.0),
        row("etcd", 0, 200, kind="stale", written_bytes=0.0),
        row("graft", 0, 800, kind="stale", written_bytes=0.0),
    ]
    table = bench_tables.of_cluster(rows)
    assert cells(table, "graft: lease")["x etcd"] == "8.0"
    assert cells(table, "graft: stale")["x etcd"] == "4.00"


@pytest.mark.parametrize(("told", "believed"), [(4096.0, True), (0.0, False), (8192.0, False)])
def test_bytes_are_shown_where_the_device_got_what_can_be_computed(told: float, believed: bool) -> None:
    rows = [row("floor", 0, 1000, written_bytes=told, counted_bytes=4096.0, syncs=1.0)]
    assert bench_tables.written_is_believed({"floor": dict(enumerate(rows))}) is believed
    assert ("written B" in bench_tables.of_cluster(rows)) is believed


def test_certificates_are_held_against_the_same_without() -> None:
    rows = [row("graft", 0, 1000), row("graft, TLS", 0, 900), row("graft, by a client, TLS", 0, 900)]
    table = bench_tables.of_tls(rows)
    assert cells(table, "graft: command")["per s, x plain"] == "0.90"
    assert "client" not in table


def test_calls_from_python_stand_beside_peers_with_as_many_threads() -> None:
    measured = {"round": 0, "p50_us": 1.0, "p99_us": 1.0, "p999_us": 1.0, "cpu_us": 1.0, "rss_mib": 1.0}
    rows = [
        {"machine": "words", "tls": False, "how": "many", "depth": 1024, "rate": 1000.0, **measured},
        {"machine": "words", "tls": False, "how": "bare", "depth": 1024, "rate": 100_000.0, **measured},
        {"peer": "etcd", "depth": 64, "rate": 100.0, **measured},
        {"peer": "etcd", "depth": 8, "rate": 50.0, **measured},
        row("graft, on the leader", 0, 2000, depth=1024),
    ]
    found = cells(bench_tables.of_python(rows), "words, many")
    assert (found["x Rust"], found["x etcd"], found["x interpreter"]) == ("0.50", "10.0", "0.0100")


def test_a_document_has_a_table_for_each_part_and_says_of_what_it_is() -> None:
    about = {"machine": "2 cores", "peers": "etcd 3", "when": "today", "load": "0.1", "profile": "quick"}
    rows = [row("graft", 0, 100, part="sizes"), row("graft", 0, 100)]
    written = bench_tables.document({**about, "rounds": 1, "seconds": 0.3}, rows)
    assert written.startswith("2 cores; etcd 3. today, load before it 0.1.\nBuilt with the profile `quick`.")
    heads = [line for line in written.splitlines() if line.startswith("###")]
    assert heads == [f"### {bench_tables.TITLES[part]}" for part in ("sizes", "depths")]


def test_tables_go_between_their_marks_and_leave_the_rest() -> None:
    text = f"before\n{bench_tables.BEGIN}\nold\n{bench_tables.END}\nafter\n"
    once = bench_tables.into(text, "new")
    assert once == f"before\n{bench_tables.BEGIN}\n\nnew\n\n{bench_tables.END}\nafter\n"
    assert bench_tables.into(once, "new") == once
    with pytest.raises(ValueError, match="no place for tables"):
        bench_tables.into("before\nafter\n", "new")
