"""The modules that are compiled (tool.vipcloud.native) keep away from what mypyc compiles to something else."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["vipcloud"]["native"]


def trees() -> Iterator[tuple[str, ast.Module]]:
    for module in MODULES:
        path = ROOT / "src" / f"{module.replace('.', '/')}.py"
        yield path.name, ast.parse(path.read_text())


def test_the_list_is_sorted_and_names_modules() -> None:
    assert sorted(set(MODULES)) == MODULES
    assert len(list(trees())) == len(MODULES)


def test_no_struct_is_compiled() -> None:
    """Of a `msgspec.Struct` it drops what stands behind the bases (frozen, tag, omit_defaults) and its annotations."""
    found = [
        f"{name}:{node.lineno}"
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Struct") for base in node.bases)
    ]
    assert found == []


def test_nothing_is_awaited_in_a_handler() -> None:
    """After an `await` in an `except` block a bare `raise` finds no exception any more, and the process crashes."""
    found = [
        f"{name}:{handler.lineno}"
        for name, tree in trees()
        for handler in ast.walk(tree)
        if isinstance(handler, ast.ExceptHandler)
        for node in ast.walk(handler)
        if isinstance(node, ast.Await | ast.AsyncWith | ast.AsyncFor)
    ]
    assert found == []


def test_handlers_of_different_errors_have_names_of_their_own() -> None:
    """In a coroutine a name has one type: that of the first handler."""
    found = []
    for name, tree in trees():
        for function in ast.walk(tree):
            if isinstance(function, ast.AsyncFunctionDef):
                types: dict[str, str] = {}
                for node in ast.walk(function):
                    if isinstance(node, ast.ExceptHandler) and node.name and node.type:
                        kind = ast.unparse(node.type)
                        if types.setdefault(node.name, kind) != kind:
                            found.append(f"{name}:{node.lineno}")
    assert found == []
