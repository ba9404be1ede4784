import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.accounts import rules

KEY = "vc-sk-" + "0" * 40 + "2kaqcA"
random_bytes = st.binary(min_size=rules.RANDOM_BYTES, max_size=rules.RANDOM_BYTES).filter(
    lambda data: sum(byte < 248 for byte in data) >= 40
)


def base62(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 62)
        digits = rules.ALPHABET[digit] + digits
    return digits.rjust(6, "0")


@given(random_bytes)
def test_a_minted_key_is_well_formed_and_ends_in_its_checksum(data: bytes) -> None:
    key = rules.mint(data)
    assert len(key) == rules.KEY_LENGTH
    assert key[:6] == "vc-sk-"
    assert key[-6:] == base62(zlib.crc32(key[6:46].encode()))
    assert rules.well_formed(key)
    assert rules.well_formed(key.encode())


@given(random_bytes, st.integers(0, 51), st.characters(codec="ascii"))
def test_a_key_with_one_wrong_character_is_not_well_formed(data: bytes, at: int, wrong: str) -> None:
    key = rules.mint(data)
    mistyped = key[:at] + wrong + key[at + 1 :]
    assert rules.well_formed(mistyped) == (mistyped == key)


@given(st.binary() | st.text())
def test_no_input_breaks_the_check(token: bytes | str) -> None:
    assert rules.well_formed(token) is False


@pytest.mark.parametrize(
    "token",
    ["", "vc-sk-", "sk-" + "a" * 48, KEY + "0", KEY[:-1], KEY + "\n", " " + KEY, KEY.upper(), KEY[:-1] + "é"],
)
def test_what_is_nearly_a_key_is_not_well_formed(token: str) -> None:
    assert rules.well_formed(KEY)
    assert not rules.well_formed(token)
    assert not rules.well_formed(token.encode())


def test_bytes_that_would_favour_some_digits_are_thrown_away() -> None:
    every_byte = bytes(range(256))
    digits = rules.encode(every_byte, 248)
    assert {digits.count(digit) for digit in rules.ALPHABET} == {4}
    with pytest.raises(ValueError, match="only 248 digits of 249"):
        rules.encode(every_byte, 249)
    with pytest.raises(ValueError, match="only 0 digits of 40"):
        rules.mint(b"\xff" * rules.RANDOM_BYTES)


def test_a_mask_tells_keys_apart_and_gives_none_away() -> None:
    assert rules.masked("vc-sk-7Qm2" + "x" * 38 + "f9Kd") == "vc-sk-7Qm2…f9Kd"


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (KEY.encode(), "vc-sk-00…qcA"),
        (b"sk-proj-1234567890abcdef", "sk-proj-…def"),
        (b"hunter2", "hu…"),
        (b"", "…"),
        (b"\xff\x00\r\nvc-sk-123456789012345", "�???vc-s…345"),
    ],
)
def test_a_wrong_key_is_shown_in_part(token: bytes, shown: str) -> None:
    assert rules.masked_unknown(token) == shown


@pytest.mark.parametrize(
    ("text", "email"),
    [
        ("ada@example.com", "ada@example.com"),
        ("  Ada.Lovelace+vip@Sub.Example.COM ", "ada.lovelace+vip@sub.example.com"),
        ("a@b.c", "a@b.c"),
        ("ops@localhost", "ops@localhost"),
        ("o'neil@xn--bcher-kva.example", "o'neil@xn--bcher-kva.example"),
    ],
)
def test_an_address_is_unique_whatever_its_case(text: str, email: str) -> None:
    assert rules.normal_email(text) == email


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ada",
        "ada@",
        "@example.com",
        "ada@example..com",
        "ada@.com",
        "a..da@example.com",
        ".ada@example.com",
        "ada.@example.com",
        "ada lovelace@example.com",
        "ada@example.com, bob@example.com",
        "ada@example.com\nbcc: bob@example.com",
        "ada@exämple.com",
        "a" * 65 + "@example.com",
        "a@" + "b." * 130 + "com",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an e-mail address"):
        rules.normal_email(text)


def test_a_keys_name_is_short_and_printable() -> None:
    assert rules.normal_name("  production API ") == "production API"
    for name in ("x" * 101, "two\nlines", "\x1b[31mred"):
        with pytest.raises(ValueError, match="at most 100 printable"):
            rules.normal_name(name)
