"""The `graft` command, as a shell would use it: real processes, exit statuses, streams."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from nodes import until

MACHINE = """
import time
import graft

class Bank(graft.StateMachine):
    def __init__(self):
        self.accounts = {}

    @graft.command
    def deposit(self, who: str, amount: int) -> int:
        if amount <= 0:
            raise ValueError("amount must be positive")
        self.accounts[who] = self.accounts.get(who, 0) + amount
        return self.accounts[who]

    @graft.query
    def balance(self, who: str) -> int:
        return self.accounts.get(who, 0)

class Lines(graft.StateMachine):
    def __init__(self):
        self.lines = []

    def apply(self, command: bytes):
        self.lines.append(command.decode())
        return len(self.lines)

    def query(self, query: bytes):
        return self.lines[int(query)]

class Slow(graft.StateMachine):
    @graft.command
    def linger(self) -> None:
        time.sleep(20)

    @graft.query
    def last(self) -> None:
        pass
"""


class Shell:
    """A directory, the nodes that were started in it, and the command."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "machines.py").write_text(MACHINE)
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self.cluster = ""

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "graft", *words]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "GRAFT_CLUSTER": self.cluster}

    def run(self, *words: str, status: int = 0, **more) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self.command(*words), cwd=self.directory, env=self.environment(), text=True,
                              capture_output=True, timeout=100, check=False, **more)  # fmt: skip
        assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def says(self, *words: str) -> str:
        return self.run(*words).stdout.strip()

    def start(self, address: str, machine: str = "Bank", data_dir: str | None = None) -> None:
        words = self.command("start", address, "--cluster", self.cluster, "--machine", f"machines.py:{machine}")
        words += [] if data_dir is None else ["--data-dir", data_dir]
        with (self.directory / f"{address}.log").open("ab") as log:
            self.nodes[address] = subprocess.Popen(words, cwd=self.directory, stdout=log, stderr=log)

    def wait_members(self, count: int) -> None:
        def there() -> bool:
            members = json.loads(self.says("configuration", "-o", "json"))["members"]
            return len(members) == count and all(member["voter"] and member["reachable"] for member in members)

        until(there)

    def end(self) -> None:
        for node in self.nodes.values():
            node.kill()
            node.wait()
