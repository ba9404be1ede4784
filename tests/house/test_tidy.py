"""Habits that a linter does not know: what may be caught, what may run unattended, what a file may name."""

import ast
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "vipcloud"

# The server's last resort and a worker's loop. Each logs with its traceback.
CATCHES_EVERYTHING = {"http/server.py": 1, "gateway/housekeeping.py": 1}

LEFT_UNDONE = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")

# Addresses of package registries, and places that exist on one machine only. Put together from pieces, so that this
# file does not match itself.
NAMED_PLACES = re.compile(
    r"npmjs\." + r"(?:org|com)|python" + r"hosted|pypi\." + r"org|deb\." + r"debian"
    r"|(?:^|[^\w.:/])/(?:work|root|home|Users)" + r"/\w"
)


def tracked() -> list[Path]:
    """Files of the repository, those not yet added included; of a tree without git, everything but hidden folders."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listing.returncode == 0:
        return [file for line in listing.stdout.splitlines() if (file := ROOT / line).is_file()]
    return [
        file
        for file in ROOT.rglob("*")
        if file.is_file() and not {"node_modules", ".venv", "results"} & set(file.relative_to(ROOT).parts)
    ]


def lines(pattern: re.Pattern[str], files: list[Path]) -> list[str]:
    """`file:line: text` of every line that `pattern` finds in those of `files` that are text."""
    found = []
    for file in files:
        try:
            text = file.read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if pattern.search(line):
                found.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    return found


def sources() -> Iterator[tuple[str, ast.AST]]:
    for file in sorted(SOURCE.rglob("*.py")):
        yield file.relative_to(SOURCE).as_posix(), ast.parse(file.read_bytes())


def catches_everything(tree: ast.AST) -> int:
    """How many handlers of `tree` catch every exception: `except:`, `except Exception`, `suppress(Exception)`.

    One that ends with a bare `raise` only tidies up, and is not counted.
    """

    def is_broad(node: ast.expr | None) -> bool:
        names = node.elts if isinstance(node, ast.Tuple) else [node]
        return any(name is None or ast.unparse(name) in {"Exception", "BaseException"} for name in names)

    count = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            ends_with = node.body[-1]
            count += is_broad(node.type) and not (isinstance(ends_with, ast.Raise) and ends_with.exc is None)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"suppress", "contextlib.suppress"}:
            count += any(is_broad(argument) for argument in node.args)
    return count


def unattended_tasks(tree: ast.AST) -> list[str]:
    """Calls that start a task nobody waits for: its errors would be lost, and it may be collected while it runs."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"asyncio.create_task", "asyncio.ensure_future"}:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            called = ast.unparse(node.value.func)
            if re.search(r"loop(\(\))?\.create_task$", called):
                found.append(f"line {node.lineno}: the task of {called} is dropped")
    return found


def test_only_two_places_catch_everything() -> None:
    counts = {path: count for path, tree in sources() if (count := catches_everything(tree))}
    assert {path: count for path, count in counts.items() if count > CATCHES_EVERYTHING.get(path, 0)} == {}


def test_no_task_runs_unattended() -> None:
    assert {path: found for path, tree in sources() if (found := unattended_tasks(tree))} == {}


def test_nothing_is_left_undone() -> None:
    assert lines(LEFT_UNDONE, [file for file in tracked() if file.suffix != ".lock"]) == []


def test_init_files_are_empty() -> None:
    assert [path for path in SOURCE.rglob("__init__.py") if path.read_bytes()] == []


def test_tests_are_no_packages() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_no_two_test_files_have_the_same_name() -> None:
    """Without packages a file's name is its module's: pytest takes in only the first of two."""
    names = Counter(path.name for path in tracked() if path.name.startswith("test_") and path.suffix == ".py")
    assert [name for name, count in names.items() if count > 1] == []


def test_no_file_names_a_registry_or_a_place_on_one_machine() -> None:
    assert lines(NAMED_PLACES, tracked()) == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("try: f()\nexcept Exception: pass", 1),
        ("try: f()\nexcept: pass", 1),
        ("try: f()\nexcept (ValueError, BaseException) as error: log(error)", 1),
        ("with contextlib.suppress(Exception): f()", 1),
        ("try: f()\nexcept BaseException as error: raise ValueError from error", 1),
        ("try: f()\nexcept BaseException:\n    tidy_up()\n    raise", 0),
        ("try: f()\nexcept ValueError: pass", 0),
        ("with contextlib.suppress(OSError): f()", 0),
    ],
)
def test_the_rule_counts_broad_handlers(source: str, count: int) -> None:
    assert catches_everything(ast.parse(source)) == count


@pytest.mark.parametrize(
    ("source", "faults"),
    [
        ("asyncio.create_task(f())", 1),
        ("task = asyncio.create_task(f())", 1),
        ("loop.create_task(f())", 1),
        ("asyncio.get_running_loop().create_task(f())", 1),
        ("task = loop.create_task(f())", 0),
        ("group.create_task(f())", 0),
    ],
)
def test_the_rule_sees_unattended_tasks(source: str, faults: int) -> None:
    assert len(unattended_tasks(ast.parse(source))) == faults


@pytest.mark.parametrize("line", ["cd /" + "work/main", "open('/" + "root/x')", "https://registry.npmjs." + "org/a"])
def test_the_rule_sees_named_places(line: str) -> None:
    assert NAMED_PLACES.search(line)
