"""Breaks the engine on purpose and demands that the chaos tests find it out: `python tools/sabotage.py [NAME...]`.

Each patch in tests/sabotage is a mistake that somebody could make. What lies in the working tree is copied, the patch
is applied to the copy, and a wheel is built from it into an environment of its own; then the cluster is harmed until
what its clients saw cannot be explained. If that never happens the tests are blind, and this fails; so it does if the
engine without the patch is found out as well. All of it lies in target/sabotage.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATCHES = ROOT / "tests" / "sabotage"
TARGET = ROOT / "target" / "sabotage"
# What `python -m chaos` ends with if a history has no explanation.
FOUND_OUT = 3
SOUND_SECONDS = 20.0


@dataclass(frozen=True)
class Sabotage:
    """A patch, and what the harm is that brings its mistake to light."""

    name: str
    faults: tuple[str, ...]

    @property
    def patch(self) -> Path:
        """Where the mistake is written."""
        return PATCHES / f"{self.name}.patch"

    @property
    def home(self) -> Path:
        """Where everything of it lies."""
        return TARGET / self.name


SABOTAGES = (
    Sabotage("lease", ("isolate_leader", "split", "pause_leader")),
    Sabotage("sessions", ("kill_leader", "isolate_leader", "pause_leader", "reset")),
)


def main() -> int:
    """Goes through all of them, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(one.name for one in SABOTAGES))
    parser.add_argument("--seconds", type=float, default=180.0, help="of faults, within which it must be found out")
    parser.add_argument("--seed", type=int, default=4)
    told = parser.parse_args()
    chosen = [one for one in SABOTAGES if one.name in told.names or not told.names]
    if unknown := set(told.names) - {one.name for one in SABOTAGES}:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    TARGET.mkdir(parents=True, exist_ok=True)
    return 0 if all(_is_as_it_should_be(one, told.seconds, told.seed) for one in chosen) else 1


def _is_as_it_should_be(sabotage: Sabotage, seconds: float, seed: int) -> bool:
    if not is_sound(sabotage, seed):
        print(f"{sabotage.name}: even the engine without the patch is found out", file=sys.stderr)
        return False
    if not is_found_out(sabotage, built(sabotage), seconds, seed):
        print(f"{sabotage.name}: NOT found out within {seconds:.0f} s: the tests are blind to it", file=sys.stderr)
        return False
    print(f"{sabotage.name}: found out, as it should be", flush=True)
    return True


def sources() -> list[str]:
    """The files of the working tree that belong to it, as paths below it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def built(sabotage: Sabotage) -> Path:
    """Builds the wheel of the patched copy; gives the interpreter of the environment that has it."""
    print(f"{sabotage.name}: building", flush=True)
    tree, wheels, environment = (sabotage.home / name for name in ("tree", "wheels", "venv"))
    for stale in (tree, wheels):
        shutil.rmtree(stale, ignore_errors=True)
    for name in sources():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        # With new times: cargo takes the crates of all these trees for the same ones, and goes by the times alone. With
        # the times that they have here one engine would get what was built for another, mistake and all.
        shutil.copy(ROOT / name, tree / name)
    # The copy lies within a repository: without this git would look for the files in that one.
    alone = os.environ | {"GIT_CEILING_DIRECTORIES": str(sabotage.home)}
    subprocess.run(["git", "apply", str(sabotage.patch)], cwd=tree, check=True, env=alone)
    build = [str(Path(sys.executable).with_name("maturin")), "build", "--profile", "fast", "--locked"]
    build += ["--auditwheel", "skip", "--interpreter", sys.executable, "--out", str(wheels)]
    subprocess.run(build, cwd=tree, check=True, env=os.environ | {"CARGO_TARGET_DIR": str(TARGET / "cargo")})
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
    python = environment / "bin" / "python"
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", str(wheel)], check=True)
    return python


def is_found_out(sabotage: Sabotage, python: Path, seconds: float, seed: int) -> bool:
    """Whether what the clients of such a cluster saw cannot be explained. Raises `RuntimeError` if it could not even be
    tried."""
    return _tried(sabotage, python, sabotage.home, seconds=seconds, seed=seed)


def is_sound(sabotage: Sabotage, seed: int) -> bool:
    """Whether the engine as it is stands the same harm: else that a patched one is found out says nothing."""
    return not _tried(sabotage, Path(sys.executable), ROOT, seconds=SOUND_SECONDS, seed=seed)


def _tried(sabotage: Sabotage, python: Path, engine: Path, *, seconds: float, seed: int) -> bool:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests" / "python")}
    where = subprocess.run(
        [str(python), "-c", "import graft; print(graft.__file__)"],
        cwd=TARGET,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    if not Path(where.strip()).is_relative_to(engine):
        raise RuntimeError(f"{python} runs the engine of {where.strip()}, which is not below {engine}")
    chaos = [str(python), "-m", "chaos", "faults", "--seconds", str(seconds), "--seed", str(seed)]
    chaos += ["--epoch", "10", "--faults", *sabotage.faults]
    ended = subprocess.run(chaos, cwd=TARGET, env=environment, check=False).returncode
    if ended not in (0, FOUND_OUT):
        raise RuntimeError(f"the chaos tests ended with {ended}, which says nothing of the engine")
    return ended == FOUND_OUT


if __name__ == "__main__":
    sys.exit(main())
