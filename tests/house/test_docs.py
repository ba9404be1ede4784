"""The reference pages name everything there is, they are as `make docs` writes them, and no link leads nowhere."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import msgspec
import pytest
import typer.main
from msgspec import Struct

from vipcloud import errors
from vipcloud.cli import reference
from vipcloud.cli.commands import app
from vipcloud.settings import Settings

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"

FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]:\s*(\S+)|(?:src|href)=\"([^\"]+)\"", re.MULTILINE)


def read(page: str) -> str:
    return (REFERENCE / page).read_text()


def section(page: str, title: str) -> str:
    """What stands under the heading of `page` that has `title` as a word, up to the next heading; empty if none has."""
    match = re.search(rf"^#+ .*(?<![\w-]){re.escape(title)}(?![\w-]).*\n((?:(?!#+ ).*\n?)*)", page, re.MULTILINE)
    return match.group(1) if match else ""


def setting_groups() -> Iterator[tuple[str, type[Struct]]]:
    """`("server", ServerSettings)`, …; of a table of groups (`tiers`) its kind of row."""
    for group, kind in get_type_hints(Settings).items():
        row = get_args(kind)[1] if get_origin(kind) is dict else kind
        if isinstance(row, type) and issubclass(row, Struct):
            yield group, row


def descriptions(group: type[Struct]) -> Iterator[tuple[str, str]]:
    for name, hint in get_type_hints(group, include_extras=True).items():
        metas = [meta for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, msgspec.Meta)]
        yield name, next((meta.description for meta in metas if meta.description), "")


def commands() -> Iterator[tuple[str, list[str]]]:
    """`("vipcloud accounts create", ["--tier", …])` of every command there is."""

    def below(name: str, command: object) -> Iterator[tuple[str, list[str]]]:
        children = getattr(command, "commands", None)
        if children is None:
            shown = [each for each in getattr(command, "params", []) if not getattr(each, "hidden", False)]
            yield name, [option for each in shown for option in each.opts if option.startswith("--")]
        else:
            for child, inner in children.items():
                if not inner.hidden:
                    yield from below(f"{name} {child}", inner)

    yield from below("vipcloud", typer.main.get_command(app))


def anchors(page: Path) -> set[str]:
    """Of every heading, the anchor that a Markdown page gets from it: lower case, hyphens for spaces."""
    headings = re.findall(r"^#+ +(.*?)\s*$", FENCE.sub("", page.read_text()), re.MULTILINE)
    plain = (re.sub(r"[`*\[\]]|\(\S*\)", "", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def links(page: Path) -> list[str]:
    text = INLINE_CODE.sub("", FENCE.sub("", page.read_text()))
    return [next(filter(None, groups)) for groups in LINK.findall(text)]


def leads_nowhere(page: Path, target: str) -> bool:
    """Whether `target` is a relative link of `page` to a file, or a heading in it, that is not there."""
    if re.match(r"[a-z][a-z0-9+.-]*:|//", target):
        return False
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.exists():
        return True
    return bool(anchor) and file.suffix == ".md" and anchor not in anchors(file)


def pages() -> list[Path]:
    """The project's own pages. Those of the website link to its addresses; tests/console walks them."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [
        page
        for line in listing.stdout.splitlines()
        if (page := ROOT / line).is_file() and "/console/content/" not in line
    ]


@pytest.mark.parametrize(("group", "kind"), list(setting_groups()))
def test_every_setting_is_in_the_reference(group: str, kind: type[Struct]) -> None:
    text = section(read("settings.md"), group)
    assert text, f"settings.md has no heading for {group}"
    for name, description in descriptions(kind):
        assert description, f"{group}.{name} has no description"
        assert re.search(rf"`([\w.]+\.)?{name}`", text), f"{group}.{name} is missing"
        assert description in text, f"what {group}.{name} means is missing"


@pytest.mark.parametrize("kind", errors.documented(), ids=lambda kind: kind.__name__)
def test_every_error_is_in_the_reference(kind: type[errors.GatewayError]) -> None:
    rows = [line for line in read("errors.md").splitlines() if f"`{kind.code}`" in line and str(kind.status) in line]
    assert any(kind.meaning in row for row in rows)


@pytest.mark.parametrize(("command", "options"), list(commands()))
def test_every_command_is_in_the_reference(command: str, options: list[str]) -> None:
    text = section(read("cli.md"), command)
    assert text, f"cli.md has no heading for {command}"
    assert [option for option in options if option not in text] == []


def test_the_reference_is_as_make_docs_writes_it(tmp_path: Path) -> None:
    reference.write(tmp_path)
    stale = [page.name for page in tmp_path.iterdir() if read(page.name) != page.read_text()]
    assert stale == [], "run `make docs`"


def test_no_link_leads_nowhere() -> None:
    dead = [
        f"{page.relative_to(ROOT)}: {link}" for page in pages() for link in links(page) if leads_nowhere(page, link)
    ]
    assert dead == []


@pytest.mark.parametrize(
    ("target", "dead"),
    [
        ("there.md", False),
        ("there.md#a-heading-with-code", False),
        ("#here", False),
        ("https://example.com/gone", False),
        ("gone.md", True),
        ("there.md#gone", True),
        ("#gone", True),
    ],
)
def test_the_rule_sees_a_dead_link(tmp_path: Path, target: str, dead: bool) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Here\n\n[a link]({target}), and in code `[none](gone.md)`\n")
    (tmp_path / "there.md").write_text("## A heading with `code`\n")
    assert [leads_nowhere(page, link) for link in links(page)] == [dead]
