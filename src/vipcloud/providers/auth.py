"""How a call says whose it is: the `Authorization` header for each scheme that a provider row may name."""

from functools import lru_cache

from vipcloud.providers import zhipu
from vipcloud.providers.models import Provider

RENEWAL_MS = 180_000  # a signed token is reused this long, so the last call with it has 30 s of its life left


def auth_header(provider: Provider, key: str, now_ms: int) -> str:
    """The header's value. `now_ms` is the wall clock, which a raw key ignores. Raises SettingsError for a bad key."""
    if provider.auth == "jwt":
        return f"Bearer {_token(key, now_ms - now_ms % RENEWAL_MS)}"
    return f"Bearer {key}"


@lru_cache(maxsize=256)
def _token(key: str, window_ms: int) -> str:
    return zhipu.sign(key, window_ms)
