"""Runs the notebooks in examples from top to bottom, without a browser, each in a fresh kernel.

python tools/notebooks.py            run all, fail if a cell of one fails
python tools/notebooks.py --write    keep their outputs, in a form that shows where nothing is alive
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import nbformat  # pyright: ignore[reportMissingImports]
from nbclient import NotebookClient  # pyright: ignore[reportMissingImports]
from nbclient.exceptions import CellExecutionError  # pyright: ignore[reportMissingImports]

EXAMPLES = Path(__file__).parent.parent / "examples"
# A kernel that is new, for a page that is shown to somebody else, has none of the widgets.
ALIVE = "application/vnd.jupyter.widget-view+json"
CELL_SECONDS = 120


def run(path: Path) -> Any:
    """The notebook with its outputs. Raises what a cell raises."""
    book = nbformat.read(path, as_version=4)
    client = NotebookClient(
        book, timeout=CELL_SECONDS, kernel_name="python3", resources={"metadata": {"path": EXAMPLES}}
    )
    client.execute()
    return book


def stilled(book: Any) -> Any:
    """Without what needs a kernel to be shown, and without the times of the run."""
    book.metadata.pop("widgets", None)
    for cell in book.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop(ALIVE, None)
            output.get("metadata", {}).pop(ALIVE, None)
    return book


def main() -> None:
    """Runs those that are named, or all."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("names", nargs="*", help="of notebooks, without .ipynb")
    options.add_argument("--write", action="store_true", help="keep the outputs")
    given = options.parse_args()
    paths = [EXAMPLES / f"{name}.ipynb" for name in given.names] or sorted(EXAMPLES.glob("*.ipynb"))
    failed = 0
    for path in paths:
        since = time.monotonic()
        try:
            book = run(path)
        except CellExecutionError as error:
            failed += 1
            print(f"{path.name}: {error}", file=sys.stderr)
            continue
        print(f"{path.name}: {time.monotonic() - since:.1f} s")
        if given.write:
            nbformat.write(stilled(book), path)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
