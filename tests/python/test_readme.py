"""The README's example runs as printed, but for its ports, which may be taken here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from processes import free_ports

README = Path(__file__).parents[2] / "README.md"


def test_the_example_runs_as_printed(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 1
    program = blocks[0]
    assert len([line for line in program.splitlines() if line.strip()]) <= 20
    for port, free in zip(("7001", "7002", "7003"), free_ports(3), strict=True):
        assert port in program
        program = program.replace(port, str(free))
    for printed in ("5\n", "10\n"):  # the second time it finds what the first has left
        ran = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, printed, "")
