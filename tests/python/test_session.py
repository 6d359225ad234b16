"""A person at a terminal, from the founding of a cluster to the loss of two of its disks and back."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from nodes import DEADLINE_SECONDS, free_addresses, until

EXAMPLES = Path(__file__).parents[2] / "examples"
# What a terminal is told beside the words.
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Session:
    """A shell on a terminal. A line is typed, and what it says and exits with is read."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lines = 0
        self.nodes: list[int] = []
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            os.chdir(directory)
            environment = {**os.environ, "PS1": "", "PS2": "", "PYTHON": sys.executable, "TERM": "xterm"}
            os.execve("/bin/sh", ["sh"], environment)
        self.type('graft() { "$PYTHON" -m graft "$@"; }')
        self.type("stty -echo")

    def type(self, line: str, seconds: float = 60) -> tuple[str, int]:
        """What it said, and its exit status."""
        self.lines += 1
        os.write(self.end, f'{line}\necho "end-{self.lines}=$?"\n'.encode())
        said, pattern = "", re.compile(rf"^end-{self.lines}=(\d+)\r?$", re.MULTILINE)
        deadline = time.monotonic() + seconds
        while not (end := pattern.search(said)):
            assert time.monotonic() < deadline, f"{line}: {said}"
            if select.select([self.end], [], [], 0.1)[0]:
                said += os.read(self.end, 65536).decode()
        return ESCAPES.sub("", said[: end.start()]).replace("\r\n", "\n").strip(), int(end.group(1))

    def says(self, line: str) -> str:
        """What it said, when it went well."""
        said, status = self.type(line)
        assert status == 0, f"{line}: {status}\n{said}"
        return said

    def start(self, address: str, cluster: str, more: str = "") -> int:
        """Runs a node in the background; its pid."""
        self.type(
            f'"$PYTHON" -m graft start {address} --cluster {cluster} --machine sqlite_machine.py:SQLite {more} '
            f">> {address}.log 2>&1 &"
        )
        self.nodes.append(int(self.says("echo $!").splitlines()[-1]))
        return self.nodes[-1]

    def wait_for_voters(self, count: int) -> None:
        """Until so many vote and are reachable."""

        def there() -> bool:
            said, status = self.type("graft configuration -o json 2>/dev/null")
            members = json.loads(said)["members"] if status == 0 else []
            return len(members) == count and all(member["voter"] and member["reachable"] for member in members)

        until(there)

    def close(self) -> None:
        """Ends the shell and what runs in it."""
        for node in self.nodes:
            with suppress(ProcessLookupError):
                os.kill(node, signal.SIGKILL)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.end)


@pytest.fixture
def session(tmp_path):
    shutil.copy(EXAMPLES / "sqlite_machine.py", tmp_path)
    made = Session(tmp_path)
    yield made
    made.close()


def test_a_session_at_a_terminal(session):
    one, two, three = free_addresses(3)
    pids = {one: session.start(one, one)}
    session.says(f"export GRAFT_CLUSTER={one}")
    assert session.says(f"graft health --wait {DEADLINE_SECONDS}") == "healthy"
    pids[two], pids[three] = session.start(two, one), session.start(three, one)
    session.wait_for_voters(3)

    session.says("graft command execute script='CREATE TABLE users (name TEXT)'")
    for n in range(5):
        session.says(f"graft command execute script=\"INSERT INTO users VALUES ('user {n}')\"")
    assert "user 4" in session.says("graft query rows sql='SELECT name FROM users'")
    assert session.says(f"graft leader {two}") == f"{two} leads"
    assert two in session.says("graft leader")
    assert three in session.says("graft configuration")

    # The seed's own trouble: the leader goes and comes back, and disturbs nobody.
    os.kill(pids[two], signal.SIGKILL)
    until(lambda: session.type("graft leader")[0].split(" ")[0] in (one, three))
    sick, status = session.type("graft health")
    assert status == 10
    assert f"{two} is not reachable: it " in sick
    assert f"graft member replace {two}" in sick
    refused, status = session.type(f"graft member remove {three}")
    assert status == 5
    assert "error[MEMBERSHIP_REFUSED]" in refused
    session.says("graft command execute script=\"INSERT INTO users VALUES ('meanwhile')\"")
    pids[two] = session.start(two, one)
    session.wait_for_voters(3)
    assert session.says("graft health") == "healthy"
    assert "meanwhile" in session.says(f"graft query rows sql='SELECT name FROM users' -c {two}")

    # Two disks are lost.
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    until(lambda: session.type("graft status --timeout 1")[1] == 3)
    for address in (one, two):
        shutil.rmtree(session.directory / f"graft-{address}")
    told = session.says(f"graft recover graft-{three}")
    assert "are lost, if there are any" in told
    session.type(f"echo {three} > answer")
    session.says(f"graft recover graft-{three} --into new --yes")
    session.start(three, three, f"--id {three} --data-dir new")
    session.says(f"export GRAFT_CLUSTER={three}")
    assert session.says(f"graft health --wait {DEADLINE_SECONDS}") == "healthy"
    rows = session.says("graft query rows sql='SELECT name FROM users'")
    assert all(name in rows for name in [*(f"user {n}" for n in range(5)), "meanwhile"])
    session.start(one, three)
    session.wait_for_voters(2)
    assert session.says(f"graft stop {one}").startswith(f"{one} is removed")


def test_a_command_that_is_cut_off_is_unknown_only_if_it_is(session):
    """The leader dies while commands are under way: each says done, or refused, or that nobody can know."""
    one, two, three = free_addresses(3)
    pids = {one: session.start(one, one)}
    session.says(f"export GRAFT_CLUSTER={one},{two},{three}")
    session.says(f"graft health --wait {DEADLINE_SECONDS}")
    pids[two], pids[three] = session.start(two, one), session.start(three, one)
    session.wait_for_voters(3)
    session.says("graft execute execute script='CREATE TABLE rows (n INTEGER)'")
    statuses: dict[int, int] = {}
    for round_ in range(3):
        leader = session.says("graft leader").split()[0]
        session.type(
            "for n in 1 2 3 4 5 6 7 8; do (graft execute execute "
            f'script="INSERT INTO rows VALUES ({round_}$n)" >/dev/null 2>&1; echo "{round_}$n $?" >> ended) & done'
        )
        os.kill(pids[leader], signal.SIGKILL)
        until(lambda lines=(round_ + 1) * 8: len(ended(session.directory)) == lines)
        pids[leader] = session.start(leader, one)
        session.wait_for_voters(3)
    statuses = ended(session.directory)
    rows = session.says("graft query rows sql='SELECT n FROM rows' -o json")
    there = [row[0] for row in json.loads(rows)["value"]]
    assert len(there) == len(set(there)), "nothing is there twice"
    for number, status in statuses.items():
        assert status in (0, 1, 3, 4, 6), (number, status)
        if status == 0:
            assert number in there
        elif status != 6:
            assert number not in there, f"{number} was said not to be applied: {status}"


def ended(directory: Path) -> dict[int, int]:
    """What each of the commands exited with."""
    if not (directory / "ended").exists():
        return {}
    lines = (directory / "ended").read_text().splitlines()
    return {int(number): int(status) for number, status in (line.split() for line in lines)}
