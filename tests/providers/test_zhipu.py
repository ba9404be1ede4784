"""Zhipu's signed tokens, checked as the other side checks them."""

import hashlib
import hmac
from base64 import urlsafe_b64decode
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.errors import SettingsError
from vipcloud.providers import zhipu

NOW_MS = 1_795_000_000_123
KEY = "0123456789abcdef0123456789abcdef.s3cretS3cret"


def part(text: str) -> Any:
    return msgspec.json.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def test_a_token_names_the_key_and_lives_210_seconds_in_milliseconds() -> None:
    header, payload, _ = zhipu.sign(KEY, NOW_MS).split(".")
    assert part(header) == {"alg": "HS256", "sign_type": "SIGN"}
    assert part(payload) == {"api_key": KEY.split(".")[0], "exp": NOW_MS + 210_000, "timestamp": NOW_MS}


@given(st.from_regex(r"\A[0-9a-f]{8,32}\.[A-Za-z0-9]{8,32}\Z"), st.integers(0, 2**50))
def test_a_token_is_signed_with_the_secret_and_does_not_hold_it(key: str, now_ms: int) -> None:
    signed, _, signature = zhipu.sign(key, now_ms).rpartition(".")
    secret = key.partition(".")[2]
    expected = hmac.digest(secret.encode(), signed.encode(), hashlib.sha256)
    assert urlsafe_b64decode(signature + "=" * (-len(signature) % 4)) == expected
    assert "=" not in signed + signature


@pytest.mark.parametrize("key", ["", "abc", "abc.", ".abc"])
def test_a_key_of_another_form_is_refused(key: str) -> None:
    with pytest.raises(SettingsError, match=r"id\.secret"):
        zhipu.sign(key, NOW_MS)
