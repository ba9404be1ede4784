"""Changes of an operator's file: one thing is said anew, and the rest stays as people wrote it."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.errors import SettingsError
from vipcloud.providers import edits
from vipcloud.providers.catalog import merge

FILES = [
    "",
    "# ours\n",
    '[models.kimi-k2]\nstatus = "soon" # wait for a better price\n',
    '# top\n[models.glm-4-air]\nprice = { input = "0.18", output = "0.18" }     # dear\n\n# end\n',
    '[models.kimi-k2]\nprice = {input="1",output="1"}\n\n[[models.kimi-k2.candidates]]\nprovider="moonshot"\n',
    '[models.kimi-k2.price]\ninput = "1"\n',
    'models.kimi-k2.notes = "x"\n',
    'models = { glm-4 = { notes = "x" } }\n',
    'models = { kimi-k2 = { notes = "x" } }\n',
    '[models]\nkimi-k2 = { notes = "y" } # z\n',
    '[models.a]\nnotes="1"\n[providers.x]\nready=true\n[models.b]\nnotes="2"\n',  # out of order
    "[providers.x]\nready=true",  # no line break at the end
    '[models."kimi-k2"]\r\nstatus = "soon"\r\n',
    "[calendars.a]\nholidays = [\n  2026-01-01, # New Year\n]\n",
    '[models.kimi-k2]\nnotes = """\n[models.kimi-k2]\nstatus = "soon"\n"""\n',  # looks like what it is not
]


@pytest.mark.parametrize("text", FILES)
@pytest.mark.parametrize("model_id", ["kimi-k2", "labs/glm-4.5:free"])
def test_one_status_is_changed_and_every_comment_stays(text: str, model_id: str) -> None:
    changed = edits.with_status(text, model_id, "live")
    expected = merge(msgspec.toml.decode(text), {"models": {model_id: {"status": "live"}}})
    assert msgspec.toml.decode(changed) == expected
    lines = [line.strip() for line in text.splitlines() if "#" in line and "status" not in line]
    assert all(any(line.partition("#")[2] in other for other in changed.splitlines()) for line in lines)
    assert edits.with_status(changed, model_id, "live") == changed


def test_the_lines_around_the_change_are_the_same_bytes() -> None:
    text = '# a\n\n[models.glm-4]   # b\nnotes   =   "c"\nstatus = "soon" # d\n\n\n[providers.x] # e\n'
    assert edits.with_status(text, "glm-4", "live") == text.replace('"soon"', '"live"')


def test_off_and_on_again_is_the_file_of_before() -> None:
    text = '[models.glm-4]\nstatus = "live" # sold\n'
    assert edits.with_status(edits.with_status(text, "glm-4", "soon"), "glm-4", "live") == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[models.x", "it is not TOML"),
        ("models = 3", "too unusual"),
        ('[[models]]\nname = "x"', "too unusual"),
        ("[models]\nkimi-k2 = 3", "too unusual"),
    ],
)
def test_a_file_that_cannot_be_changed_safely_is_left_to_its_owner(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        edits.with_status(text, "kimi-k2", "live")


NAMES = st.sampled_from(["kimi-k2", "glm-4", "a.b/c", "x"])
ROWS = st.dictionaries(
    st.sampled_from(["status", "notes", "price", "tags"]),
    st.sampled_from(['"soon"', '"it\'s"', '{ input = "1" }', "[1, 2]", '"""a\nb"""']),
    max_size=3,
)


def written(order: list[tuple[str, dict[str, str]]]) -> str:
    """Tables in any order, others between them, comments everywhere."""
    parts = []
    for place, (name, row) in enumerate(order):
        parts.append(f'# {place}\n[models."{name}"] # {name}\n')
        parts += [f"{key} = {value} # {key}\n" for key, value in row.items()]
        parts.append(f"\n[providers.p{place}]\nready = true\n")
    return "".join(parts)


@given(st.lists(st.tuples(NAMES, ROWS), max_size=4, unique_by=lambda pair: pair[0]), NAMES)
def test_any_file_of_tables_says_one_thing_more(order: list[tuple[str, dict[str, str]]], model_id: str) -> None:
    text = written(order)
    before: dict[str, Any] = msgspec.toml.decode(text)
    changed = edits.with_status(text, model_id, "free")
    assert msgspec.toml.decode(changed) == merge(before, {"models": {model_id: {"status": "free"}}})
    assert changed.count("#") == text.count("#")
