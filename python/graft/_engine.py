"""The way to the native module, which is loaded when the first node is made."""

from __future__ import annotations

import os
import warnings
from typing import Any

Reply = bytes | tuple[str, str, str]
"""What a machine answered: an encoded value, or an exception's type, message and traceback."""

_warned = False


def load() -> Any:
    """The native module."""
    try:
        from graft import _graft as engine
    except ImportError as error:
        raise ImportError(
            f"the engine of Graft, graft._graft, cannot be loaded ({error}); install the wheel with "
            "`pip install graft-raft`, or build it with `maturin develop` in a checkout"
        ) from error
    return engine


def warn_of_debug_build() -> None:
    """Warns, once, if the engine was built without optimisation."""
    global _warned  # noqa: PLW0603 - it is said once in a process
    if _warned or not load().build_info()["debug"] or os.environ.get("GRAFT_ALLOW_DEBUG") == "1":
        return
    _warned = True
    warnings.warn(
        "this engine of Graft is a debug build, many times slower than a release build: build it with "
        "`maturin develop --release`, or set GRAFT_ALLOW_DEBUG=1 if that is what you want",
        RuntimeWarning,
        stacklevel=4,
    )
