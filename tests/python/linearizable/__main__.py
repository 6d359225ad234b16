"""Checks recorded histories again: `python -m linearizable FILE...`. Ends with 1 if they are not linearizable."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from linearizable.checker import check
from linearizable.history import History


def main() -> int:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(prog="linearizable", description=__doc__)
    parser.add_argument("file", type=Path, nargs="+")
    verdict = check(History.load(parser.parse_args().file))
    print(verdict)
    return 0 if verdict.is_linearizable else 1


if __name__ == "__main__":
    sys.exit(main())
