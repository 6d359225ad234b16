"""What type checkers make of the API."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import graft
import pytest

HERE = Path(__file__).parent / "typing"
PACKAGE = Path(graft.__file__).parent


def mypy(tmp_path, *names):
    arguments = ["--strict", "--no-error-summary", "--python-version", "3.11", "--cache-dir", str(tmp_path), *names]
    # An installed package is found by itself, one that is edited in place is not.
    places = [HERE] if PACKAGE.parent.name == "site-packages" else [PACKAGE.parent, HERE]
    environment = {"MYPYPATH": ":".join(map(str, places)), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [sys.executable, "-m", "mypy", *arguments],
        cwd=HERE,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(autouse=True)
def _mypy():
    pytest.importorskip("mypy", reason="mypy is not installed")


def test_good_use_is_accepted(tmp_path):
    done = mypy(tmp_path, "good.py")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_mistake_is_found_and_nothing_else(tmp_path):
    done = mypy(tmp_path, "bad.py")
    lines = (HERE / "bad.py").read_text().splitlines()
    marked = {number for number, line in enumerate(lines, 1) if "# bad:" in line}
    found = {int(match[1]) for match in re.finditer(r"^bad\.py:(\d+): error", done.stdout, re.MULTILINE)}
    assert found == marked, done.stdout + done.stderr
    assert "good.py" not in done.stdout


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").exists()
    assert (PACKAGE / "_graft.pyi").exists()
