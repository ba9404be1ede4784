"""Ends what runs for keys that were revoked and accounts that were suspended: "at once" includes open streams.

There is no register of running calls for it: those that an upstream is at work for are members of the deadlines
anyway, and are looked through only while something was closed of late. That a request was let in just before, and
begins just after, is why each poll looks again.
"""

from collections.abc import Collection

from vipcloud.accounts.directory import Principal
from vipcloud.errors import Forbidden, GatewayError, Unauthenticated
from vipcloud.gateway.call import Call
from vipcloud.gateway.parts import Parts


def end_closed(parts: Parts) -> int:
    """End the calls of what was closed; how many that were. What was delivered of them is charged."""
    closed = parts.directory.closed
    if not closed:
        return 0
    ended = 0
    for call in [each for each in parts.deadlines if isinstance(each, Call)]:
        principal = call.principal
        if principal is not None and call.ending is None and not call.exchange.finished:
            error = _refusal(principal, closed)
            if error is not None:
                call.end(error)
                ended += 1
    return ended


def _refusal(principal: Principal, closed: Collection[str]) -> GatewayError | None:
    if principal.key_id in closed:
        return Unauthenticated("The API key was revoked while the answer came; what was delivered of it is charged.")
    if principal.account.suspended and principal.account.id in closed:
        return Forbidden("This account was suspended while the answer came; what was delivered of it is charged.")
    return None
