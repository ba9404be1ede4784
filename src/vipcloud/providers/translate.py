"""Our chat request → the JSON body that an upstream of the chat-completions family takes.

Theory of operation. A candidate's `Quirks` say how it differs from OpenAI; nothing here knows a provider's name. What a
candidate cannot do is refused first (`refusal`), so that routing can pass over it (`suited`). Then messages, tools and
parameters are rewritten, each only if it must be: the messages of a `PlainChat` are encoded as they stand, and it has
no tools and none of the rarer parameters. The caller's bytes never go further; what is not translated is dropped, a
client's vendor keys with it.

A JSON schema that the upstream does not know is asked for in words, by a system message, together with JSON mode. The
reply is not checked against the schema.

Sources: the providers' pages named in `catalog.toml`; the parameter rules were seen 2026-11.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct

from vipcloud.dialects.openai import (
    AllowedToolsChoice,
    AssistantMessage,
    AudioPart,
    ChatRequest,
    CustomChoice,
    CustomTool,
    FilePart,
    FunctionChoice,
    FunctionMessage,
    FunctionSpec,
    FunctionTool,
    ImagePart,
    ImageURL,
    JSONObjectFormat,
    JSONSchemaFormat,
    Message,
    NamedFunction,
    PlainChat,
    RefusalPart,
    ResponseFormat,
    SystemMessage,
    TextFormat,
    TextPart,
    ToolCall,
    ToolChoice,
    ToolMessage,
    UserMessage,
)
from vipcloud.errors import BadRequest, GatewayError, NotImplementedYet
from vipcloud.providers import call_ids
from vipcloud.providers.catalog import Candidate, Quirks

_USER_ID_BYTES = 16
_NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}
_JSON_INSTRUCTION = "Answer with one JSON object and nothing else: no prose, no code fence."
_SCHEMA_INSTRUCTION = "Answer with one JSON value that is valid under the JSON Schema below, and nothing else."

_encode = msgspec.json.Encoder().encode


class _UsageOption(Struct):
    include_usage: bool = True


class _Body(Struct, omit_defaults=True):
    """What goes upstream, before a candidate's `body_tail`. None is "left out"."""

    model: str
    messages: list[Message]
    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    do_sample: bool | None = None
    stream: bool | None = None
    stream_options: _UsageOption | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    logit_bias: dict[str, int] | None = None
    stop: list[str] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    n: int | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: str | FunctionChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None
    user_id: str | None = None
    request_id: str | None = None


_USAGE_OPTION = _UsageOption()

# Tuples, because `isinstance` against `A | B` builds the union at each call, and these run for every message.
_NAMED_TEXT = (UserMessage, SystemMessage)
_ANSWERS = (ToolMessage, FunctionMessage)


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
    problem = refusal(request, candidate)
    if problem is not None:
        raise problem
    return encode_suited(request, candidate, max_tokens=max_tokens, attempt_id=attempt_id, account=account)


def encode_suited(
    request: ChatRequest, candidate: Candidate, *, max_tokens: int | None, attempt_id: str, account: str
) -> bytes:
    """As `encode_request`, for a candidate that `suited` has returned for this request."""
    quirks = candidate.quirks
    plain = type(request) is PlainChat
    limit = candidate.output_tokens_max
    ceiling = max_tokens or request.max_completion_tokens or request.max_tokens or limit
    try:
        body = _Body(
            candidate.upstream_model,
            request.messages if plain else _messages(request, quirks),
            ceiling if ceiling < limit else limit,
            request.temperature,
            request.top_p,
        )
        if not candidate.sampling_stands:
            _set_sampling(body, request, quirks)
        if request.stream:
            body.stream = True
            if quirks.usage_option:
                body.stream_options = _USAGE_OPTION
        if quirks.user_id and (account or request.user is not None or request.safety_identifier is not None):
            body.user_id = _user_id(account, request.safety_identifier or request.user or "")
        if quirks.request_id:
            body.request_id = attempt_id
        if not plain:
            if request.tools or request.functions:
                _set_tools(body, request, quirks)
            _set_rare(body, request, quirks)
        return _encode(body)[:-1] + candidate.body_tail
    except (OverflowError, RecursionError, ValueError) as error:
        # ValueError: a lone surrogate, or an integer of more digits than Python writes.
        raise BadRequest(
            "The request holds a value that cannot be sent on: nested too deep, or out of range."
        ) from error


def suited(request: ChatRequest, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """Those of `candidates` that can serve `request`, in order. Raises the first one's refusal if none can.

    For a `PlainChat` and a model that `takes_plain` there is no need to ask: it is all of them.
    """
    problems = [refusal(request, candidate) for candidate in candidates]
    if not any(problems):
        return candidates
    able = [candidate for candidate, problem in zip(candidates, problems, strict=True) if problem is None]
    if not able:
        raise next(problem for problem in problems if problem is not None)
    return able


def local_stops(request: ChatRequest, candidate: Candidate) -> tuple[str, ...]:
    """The stop strings that the upstream takes no more: the gateway has to cut the output at them itself."""
    if request.stop is None:
        return ()
    return tuple(_stops(request.stop)[candidate.quirks.stop_max :])


# --- what cannot be done -------------------------------------------------------------------------------------------


def refusal(request: ChatRequest, candidate: Candidate) -> GatewayError | None:
    """Why `candidate` cannot serve `request`; None if it can. The error names the parameter."""
    quirks = candidate.quirks
    if request.n is not None and request.n > quirks.choices_max:
        return _cannot(request, "more than one choice per request (`n`)", "n")
    if request.logprobs and not quirks.logprobs:
        return _cannot(request, "`logprobs`", "logprobs")
    if request.audio is not None or (request.modalities is not None and "audio" in request.modalities):
        return _cannot(request, "audio output", "modalities" if request.modalities else "audio")
    if request.web_search_options is not None:
        return _cannot(request, "web search", "web_search_options")
    if request.tools or request.functions:
        problem = _tool_refusal(request, quirks)
        if problem is not None:
            return problem
    return _message_refusal(request, quirks)


def _cannot(request: ChatRequest, what: str, param: str) -> NotImplementedYet:
    return NotImplementedYet(f"The model '{request.model}' does not support {what}.", param=param)


def _tool_refusal(request: ChatRequest, quirks: Quirks) -> NotImplementedYet | None:
    for index, tool in enumerate(request.tools or ()):
        if isinstance(tool, CustomTool):
            return _cannot(request, "custom tools; offer functions", f"tools[{index}]")
    choice = _choice(request)
    if isinstance(choice, CustomChoice):
        return _cannot(request, "custom tools; offer functions", "tool_choice")
    kind = _choice_kind(choice)
    if kind in ("required", "named") and kind not in quirks.tool_choice:
        param = "tool_choice" if request.tool_choice is not None else "function_call"
        return _cannot(request, 'a forced tool call; use "auto"', param)
    return None


def _message_refusal(request: ChatRequest, quirks: Quirks) -> GatewayError | None:
    asked = not quirks.user_message_required
    for index, message in enumerate(request.messages):
        if isinstance(message, UserMessage):
            asked = True
            if isinstance(message.content, list):
                for place, part in enumerate(message.content):
                    what = _unable(part, quirks)
                    if what is not None:
                        return _cannot(request, what, f"messages[{index}].content[{place}]")
        elif isinstance(message, AssistantMessage):
            if message.audio is not None:
                return _cannot(request, "audio", f"messages[{index}].audio")
            if message.tool_calls and any(call.function is None for call in message.tool_calls):
                return _cannot(request, "custom tools", f"messages[{index}].tool_calls")
        elif isinstance(message, _ANSWERS):
            asked = True
    if asked:
        return None
    return BadRequest(
        f"The model '{request.model}' needs at least one message with role 'user' or 'tool'.", param="messages"
    )


def _unable(part: TextPart | ImagePart | AudioPart | FilePart, quirks: Quirks) -> str | None:
    if isinstance(part, ImagePart):
        return None if quirks.vision else "images"
    if isinstance(part, AudioPart):
        return "audio input"
    return "files" if isinstance(part, FilePart) else None


# --- messages ------------------------------------------------------------------------------------------------------


def _messages(request: ChatRequest, quirks: Quirks) -> list[Message]:
    messages = request.messages
    replay = quirks.replay_reasoning and _tools_in_play(request)
    for message in messages:
        if replay or not _stands(message, quirks):
            messages = list(_rewritten(messages, quirks, replay))
            break
    form = request.response_format
    if form is None or isinstance(form, TextFormat):
        return messages
    return _with_instruction(messages, form, quirks)


def _stands(message: Message, quirks: Quirks) -> bool:
    """Whether `message` can be encoded as it came: text only, nothing that a quirk is about."""
    if type(message.content) is not str:
        return False
    if isinstance(message, _NAMED_TEXT):
        return message.name is None or quirks.message_names
    if isinstance(message, AssistantMessage):
        return (
            message.tool_calls is None
            and message.reasoning_content is None
            and message.reasoning is None
            and message.refusal is None
            and message.function_call is None
            and (message.name is None or quirks.message_names)
        )
    return isinstance(message, ToolMessage) and not quirks.call_ids_repeat


def _rewritten(messages: list[Message], quirks: Quirks, replay: bool) -> Iterator[Message]:
    """`messages` as the upstream takes them. Functions of the old kind become tools, with ids made from their place."""
    call_id = ""
    for index, message in enumerate(messages):
        if isinstance(message, FunctionMessage):
            yield ToolMessage(content=message.content or "", tool_call_id=call_id or f"call_{index}")
        elif isinstance(message, AssistantMessage):
            if message.function_call is not None:
                call_id = f"call_{index}"
            yield _assistant(message, quirks, replay, call_id)
        elif isinstance(message, ToolMessage):
            answered = call_ids.restored(message.tool_call_id) if quirks.call_ids_repeat else message.tool_call_id
            yield ToolMessage(content=_flat(message.content), tool_call_id=answered)
        elif isinstance(message, UserMessage):
            yield UserMessage(content=_user_content(message, quirks), name=_name(message.name, quirks))
        else:
            yield SystemMessage(content=_flat(message.content), name=_name(message.name, quirks))


def _assistant(message: AssistantMessage, quirks: Quirks, replay: bool, call_id: str) -> AssistantMessage:
    """Content is never null (DeepSeek: "content or tool_calls must be set"); reasoning goes back only where wanted."""
    calls = message.tool_calls or None
    if calls is not None and quirks.call_ids_repeat:
        calls = [msgspec.structs.replace(call, id=call_ids.restored(call.id)) for call in calls]
    elif calls is None and message.function_call is not None:
        calls = [ToolCall(id=call_id, type="function", function=message.function_call)]
    return AssistantMessage(
        content=_flat(message.content) if message.content is not None else message.refusal or "",
        name=_name(message.name, quirks),
        tool_calls=calls,
        reasoning_content=(message.reasoning_content or message.reasoning or "") if replay else None,
    )


def _name(name: str | None, quirks: Quirks) -> str | None:
    return name if quirks.message_names else None


def _flat(content: str | Sequence[TextPart | RefusalPart]) -> str:
    """Parts as one text, a line break between them."""
    if isinstance(content, str):
        return content
    return "\n".join(part.text if isinstance(part, TextPart) else part.refusal for part in content)


def _user_content(message: UserMessage, quirks: Quirks) -> Any:
    """Text where all parts are text; else parts, with images in the upstream's form."""
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    texts = [part for part in message.content if isinstance(part, TextPart)]
    if len(texts) == len(message.content):
        return _flat(texts)
    return [_image(part, quirks) if isinstance(part, ImagePart) else part for part in message.content]


def _image(part: ImagePart, quirks: Quirks) -> ImagePart:
    image = part.image_url if isinstance(part.image_url, ImageURL) else ImageURL(url=part.image_url)
    if quirks.image_data_bare:
        url = image.url
        if url[:5].lower() == "data:":
            url = url.partition(",")[2]
        image = ImageURL(url=url)
    return ImagePart(image_url=image)


def _tools_in_play(request: ChatRequest) -> bool:
    if request.tools or request.functions:
        return True
    return any(
        isinstance(message, AssistantMessage) and (message.tool_calls or message.function_call is not None)
        for message in request.messages
    )


def _with_instruction(
    messages: list[Message], form: JSONObjectFormat | JSONSchemaFormat, quirks: Quirks
) -> list[Message]:
    """`messages` with the request for JSON in words, behind the leading system messages; unchanged if not needed."""
    if isinstance(form, JSONSchemaFormat):
        if quirks.json_schema == "native":
            return messages
        text = _JSON_INSTRUCTION
        if form.json_schema.schema is not None:
            purpose = f" {form.json_schema.description}" if form.json_schema.description else ""
            schema = _encode(form.json_schema.schema).decode()
            text = f"{_SCHEMA_INSTRUCTION}{purpose}\n\n{schema}"
    elif quirks.json_object == "emulate" or (quirks.json_word and not _mentions_json(messages)):
        text = _JSON_INSTRUCTION
    else:
        return messages
    leading = 0
    while leading < len(messages) and isinstance(messages[leading], SystemMessage):
        leading += 1
    return [*messages[:leading], SystemMessage(content=text), *messages[leading:]]


def _mentions_json(messages: list[Message]) -> bool:
    for message in messages:
        content = message.content
        texts = [content] if isinstance(content, str) else [p.text for p in content or () if isinstance(p, TextPart)]
        if any("json" in text.lower() for text in texts):
            return True
    return False


# --- parameters ----------------------------------------------------------------------------------------------------


def _set_sampling(body: _Body, request: ChatRequest, quirks: Quirks) -> None:
    if request.temperature == 0 and quirks.temperature_zero == "greedy":
        body.do_sample = False
    body.temperature = _clamped(request.temperature, quirks.temperature_range, quirks.sampling_decimals)
    body.top_p = _clamped(request.top_p, quirks.top_p_range, quirks.sampling_decimals)


def _clamped(value: float | None, bounds: tuple[float, float] | None, decimals: int | None) -> float | None:
    if value is None:
        return None
    if bounds is not None:
        value = min(max(value, bounds[0]), bounds[1])
    return value if decimals is None else round(value, decimals)


def _choice(request: ChatRequest) -> ToolChoice | None:
    """`tool_choice`, or the old `function_call` in its terms."""
    if request.tool_choice is not None:
        return request.tool_choice
    if isinstance(request.function_call, NamedFunction):
        return FunctionChoice(request.function_call)
    return request.function_call


def _choice_kind(choice: ToolChoice | None) -> str:
    if isinstance(choice, FunctionChoice | CustomChoice):
        return "named"
    if isinstance(choice, AllowedToolsChoice):
        return choice.allowed_tools.mode
    return "required" if choice == "any" else choice or "auto"


def _set_tools(body: _Body, request: ChatRequest, quirks: Quirks) -> None:
    choice = _choice(request)
    kind = _choice_kind(choice)
    if kind == "none" and "none" not in quirks.tool_choice:
        return
    specs = [tool.function for tool in request.tools or () if isinstance(tool, FunctionTool)] or request.functions or []
    if isinstance(choice, AllowedToolsChoice):
        specs = _allowed(specs, choice)
    body.tools = [FunctionTool(_spec(spec)) for spec in specs]
    if choice is not None:
        body.tool_choice = choice if isinstance(choice, FunctionChoice) else kind
    if request.parallel_tool_calls is not None and "parallel_tool_calls" not in quirks.drop:
        body.parallel_tool_calls = request.parallel_tool_calls


def _allowed(specs: list[FunctionSpec], choice: AllowedToolsChoice) -> list[FunctionSpec]:
    """The tools that `allowed_tools` leaves. Raises BadRequest if that is none."""
    functions = [tool.get("function") for tool in choice.allowed_tools.tools]
    names = {function.get("name") for function in functions if isinstance(function, dict)}
    left = [spec for spec in specs if spec.name in names]
    if not left:
        raise BadRequest("'tool_choice.allowed_tools' names none of the tools offered.", param="tool_choice")
    return left


def _spec(spec: FunctionSpec) -> FunctionSpec:
    """Without `strict`, which upstreams refuse or ignore; with parameters, which some insist on."""
    if spec.strict is None and spec.parameters is not None:
        return spec
    return FunctionSpec(
        name=spec.name,
        description=spec.description,
        parameters=_NO_ARGUMENTS if spec.parameters is None else spec.parameters,
    )


@lru_cache(maxsize=4096)
def _user_id(account: str, user: str) -> str:
    """A stable pseudonym in the alphabet and length that every upstream takes: 34 of [A-Za-z0-9_-]."""
    digest = hashlib.blake2b(
        f"{account}\0{user}".encode("utf-8", "surrogatepass"), digest_size=_USER_ID_BYTES, person=b"vipcloud.user"
    )
    return f"u-{digest.hexdigest()}"


def _stops(stop: str | list[str]) -> list[str]:
    """As a list without empty strings and repeats, which no upstream can use."""
    return list(dict.fromkeys(text for text in ([stop] if isinstance(stop, str) else stop) if text))


def _set_rare(body: _Body, request: ChatRequest, quirks: Quirks) -> None:
    drop = quirks.drop
    body.presence_penalty = None if "presence_penalty" in drop else request.presence_penalty
    body.frequency_penalty = None if "frequency_penalty" in drop else request.frequency_penalty
    body.seed = None if "seed" in drop else request.seed
    body.logit_bias = None if "logit_bias" in drop else request.logit_bias
    if request.stop is not None:
        body.stop = _stops(request.stop)[: quirks.stop_max] or None
    if request.logprobs:
        body.logprobs = True
        body.top_logprobs = request.top_logprobs
    if request.n is not None and request.n > 1:
        body.n = request.n
    if request.reasoning_effort is not None and quirks.thinking and quirks.reasoning_efforts:
        effort = request.reasoning_effort
        body.reasoning_effort = effort if effort in quirks.reasoning_efforts else "high"
    form = request.response_format
    if isinstance(form, JSONSchemaFormat) and quirks.json_schema == "native":
        body.response_format = form
    elif isinstance(form, JSONSchemaFormat | JSONObjectFormat) and quirks.json_object == "native":
        body.response_format = JSONObjectFormat()
