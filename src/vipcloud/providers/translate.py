"""Our chat request → the JSON body that an upstream of the chat-completions family takes.

Theory of operation. A candidate's `Quirks` say how it differs from OpenAI; nothing here knows a provider's name. What a
candidate cannot do is refused first (`fitness`), so that routing can pass over it. Then messages, tools and
parameters are rewritten, each only if it must be: the messages of a `PlainChat` are encoded as they stand, and it has
no tools and none of the rarer parameters. What is not translated is dropped, a client's vendor keys with it. The
caller's bytes go no further, but for the messages of a request that `dialects.shapes` has recognised, which are roles
and texts and nothing else: they go as they came.

    fitness     what a candidate cannot do            messages    roles, contents, former turns
    reasoning   whether and how much it reasons       tools       definitions, choice, names
    structured  answers in JSON                       schemas     JSON schemas in a smaller language

Sources: the providers' pages named in `catalog.toml`; the parameter rules were seen 2026-11.
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import msgspec

from vipcloud.dialects.openai import ChatRequest, PlainChat
from vipcloud.dialects.shapes import Asked
from vipcloud.errors import BadRequest
from vipcloud.providers import fitness, messages, reasoning, structured, tools
from vipcloud.providers.catalog_rows import Quirks
from vipcloud.providers.models import Candidate
from vipcloud.providers.wire import Beginning, Body, UsageOption

_USER_ID_BYTES = 16
_NO_NAMES: Mapping[str, str] = {}

_encode: Final = msgspec.json.Encoder().encode


_USAGE_OPTION: Final = UsageOption()


def encode_request(
    request: ChatRequest,
    candidate: Candidate,
    *,
    max_tokens: int | None = None,
    attempt_id: str,
    account: str = "",
) -> bytes:
    """The upstream's body. Raises NotImplementedYet for what the candidate cannot do, BadRequest for what nobody can.

    `max_tokens` is the ceiling that admission granted; without it the caller's, or the model's, which is sent too: the
    upstream must never work past what is held. `attempt_id` is new for each attempt. `account` keeps two customers'
    `user` apart upstream, where it decides who shares a prompt cache.
    """
    problem = fitness.refusal(request, candidate)
    if problem is not None:
        raise problem
    return encode_suited(request, candidate, max_tokens=max_tokens, attempt_id=attempt_id, account=account)


def continued(request: PlainChat, candidate: Candidate, said: str) -> PlainChat:
    """The request whose answer goes on where `said` ends, for a candidate that `continues`."""
    assert candidate.provider.continue_field is not None, "asked only of one that can"
    message = Beginning(content=said)
    setattr(message, candidate.provider.continue_field, True)
    return msgspec.structs.replace(request, messages=[*request.messages, message])


def encode_suited(
    request: ChatRequest,
    candidate: Candidate,
    *,
    max_tokens: int | None,
    attempt_id: str,
    account: str,
    asked: Asked | None = None,
) -> bytes:
    """As `encode_request`, for a candidate that `fitness.suited` has returned for this request.

    `asked` is how the request was read; it is passed over where that was another.
    """
    limit = candidate.output_tokens_max
    ceiling = max_tokens or request.max_completion_tokens or request.max_tokens or limit
    if ceiling > limit:
        ceiling = limit
    try:
        if type(request) is PlainChat:
            if asked is not None and asked.request is not request:
                asked = None
            return _plain_body(request, candidate, ceiling, attempt_id, account, asked)
        return _body(request, candidate, ceiling, attempt_id, account)
    except (OverflowError, RecursionError, ValueError) as error:
        # ValueError: a lone surrogate, or an integer of more digits than Python writes.
        raise BadRequest(
            "The request holds a value that cannot be sent on: nested too deep, or out of range."
        ) from error


def _plain_body(
    request: PlainChat, candidate: Candidate, ceiling: int, attempt_id: str, account: str, asked: Asked | None
) -> bytes:
    """In pieces, most of which are the candidate's: a plain request adds little to its messages."""
    if not candidate.messages_stand:
        written = _encode(messages.rewritten(request, candidate, _NO_NAMES, ""))
    elif asked is not None and asked.messages is not None:
        written = asked.messages
    else:
        written = _encode(request.messages)
    shape = asked.shape if asked is not None and not candidate.takes_request_id else None
    if shape is None:
        behind = _behind_messages(request, candidate, ceiling, attempt_id, account)
    else:
        last = shape.sent
        if not (
            isinstance(last, _Sent)
            and last.candidate is candidate
            and last.ceiling == ceiling
            and last.account == account
        ):
            behind = _behind_messages(request, candidate, ceiling, attempt_id, account)
            last = shape.sent = _Sent(candidate, ceiling, account, behind)
        behind = last.behind
    return b"%b%b%b" % (candidate.body_head, written, behind)


class _Sent:
    """What the last request of a shape had behind its messages: any other has the same for the same candidate."""

    def __init__(self, candidate: Candidate, ceiling: int, account: str, behind: bytes) -> None:
        self.candidate = candidate
        self.ceiling = ceiling
        self.account = account
        self.behind = behind


def _behind_messages(request: PlainChat, candidate: Candidate, ceiling: int, attempt_id: str, account: str) -> bytes:
    temperature, top_p, more = request.temperature, request.top_p, b""
    if not candidate.sampling_stands:
        if temperature == 0 and candidate.quirks.temperature_zero == "greedy":
            more = b',"do_sample":false'
        temperature, top_p = _sampling(request, candidate.quirks)
    if temperature is not None:
        more += b',"temperature":' + _encode(temperature)
    if top_p is not None:
        more += b',"top_p":' + _encode(top_p)
    if request.stream:
        more += candidate.stream_fields
    if candidate.user_field is not None:
        pseudonym = _user_of(request, account)
        if pseudonym is not None:
            more += b',"%b":"%b"' % (candidate.user_field, pseudonym.encode())
    if candidate.takes_request_id:
        more += b',"request_id":' + _encode(attempt_id)
    return b',"%b":%d%b%b' % (candidate.ceiling_field, ceiling, more, candidate.body_tail)


def _body(request: ChatRequest, candidate: Candidate, ceiling: int, attempt_id: str, account: str) -> bytes:
    """Of a request that is more than plain."""
    quirks = candidate.quirks
    body = Body(candidate.upstream_model, request.messages)
    if quirks.ceiling_field == "max_tokens":
        body.max_tokens = ceiling
    else:
        body.max_completion_tokens = ceiling
    if request.temperature == 0 and quirks.temperature_zero == "greedy":
        body.do_sample = False
    body.temperature, body.top_p = _sampling(request, quirks)
    if request.stream:
        body.stream = True
        if quirks.usage_option:
            body.stream_options = _USAGE_OPTION
    if quirks.user_field is not None:
        setattr(body, quirks.user_field, _user_of(request, account))
    if quirks.request_id:
        body.request_id = attempt_id
    tail = _set_rare(body, request, candidate, ceiling)
    return _encode(body)[:-1] + tail


def local_stops(request: ChatRequest, candidate: Candidate) -> tuple[str, ...]:
    """The stop strings that the upstream takes no more: the gateway has to cut the output at them itself."""
    if request.stop is None:
        return ()
    wanted = _stops(request.stop)
    taken = _taken(wanted, candidate.quirks)
    return tuple(text for text in wanted if text not in taken)


def original_names(request: ChatRequest, candidate: Candidate) -> dict[str, str]:
    """What tools are called upstream → what the caller calls them, for those that have another name there."""
    return {sent: name for name, sent in tools.renames(request, candidate.quirks).items()}


def _set_rare(body: Body, request: ChatRequest, candidate: Candidate, ceiling: int) -> bytes:
    """All that a plain request has none of. Returns the end of the body."""
    quirks = candidate.quirks
    names: Mapping[str, str] = _NO_NAMES
    if request.tools or request.functions:
        names = tools.renames(request, quirks)
        _set_tools(body, request, quirks, names)
    wanted = structured.plan(request, candidate)
    body.messages = messages.rewritten(request, candidate, names, wanted.instruction)
    body.response_format = wanted.asked
    _set_parameters(body, request, quirks)
    told = reasoning.told(request, candidate, ceiling)
    body.reasoning_effort = told.effort
    body.thinking_budget = told.budget_tokens
    return told.tail


def _set_tools(body: Body, request: ChatRequest, quirks: Quirks, names: Mapping[str, str]) -> None:
    offered = tools.offer(request, quirks, names)
    if offered is not None:
        body.tools = offered.tools
        body.tool_choice = offered.tool_choice
        body.parallel_tool_calls = offered.parallel_tool_calls


def _sampling(request: ChatRequest, quirks: Quirks) -> tuple[float | None, float | None]:
    """`temperature` and `top_p` as the upstream takes them."""
    drop, decimals = quirks.drop, quirks.sampling_decimals
    temperature = None if "temperature" in drop else request.temperature
    top_p = None if "top_p" in drop else request.top_p
    return _clamped(temperature, quirks.temperature_range, decimals), _clamped(top_p, quirks.top_p_range, decimals)


def _clamped(value: float | None, bounds: tuple[float, float] | None, decimals: int | None) -> float | None:
    if value is None:
        return None
    if bounds is not None:
        value = min(max(value, bounds[0]), bounds[1])
    return value if decimals is None else round(value, decimals)


def _set_parameters(body: Body, request: ChatRequest, quirks: Quirks) -> None:
    drop = quirks.drop
    body.presence_penalty = None if "presence_penalty" in drop else request.presence_penalty
    body.frequency_penalty = None if "frequency_penalty" in drop else request.frequency_penalty
    body.logit_bias = None if "logit_bias" in drop else request.logit_bias
    if request.seed is not None and "seed" not in drop:
        body.seed = request.seed if quirks.seed_bits is None else request.seed & ((1 << quirks.seed_bits) - 1)
    if request.stop is not None:
        body.stop = _taken(_stops(request.stop), quirks) or None
    if request.logprobs:
        body.logprobs = True
        body.top_logprobs = request.top_logprobs
    if request.n is not None and request.n > 1:
        body.n = request.n


def _stops(stop: str | list[str]) -> list[str]:
    """As a list without empty strings and repeats, which no upstream can use."""
    return list(dict.fromkeys(text for text in ([stop] if isinstance(stop, str) else stop) if text))


def _taken(stops: list[str], quirks: Quirks) -> list[str]:
    """Those that the upstream looks for itself."""
    if quirks.stop_bytes_max is not None:
        stops = [text for text in stops if len(text.encode("utf-8", "surrogatepass")) <= quirks.stop_bytes_max]
    return stops[: quirks.stop_max]


def _user_of(request: ChatRequest, account: str) -> str | None:
    """Who the request is for, as an upstream is told; None where nothing says it."""
    user = request.safety_identifier or request.user
    if user:
        return _pseudonym(account, user)
    if not account and request.user is None and request.safety_identifier is None:
        return None
    return _pseudonym_of_account(account)


@lru_cache(maxsize=4096)
def _pseudonym_of_account(account: str) -> str:
    return _pseudonym(account, "")


def _pseudonym(account: str, user: str) -> str:
    """A stable one, in the alphabet and length that every upstream takes: 34 of [A-Za-z0-9_-].

    It is made anew for each request: a user is a person, whom nothing remembers beyond that.
    """
    digest = hashlib.blake2b(
        f"{account}\0{user}".encode("utf-8", "surrogatepass"), digest_size=_USER_ID_BYTES, person=b"vipcloud.user"
    )
    return f"u-{digest.hexdigest()}"
