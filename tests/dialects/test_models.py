"""The model list as clients read it."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.dialects import models
from vipcloud.dialects.models import ModelEntry
from vipcloud.money import PicoUSDPerToken

ENTRY = ModelEntry(
    id="deepseek-chat",
    created=1735171200,
    owned_by="deepseek",
    name="DeepSeek Chat",
    status="live",
    description="64K",
    context_tokens=65_536,
    output_tokens_max=8_192,
    input_modalities=("text",),
    output_modalities=("text",),
    supported_parameters=("max_tokens", "tools"),
    price_input=PicoUSDPerToken(310_000),
    price_output=PicoUSDPerToken(1_270_000),
)
BODY: dict[str, Any] = {
    "id": "deepseek-chat",
    "object": "model",
    "created": 1735171200,
    "owned_by": "deepseek",
    "name": "DeepSeek Chat",
    "status": "live",
    "description": "64K",
    "context_length": 65_536,
    "architecture": {"modality": "text->text", "input_modalities": ["text"], "output_modalities": ["text"]},
    "pricing": {"prompt": "0.00000031", "completion": "0.00000127"},
    "top_provider": {"context_length": 65_536, "max_completion_tokens": 8_192, "is_moderated": False},
    "supported_parameters": ["max_tokens", "tools"],
    "canonical_slug": "deepseek-chat",
    "links": {"details": "/v1/models/deepseek-chat"},
    "default_parameters": None,
    "per_request_limits": None,
    "supported_voices": None,
}


def test_a_model_has_openais_fields_first_and_ours_behind() -> None:
    body = msgspec.json.decode(models.model_body(ENTRY))
    assert body == BODY
    assert list(body)[:4] == ["id", "object", "created", "owned_by"]


def test_tokens_of_a_cache_have_a_price_where_it_is_another_one() -> None:
    def pricing(cached: int, written: int) -> dict[str, str]:
        entry = msgspec.structs.replace(
            ENTRY, price_cached_input=PicoUSDPerToken(cached), price_cache_write=PicoUSDPerToken(written)
        )
        shown: dict[str, str] = msgspec.json.decode(models.model_body(entry))["pricing"]
        return shown

    assert pricing(310_000, 310_000) == BODY["pricing"]
    assert pricing(0, 310_000) == {**BODY["pricing"], "input_cache_read": "0"}
    assert pricing(31_000, 387_500)["input_cache_write"] == "0.0000003875"


def test_a_model_that_sees_says_so() -> None:
    entry = msgspec.structs.replace(ENTRY, input_modalities=("text", "image"))
    assert msgspec.json.decode(models.model_body(entry))["architecture"] == {
        "modality": "text+image->text",
        "input_modalities": ["text", "image"],
        "output_modalities": ["text"],
    }


def test_the_list_is_one_page_in_the_order_given() -> None:
    other = msgspec.structs.replace(ENTRY, id="a-model")
    body = msgspec.json.decode(models.list_body([ENTRY, other]))
    named = {"id": "a-model", "canonical_slug": "a-model", "links": {"details": "/v1/models/a-model"}}
    assert body["data"] == [BODY, {**BODY, **named}]
    assert (body["object"], body["total_count"], body["links"]) == ("list", 2, {"next": None})


def test_an_empty_list_is_a_list() -> None:
    assert models.list_body([]) == b'{"object":"list","data":[],"total_count":0,"links":{"next":null}}'


def test_a_model_without_a_price_says_null() -> None:
    entry = msgspec.structs.replace(ENTRY, price_input=None, price_output=None)
    assert msgspec.json.decode(models.model_body(entry))["pricing"] is None


@pytest.mark.parametrize(
    ("pico", "text"),
    [(0, "0"), (1, "0.000000000001"), (310_000, "0.00000031"), (10**12, "1"), (1_500_000_000_000, "1.5")],
)
def test_a_price_per_token_is_exact_and_without_exponent(pico: int, text: str) -> None:
    assert models.usd_per_token(PicoUSDPerToken(pico)) == text


@given(st.integers(0, 10**15))
def test_a_price_per_token_reads_back_to_the_same_integer(pico: int) -> None:
    whole, _, fraction = models.usd_per_token(PicoUSDPerToken(pico)).partition(".")
    assert int(whole) * 10**12 + int(fraction.ljust(12, "0")) == pico
