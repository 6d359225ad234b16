"""Puts small bugs into a copy of the tree, one by one, and sees what finds them.

    mutants.py [--only NAME ...] [--seconds 60] [--report docs/mutants.md]

A mutant is one text in one file that is replaced by another; mutants.toml lists them. It is caught by seeds when the
simulator finds a world in which something does not hold, by transcripts when a golden story of the core is told
otherwise, and, if by neither, by the tests of its own file and concept, or in the store by the storage matrix. One that
survived is a hole, or changes nothing that anybody can see, and then the list says why. Exit status 1 if one survived
without such a reason, or does not apply any more.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPY = ROOT / "target" / "mutants"
# What was found of each when it was tried last: a report has all of them, also of those that were not tried this time.
RESULTS = COPY / "target" / "results.json"
# As optimised as it may be and still be built anew in seconds.
BUILD = [
    "cargo", "build", "--quiet", "--profile", "fast", "--offline", "--locked", "--package", "graft-simulation",
    "--config", "profile.fast.debug-assertions=false", "--config", "profile.fast.debug=false",
    "--config", "profile.fast.codegen-units=256",
]  # fmt: skip
TEST = ["cargo", "test", "--quiet", "--offline", "--locked", "--package"]
# Crates by where they lie. Golden transcripts are of the core alone.
CORE, STORE = "src/domain", "src/infrastructure/store"
CRATES = {CORE: "graft-domain", "src/services": "graft-services", STORE: "graft-store"}
BATCHES = [10, 20, 40, 80]


@dataclass(frozen=True)
class Mutant:
    """A bug: in `file`, the one place that reads `before` reads `after`. `equivalent` says why nobody can see it."""

    name: str
    file: str
    before: str
    after: str
    equivalent: str = ""


@dataclass(frozen=True)
class Found:
    """What was said of one. `seeds` counts the worlds that were played, the broken one included."""

    wrong: str = ""
    said: str = ""
    seeds: int = 0
    story: str = ""
    tests: str = ""

    @property
    def by(self) -> str:
        """In a word or three."""
        by = [name for name, has in (("seeds", self.said), ("transcripts", self.story), ("tests", self.tests)) if has]
        return self.wrong or " and ".join(by) or "survived"


def read() -> list[Mutant]:
    """The list."""
    table = tomllib.loads((ROOT / "tools/mutants.toml").read_text(encoding="utf-8"))
    return [Mutant(**mutant) for mutant in table["mutant"]]


def run(mutant: Mutant, seconds: int) -> Found:
    """Puts it in, looks for it, and takes it out."""
    path = COPY / mutant.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.before) != 1:
        return Found(wrong="does not apply")
    path.write_text(text.replace(mutant.before, mutant.after), encoding="utf-8")
    try:
        built = subprocess.run(BUILD, cwd=COPY, capture_output=True, text=True, check=False)
        if built.returncode:
            return Found(wrong="does not build", said=built.stderr.strip().splitlines()[0])
        said, seeds = simulate(seconds)
        story = failing(mutant, "scenarios") if mutant.file.startswith(CORE) else ""
        tests = "" if said or story else failing(mutant, path.stem)
        if not (said or story or tests) and mutant.file.startswith(STORE):
            tests = matrix()
        return Found(said=said, seeds=seeds, story=story, tests=tests)
    finally:
        path.write_text(text, encoding="utf-8")


def simulate(seconds: int) -> tuple[str, int]:
    """Plays seeds until one is broken: what is, and how many were played up to it."""
    program, first, end = COPY / "target/fast/simulate", 0, time.monotonic() + seconds
    batches = iter(BATCHES)
    while time.monotonic() < end:
        count = next(batches, BATCHES[-1])
        settings = {"FIRST": str(first), "SEEDS": str(count), "QUICK": "1"}
        try:
            played = subprocess.run(
                [program], env=settings, capture_output=True, text=True, check=False, errors="replace", timeout=600
            )
        except subprocess.TimeoutExpired:
            return "a world does not end", first + count
        broken = sorted(
            (int(seed), why) for seed, why in re.findall(r"^seed (\d+): BROKEN: (.*)$", played.stdout, re.MULTILINE)
        )
        if broken:
            return " ".join(broken[0][1].split())[:110], broken[0][0] + 1
        if "all holds" not in played.stdout:
            return f"the simulator ends with status {played.returncode}", first + count
        first += count
    return "", first


def matrix() -> str:
    """What a share of the storage matrix says, if something does not hold in it."""
    tried = subprocess.run(
        [COPY / "target/fast/matrix"], env={"EVERY": "8"}, capture_output=True, text=True, check=False, errors="replace"
    )
    broken = re.search(r"^BROKEN: (.*)$", tried.stdout, re.MULTILINE)
    return f"storage matrix: {broken[1]}"[:110] if broken else ""


def failing(mutant: Mutant, which: str) -> str:
    """The first test of the mutant's crate that fails, of those with this in their names; of stories, which one."""
    crate = next((name for directory, name in CRATES.items() if mutant.file.startswith(directory)), None)
    if crate is None:
        return ""
    played = subprocess.run(
        [*TEST, crate, "--lib", which], cwd=COPY, capture_output=True, text=True, check=False, errors="replace"
    )
    said = played.stdout + played.stderr
    failed = re.findall(r"\b([a-z_0-9]+)\.txt:\d+ >", said) or re.findall(r"^    ([a-z_:0-9]+)$", said, re.MULTILINE)
    return failed[0].rsplit("::", 1)[-1] if played.returncode and failed else ""


def copy() -> None:
    """The tree as git knows it, with a target directory of its own that is kept from one time to the next."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        source, target = ROOT / name, COPY / name
        if source.is_file() and not (target.is_file() and target.read_bytes() == source.read_bytes()):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def main() -> int:
    """Runs them all and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="part of a mutant's name")
    parser.add_argument("--seconds", type=int, default=60, help="to find each (default 60)")
    parser.add_argument("--report", type=Path, help="write a table there")
    arguments = parser.parse_args()
    copy()
    chosen = [m for m in read() if not arguments.only or any(part in m.name for part in arguments.only)]
    rows: list[tuple[Mutant, Found]] = []
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for mutant in chosen:
        found = run(mutant, arguments.seconds)
        rows.append((mutant, found))
        kept[mutant.name] = asdict(found)
        RESULTS.write_text(json.dumps(kept, indent=1), encoding="utf-8")
        print(f"{mutant.name}: {found.by} [{found.seeds}] {found.said} {found.story} {found.tests}", flush=True)
        if arguments.report:
            every = [(m, Found(**kept[m.name])) for m in read() if m.name in kept]
            arguments.report.write_text(table(every), encoding="utf-8")
    alive = [mutant.name for mutant, found in rows if not is_fine(mutant, found)]
    fine = len(rows) - len(alive)
    print(f"{fine} of {len(rows)} are as they should be, {100 * fine // max(1, len(rows))} %")
    print("".join(f"not caught: {name}\n" for name in alive), end="")
    return int(bool(alive))


def is_caught(found: Found) -> bool:
    """Whether anything saw it."""
    return not found.wrong and found.by != "survived"


def is_fine(mutant: Mutant, found: Found) -> bool:
    """Whether it was caught, or nobody could."""
    return is_caught(found) or (bool(mutant.equivalent) and not found.wrong)


def table(rows: list[tuple[Mutant, Found]]) -> str:
    """The report."""
    caught = sum(is_caught(found) for _, found in rows)
    same = [mutant for mutant, found in rows if mutant.equivalent and not is_caught(found)]
    by_seeds = sum(is_caught(found) and bool(found.said) for _, found in rows)
    lines = [
        "# Mutants",
        "",
        "Small bugs put into the product one by one, and what saw them: the [simulator](simulation.md)'s worlds, from",
        "seed 0 on, for a minute at most; the golden transcripts of the core; and, where neither did, the tests of the",
        f"crate. This page is written by `make mutants`. Of {len(rows)} tried, {caught} were caught, {by_seeds} of",
        f"them by worlds; {len(same)} that were not change nothing that could be seen, as is told below.",
        "",
        "| bug | where | caught by | what a world said | worlds | transcript or test |",
        "|---|---|---|---|---|---|",
        *(
            f"| {m.name} | `{m.file.removeprefix('src/')}` | {f.by} | {f.said.replace('|', '/')} | {f.seeds} "
            f"| {f.story or f.tests} |"
            for m, f in rows
        ),
    ]
    if same:
        lines += ["", "## Not to be seen", "", *(f"- *{mutant.name}*: {mutant.equivalent}" for mutant in same)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
