"""The tools that check others are checked here."""

from __future__ import annotations

import subprocess

import dependencies
import licences
import pytest
import sabotage

ALLOWED = frozenset({"MIT", "Apache-2.0", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"})


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("MIT/GPL-3.0", True),
        ("MIT AND GPL-3.0-only", False),
        ("(MIT OR GPL-3.0-only) AND Unicode-3.0", True),
        ("GPL-3.0-only OR MIT AND GPL-2.0-only", False),
        ("GPL-2.0 WITH Classpath-exception-2.0", False),
        ("Apache-2.0 WITH LLVM-exception", True),
    ],
)
def test_a_licence_is_allowed_by_its_whole_expression(expression: str, answer: bool) -> None:
    assert licences.allows(expression, ALLOWED) is answer


def test_what_is_no_licence_is_refused_in_words() -> None:
    packages: list[dict[str, str | None]] = [
        {"name": "a", "version": "1", "license": "MIT"},
        {"name": "b", "version": "1", "license": None},
        {"name": "c", "version": "1", "license": "MIT OR"},
        {"name": "d", "version": "1", "license": "(MIT"},
    ]
    assert [line.split()[0] for line in licences.refused(packages, ALLOWED)] == ["b", "c", "d"]


def test_arrows_come_from_the_code_and_not_from_tests_or_words() -> None:
    files = {
        "lib.rs": "mod a; mod b; mod c; mod d; #[cfg(test)] mod e; pub use c::{Thing, Other as Same};",
        "a.rs": 'use crate::{Thing, b::X}; // crate::d::Y\nconst S: &str = "crate::d";\n'
        "#[cfg(test)]\nmod tests { use crate::d::Z; fn f() { { } } }\nfn g() { foreign::h() }",
        "b/mod.rs": "use self::inner::W;",
        "b/inner.rs": "fn f() { super::super::d::g(); let foreign = 1; let q = '\"'; super::super::a::g() }",
        "c.rs": "",
        "d.rs": "",
        "e.rs": "use crate::a;",
    }
    inner, outer = dependencies.rust_edges(files, ["foreign"])
    assert inner == {"a": {"b", "c"}, "b": {"a", "d"}, "c": set(), "d": set()}
    assert outer == {"a": {"foreign"}, "b": set(), "c": set(), "d": set()}
    assert dependencies.circles(inner) == ["a", "b"]


def test_arrows_between_modules_of_a_module_are_seen() -> None:
    files = {"mod.rs": "pub mod a;", "a.rs": "use crate::inside::{b::X, c};", "b/mod.rs": "", "c.rs": "use super::b;"}
    inner, _ = dependencies.rust_edges(files, inside="inside")
    assert inner == {"a": {"b", "c"}, "b": set(), "c": {"b"}}


def test_python_imports_are_seen_wherever_they_stand() -> None:
    files = {
        "__init__.py": "from graft._a import x\nimport json",
        "_a.py": "def f():\n    from . import _b\n    from .._c import y",
        "_b.py": "import graft._c",
        "_c.pyi": "from os import path",
    }
    assert dependencies.python_edges(files) == {"__init__": {"_a"}, "_a": {"_b", "_c"}, "_b": {"_c"}, "_c": set()}


def test_an_arrow_that_others_imply_is_left_out_but_none_of_a_circle() -> None:
    assert dependencies.reduced({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": {"b"}, "b": {"c"}, "c": set()}
    around = {"a": {"b"}, "b": {"a", "c"}, "c": {"a"}}
    assert dependencies.reduced(around) == around


def test_the_picture_goes_between_the_markers_or_nowhere() -> None:
    document = f"x\n{dependencies.BEGIN}old\n{dependencies.END}y\n"
    assert dependencies.drawn(document, "new\n") == f"x\n{dependencies.BEGIN}new\n{dependencies.END}y\n"
    with pytest.raises(ValueError, match="must hold the lines"):
        dependencies.drawn("x", "new")


def test_every_sabotage_has_a_patch_and_still_fits_the_engine() -> None:
    assert {one.patch for one in sabotage.SABOTAGES} == set(sabotage.PATCHES.iterdir())
    for one in sabotage.SABOTAGES:
        tried = subprocess.run(
            ["git", "apply", "--check", str(one.patch)], cwd=sabotage.ROOT, capture_output=True, text=True, check=False
        )
        assert tried.returncode == 0, tried.stderr
        touched = [line.split("/", 1)[1] for line in one.patch.read_text().splitlines() if line.startswith("+++ ")]
        assert touched
        assert all(name.startswith("src/") for name in touched), touched
