"""PURE: what a key and an e-mail address look like.

A key is `vc-sk-`, 40 random base62 digits, and 6 base62 digits of checksum: 52 characters. The checksum is the CRC-32
(zlib's, unsigned) of the 40 digits in ASCII, without the prefix, written in base62 most significant digit first and
padded on the left with `0`. Base62 digits count `0-9A-Za-z`. With the checksum a mistyped key is refused without
asking the store, and a scanner can tell a leaked key from a lookalike.
"""

import hashlib
import re
import zlib

PREFIX = "vc-sk-"
RANDOM_DIGITS = 40
KEY_LENGTH = 52
RANDOM_BYTES = 64  # asked for per key: fewer than 40 usable ones among 64 come once in about 10^20 keys
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
EMAIL_LENGTH_MAX = 254  # RFC 5321, 4.5.3.1.3, less the brackets
NAME_LENGTH_MAX = 100

_UNBIASED = 256 - 256 % 62  # bytes below it fall evenly on 62 digits
_DIGITS = slice(len(PREFIX), len(PREFIX) + RANDOM_DIGITS)
_PAIRS = [(high + low).encode() for high in ALPHABET for low in ALPHABET]
_SHAPE = re.compile(rb"vc-sk-[0-9A-Za-z]{46}").fullmatch
_EMAIL = re.compile(r"[a-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*")
_sha256 = hashlib.sha256
_crc32 = zlib.crc32


def mint(random_bytes: bytes) -> str:
    """A key from `random_bytes`, each digit equally likely. Raises ValueError if fewer than 40 bytes are usable.

    Eight of 256 byte values are thrown away, or the first eight digits would come more often: give RANDOM_BYTES.
    """
    digits = encode(random_bytes, RANDOM_DIGITS)
    return f"{PREFIX}{digits}{_checksum(digits.encode()).decode()}"


def encode(random_bytes: bytes, length: int) -> str:
    """`length` base62 digits, each equally likely. Raises ValueError if too few bytes are usable."""
    digits = [ALPHABET[byte % 62] for byte in random_bytes if byte < _UNBIASED][:length]
    if len(digits) < length:
        raise ValueError(f"{len(random_bytes)} random bytes hold only {len(digits)} digits of {length}")
    return "".join(digits)


def well_formed(token: str | bytes) -> bool:
    """Whether prefix, length, alphabet and checksum are right: whether it can be one of ours at all."""
    if isinstance(token, str):
        token = token.encode(errors="replace")
    return _SHAPE(token) is not None and _checksum(token[_DIGITS]) == token[-6:]


def key_hash(token: bytes) -> bytes:
    """What is stored of a key. A plain SHA-256 is enough: 238 random bits cannot be guessed at any speed."""
    return _sha256(token).digest()


def masked(token: str) -> str:
    """A key for people, enough to tell it from others: `vc-sk-7Qm2…f9Kd`."""
    return f"{token[:10]}…{token[-4:]}"


def masked_unknown(token: bytes) -> str:
    """The same for whatever a caller sent as a key: `vc-sk-Ab…xyz`, or less where that would show most of it."""
    ends = token if len(token) < 40 else token[:20] + token[-20:]
    text = "".join(character if character.isprintable() else "?" for character in ends.decode("ascii", "replace"))
    return f"{text[:8]}…{text[-3:]}" if len(text) >= 20 else f"{text[:2]}…"


def normal_email(text: str) -> str:
    """The address in lower case, under which it is unique. Raises ValueError if it cannot be one.

    Deliberately simple: plain ASCII, one `@`; `ops@localhost` will do. Whether mail arrives only a mail can tell.
    """
    email = text.strip().lower()
    local = email.partition("@")[0]
    dots = local.startswith(".") or local.endswith(".") or ".." in local
    if len(email) > EMAIL_LENGTH_MAX or _EMAIL.fullmatch(email) is None or dots:
        raise ValueError(f"{text[:EMAIL_LENGTH_MAX]!r} is not an e-mail address such as ada@example.com")
    return email


def normal_name(text: str) -> str:
    """A key's name without space around it. Raises ValueError above 100 characters or with control characters."""
    name = text.strip()
    if len(name) > NAME_LENGTH_MAX or not name.isprintable():
        raise ValueError(f"a key's name is at most {NAME_LENGTH_MAX} printable characters")
    return name


def _checksum(digits: bytes) -> bytes:
    crc = _crc32(digits)
    return _PAIRS[crc // 14_776_336] + _PAIRS[crc // 3844 % 3844] + _PAIRS[crc % 3844]
