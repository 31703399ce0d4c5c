"""What holds for every module of the package: no cycles, and sizes that can be read at a sitting.

That rooms import downwards only is a contract in setup.cfg, which `make lint` checks.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import grimp

import unswayed

PACKAGE = Path(unswayed.__file__).parent
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 450, 60
WHY = "long because"  # in the docstring of what is longer: the reason follows


def test_no_module_imports_what_imports_it():
    """Function-level imports count, and so do a package's and its modules' of each other."""
    graph = grimp.build_graph("unswayed", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert not in_cycles(imports)


def in_cycles(imports: Mapping[str, set[str]]) -> set[str]:
    """Modules on a cycle or between two: what is left once all others are taken away."""
    left = dict(imports)
    while True:
        imported = set().union(*left.values())
        free = {m for m in left if m not in imported or not left[m] & left.keys()}
        if not free:
            return set(left)
        left = {module: left[module] - free for module in left.keys() - free}


def test_cycles_are_found():
    chain = {"a": {"b"}, "b": {"c"}, "c": set()}
    assert not in_cycles(chain)
    assert in_cycles(chain | {"c": {"b"}, "d": {"a"}}) == {"b", "c"}


def test_modules_and_functions_are_short():
    """Modules have at most 450 lines, functions 60, or say why not."""
    assert not list(too_long())


def too_long() -> Iterator[str]:
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text("utf-8")
        tree, name = ast.parse(text), path.relative_to(PACKAGE).as_posix()
        if len(text.splitlines()) > MOST_LINES and WHY not in (ast.get_docstring(tree) or ""):
            yield name
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines > MOST_LINES_OF_A_FUNCTION and WHY not in (ast.get_docstring(node) or ""):
                    yield f"{name}: {node.name}"
