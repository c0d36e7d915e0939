#!/usr/bin/env python3
"""Fails if modules of a crate import each other in a circle.

A module is a file. Its imports are the `crate::` and `super::` paths in its `use` declarations and code. A re-exported name counts
as an import of both the module that re-exports it and the module that defines it. Tests are ignored.
"""

from __future__ import annotations

import re
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = re.compile(r"^#\[cfg\(test\)\]\nmod \w+ \{.*?^\}", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"//[^\n]*")
USE = re.compile(r"^\s*(pub(?:\([a-z ]+\))? )?use ([^;]+);", re.MULTILINE)
PATH = re.compile(r"\b(?:crate|super)(?:::\w+)+")


def leaves(tree: str, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of a `use` tree: `a::{b, c::d}` gives a::b and a::c::d."""
    head, brace, rest = tree.strip().partition("{")
    path = prefix + tuple(part for part in re.sub(r" as \w+", "", head).strip().split("::") if part)
    if not brace:
        return [path]
    parts, depth, start = [], 0, 0
    inner = rest[: rest.rindex("}")]
    for at, letter in enumerate(inner):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append(inner[start:at])
            start = at + 1
    return [leaf for part in [*parts, inner[start:]] if part.strip() for leaf in leaves(part, path)]


class Crate:
    def __init__(self, source: Path):
        self.modules: dict[tuple[str, ...], str] = {}
        for file in sorted(source.rglob("*.rs")):
            name = file.relative_to(source).with_suffix("").parts
            name = name[:-1] if name[-1] in ("mod", "lib", "main") else name
            if name[-1:] != ("tests",):
                self.modules[name] = COMMENT.sub("", TESTS.sub("", file.read_text()))
        self.exports = {name: self._exports(name) for name in self.modules}

    def _exports(self, module):
        """Names that a module re-exports, and their full paths."""
        trees = [tree for public, tree in USE.findall(self.modules[module]) if public]
        paths = [self._absolute(module, path) for tree in trees for path in leaves(tree)]
        return {path[-1]: path for path in paths}

    def _absolute(self, module, path):
        if path[0] == "crate":
            return path[1:]
        here = module
        while path[0] in ("self", "super"):
            here = here[:-1] if path[0] == "super" else here
            path = path[1:]
        return here + path

    def _providers(self, path):
        """The module in which this path ends and, if that only re-exports the name, the module that defines it."""
        module = next(path[:length] for length in range(len(path), -1, -1) if path[:length] in self.modules)
        rest = path[len(module) :]
        target = self.exports[module].get(rest[0]) if rest else None
        return {module} | (self._providers(target) if target and target != path else set())

    def imports(self, module):
        text = self.modules[module]
        paths = [path for public, tree in USE.findall(text) if not public for path in leaves(tree)]
        paths += [tuple(found.split("::")) for found in PATH.findall(USE.sub("", text))]
        inner = [path for path in paths if path[0] in ("crate", "super", "self")]
        inner += [("self", *path) for path in paths if (*module, path[0]) in self.modules]
        provided = (self._providers(self._absolute(module, path)) for path in inner)
        return set().union(*provided) - {module, ()}  # the root only re-exports


def main() -> int:
    status = 0
    for source in sorted(ROOT.glob("crates/*/src")):
        crate = Crate(source)
        graph = {module: crate.imports(module) for module in crate.modules}
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            status = 1
            names = ["::".join(module) or "lib" for module in reversed(error.args[1])]
            print(
                f"{source.parent.name}: modules import each other in a circle: {' -> '.join(names)}",
                file=sys.stderr,
            )
    return status


if __name__ == "__main__":
    sys.exit(main())
