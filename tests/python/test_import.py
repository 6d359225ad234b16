# ruff: noqa: E501 - tables and programs read best unbroken
"""Importing Graft is quick and does nothing."""

from __future__ import annotations

import subprocess
import sys

import graft
import pytest


def run(code):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_loads_nothing_heavy():
    loaded = run(
        "import sys; before = set(sys.modules); import graft; print(*sorted(set(sys.modules) - before))"
    ).split()
    heavy = {"msgspec", "asyncio", "logging", "concurrent", "threading", "graft._graft", "dataclasses", "inspect"}
    assert not heavy & set(loaded)


def test_using_every_name_needs_no_native_module():
    assert (
        run(
            "import sys, graft; [getattr(graft, n) for n in graft.__all__]; print('graft._graft' in sys.modules, 'asyncio' in sys.modules)"
        )
        == "False True"
    )


def test_a_machine_can_be_written_without_asyncio_or_the_native_module():
    code = "import sys, graft\nclass M(graft.StateMachine):\n  @graft.command\n  def go(self) -> None: ...\nprint([m for m in ('asyncio', 'graft._graft') if m in sys.modules])"
    assert run(code) == "[]"


def test_import_starts_no_thread_and_takes_no_signal():
    code = "import signal, sys; before = [signal.getsignal(s) for s in range(1, 30)]; import graft; [getattr(graft, n) for n in graft.__all__]; import threading; print(threading.active_count(), before == [signal.getsignal(s) for s in range(1, 30)])"
    assert run(code) == "1 True"


def test_every_public_name_is_there_and_documented():
    for name in graft.__all__:
        assert getattr(graft, name).__doc__, name
    assert set(graft.__all__) <= set(dir(graft))


def test_modules_are_there_without_an_import_of_their_own():
    code = "import sys, graft; print('graft.tls' in sys.modules, graft.tls.CertificateAuthority.__name__, graft.recipes.KeyValue.__name__)"
    assert run(code) == "False CertificateAuthority KeyValue"
    assert {"tls", "recipes"} <= set(dir(graft))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'graft' has no attribute 'Nod'"):
        _ = graft.Nod  # type: ignore[attr-defined]
