"""Zhipu's signed tokens: what its accounts may be called with instead of the raw key.

Source: `_jwt_token` in MetaGLM/zhipuai-sdk-python-v4 and zai-org/z-ai-sdk-python (seen 2026-11): HS256, a `sign_type`
header, times in milliseconds, a life of 210 s.
"""

import hashlib
import hmac
from base64 import urlsafe_b64encode

import msgspec

from vipcloud.errors import SettingsError

LIFE_MS = 210_000

_encode = msgspec.json.Encoder().encode


def sign(key: str, now_ms: int) -> str:
    """A token for `key` (`id.secret`), good from `now_ms` for 210 s. Raises SettingsError for a key of another form."""
    key_id, dot, secret = key.partition(".")
    if not (key_id and dot and secret):
        raise SettingsError('upstreams.zhipu.keys: auth "jwt" signs with a key of the form id.secret.')
    header = _base64url(_encode({"alg": "HS256", "sign_type": "SIGN"}))
    payload = _base64url(_encode({"api_key": key_id, "exp": now_ms + LIFE_MS, "timestamp": now_ms}))
    signed = header + b"." + payload
    signature = hmac.digest(secret.encode(), signed, hashlib.sha256)
    return (signed + b"." + _base64url(signature)).decode("ascii")


def _base64url(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
