"""The process that counts by real vocabularies: right, patient to a limit, and out of the event loop's way."""

import asyncio
import sys
from collections.abc import Iterator

import pytest

from vipcloud.gateway.counting import LATE_MAX, TokenCounter
from vipcloud.metering import vocabulary

TEXTS = ["Hello there.", "", "你好，世界", '{"city": "Paris"}']
PATIENT_S = 15.0


@pytest.fixture
def counter() -> Iterator[TokenCounter]:
    made = TokenCounter(PATIENT_S)
    yield made
    made.close()


def doing(script: str) -> tuple[str, ...]:
    return (sys.executable, "-c", script)


async def test_it_counts_as_the_vocabulary_does(counter: TokenCounter) -> None:
    assert await counter.count("deepseek", TEXTS) == [vocabulary.count(text, "deepseek") for text in TEXTS]
    assert await counter.count("qwen", TEXTS) == [vocabulary.count(text, "qwen") for text in TEXTS]


async def test_a_long_text_is_counted_by_samples_while_others_are_served(counter: TokenCounter) -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 4_000
    await counter.count("deepseek", [""])  # so that only the counting is measured
    counting = asyncio.ensure_future(counter.count("deepseek", [text]))
    turns = 0
    while not counting.done():
        await asyncio.sleep(0)
        turns += 1
    counts = await counting
    assert counts is not None
    assert counts[0] == pytest.approx(40_001, rel=0.02)
    assert turns > 10, "the event loop went on"


async def test_it_is_not_started_before_it_is_asked() -> None:
    counter = TokenCounter(PATIENT_S, doing("raise SystemExit('started')"))
    counter.close()
    counter = TokenCounter(0, doing("raise SystemExit('started')"))
    assert await counter.count("qwen", ["a"]) is None
    counter.close()
    assert await counter.count("qwen", ["a"]) is None


@pytest.mark.parametrize("script", ["", "print('[1', flush=True)", "print('nonsense', flush=True)"])
async def test_one_that_ends_or_babbles_is_started_again(script: str) -> None:
    counter = TokenCounter(PATIENT_S, doing(script))
    assert await counter.count("qwen", ["a"]) is None
    assert await counter.count("qwen", ["a"]) is None
    counter.close()


async def test_one_that_hangs_is_not_waited_for_and_ended_in_the_end() -> None:
    counter = TokenCounter(0.01, doing("import sys; sys.stdin.read()"))
    for _ in range(LATE_MAX):
        assert await counter.count("qwen", ["a"]) is None
    counter.close()


async def test_a_caller_that_leaves_takes_no_answer_from_the_next(counter: TokenCounter) -> None:
    leaving = asyncio.ensure_future(counter.count("deepseek", ["one two three four"]))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert await counter.count("deepseek", ["one"]) == [vocabulary.count("one", "deepseek")]
