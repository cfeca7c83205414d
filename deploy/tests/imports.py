#!/usr/bin/env python3
"""Fails if files of a crate import each other in a circle, and names the imports that do.

Reads the `use` declarations and the paths from `crate::` and `super::` of every file outside of tests. A name that a module
re-exports counts as an import of the file that defines it.
"""

import re
import sys
from pathlib import Path

CRATES = ["protocol", "protocol/clients/rust", "fanout", "fanout/redis", "fanout/redis/testing", "gateway/store", "gateway/domain", "gateway", "loadtest"]
ALLOWED: list[Path] = []
USE = re.compile(r"^[ \t]*(pub(?:\([a-z: ]+\))? )?use ([^;]+);", re.M)
PATH = re.compile(r"\b(?:crate|super)(?:::\w+)+")


def code_of(file: Path) -> str:
    """The code of a file without comments, strings and what is only compiled for tests."""
    code = re.sub(r"//[^\n]*", "", file.read_text())
    code = re.sub(r'"(?:[^"\\]|\\.)*"', '""', code)
    return re.split(r"#\[cfg\((?:all\()?test", code)[0] if "#[cfg(test)]\nmod tests" in code else code


def expand(tree: str) -> list[list[str]]:
    """`a::{b, c::{self, d}}` as the paths a::b, a::c and a::c::d."""
    tree = " ".join(tree.split())
    if "{" not in tree:
        return [[part for part in tree.split(" as ")[0].split("::") if part not in ("", "self")] or ["self"]]
    head, inner = tree.split("{", 1)
    inner = inner.rsplit("}", 1)[0]
    parts, depth, current = [], 0, ""
    for char in inner:
        depth += {"{": 1, "}": -1}.get(char, 0)
        if char == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += char
    paths = []
    for part in filter(str.strip, parts + [current]):
        paths += [[p for p in head.strip(": ").split("::") if p] + ([] if tail == ["self"] else tail) for tail in expand(part)]
    return paths


class Crate:
    def __init__(self, folder: Path):
        self.files: dict[tuple[str, ...], Path] = {}
        for file in sorted(folder.rglob("*.rs")):
            parts = list(file.relative_to(folder).with_suffix("").parts)
            if parts[-1] in ("mod", "lib") or parts == ["main"]:
                parts.pop()
            if "tests" in parts or "conformance" in parts or parts[-1:] == ["testing"]:
                continue
            self.files[tuple(parts)] = file
        self.code = {module: code_of(file) for module, file in self.files.items()}
        self.reexports: dict[tuple[str, ...], dict[str, list[str]]] = {}
        for module, code in self.code.items():
            names = self.reexports.setdefault(module, {})
            for public, tree in USE.findall(code):
                if public:
                    for path in expand(tree):
                        names[path[-1]] = path

    def absolute(self, module: tuple[str, ...], path: list[str]) -> list[str] | None:
        path = list(path)
        if path[0] == "crate":
            return path[1:]
        base = list(module)
        if path[0] == "super":
            while path and path[0] == "super":
                if not base:
                    return None
                base.pop()
                path.pop(0)
            return base + path
        if path[0] == "self":
            return base + path[1:]
        return base + path if (*module, path[0]) in self.files else None

    def target(self, path: list[str], depth: int = 0) -> tuple[str, ...] | None:
        """The module that defines what a path from the crate's root names."""
        for end in range(len(path), -1, -1):
            module = tuple(path[:end])
            if module not in self.files:
                continue
            rest = path[end:]
            if rest and rest[0] in self.reexports[module] and depth < 8:
                onward = self.absolute(module, self.reexports[module][rest[0]])
                return None if onward is None else self.target(onward + rest[1:], depth + 1)
            return module
        return None

    def imports(self) -> dict[tuple[str, ...], dict[tuple[str, ...], set[str]]]:
        graph: dict[tuple[str, ...], dict[tuple[str, ...], set[str]]] = {module: {} for module in self.files}
        for module, code in self.code.items():
            paths = [path for public, tree in USE.findall(code) if not public for path in expand(tree)]
            paths += [found.group().split("::") for found in PATH.finditer(USE.sub("", code))]
            for path in paths:
                onward = self.absolute(module, path)
                target = None if onward is None else self.target(onward)
                # A glob of the parent, or the module itself, says nothing.
                if target is not None and target != module and path[-1] != "*" and tuple(onward) != target:
                    graph[module].setdefault(target, set()).add(path[-1])
        return graph


def circles(graph) -> list[list[tuple[str, ...]]]:
    """Strongly connected groups of more than one module (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(module):
        index[module] = low[module] = len(index)
        stack.append(module)
        for target in graph[module]:
            if target not in index:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], index[target])
        if low[module] == index[module]:
            group = []
            while not group or group[-1] != module:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for module in graph:
        if module not in index:
            visit(module)
    return found


def main() -> int:
    root = Path(__file__).resolve().parents[2]
    sys.setrecursionlimit(10_000)
    count = 0
    for name in CRATES:
        crate = Crate(root / name / "src")
        graph = crate.imports()
        for group in circles(graph):
            folders = {crate.files[module].relative_to(root).parent for module in group}
            if len(folders) == 1 and folders <= set(ALLOWED):
                continue
            count += 1
            print(f"{name}: these files import each other in a circle")
            for module in group:
                for target in sorted(set(graph[module]) & set(group)):
                    names = ", ".join(sorted(graph[module][target]))
                    print(f"  {crate.files[module].relative_to(root)} -> {crate.files[target].relative_to(root)}: {names}")
    if count == 0:
        print("no files import each other in a circle")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
