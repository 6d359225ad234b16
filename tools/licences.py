"""Holds every package that Graft is built from against the licences that deny.toml allows.

Exit status 1 and a list, if a package has no licence that is allowed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def allows(expression: str, allowed: frozenset[str]) -> bool:
    """Whether an SPDX expression can be met with allowed licences alone. The older `A/B` means `A OR B`."""
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))
    value, rest = _either(tokens, allowed)
    if rest:
        msg = f"not an SPDX expression: {expression}"
        raise ValueError(msg)
    return value


def _either(tokens: list[str], allowed: frozenset[str]) -> tuple[bool, list[str]]:
    value, tokens = _both(tokens, allowed)
    while tokens[:1] == ["OR"]:
        other, tokens = _both(tokens[1:], allowed)
        value = value or other
    return value, tokens


def _both(tokens: list[str], allowed: frozenset[str]) -> tuple[bool, list[str]]:
    value, tokens = _one(tokens, allowed)
    while tokens[:1] == ["AND"]:
        other, tokens = _one(tokens[1:], allowed)
        value = value and other
    return value, tokens


def _one(tokens: list[str], allowed: frozenset[str]) -> tuple[bool, list[str]]:
    if not tokens or tokens[0] in {")", "AND", "OR", "WITH"}:
        msg = f"a licence is missing before {' '.join(tokens) or 'the end'}"
        raise ValueError(msg)
    if tokens[0] == "(":
        value, tokens = _either(tokens[1:], allowed)
        if tokens[:1] != [")"]:
            msg = "a bracket is not closed"
            raise ValueError(msg)
        return value, tokens[1:]
    if tokens[1:2] == ["WITH"]:
        return " ".join(tokens[:3]) in allowed or tokens[0] in allowed, tokens[3:]
    return tokens[0] in allowed, tokens[1:]


def refused(packages: list[dict[str, str | None]], allowed: frozenset[str]) -> list[str]:
    """The packages that cannot be used, each with what it says of its licence."""
    lines: list[str] = []
    for package in packages:
        licence = package["license"]
        try:
            if licence is not None and allows(licence, allowed):
                continue
            why = licence or "no licence in its manifest"
        except ValueError as error:
            why = f"{licence!r}: {error}"
        lines.append(f"{package['name']} {package['version']}: {why}")
    return sorted(lines)


def _packages() -> list[dict[str, str | None]]:
    version = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    host = next(line.removeprefix("host: ") for line in version.splitlines() if line.startswith("host: "))
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--all-features", f"--filter-platform={host}"]
    metadata = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT).stdout)
    # `packages` lists every platform's; the resolved graph is this one's.
    built = {node["id"] for node in metadata["resolve"]["nodes"]}
    return [package for package in metadata["packages"] if package["id"] in built]


def main() -> int:
    allowed = frozenset(tomllib.loads((ROOT / "deny.toml").read_text(encoding="utf-8"))["licenses"]["allow"])
    packages = _packages()
    lines = refused(packages, allowed)
    for line in lines:
        print(f"licence not allowed by deny.toml: {line}", file=sys.stderr)
    if not lines:
        print(f"{len(packages)} packages, all under licences that deny.toml allows")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
