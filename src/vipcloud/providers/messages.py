"""The conversation as an upstream takes it: roles, contents, former tool calls, reasoning of former turns.

Each message is rewritten only if it must be; most stand as they came. The request itself is never changed: it may have
to go to another upstream after this one.

Sources: the providers' pages named in `catalog.toml`, seen 2026-11.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from vipcloud.dialects.openai import (
    AssistantMessage,
    ChatRequest,
    DeveloperMessage,
    FunctionCall,
    FunctionMessage,
    ImagePart,
    ImageURL,
    Message,
    RefusalPart,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from vipcloud.providers import call_ids, reasoning
from vipcloud.providers.catalog_rows import Quirks
from vipcloud.providers.models import Candidate

# Tuples, because `isinstance` against `A | B` builds the union at each call, and these run for every message.
_NAMED_TEXT = (UserMessage, SystemMessage)
_LEADING = (SystemMessage, DeveloperMessage)


class _Rules(Struct, frozen=True):
    """What holds for all messages of one request: quirks, names of tools to change, whose reasoning goes back."""

    quirks: Quirks
    names: Mapping[str, str]
    replay: bool


def rewritten(request: ChatRequest, candidate: Candidate, names: Mapping[str, str], instruction: str) -> list[Message]:
    """The messages of `request` for `candidate`. `names` are tools that are called otherwise there; `instruction` is
    put behind the leading system messages, if there is one."""
    messages = request.messages
    rules = _Rules(candidate.quirks, names, _replays(request, candidate))
    if rules.replay or names or not all(_stands(message, rules.quirks) for message in messages):
        messages = list(_each(messages, rules))
    if instruction:
        messages = _instructed(messages, instruction)
    return _system_first(messages) if rules.quirks.system_first else messages


def mention_json(messages: Sequence[Message]) -> bool:
    """Whether the word stands in any text of theirs."""
    for message in messages:
        content = message.content
        texts = [content] if isinstance(content, str) else [p.text for p in content or () if isinstance(p, TextPart)]
        if any("json" in text.lower() for text in texts):
            return True
    return False


def _replays(request: ChatRequest, candidate: Candidate) -> bool:
    """Whether the reasoning of former turns goes back. Where the upstream insists, it does so once tools are in play;
    an empty one is enough for it, so nothing of an answer has to be kept here."""
    quirks = candidate.quirks
    if quirks.replay_reasoning == "never" or not reasoning.thinks(request, candidate):
        return False
    return quirks.replay_reasoning == "given" or _tools_in_play(request)


def _tools_in_play(request: ChatRequest) -> bool:
    if request.tools or request.functions:
        return True
    return any(
        isinstance(message, AssistantMessage) and (message.tool_calls or message.function_call is not None)
        for message in request.messages
    )


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


def _each(messages: list[Message], rules: _Rules) -> Iterator[Message]:
    """`messages` as the upstream takes them. Functions of the old kind become tools, with ids made from their place."""
    quirks, call_id = rules.quirks, ""
    for index, message in enumerate(messages):
        if isinstance(message, FunctionMessage):
            yield ToolMessage(content=message.content or "", tool_call_id=call_id or f"call_{index}")
        elif isinstance(message, AssistantMessage):
            if message.function_call is not None:
                call_id = f"call_{index}"
            yield _assistant(message, rules, call_id)
        elif isinstance(message, ToolMessage):
            answered = call_ids.restored(message.tool_call_id) if quirks.call_ids_repeat else message.tool_call_id
            yield ToolMessage(content=_text(message.content, quirks), tool_call_id=answered)
        elif isinstance(message, UserMessage):
            yield UserMessage(content=_user_content(message, quirks), name=_name(message.name, quirks))
        else:
            yield SystemMessage(content=_text(message.content, quirks), name=_name(message.name, quirks))


def _assistant(message: AssistantMessage, rules: _Rules, call_id: str) -> AssistantMessage:
    """Content is never null (DeepSeek: "content or tool_calls must be set"), but may be left out beside calls."""
    quirks = rules.quirks
    calls = message.tool_calls or None
    if calls is None and message.function_call is not None:
        calls = [ToolCall(id=call_id, type="function", function=message.function_call)]
    content: Any = message.refusal or ""
    if message.content is not None:
        content = _text(message.content, quirks)
    reasoned: str | None = None
    if rules.replay:
        reasoned = message.reasoning_content or message.reasoning or ""
        if not reasoned and quirks.replay_reasoning == "given":
            reasoned = None
    return AssistantMessage(
        content=None if calls and not content and not quirks.empty_text else content,
        name=_name(message.name, quirks),
        tool_calls=None if calls is None else [_call(call, rules) for call in calls],
        reasoning_content=reasoned,
    )


def _call(call: ToolCall, rules: _Rules) -> ToolCall:
    function = call.function
    if function is None:
        return call
    name, arguments = rules.names.get(function.name, function.name), function.arguments
    if rules.quirks.arguments_valid and not _is_json(arguments):
        arguments = "{}"
    call_id = call_ids.restored(call.id) if rules.quirks.call_ids_repeat else call.id
    if (call_id, name, arguments) == (call.id, function.name, function.arguments):
        return call
    return ToolCall(id=call_id, type=call.type, function=FunctionCall(name, arguments))


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False
    return True


def _name(name: str | None, quirks: Quirks) -> str | None:
    return name if quirks.message_names else None


def _text(content: str | Sequence[TextPart | RefusalPart], quirks: Quirks) -> Any:
    """A text, or the parts of one where the upstream takes parts."""
    if isinstance(content, str):
        return content
    if not quirks.text_parts:
        return _flat(content)
    parts = [part if isinstance(part, TextPart) else TextPart(part.refusal) for part in content]
    return _without_empty(parts, quirks) or ""


def _flat(content: str | Sequence[TextPart | RefusalPart]) -> str:
    """Parts as one text, a line break between them."""
    if isinstance(content, str):
        return content
    return "\n".join(part.text if isinstance(part, TextPart) else part.refusal for part in content)


def _without_empty(parts: list[Any], quirks: Quirks) -> list[Any]:
    if quirks.empty_text:
        return parts
    return [part for part in parts if not isinstance(part, TextPart) or part.text]


def _user_content(message: UserMessage, quirks: Quirks) -> Any:
    """Text where all parts are text; else parts, with images in the upstream's form."""
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    texts = [part for part in message.content if isinstance(part, TextPart)]
    if len(texts) == len(message.content):
        return _text(texts, quirks)
    parts = _without_empty(list(message.content), quirks)
    return [_image(part, quirks) if isinstance(part, ImagePart) else part for part in parts]


def _image(part: ImagePart, quirks: Quirks) -> ImagePart:
    image = part.image_url if isinstance(part.image_url, ImageURL) else ImageURL(url=part.image_url)
    if quirks.image_data_bare:
        url = image.url
        if url[:5].lower() == "data:":
            url = url.partition(",")[2]
        image = ImageURL(url=url)
    return ImagePart(image_url=image)


def _instructed(messages: list[Message], instruction: str) -> list[Message]:
    leading = 0
    while leading < len(messages) and isinstance(messages[leading], _LEADING):
        leading += 1
    return [*messages[:leading], SystemMessage(content=instruction), *messages[leading:]]


def _system_first(messages: list[Message]) -> list[Message]:
    """All system messages as one, before the others; a blank line between their texts."""
    texts = [_flat(message.content) for message in messages if isinstance(message, _LEADING)]
    if len(texts) < 2 and (not texts or isinstance(messages[0], SystemMessage)):
        return messages
    others: list[Message] = [message for message in messages if not isinstance(message, _LEADING)]
    return [SystemMessage(content="\n\n".join(filter(None, texts))), *others]
