"""Counting, and the cache of beginnings."""

from hypothesis import given, settings
from hypothesis import strategies as st

from vipcloud.simulators import tokens


@settings(deadline=None)  # the machine is shared
@given(st.text())
def test_the_pieces_of_a_text_make_the_text(text: str) -> None:
    assert "".join(tokens.pieces(text)) == text
    assert tokens.count(text) == len(tokens.pieces(text))


def test_a_long_text_is_counted_by_its_beginning() -> None:
    assert tokens.count("word " * 100_000) in range(99_000, 101_000)


def conversation(*texts: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text} for text in texts]


def test_a_repeated_beginning_is_cached_in_whole_blocks() -> None:
    cache = tokens.PrefixCache(block_tokens=64)
    long = "word " * 200
    assert cache.hit("acme", None, conversation(long, "first")) == 0
    assert cache.hit("acme", None, conversation(long, "second")) == 192  # 204 tokens, in blocks of 64
    assert cache.hit("acme", [{"name": "f"}], conversation(long, "second")) == 0
    assert cache.hit("other", None, conversation(long, "second")) == 0


def test_the_cache_is_bounded() -> None:
    cache = tokens.PrefixCache(block_tokens=1, entries_max=2)
    for text in "abc":
        cache.hit("acme", None, conversation(text))
    assert cache.hit("acme", None, conversation("a")) == 0
    assert cache.hit("acme", None, conversation("c")) > 0
