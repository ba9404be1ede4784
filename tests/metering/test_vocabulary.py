"""Counts by real vocabularies, and how near a guess comes to them."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.metering import vocabulary
from vipcloud.providers import catalog
from vipcloud.providers.catalog_rows import Vocabulary

VOCABULARIES: list[Vocabulary] = ["deepseek", "qwen", "qwen3.5"]

ENGLISH = """The gateway keeps every account's balance in integers, holds what a request can cost at most before its
upstream is called, and posts what it did cost exactly once. When a stream breaks off midway the customer pays for the
tokens that were delivered, and an event says so. Nobody has to wait for the database: keys and balances are in memory,
changes arrive within a second, and what was used goes through a journal that survives a crash."""
CHINESE = (
    "网关以整数记录每个账户的余额，在调用上游之前先冻结一次请求可能产生的最高费用，并且只结算一次实际费用。"
    "如果流在中途断开，客户只需为已经收到的内容付费，并会收到一个说明事件。任何人都不必等待数据库：密钥和余额都保存在内存中，"
    "变更会在一秒之内生效，而用量则写入能够在崩溃后恢复的日志。"
)
JAPANESE = "ゲートウェイは各アカウントの残高を整数で管理し、上流を呼び出す前に最大費用を確保します。" * 4
RUSSIAN = "Шлюз хранит баланс каждого счёта в целых числах и списывает ровно столько, сколько было использовано. " * 4
CODE = '''
def capture(hold: Hold, amount: NanoUSD) -> list[Transfer]:
    """Turn `hold` into a charge of `amount` and free the rest. Raises HoldClosed."""
    if not hold.open:
        raise HoldClosed(hold.id)
    assert 0 <= amount <= hold.amount, "a hold is the ceiling of its call"
    rest = NanoUSD(hold.amount - amount)
    return [
        Transfer(f"{hold.id}/charge", debit=f"held:{hold.account}", credit="revenue", amount=amount),
        Transfer(f"{hold.id}/release", debit=f"held:{hold.account}", credit=f"free:{hold.account}", amount=rest),
    ]
'''
ROWS = [{"id": n * 7919, "price": n * 1.37, "name": f"item {n}", "ok": n % 2 == 0} for n in range(40)]
JSON = msgspec.json.encode({"type": "object", "properties": {"city": {"type": "string"}}, "rows": ROWS}).decode()
TABLE = "| model | in | out |\n|---|---|---|\n" + "| `glm-4-plus` | $8.05 | $8.05 |\n" * 12
TEXTS = {
    "english": ENGLISH,
    "chinese": CHINESE,
    "japanese": JAPANESE,
    "russian": RUSSIAN,
    "code": CODE,
    "json": JSON,
    "table": TABLE,
    "toml": catalog.packaged_toml()[:8000],
    "mixed": ENGLISH + CHINESE + CODE + JSON[:600],
}


@pytest.mark.parametrize("by", VOCABULARIES)
@pytest.mark.parametrize("name", TEXTS)
def test_a_guess_is_near_the_count_and_mostly_below(name: str, by: Vocabulary) -> None:
    ratio = vocabulary.guess(TEXTS[name], by) / vocabulary.count(TEXTS[name], by)
    assert 0.8 <= ratio <= 1.12


@pytest.mark.parametrize("by", VOCABULARIES)
def test_over_all_kinds_of_text_a_guess_is_below_by_little(by: Vocabulary) -> None:
    guessed = sum(vocabulary.guess(text, by) for text in TEXTS.values())
    counted = sum(vocabulary.count(text, by) for text in TEXTS.values())
    assert 0.9 <= guessed / counted <= 1.0


@pytest.mark.parametrize("by", VOCABULARIES)
def test_a_sample_stands_for_a_long_text(by: Vocabulary) -> None:
    once = vocabulary.count(TEXTS["mixed"], by)
    times = 3 * vocabulary.COUNT_CHARS // len(TEXTS["mixed"])
    assert vocabulary.count(TEXTS["mixed"] * times, by) == pytest.approx(once * times, rel=0.05)


@pytest.mark.parametrize(
    ("text", "by", "tokens"),
    [
        ("", "qwen", 0),
        ("Hello", "qwen", 1),
        ("Hello there.", "deepseek", 3),
        ("1234", "qwen", 4),
        ("1234", "deepseek", 2),
    ],
)
def test_a_count_is_the_vocabularys_own(text: str, by: Vocabulary, tokens: int) -> None:
    assert vocabulary.count(text, by) == tokens


def test_a_word_without_end_takes_no_age() -> None:
    assert vocabulary.count("a" * 100_000, "deepseek") == 12_500


@given(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(VOCABULARIES))
def test_nothing_counts_more_than_its_bytes(text: str, by: Vocabulary) -> None:
    limit = len(text.encode())
    assert min(1, limit) <= vocabulary.guess(text, by) <= limit
    assert min(1, limit) <= vocabulary.count(text, by) <= limit


@given(st.text(), st.integers(64, 256))
def test_a_sample_is_no_longer_than_asked(text: str, chars_max: int) -> None:
    sample = vocabulary.sampled(text, chars_max)
    assert sample == text if len(text) <= chars_max else len(sample) <= chars_max
