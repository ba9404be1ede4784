"""Ids of tool calls that name one call only, where a provider's own repeat from turn to turn.

Moonshot counts its calls by the function's name, `get_weather_0`, `functions.search:0`, anew in every answer (seen
2026-11), while agents and traces take an id for one call of one conversation. Ours is the completion's id, then the
provider's id in letters that every client takes. Nothing has to be remembered: `restored` reads the provider's id out
of ours when the client sends it back, because Kimi writes its next calls by the ids it finds in the history.
"""

import re

_OURS = re.compile(r"call_vc[0-9A-Za-z]+-((?:\w|-[0-9a-f]{2})+)", re.ASCII)
_UNSAFE = re.compile(rb"[^0-9A-Za-z_]")
_ESCAPED = re.compile(rb"-([0-9a-f]{2})")


def unique(reply_id: str, given: str) -> str:
    """The id that a client sees for the provider's `given` in our reply `reply_id`."""
    text = _UNSAFE.sub(lambda byte: b"-%02x" % byte.group()[0], given.encode("utf-8", "replace")).decode("ascii")
    return f"call_vc{reply_id.removeprefix('chatcmpl-')}-{text}"


def restored(call_id: str) -> str:
    """The provider's id, if `call_id` is one of `unique`'s; else `call_id` itself."""
    ours = _OURS.fullmatch(call_id)
    if ours is None:
        return call_id
    given = _ESCAPED.sub(lambda escape: bytes.fromhex(escape.group(1).decode()), ours.group(1).encode("ascii"))
    try:
        return given.decode()
    except UnicodeDecodeError:
        return call_id
