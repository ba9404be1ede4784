"""Tokens counted from the size of a text, for calls whose upstream gave no usage. Whoever uses it marks the record.

DeepSeek gives 0.3 tokens for an English character and 0.6 for a Chinese one (api-docs.deepseek.com,
quick_start/token_usage, seen 2026-11); its own and the other vocabularies here come to about four characters of
ordinary English per token. A quarter for ASCII and three fifths for the rest stay on the customer's side.

No estimate is above the bytes of its text, so a charge by estimate stays within the hold that `rules.ceiling` asks for.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from vipcloud.dialects.openai import (
    AssistantMessage,
    ChatRequest,
    FunctionCall,
    Message,
    RefusalPart,
    TextPart,
    Usage,
)
from vipcloud.providers import usage
from vipcloud.providers.usage import Delivered, TextSize


def tokens(size: TextSize) -> int:
    """Rounded up: any text is at least one token, and none is none.

    A character beyond ASCII is taken to have three bytes, as Chinese does; one of two bytes counts in between.
    """
    wide = min(size.chars, (size.utf8_bytes - size.chars) // 2)
    twentieths = 5 * (size.chars - wide) + 12 * wide
    return -(-twentieths // 20)


def usage_of(prompt: TextSize, delivered: Delivered, output_tokens_max: int) -> Usage:
    """What the call used as far as the caller can see. The answer is never counted above `output_tokens_max`."""
    reasoning = min(output_tokens_max, tokens(delivered.reasoning))
    visible = tokens(delivered.content) + tokens(delivered.calls)
    return usage.of(tokens(prompt), min(output_tokens_max, reasoning + visible), reasoning_tokens=reasoning)


def prompt_size(request: ChatRequest) -> TextSize:
    """The text of the messages and the tools' definitions. Images, sounds and files count nothing."""
    size = TextSize()
    for message in request.messages:
        for text in _texts(message):
            size.add(text)
    for definition in (request.tools, request.functions):
        if definition:
            size.add(msgspec.json.encode(definition).decode())
    return size


def _texts(message: Message) -> Iterator[str]:
    content: Any = message.content
    if isinstance(content, str):
        yield content
    else:
        for part in content or ():
            if isinstance(part, TextPart):
                yield part.text
            elif isinstance(part, RefusalPart):
                yield part.refusal
    if isinstance(message, AssistantMessage):
        yield message.reasoning_content or message.reasoning or ""
        calls = [message.function_call, *(call.function for call in message.tool_calls or ())]
        for call in calls:
            if isinstance(call, FunctionCall):
                yield call.name
                yield call.arguments
