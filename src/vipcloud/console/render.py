"""HTML from templates: one environment, its filters and macros, and the headers that every page carries.

Templates compute nothing about money: views pass nano-dollars (or pico-dollars per token for prices), and `usd`,
`charge` and `price` only cut the exact string in two: what a person reads, and the fainter rest.
"""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pygments import lex
from pygments.lexers import get_lexer_by_name
from pygments.token import Token

from vipcloud.money import NANO

if TYPE_CHECKING:  # `vipcloud watch` renders too, and need not carry a web framework in its memory
    from litestar import Response

CSP = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self' https://checkout.stripe.com; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
}
MINUS = "−"
PICO_PER_DOLLAR_PER_MILLION = 1_000_000

# Which colour a word of code has: the design system knows four.
_CODE_CLASSES = (
    (Token.Comment, "c"),
    (Token.Literal.String, "s"),
    (Token.Literal.Number, "n"),
    (Token.Keyword, "k"),
    (Token.Name.Tag, "k"),
)


class Renderer:
    """Templates with what all of them may use. `site` is what pages know about the installation."""

    def __init__(self, site: object) -> None:
        self._environment = Environment(
            loader=PackageLoader("vipcloud.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(site=site, static=static_url)
        self._environment.filters.update(
            span=span,
            date=date,
            iso=iso,
            usd_short=usd_short,
            usd_axis=usd_axis,
            log_time=log_time,
            utc_seconds=utc_seconds,
            duration=duration,
            usd=usd,
            charge=charge,
            price=price,
            tokens=tokens,
            code=highlighted,
            utc=utc,
            ago=ago,
            context=context_size,
        )

    def page(
        self, template: str, context: Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> "Response[str]":
        """A whole page as a response; never cached by others, since what is public changes with the catalogue."""
        from litestar import Response

        text = self._environment.get_template(template).render(context)
        return Response(
            text,
            media_type="text/html",
            status_code=status,
            headers={**HEADERS, "cache-control": "private, no-cache", "vary": "Accept", **(headers or {})},
        )

    def text(self, template: str, context: Mapping[str, Any]) -> str:
        return self._environment.get_template(template).render(context)

    def text_of(self, source: str, context: Mapping[str, Any]) -> str:
        """A page of the docs: Markdown with live values in it, which are not HTML yet."""
        return self._environment.overlay(autoescape=False).from_string(source).render(context)


# --- static files ----------------------------------------------------------------------------------------------------


class StaticFile:
    """A file of the design system, read once; its address changes with its content, so it may be cached for ever."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self.data = data
        self.version = hashlib.sha256(data).hexdigest()[:12]


def _read_static() -> dict[str, StaticFile]:
    folder = resources.files("vipcloud.console").joinpath("static")
    return {file.name: StaticFile(file.name, file.read_bytes()) for file in folder.iterdir() if file.is_file()}


STATIC = _read_static()


def static_url(name: str) -> str:
    file = STATIC[name]
    return f"/static/{file.version}/{name}"


# --- filters ---------------------------------------------------------------------------------------------------------


def usd(nano: int, places: int = 2) -> Markup:
    """An exact amount: two decimals to read, seven more in the tail. A balance is cut, not rounded."""
    return _amount(nano, places)


def charge(nano: int) -> Markup:
    """One charge or hold: six decimals, and the last three fainter."""
    return _amount(nano, 6)


def usd_short(nano: int) -> Markup:
    """A balance where there is no room for its tail: cut after the cents."""
    shown = _plain_usd(nano)
    return Markup('<data class="usd" value="{}">{}</data>').format(shown.replace("$", "").replace(",", ""), shown)


def usd_axis(nano: int) -> str:
    """A value on an axis: as many decimals as it needs, six at the most."""
    whole, fraction = divmod(nano, NANO)
    digits = f"{fraction:09d}"[:6].rstrip("0")
    return f"${whole:,}.{digits.ljust(2, '0')}" if digits else f"${whole:,}"


def _plain_usd(nano: int) -> str:
    whole, fraction = divmod(abs(nano), NANO)
    return f"{MINUS if nano < 0 else ''}${whole:,}.{fraction // (NANO // 100):02d}"


def _amount(nano: int, places: int) -> Markup:
    sign = MINUS if nano < 0 else ""
    whole, fraction = divmod(abs(nano), NANO)
    digits = f"{fraction:09d}"
    shown, tail = f"{sign}${whole:,}.{digits[:places]}", digits[places:]
    value = f"{'-' if nano < 0 else ''}{whole}.{digits}"
    return Markup('<data class="usd" value="{}">{}<span class="usd-tail">{}</span></data>').format(value, shown, tail)


def price(pico: int) -> str:
    """Dollars per 1M tokens: two decimals, more only where the price has more."""
    whole, fraction = divmod(pico, PICO_PER_DOLLAR_PER_MILLION)
    return f"${whole:,}.{f'{fraction:06d}'.rstrip('0').ljust(2, '0')}"


def tokens(count: int) -> str:
    return f"{count:,}"


def context_size(count: int) -> str:
    """A context window as people name it: 65,536 is 64K, 1,000,192 is 1M."""
    if count >= 1_000_000:
        return f"{count // 1_000_000}M"
    return f"{count // 1024}K" if count % 1024 == 0 else f"{count // 1000}K"


def utc(at_s: float) -> str:
    """`22 Nov 2026, 14:02 UTC`."""
    at = datetime.fromtimestamp(at_s, UTC)
    return f"{at.day} {at:%b %Y, %H:%M} UTC"


def utc_seconds(at_s: float) -> str:
    """`22 Nov 2026, 14:02:06 UTC`."""
    at = datetime.fromtimestamp(at_s, UTC)
    return f"{at.day} {at:%b %Y, %H:%M:%S} UTC"


def log_time(at_s: float) -> str:
    """`14:02:06.412`: the day is the page's."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%H:%M:%S.%f")[:-3]


def duration(ms: int) -> str:
    """`812 ms`, then `1.19 s`."""
    return f"{ms} ms" if ms < 1000 else f"{ms / 1000:.2f} s"


def date(at_s: float) -> str:
    """`22 Nov 2026`."""
    at = datetime.fromtimestamp(at_s, UTC)
    return f"{at.day} {at:%b %Y}"


def iso(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds")


def stop_time(at_s: float) -> str:
    """`Mon 23 Nov 2026, 14:02 UTC`."""
    at = datetime.fromtimestamp(at_s, UTC)
    return f"{at:%a} {at.day} {at:%b %Y, %H:%M} UTC"


def span(seconds: float) -> str:
    """How long, in the two units that matter: `19 h 27 min`."""
    minutes = max(0, int(seconds // 60))
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def clock_time(at_s: float) -> str:
    """`14:12 UTC`."""
    return f"{datetime.fromtimestamp(at_s, UTC):%H:%M} UTC"


def ago(seconds: float) -> str:
    """How long ago, in one unit: `4 s ago`."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{max(0, int(seconds))} s ago"


def highlighted(text: str, language: str) -> Markup:
    """`text` as HTML, its words in the design system's four colours."""
    names = {"curl": "bash", "node": "javascript", "sse": "text", "http": "text"}
    lexer = get_lexer_by_name(names.get(language, language or "text"), stripnl=False, ensurenl=False)
    parts = []
    for kind, piece in lex(text, lexer):
        name = next((each for token, each in _CODE_CLASSES if kind in token), None)
        parts.append(Markup('<span class="{}">{}</span>').format(name, piece) if name else Markup("{}").format(piece))
    return Markup("").join(parts)
