"""How fresh the answer of a query must be."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from graft import _units
from graft._errors import ConfigError

Consistency = Literal["linearizable", "lease", "stale"]
_CONSISTENCIES = get_args(Consistency)
_INDEX_MAX = 2**64 - 1


class Reading(NamedTuple):
    """As the engine takes it."""

    consistency: Consistency = "linearizable"
    max_age: float | None = None
    """Seconds; with "stale" only."""
    at_least: int = 0
    """The answer has seen the log up to here."""

    def changed(self, consistency: object, max_age: object, at_least: object) -> Reading:
        """With other options. Raises `ConfigError` for what makes no sense."""
        new: Consistency = self.consistency
        age = self.max_age
        if consistency is not None:
            if not isinstance(consistency, str) or consistency not in _CONSISTENCIES:
                raise ConfigError(
                    f"consistency={consistency!r:.100} must be one of {', '.join(map(repr, _CONSISTENCIES))}"
                )
            new = consistency  # type: ignore[assignment]  # it is one of them
            age = age if new == "stale" else None
        if max_age is not None:
            if new != "stale":
                raise ConfigError(
                    f'max_age={max_age!r:.100} goes with consistency="stale": a {new} answer is never older than '
                    "its call"
                )
            age = _units.seconds("max_age", max_age)
        return Reading(new, age, self.at_least if at_least is None else _index(at_least))

    def __str__(self) -> str:
        words = [f"consistency={self.consistency!r}"]
        if self.max_age is not None:
            words.append(f"max_age={self.max_age:g}")
        if self.at_least:
            words.append(f"at_least={self.at_least}")
        return ", ".join(words)


def _index(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _INDEX_MAX:
        raise ConfigError(
            f"at_least={value!r:.100} must be an index of the log, such as `.index` of the result of a `submit`"
        )
    return value
