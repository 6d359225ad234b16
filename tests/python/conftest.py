"""What tests of running nodes share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import graft
import pytest
from machines import Bank
from nodes import DEADLINE_SECONDS, Group, Trio
from shells import Shell

# Tests that a script runs in its background hand down that interrupts are ignored; what is caught is not handed down.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    """Nobody yet; all that were started are stopped in the end."""
    made = Group(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[Trio]:
    """Three nodes with a `Bank`, started and ready."""
    made = Trio(tmp_path).start().ready()
    yield made
    made.stop()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[graft.Node[Bank]]:
    """A node alone in its cluster, started and ready."""
    with graft.Node(Bank(), id="n1", address="127.0.0.1:0", data_dir=tmp_path / "n1") as made:
        yield made.wait_ready(DEADLINE_SECONDS)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A directory to run `graft` in; the nodes that were started in it are killed in the end."""
    made = Shell(tmp_path)
    yield made
    made.end()
