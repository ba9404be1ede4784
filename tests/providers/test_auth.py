"""The `Authorization` header per scheme."""

from vipcloud.providers import auth, catalog, zhipu
from vipcloud.providers.catalog import catalog_of

KEY = "0123456789abcdef.s3cret"
NOW_MS = 1_795_000_000_123
PACKAGED = catalog.packaged_toml()
RAW = catalog_of(PACKAGED).providers["zhipu"]
SIGNED = catalog_of(PACKAGED, '[providers.zhipu]\nauth = "jwt"').providers["zhipu"]


def test_a_raw_key_is_sent_as_it_is() -> None:
    assert auth.auth_header(RAW, KEY, NOW_MS) == f"Bearer {KEY}"


def test_a_signed_token_is_reused_and_always_has_half_a_minute_left() -> None:
    window_ms = NOW_MS - NOW_MS % auth.RENEWAL_MS
    token = f"Bearer {zhipu.sign(KEY, window_ms)}"
    assert {auth.auth_header(SIGNED, KEY, window_ms + late) for late in (0, 1, auth.RENEWAL_MS - 1)} == {token}
    assert auth.auth_header(SIGNED, KEY, window_ms + auth.RENEWAL_MS) != token
    assert zhipu.LIFE_MS - auth.RENEWAL_MS >= 30_000
