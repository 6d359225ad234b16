"""Draws who uses whom, from the code, into docs/ARCHITECTURE.md.

    dependencies.py          write the pictures between the markers
    dependencies.py --check  exit status 1 and a diff, if they would change; writes nothing

An arrow reads "uses". Test code is left out, and so is an arrow that a longer way of arrows implies.
"""

from __future__ import annotations

import ast
import difflib
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = Path("docs/ARCHITECTURE.md")
BEGIN, END = "<!-- drawn by make docs: begin -->\n", "<!-- drawn by make docs: end -->\n"

Edges = dict[str, set[str]]

_BLANK = re.compile(
    r"//[^\n]*|/\*.*?\*/"
    r'|\b[bc]?r(?P<hashes>#*)".*?"(?P=hashes)'
    r'|"(?:\\.|[^"\\])*"'
    r"|'(?:\\[^']+|\\'|[^\\'])'",
    re.DOTALL,
)
_TOKEN = re.compile(r"[A-Za-z_]\w*|::|\S")
_TEST = re.compile(r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*")


def rust_code(text: str) -> str:
    """The text without comments, literals and what is compiled for tests only."""
    code = _BLANK.sub(" ", text)
    while test := _TEST.search(code):
        code = code[: test.start()] + code[_item_end(code, test.end()) :]
    return code


def _item_end(code: str, start: int) -> int:
    depth = 0
    for at in range(start, len(code)):
        depth += (code[at] in "{([") - (code[at] in "})]")
        if depth == 0 and code[at] in "};":
            return at + 1
    return len(code)


def rust_paths(code: str) -> Iterator[list[str]]:
    """Every path that the code names, `use a::{b, c}` as `a::b` and `a::c`."""
    tokens: list[str] = _TOKEN.findall(code)
    at = 0
    while at < len(tokens):
        if _is_word(tokens[at]):
            found: list[list[str]] = []
            at = _path(tokens, at, [], found)
            yield from found
        else:
            at += 1


def _is_word(token: str) -> bool:
    return token[0].isalpha() or token[0] == "_"


def _path(tokens: list[str], at: int, before: list[str], found: list[list[str]]) -> int:
    segments = [*before, tokens[at]]
    if tokens[at + 1 : at + 2] == ["::"] and at + 2 < len(tokens):
        if _is_word(tokens[at + 2]):
            return _path(tokens, at + 2, segments, found)
        if tokens[at + 2] == "{":
            at += 3
            while at < len(tokens) and tokens[at] != "}":
                at = _path(tokens, at, segments, found) if _is_word(tokens[at]) else at + 1
            return at + 1
    found.append(segments)
    return at + 1


def rust_edges(files: dict[str, str], crates: Iterable[str] = (), inside: str = "") -> tuple[Edges, Edges]:
    """Who uses whom among the modules of a crate, or of its module `inside`, and which of `crates` each names.

    `files` are the texts by path from there. A path through a re-export of the root counts for the module that it
    comes from.
    """
    tests = {name for text in files.values() for name in re.findall(_TEST.pattern + r"mod (\w+);", text)}
    code = {path: rust_code(text) for path, text in sorted(files.items()) if not tests & set(_module(path))}
    modules = {_module(path)[0] for path in code if _module(path)}
    exports = {names[-1]: names[0] for names in _exports(code.get("lib.rs", "")) if names[0] in modules}
    inner: Edges = {module: set() for module in sorted(modules)}
    outer: Edges = {module: set() for module in sorted(modules)}
    known = set(crates)
    for path, text in code.items():
        if not (module := _module(path)):
            continue
        for names in rust_paths(text):
            outer[module[0]] |= {names[0]} & known if len(names) > 1 else set()
            target = _target(module, names, inside)
            target = exports.get(target, target)
            if target in modules and target != module[0]:
                inner[module[0]].add(target)
    return inner, outer


def _module(path: str) -> list[str]:
    return [part for part in path.removesuffix(".rs").split("/") if part not in {"mod", "lib"}]


def _exports(root: str) -> Iterator[list[str]]:
    for use in re.findall(r"pub use ([^;]+);", root):
        yield from rust_paths(use)


def _target(module: list[str], names: list[str], inside: str) -> str:
    if names[0] == "crate":
        below = names[2:] if inside and names[1:2] == [inside] else names[1:]
        return below[0] if below else ""
    if names[0] not in {"self", "super"}:
        return ""
    absolute, rest = list(module), names[1:] if names[0] == "self" else names
    while rest[:1] == ["super"]:
        absolute, rest = absolute[:-1], rest[1:]
    return (absolute + rest)[0] if absolute + rest else ""


def python_edges(files: dict[str, str]) -> Edges:
    """Who imports whom among the modules of the package, whether at the top or within a function."""
    modules = {path.split("/")[0].removesuffix(".pyi").removesuffix(".py") for path in files}
    edges: Edges = {module: set() for module in sorted(modules)}
    for path, text in sorted(files.items()):
        own = path.split("/")[0].removesuffix(".pyi").removesuffix(".py")
        edges[own] |= {name for name in _imports(ast.parse(text)) if name in modules and name != own}
    return edges


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("graft."))
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level == 0 and base.split(".")[0] != "graft":
                continue
            inside = base if node.level else base.removeprefix("graft").removeprefix(".")
            yield from ([inside.split(".")[0]] if inside else [alias.name for alias in node.names])


def reduced(edges: Edges) -> Edges:
    """Without the arrows that a longer way implies. Within a circle every arrow stays."""
    reach = {node: _reachable(edges, node) for node in edges}

    def implied(source: str, target: str) -> bool:
        ways = (via for via in edges[source] if via != target and source not in reach[via])
        return any(target in reach[via] for via in ways)

    return {source: {target for target in targets if not implied(source, target)} for source, targets in edges.items()}


def _reachable(edges: Edges, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for target in edges.get(waiting.pop(), set()) - seen:
            seen.add(target)
            waiting.append(target)
    return seen


def circles(edges: Edges) -> list[str]:
    """The modules that use themselves by way of others."""
    return sorted(node for node in edges if node in _reachable(edges, node))


def mermaid(edges: Edges, below: Edges | None = None) -> str:
    """A diagram; `below` is written under a node's name."""
    lines = ["```mermaid", "flowchart TD"]
    for node in sorted(edges):
        small = ", ".join(sorted((below or {}).get(node, set())))
        lines.append(f'  {node}["{node}<br/><small>{small}</small>"]' if small else f'  {node}["{node}"]')
    lines += [f"  {source} --> {target}" for source in sorted(edges) for target in sorted(edges[source])]
    return "\n".join([*lines, "```"])


def _read(directory: Path, *suffixes: str) -> dict[str, str]:
    paths = sorted(path for suffix in suffixes for path in directory.rglob(f"*{suffix}"))
    return {path.relative_to(directory).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def _dependencies(manifest: Path) -> set[str]:
    tables = tomllib.loads(manifest.read_text(encoding="utf-8"))
    return {name.replace("-", "_") for name in tables.get("dependencies", {})}


def _house(root: Path) -> str:
    domain, services = (_dependencies(root / "src" / layer / "Cargo.toml") for layer in ("domain", "services"))
    store = _dependencies(root / "src/infrastructure/store/Cargo.toml")
    crates = _dependencies(root / "Cargo.toml") | store | {"graft_domain", "graft_services"}
    rooms, names = rust_edges(_read(root / "src/infrastructure", ".rs"), crates, "infrastructure")
    edges: Edges = {"domain": set(), "services": {"domain"} if "graft_domain" in services else set()}
    below: Edges = {"domain": domain, "services": services - {"graft_domain"}}
    for room, targets in rooms.items():
        layers = {layer for layer in ("domain", "services") if f"graft_{layer}" in names[room]}
        edges[room], below[room] = targets | layers, names[room] - {"graft_domain", "graft_services"}
    return mermaid(reduced(edges), below)


def _section(title: str, edges: Edges) -> str:
    around = circles(edges)
    words = f"\n\nIn a circle: {', '.join(around)}." if around else ""
    return f"**{title}**\n\n{mermaid(reduced(edges))}{words}"


def pictures(root: Path) -> str:
    """All that stands between the markers."""
    sections = [f"**The layers and the rooms of the infrastructure** (small: foreign crates)\n\n{_house(root)}"]
    for title, layer in (("Inside the domain", "domain"), ("Inside the services", "services")):
        sections.append(_section(title, rust_edges(_read(root / "src" / layer, ".rs"))[0]))
    if python := python_edges(_read(root / "python/graft", ".py", ".pyi")):
        sections.append(_section("Inside the Python package", python))
    return "\n" + "\n\n".join(sections) + "\n\n"


def drawn(document: str, picture: str) -> str:
    """The document with the picture between its markers."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        msg = f"{DOCUMENT} must hold the lines {BEGIN!r} and {END!r}"
        raise ValueError(msg)
    return before + begin + picture + end + after


def main(arguments: list[str]) -> int:
    path = ROOT / DOCUMENT
    old = path.read_text(encoding="utf-8")
    new = drawn(old, pictures(ROOT))
    if arguments == ["--check"]:
        lines = difflib.unified_diff(old.splitlines(), new.splitlines(), "as it is", "as the code is", lineterm="")
        for line in lines:
            print(line)
        if old != new:
            print(f"{DOCUMENT} is behind the code: make docs", file=sys.stderr)
        return int(old != new)
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    if old != new:
        path.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
