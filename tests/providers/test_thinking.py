"""Inline reasoning is lifted out of the text, wherever the pieces are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.providers.thinking import Thinking, beginning


def taken_apart(*pieces: str) -> tuple[str, str]:
    thinking = Thinking()
    parts = [*(thinking.feed(piece) for piece in pieces), thinking.end()]
    return "".join(part[0] for part in parts), "".join(part[1] for part in parts)


TEXTS = [
    ("<think>\nNeed weather.\n</think>\n\n\n", "Need weather.", ""),
    ("<think>\nNeed weather.\n</think>\n\n\nSunny.\n", "Need weather.", "Sunny.\n"),
    (" \n<think>a b</think>c <think>d</think>", "a b", "c <think>d</think>"),  # the second was asked for
    ("<think>a</think>\n<think> b </think>c", "a\nb", "c"),
    ("<think>\n\n</think>\n\nHi", "", "Hi"),
    ("<think>cut off </thi", "cut off </thi", ""),
    ("<think>2 < 3 </ 4</think>5", "2 < 3 </ 4", "5"),
    ("<thinking>x", "", "<thinking>x"),
    ("<thin", "", "<thin"),
    (" \n", "", " \n"),
    ("  plain </think> text", "", "  plain </think> text"),
    ("", "", ""),
]


@pytest.mark.parametrize(("text", "reasoning", "content"), TEXTS)
def test_reasoning_and_answer_are_told_apart_at_every_cut(text: str, reasoning: str, content: str) -> None:
    assert taken_apart(text) == (reasoning, content)
    assert taken_apart(*text) == (reasoning, content)
    for first in range(len(text) + 1):
        for second in range(first, len(text) + 1):
            assert taken_apart(text[:first], text[first:second], text[second:]) == (reasoning, content)


@given(st.lists(st.sampled_from(["<think>", "</think>", "<th", "ink>", "</", " ", "\n", "a", "b<"])), st.data())
def test_no_cut_changes_what_comes_out(tokens: list[str], data: st.DataObject) -> None:
    text = "".join(tokens)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert taken_apart(*pieces) == taken_apart(text)


@given(st.text(), st.text())
def test_nothing_but_tags_and_space_is_lost(reasoning: str, content: str) -> None:
    reasoning, content = reasoning.replace("<", ""), content.replace("<", "")
    assert taken_apart(f"<think>{reasoning}</think>{content}") == (reasoning.strip(), content.lstrip())
    assert taken_apart(content) == ("", content)


def test_reasoning_is_shown_while_it_runs() -> None:
    thinking = Thinking()
    assert [thinking.feed(piece) for piece in ("<thi", "nk>Need", " weather", ".\n", "</think>", "4", "<think>")] == [
        ("", ""),
        ("Need", ""),
        (" weather", ""),
        (".", ""),
        ("", ""),
        ("", "4"),
        ("", "<think>"),
    ]


@pytest.mark.parametrize(
    ("text", "word", "kept"),
    [
        ("see E", "END", 1),
        ("see EN", "END", 2),
        ("see END", "END", 0),
        ("EEN", "END", 2),
        ("", "END", 0),
        ("aa", "a", 0),
    ],
)
def test_the_beginning_of_a_word_is_seen_at_the_end_of_a_text(text: str, word: str, kept: int) -> None:
    assert beginning(text, word) == kept
