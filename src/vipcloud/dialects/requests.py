"""A chat completion's body, from bytes to a checked value.

Theory of operation. `parse_chat` decodes as `PlainChat` first, which most bodies are and which needs no further checks.
What that refuses is decoded as what the contract allows, and then `check` does what types cannot say: rules between
fields, and one spelling for what callers spell in several ways (a bare image URL, `any`, empty arrays, the `functions`
of 2023). What explains a refusal is in `refusals`.

After `check` the rest of the house can rely on this: every tool message answers a call of the turn before it and every
call is answered; `tool_choice` names something in `tools`; there are no `function_call` messages and no messages of the
role `function`; whatever the caller nested freely (schemas) is at most `NESTING_LEVELS_MAX` deep and holds no integer
beyond 64 bits, so it can be encoded again for any upstream.

A body that would take long to decode is refused before: by its number of values, whatever its size.

Unknown keys are dropped, at any depth: SDKs merge their callers' vendor keys into the body. `strict_parameters` refuses
them at the top level.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from vipcloud.dialects import openai, refusals

NESTING_LEVELS_MAX = 64  # of arrays and objects inside a free-form field, its own braces included
VALUES_MAX = 200_000  # of a body, and as many strings: some 50 ms to decode at most
COUNTED_BYTES_MIN = 524_288  # of a body whose values are counted first: a smaller one decodes within as long
PLAIN_MESSAGES_MAX = 50_000  # of a body that is decoded without counting, if it is plain
METADATA_PAIRS_MAX = 16
METADATA_KEY_LENGTH_MAX = 64  # characters
METADATA_VALUE_LENGTH_MAX = 512
MESSAGE_FRAME_BYTES = 8  # what a chat template may add per message, in tokens; less than the JSON around a message

NAME_PATTERN = "^[a-zA-Z0-9_-]+$"  # as callers know it from OpenAI's sentence
DIGITS_PATTERN = "^[0-9]+$"
INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1

_decode_plain: Final = msgspec.json.Decoder(openai.PlainChat).decode
_decode: Final = msgspec.json.Decoder(openai.ChatRequest).decode
_encode: Final = msgspec.json.Encoder().encode


_NO_MARKS: Final = bytes(byte for byte in range(256) if byte not in b'",[{')

_decode_names: Final = msgspec.json.Decoder(openai.Names).decode
_decode_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def parse_chat(body: bytes, *, strict_parameters: bool = False) -> openai.ChatRequest:
    """The request in `body`, checked. Raises BadRequest with the path of the first faulty field in `param`."""
    uncounted = len(body) > COUNTED_BYTES_MIN
    if uncounted and (strict_parameters or not _is_quick_if_plain(body)):
        _check_values(body)
        uncounted = False
    if not strict_parameters:
        try:
            request = _decode_plain(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # not plain, or faulty: the whole contract tells
        else:
            if request.stream_options is not None and not request.stream:
                raise refusals.only_with("stream_options", "stream")
            if not body.isascii():
                _check_text(body)
            return request
    if uncounted:
        _check_values(body)
    return _parse(body, strict_parameters)


def _parse(body: bytes, strict_parameters: bool) -> openai.ChatRequest:
    try:
        request = _decode_any(body, strict_parameters)
        unknown = refusals.unknown_parameter(body) if strict_parameters else None
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        # Not chained: these exceptions quote the caller, or hold the body whole.
        raise refusals.from_text(str(fault)) from None
    except RecursionError:
        raise refusals.body_too_deep() from None
    if not body.isascii():
        _check_text(body)
    if unknown is not None:
        raise unknown
    check(request)
    return request


def _decode_any(body: bytes, strict_parameters: bool) -> openai.ChatRequest:
    """`body` as the contract allows it, with the first of its `models` as its `model` where it has but a list, and with
    the last value of a field that is given more than once. Raises BadRequest; DecodeError for contradictions deeper
    inside."""
    found: Exception | None = None
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        found = fault
    listed = _with_model(body)
    if listed is not None:
        return _decode_any(listed, strict_parameters)
    refused = refusals.explain(body, found, strict_parameters=strict_parameters)
    if refused is not None:
        raise refused
    return _decode(_encode(_decode_fields(body)))


def _with_model(body: bytes) -> bytes | None:
    """`body` with the first of its `models` as its `model`, if it has but a list."""
    try:
        named = _decode_names(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if named.model or not named.models or not named.models[0]:
        return None
    return _encode(_decode_fields(body) | {"model": named.models[0], "models": named.models[1:]})


def _is_quick_if_plain(body: bytes) -> bool:
    """Does `body` have escapes, which take long to count around, and few messages?

    Of a plain body nothing else is kept, and what is passed over takes little. A message's role has its name in plain
    letters, or some of them escaped.
    """
    if b"\\" not in body:
        return False
    return body.count(b'"role') + body.count(b"\\u00") <= PLAIN_MESSAGES_MAX


def _check_values(body: bytes) -> None:
    """That `body` has not so many values that decoding it would keep everyone waiting. Raises BadRequest.

    Counted are strings, and outside of them commas and opening brackets: one for each value of an array and each field.
    A body of images has no backslash, and is only split at its quotes, which is as fast as copying it. Of text it is
    seen first whether it has as many such marks anywhere.
    """
    bare = body
    if b"\\" in body:
        if len(body.translate(None, _NO_MARKS)) <= VALUES_MAX:
            return
        bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    parts = bare.split(b'"', 2 * VALUES_MAX + 1)
    if len(parts) > 2 * VALUES_MAX + 1 or _marks(b"".join(parts[::2])) > VALUES_MAX:
        raise refusals.too_many_values(VALUES_MAX)


def _marks(text: bytes) -> int:
    return len(text.translate(None, _NO_MARKS)) - text.count(b'"')


def _check_text(body: bytes) -> None:
    """The decoder does not look into what it passes over, and that would be no JSON either. Raises BadRequest."""
    try:
        body.decode()
    except UnicodeDecodeError:
        raise refusals.not_json("a string is not valid UTF-8") from None


def check(request: openai.ChatRequest) -> None:
    """Hold `request` to the rules between fields and settle its spellings, in place. To be called once per request.

    Raises BadRequest.
    """
    _check_messages(request)
    if request.functions is not None or request.function_call is not None:
        _adopt_functions(request)
    _check_tools(request)
    if request.top_logprobs is not None and not request.logprobs:
        raise refusals.only_with("top_logprobs", "logprobs")
    if request.response_format is not None:
        _check_response_format(request.response_format, request.messages)
    if request.stream_options is not None and not request.stream:
        raise refusals.only_with("stream_options", "stream")
    if request.stop is not None and not request.stop:
        request.stop = None
    if request.metadata:
        _check_metadata(request.metadata)
    _check_options(request)


def uses_legacy_functions(request: openai.ChatRequest) -> bool:
    """Did the caller speak of `functions`? Then the answer must say `function_call` where it would say `tool_calls`."""
    return request.functions is not None


def text_bytes(request: openai.ChatRequest) -> int:
    """UTF-8 bytes of all text in the prompt: no tokenizer makes more tokens of text than it has bytes.

    Messages with their chat template's frames, tools and the answer's schema are in it. Images, sound and files are
    not: what they cost is each provider's own rule. The length of the body is an upper bound too, and free (JSON never
    takes less room than its text; only a number in a schema may grow, `1e15` by 14 bytes, when it is encoded again);
    but it counts an inlined image's megabytes as text.
    """
    total = MESSAGE_FRAME_BYTES * len(request.messages) + sum(map(_message_bytes, request.messages))
    if request.tools:
        total += len(_encode(request.tools))
    if isinstance(request.response_format, openai.JSONSchemaFormat):
        total += len(_encode(request.response_format))
    return total


# --- messages --------------------------------------------------------------------------------------------------


def _check_messages(request: openai.ChatRequest) -> None:
    answers = legacy = False
    for index, message in enumerate(request.messages):
        if isinstance(message, openai.UserMessage):
            if isinstance(message.content, list):
                _check_parts(message.content, f"messages[{index}].content")
        elif isinstance(message, openai.AssistantMessage):
            _check_turn(message, f"messages[{index}]")
            answers = answers or message.tool_calls is not None
            legacy = legacy or message.function_call is not None
        elif isinstance(message, openai.ToolMessage):
            answers = True
        elif isinstance(message, openai.FunctionMessage):
            legacy = True
    if answers:
        _check_answers(request.messages)
    if legacy:
        request.messages = _without_functions(request.messages)


def _check_parts(
    parts: Sequence[openai.TextPart | openai.ImagePart | openai.AudioPart | openai.FilePart], path: str
) -> None:
    for index, part in enumerate(parts):
        if isinstance(part, openai.ImagePart):
            bare = isinstance(part.image_url, str)
            image = openai.ImageURL(part.image_url) if isinstance(part.image_url, str) else part.image_url
            if not image.url[:8].lower().startswith(("https://", "http://", "data:")):
                raise refusals.not_a_url(f"{path}[{index}].image_url" + ("" if bare else ".url"))
            part.image_url = image


def _check_turn(message: openai.AssistantMessage, path: str) -> None:
    """A former answer: each call carries what its type says, and an empty list of calls is none; a refusal is alone."""
    if isinstance(message.content, list) and len(message.content) > 1:
        for part in message.content:
            if isinstance(part, openai.RefusalPart):
                raise refusals.not_alone(f"{path}.content", "refusal")
    if not message.tool_calls:
        message.tool_calls = None
    for index, call in enumerate(message.tool_calls or ()):
        if (call.function if call.type == "function" else call.custom) is None:
            raise refusals.missing(f"{path}.tool_calls[{index}].{call.type}")
    if message.tool_calls:
        message.function_call = None  # the same call, said in the old way too
    if message.audio is not None:
        _check_nesting(message.audio, f"{path}.audio")


def _check_answers(messages: list[openai.Message]) -> None:
    """Every tool message answers a call of the turn right before it, and every call is answered."""
    calls: frozenset[str] = frozenset()  # ids that a tool message may name here
    unanswered: dict[str, None] = {}  # those of them without an answer yet, in order
    asked = 0
    for index, message in enumerate(messages):
        if isinstance(message, openai.ToolMessage):
            if message.tool_call_id not in calls:
                raise refusals.orphan_answer(f"messages[{index}].role")
            unanswered.pop(message.tool_call_id, None)
            continue
        if unanswered:
            break
        if isinstance(message, openai.AssistantMessage) and message.tool_calls:
            asked = index
            unanswered = dict.fromkeys(call.id for call in message.tool_calls)
            calls = frozenset(unanswered)
        else:
            calls = frozenset()
    if unanswered:
        raise refusals.unanswered_calls(f"messages[{asked}].tool_calls", unanswered)


def _without_functions(messages: list[openai.Message]) -> list[openai.Message]:
    """The same talk in tool calls, with the ids `call_legacy_<index of the message>`.

    The old form has no ids and OpenAI never held callers to pairs, but upstreams do hold tool calls to them: an answer
    without a call gets one without arguments, and a call without an answer an empty answer.
    """
    talk: list[openai.Message] = []
    open_call: str | None = None
    for index, message in enumerate(messages):
        if isinstance(message, openai.FunctionMessage):
            if open_call is None:
                open_call = f"call_legacy_{index}"
                talk.append(_calling(openai.AssistantMessage(), openai.FunctionCall(message.name, "{}"), open_call))
            talk.append(openai.ToolMessage(message.content or "", open_call))
            open_call = None
            continue
        if open_call is not None:
            talk.append(openai.ToolMessage("", open_call))
            open_call = None
        if isinstance(message, openai.AssistantMessage) and message.function_call is not None:
            open_call = f"call_legacy_{index}"
            talk.append(_calling(message, message.function_call, open_call))
        else:
            talk.append(message)
    if open_call is not None:
        talk.append(openai.ToolMessage("", open_call))
    return talk


def _calling(turn: openai.AssistantMessage, call: openai.FunctionCall, call_id: str) -> openai.AssistantMessage:
    calls = [openai.ToolCall(call_id, "function", function=call)]
    return msgspec.structs.replace(turn, tool_calls=calls, function_call=None)


def _texts(message: openai.Message) -> Iterator[str]:
    """What the message says, in the order it is written."""
    if isinstance(message.content, str):
        yield message.content
        return
    for part in message.content or ():
        if isinstance(part, openai.TextPart):
            yield part.text
        elif isinstance(part, openai.RefusalPart):
            yield part.refusal


def _message_bytes(message: openai.Message) -> int:
    content = message.content
    total = _bytes(content) if isinstance(content, str) else sum(map(_bytes, _texts(message)))
    if isinstance(message, openai.ToolMessage):
        return total + _bytes(message.tool_call_id)
    if message.name is not None:
        total += _bytes(message.name)
    if isinstance(message, openai.AssistantMessage):
        for text in (message.refusal, message.reasoning_content, message.reasoning):
            total += _bytes(text) if text else 0
        for call in message.tool_calls or ():
            total += _bytes(call.id)
            if call.function is not None:
                total += _bytes(call.function.name) + _bytes(call.function.arguments)
            if call.custom is not None:
                total += _bytes(call.custom.name) + _bytes(call.custom.input)
    return total


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


# --- tools -----------------------------------------------------------------------------------------------------


def _adopt_functions(request: openai.ChatRequest) -> None:
    """Say `functions` and `function_call` in tools. `request.functions` stays: it tells in what words to answer."""
    if request.functions is None:
        raise refusals.only_when_specified("function_call", "functions")
    if request.tools:
        raise refusals.not_together("functions", "tools")
    if request.tool_choice is not None:
        raise refusals.only_when_specified("tool_choice", "tools")
    request.tools = [openai.FunctionTool(spec) for spec in request.functions]
    call = request.function_call
    request.tool_choice = openai.FunctionChoice(call) if isinstance(call, openai.NamedFunction) else call


def _check_tools(request: openai.ChatRequest) -> None:
    if not request.tools:
        request.tools = None
        if request.tool_choice is not None:
            raise refusals.only_when_specified("tool_choice", "tools")
        if request.parallel_tool_calls is not None:
            raise refusals.only_when_specified("parallel_tool_calls", "tools")
        return
    legacy = uses_legacy_functions(request)
    for index, tool in enumerate(request.tools):
        if isinstance(tool, openai.FunctionTool):
            _check_function(tool.function, f"functions[{index}]" if legacy else f"tools[{index}].function")
        else:
            _check_name(tool.custom.name, f"tools[{index}].custom")
    _check_choice(request, request.tools)


def _check_function(spec: openai.FunctionSpec, path: str) -> None:
    _check_name(spec.name, path)
    if spec.parameters is not None:
        _check_nesting(spec.parameters, f"{path}.parameters")
        if spec.strict:
            _check_strict(spec.parameters, f"{path}.parameters", f"function '{spec.name}'")


def _check_name(name: str, path: str) -> None:
    # The `$` in the declared pattern lets one line feed at the end go by.
    if name.endswith("\n"):
        raise refusals.string_off_pattern(f"{path}.name", NAME_PATTERN)


def _check_choice(request: openai.ChatRequest, tools: Sequence[openai.FunctionTool | openai.CustomTool]) -> None:
    """A choice must name what is there. Another dialect's `any` becomes `required`."""
    choice = request.tool_choice
    if isinstance(choice, openai.FunctionChoice):
        if choice.function.name not in _names(tools, "function"):
            legacy = uses_legacy_functions(request)
            param, among = ("function_call", "functions") if legacy else ("tool_choice", "tools")
            raise refusals.not_among(param, "function", choice.function.name, among)
    elif isinstance(choice, openai.CustomChoice):
        if choice.custom.name not in _names(tools, "custom"):
            raise refusals.not_among("tool_choice", "custom tool", choice.custom.name, "tools")
    elif isinstance(choice, openai.AllowedToolsChoice):
        allowed = choice.allowed_tools
        allowed.tools = [
            _allowed_tool(tool, tools, f"tool_choice.allowed_tools.tools[{index}]")
            for index, tool in enumerate(allowed.tools)
        ]
    elif choice == "any":
        request.tool_choice = "required"


def _allowed_tool(
    tool: openai.JSONObject, tools: Sequence[openai.FunctionTool | openai.CustomTool], path: str
) -> openai.JSONObject:
    """`tool` reduced to the reference that it is: `{"type": "function", "function": {"name": …}}`."""
    kind = tool.get("type", "function")
    if not isinstance(kind, str):
        raise refusals.wrong_type(f"{path}.type", "one of 'function' or 'custom'", kind)
    if kind not in ("function", "custom"):
        raise refusals.wrong_value(f"{path}.type", kind, ("function", "custom"))
    reference = tool.get(kind)
    if not isinstance(reference, dict):
        raise refusals.missing(f"{path}.{kind}")
    name = reference.get("name")
    if not isinstance(name, str):
        raise refusals.missing(f"{path}.{kind}.name")
    if name not in _names(tools, kind):
        raise refusals.not_among(path, "function" if kind == "function" else "custom tool", name, "tools")
    return {"type": kind, kind: {"name": name}}


def _names(tools: Iterable[openai.FunctionTool | openai.CustomTool], kind: str) -> set[str]:
    if kind == "function":
        return {tool.function.name for tool in tools if isinstance(tool, openai.FunctionTool)}
    return {tool.custom.name for tool in tools if isinstance(tool, openai.CustomTool)}


# --- schemas and other free-form fields ------------------------------------------------------------------------


def _check_nesting(value: openai.JSONObject, path: str) -> None:
    """Free-form JSON must be encodable again anywhere: not too deep, integers within 64 bits.

    Level by level, because every tool of every request passes here: about 30 ns per value.
    """
    level: list[Any] = [value]
    for _ in range(NESTING_LEVELS_MAX):
        below = []
        for container in level:
            for item in container.values() if type(container) is dict else container:
                kind = type(item)
                if kind is dict or kind is list:
                    below.append(item)
                elif kind is int and not INTEGER_MIN <= item <= INTEGER_MAX:
                    bound, refuse = (
                        (INTEGER_MIN, refusals.number_below) if item < 0 else (INTEGER_MAX, refusals.number_above)
                    )
                    raise refuse(path, bound, item)
        if not below:
            return
        level = below
    raise refusals.too_deep(path, NESTING_LEVELS_MAX)


def _check_response_format(wanted: openai.ResponseFormat, messages: Iterable[openai.Message]) -> None:
    if isinstance(wanted, openai.JSONObjectFormat):
        if not any("json" in text.lower() for message in messages for text in _texts(message)):
            raise refusals.json_not_mentioned()
    elif isinstance(wanted, openai.JSONSchemaFormat):
        spec, path = wanted.json_schema, "response_format.json_schema"
        _check_name(spec.name, path)
        if spec.schema is not None:
            _check_nesting(spec.schema, f"{path}.schema")
        if spec.strict:
            if spec.schema is None:
                raise refusals.missing(f"{path}.schema")
            _check_strict(spec.schema, f"{path}.schema", f"response_format '{spec.name}'")


def _check_strict(schema: openai.JSONObject, path: str, owner: str) -> None:
    """Strict schemas: an object at the root; everywhere all properties required and no others allowed.

    References are not followed: what they point to stands under `$defs` and is visited there. `schema` must have passed
    `_check_nesting`.
    """
    if schema.get("type") != "object":
        kind = schema.get("type") if isinstance(schema.get("type"), str) else None
        raise refusals.schema_root(path, owner, kind)
    pending: list[tuple[object, tuple[str, ...]]] = [(schema, ())]
    while pending:
        node, context = pending.pop()
        if not isinstance(node, dict):
            continue
        _check_strict_object(node, context, path, owner)
        pending += reversed([*_subschemas(node, context)])


def _check_strict_object(node: openai.JSONObject, context: tuple[str, ...], path: str, owner: str) -> None:
    kinds, properties, required = node.get("type"), node.get("properties"), node.get("required")
    if kinds != "object" and not (isinstance(kinds, list) and "object" in kinds) and properties is None:
        return
    if node.get("additionalProperties") is not False:
        what = "'additionalProperties' is required to be supplied and to be false"
        raise refusals.schema_fault(path, owner, context, what)
    names = {name for name in required if isinstance(name, str)} if isinstance(required, list) else set()
    absent = next((name for name in properties if name not in names), None) if isinstance(properties, dict) else None
    if absent is not None:
        what = "'required' is required to be supplied and to be an array including every key in properties"
        raise refusals.schema_fault(path, owner, context, what, absent)


def _subschemas(node: openai.JSONObject, context: tuple[str, ...]) -> Iterator[tuple[object, tuple[str, ...]]]:
    for keyword in ("properties", "$defs", "definitions"):
        named = node.get(keyword)
        if isinstance(named, dict):
            yield from ((child, (*context, keyword, name)) for name, child in named.items())
    for keyword in ("anyOf", "allOf", "oneOf", "prefixItems"):
        listed = node.get(keyword)
        if isinstance(listed, list):
            yield from ((child, (*context, keyword, str(index))) for index, child in enumerate(listed))
    if "items" in node:
        yield node["items"], (*context, "items")


# --- the other fields ------------------------------------------------------------------------------------------


def _check_metadata(metadata: dict[str, str]) -> None:
    if len(metadata) > METADATA_PAIRS_MAX:
        raise refusals.too_many_properties("metadata", METADATA_PAIRS_MAX, len(metadata))
    for key, value in metadata.items():
        if len(key) > METADATA_KEY_LENGTH_MAX:
            raise refusals.property_name_too_long("metadata", key, METADATA_KEY_LENGTH_MAX)
        if len(value) > METADATA_VALUE_LENGTH_MAX:
            raise refusals.string_too_long(f"metadata.{key}", METADATA_VALUE_LENGTH_MAX, len(value))


def _check_options(request: openai.ChatRequest) -> None:
    for token in request.logit_bias or ():
        if not (token.isascii() and token.isdigit()):
            raise refusals.string_off_pattern(f"logit_bias.{token}", DIGITS_PATTERN)
    if request.audio is not None and isinstance(request.audio.voice, dict):
        _check_nesting(request.audio.voice, "audio.voice")
