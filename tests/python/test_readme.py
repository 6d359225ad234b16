"""The README's examples run as printed, one after the other, but for their ports, which may be taken here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from processes import free_ports

README = Path(__file__).parents[2] / "README.md"
PORTS = ("7001", "7002", "7003", "7004")


def blocks(ports: list[int]) -> list[str]:
    found = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    for port, free in zip(PORTS, ports, strict=True):
        assert any(port in block for block in found)
        found = [block.replace(port, str(free)) for block in found]
    return found


def run(program: str, directory: Path) -> list[str]:
    """The lines that it prints."""
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.splitlines()


def test_the_twenty_lines_run_as_printed(tmp_path: Path) -> None:
    first, *_ = blocks(free_ports(4))
    assert len([line for line in first.splitlines() if line.strip()]) <= 20
    assert run(first, tmp_path) == ["5"]
    assert run(first, tmp_path) == ["10"], "the second time it finds what the first has left"


def test_a_client_calls_as_printed(tmp_path: Path) -> None:
    twenty_lines, calling, *_ = blocks(free_ports(4))
    for times in (1, 2):  # the second time the state is there, and what was emitted comes again
        first, balance, stale, *rest = run(f"{twenty_lines}\n{calling}", tmp_path)
        assert (first, balance, stale) == (str(5 * times), str(7 * times), str(7 * times))
        told = [line.split(maxsplit=1)[1] for line in rest[: 2 * times]]
        assert told == ["deposits ['ann', 5]", "deposits ['bob', 7]"] * times
        digests = rest[2 * times :]
        assert digests[0].endswith("all that answered agree")
        assert [line.split()[0] for line in digests[1:]] == ["n1", "n2", "n3"]
        assert digests[2].split(maxsplit=1)[1] == "did not answer in time"


def test_the_cluster_grows_as_printed(tmp_path: Path) -> None:
    ports = free_ports(4)
    twenty_lines, _, growing, _ = blocks(ports)
    for balance in ("5", "10"):  # the second time everything is so already
        printed, *table = run(f"{twenty_lines}\n{growing}", tmp_path)
        assert printed == balance
        assert table[0].split() == ["id", "address", "role", "reachable", "lag"]
        members = {line.split()[0]: line.split()[1] for line in table[1:]}
        assert members == {f"n{place}": f"127.0.0.1:{ports[place - 1]}" for place in (1, 3, 4)}


def test_a_cluster_in_one_process_as_printed(tmp_path: Path) -> None:
    twenty_lines, _, _, local = blocks(free_ports(4))
    machine = twenty_lines.partition("\nmembers = ")[0]
    assert run(f"{machine}\n{local}", tmp_path) == ["2"]
