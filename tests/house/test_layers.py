"""Imports point one way. A new package needs a place in LAYERS; nothing else has to be remembered."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "vipcloud"

LAYERS: list[set[str]] = [
    {"errors", "clock", "money"},
    {"settings"},
    {"http"},
    {"dialects"},
    {"providers"},
    {"routing"},
    {"simulators"},
    {"storage"},
    {"limits"},
    {"metering"},
    {"ledger"},
    {"accounts"},
    {"billing"},
    {"status"},
    {"telemetry"},
    {"gateway", "console"},  # one level: neither may import the other
    {"cli"},
    {"__main__"},
]
LEVEL = {package: level for level, packages in enumerate(LAYERS) for package in packages}
KNOW_SIMULATORS = {"cli", "simulators"}

PURE = ["errors.py", "money.py", "dialects/", "providers/", "routing/", "metering/", "status/report.py"]
PURE_IN_DOMAINS = "rules.py"
IMPURE_MODULES = {
    "aiosqlite",
    "alembic",
    "asyncio",
    "httptools",
    "multiprocessing",
    "os",
    "random",
    "secrets",
    "select",
    "selectors",
    "shutil",
    "signal",
    "socket",
    "sqlalchemy",
    "sqlite3",
    "ssl",
    "structlog",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "urllib.request",
    "uuid",
    "uvloop",
}


def files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def name(file: Path) -> str:
    return file.relative_to(SOURCE).as_posix()


def room(path: str) -> str:
    """`http/sse.py` → `http`, `errors.py` → `errors`: the word that LAYERS knows."""
    return path.partition("/")[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that `tree` imports, by full name, wherever the statement stands; relative ones keep their dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def faults(path: str, tree: ast.AST) -> list[str]:
    """What is wrong with the imports of the file at `path` (relative to the package's root)."""
    own = room(path)
    found = []
    for module in imports(tree):
        if module.startswith("."):
            found.append(f"{path}: relative import of {module}; write the full name")
        parts = module.split(".")
        if parts[0] != "vipcloud" or len(parts) == 1 or parts[1] == own:
            continue
        other = parts[1]
        if other not in LEVEL:
            found.append(f"{path} imports {module}: {other} has no place in LAYERS")
        elif LEVEL[other] >= LEVEL[own]:
            found.append(f"{path} imports {module}: {other} does not stand below {own}")
        elif other == "simulators" and own not in KNOW_SIMULATORS:
            found.append(f"{path} imports {module}: only the command line knows the simulators")
    return found


def is_pure(path: str) -> bool:
    return path.startswith(tuple(PURE)) or path.endswith(f"/{PURE_IN_DOMAINS}")


def impurities(path: str, tree: ast.AST) -> list[str]:
    """I/O, clocks and randomness that the file at `path` imports."""
    return [
        f"{path} imports {module}"
        for module in imports(tree)
        if any(module == impure or module.startswith(f"{impure}.") for impure in IMPURE_MODULES)
    ]


def test_every_package_has_a_place() -> None:
    assert sorted({room(name(file)) for file in files()} - LEVEL.keys() - {"__init__"}) == []


def test_imports_only_point_down() -> None:
    assert [fault for file in files() for fault in faults(name(file), ast.parse(file.read_bytes()))] == []


def test_pure_modules_do_no_io_and_know_no_clock_and_no_randomness() -> None:
    pure = [file for file in files() if is_pure(name(file))]
    assert [fault for file in pure for fault in impurities(name(file), ast.parse(file.read_bytes()))] == []


@pytest.mark.parametrize(
    ("path", "statement"),
    [
        ("http/server.py", "from vipcloud.gateway import app"),
        ("gateway/app.py", "import vipcloud.console.pages"),
        ("console/pages.py", "from vipcloud.gateway.app import App"),
        ("gateway/app.py", "from vipcloud.simulators import deepseek"),
        ("gateway/app.py", "from vipcloud import simulators"),
        ("errors.py", "from vipcloud.money import NanoUSD"),
        ("http/server.py", "def late():\n    from vipcloud.cli import main"),
        ("http/server.py", "from . import sse"),
        ("cli/main.py", "from vipcloud.unheard_of import thing"),
    ],
)
def test_the_rule_sees_a_wrong_import(path: str, statement: str) -> None:
    assert faults(path, ast.parse(statement)) != []


@pytest.mark.parametrize(
    ("path", "statement"),
    [
        ("gateway/app.py", "from vipcloud.http import server"),
        ("http/server.py", "from vipcloud.http import sse"),
        ("cli/main.py", "from vipcloud.simulators import deepseek"),
        ("settings.py", "from vipcloud.errors import SettingsError"),
    ],
)
def test_the_rule_lets_a_right_import_pass(path: str, statement: str) -> None:
    assert faults(path, ast.parse(statement)) == []


@pytest.mark.parametrize("statement", ["import os.path", "from time import monotonic", "from os import path"])
def test_the_rule_sees_an_impure_import(statement: str) -> None:
    assert impurities("routing/order.py", ast.parse(statement)) != []
