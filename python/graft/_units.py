"""Durations and sizes as people write them: "300ms", "8MiB"."""

from __future__ import annotations

import math
import re
from datetime import timedelta

from graft._errors import ConfigError

Duration = float | str | timedelta
"""Seconds as a number, a `timedelta`, or text with a unit: "300ms", "1.5s", "2min", "1h"."""
Size = int | str
"""Bytes as an int, or text with a unit: "512B", "64KiB", "8MiB", "1GB"."""

_DURATIONS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_SIZES = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
}
_TEXT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([A-Za-z]*)\s*", re.ASCII)


def seconds(name: str, value: object) -> float:
    """A duration in seconds, above 0. Raises `ConfigError` naming the setting."""
    if isinstance(value, timedelta):
        found = value.total_seconds()
    elif isinstance(value, str):
        found = _parse(name, value, _DURATIONS, '"300ms"', "ms, s, min")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        found = float(value)
    else:
        raise ConfigError(f'{name}={value!r} must be a duration: seconds as a number, or text such as "300ms"')
    if not math.isfinite(found) or found <= 0:
        raise ConfigError(f"{name}={value!r} must be a finite time above 0")
    return found


def size(name: str, value: object) -> int:
    """A size in bytes, above 0. Raises `ConfigError` naming the setting."""
    if isinstance(value, str):
        exact = _parse(name, value, _SIZES, '"8MiB"', "B, KiB, MiB, GiB")
        found = round(exact)
    elif isinstance(value, int) and not isinstance(value, bool):
        found = value
    else:
        raise ConfigError(f'{name}={value!r} must be a size: bytes as an int, or text such as "8MiB"')
    if found <= 0:
        raise ConfigError(f"{name}={value!r} must be above 0")
    return found


def count(name: str, value: object) -> int:
    """A number of things, above 0. Raises `ConfigError` naming the setting."""
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ConfigError(f"{name}={value!r} must be an int above 0")
    return value


def counted(number: int, noun: str) -> str:
    """In words: "1 event", "2 events"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _parse(name: str, text: str, units: dict[str, float] | dict[str, int], example: str, common: str) -> float:
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ConfigError(f"{name}={text!r} is not a number with a unit; write it like {example}")
    number, unit = match.groups()
    if not unit:
        raise ConfigError(f"{name}={text!r} has no unit; write it like {example} (units: {common})")
    if unit not in units:
        alike = [known for known in units if known.lower() == unit.lower()]
        hint = f"did you mean {alike[0]}?" if alike else f"the units are {', '.join(units)}"
        raise ConfigError(f"{name}={text!r} has the unknown unit {unit!r}; {hint}")
    return float(number) * units[unit]
