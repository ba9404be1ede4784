"""Money as integers. Ledger unit: nano-dollars. Price unit: pico-dollars per token.

A pico-dollar per token is a micro-dollar per million tokens, so `$0.31 per 1M` is `310_000`. Nothing near
money is a float; text is the only other form that an amount takes.
"""

import re
from typing import Final, NewType

NanoUSD = NewType("NanoUSD", int)
PicoUSDPerToken = NewType("PicoUSDPerToken", int)

NANO: Final = 1_000_000_000
AMOUNT_NANOUSD_MAX = 2**63 - 1
_AMOUNT = re.compile(r"(-?)(\d{1,10})(?:\.(\d{1,9}))?", re.ASCII)
_DIGITS: Final = [b"%03d" % number for number in range(1000)]  # to format them costs more than to look them up
_LAST_DIGITS: Final = [digits.rstrip(b"0") for digits in _DIGITS]


def parse_usd(text: str) -> NanoUSD:
    """`"5.00"` → 5_000_000_000. Raises ValueError if `text` is not dollars with at most nine decimals."""
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not an amount of dollars such as 5.00")
    sign, whole, fraction = match.groups()
    amount = int(whole) * NANO + int((fraction or "").ljust(9, "0"))
    if amount > AMOUNT_NANOUSD_MAX:
        raise ValueError(f"{text!r} is more than the ledger can hold")
    return NanoUSD(-amount if sign else amount)


def format_usd(amount: NanoUSD, decimals_min: int = 2) -> str:
    """`5_000_000_000` → `"5.00"`: exact, with no more decimals than needed beyond `decimals_min`."""
    sign = "-" if amount < 0 else ""
    whole, fraction = divmod(abs(amount), NANO)
    digits = f"{fraction:09d}".rstrip("0").ljust(decimals_min, "0")
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"


def usd_number(amount: int) -> bytes:
    """`1_102_630` → `0.00110263`: dollars as a JSON number, exact; `amount` is not below 0."""
    whole, fraction = amount // NANO, amount % NANO
    dollars = b"%d" % whole if whole else b"0"
    if not fraction:
        return dollars
    millis, micros, nanos = fraction // 1_000_000, fraction // 1000 % 1000, fraction % 1000
    if nanos:
        return b"%b.%b%b%b" % (dollars, _DIGITS[millis], _DIGITS[micros], _LAST_DIGITS[nanos])
    if micros:
        return b"%b.%b%b" % (dollars, _DIGITS[millis], _LAST_DIGITS[micros])
    return b"%b.%b" % (dollars, _LAST_DIGITS[millis])
