"""Tokens counted here, for calls whose upstream gave no usage. Whoever uses it marks the record.

There are three ways. While an answer runs, `usage_of` goes by the size of its texts, which costs next to nothing.
When it is over, `guess` looks at the texts themselves, and where there is time `gateway.counting` counts them by a real
vocabulary; `usage_of_counts` makes usage of either.

By size, DeepSeek gives 0.3 tokens for an English character and 0.6 for a Chinese one (api-docs.deepseek.com,
quick_start/token_usage, seen 2026-11); its own and the other vocabularies here come to about four characters of
ordinary English per token. So a quarter for ASCII and three fifths for the rest: near for prose, low for JSON.

No estimate is above the bytes of its text, so a charge by estimate stays within the hold that `rules.ceiling` asks for.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

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
from vipcloud.metering import vocabulary
from vipcloud.providers import usage
from vipcloud.providers.catalog_rows import Quirks
from vipcloud.providers.usage import Delivered, TextSize, utf8_bytes


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


class Texts(NamedTuple):
    """All that is counted of a call: what was asked, and what was delivered of the answer."""

    prompt: str
    content: str = ""
    reasoning: str = ""
    calls: str = ""

    @property
    def parts(self) -> tuple[str, str, str, str]:
        return self.prompt, self.content, self.reasoning, self.calls


def guess(texts: Texts, quirks: Quirks) -> list[int]:
    """Tokens of each of `texts.parts`, by what they are made of."""
    return [vocabulary.guess(text, quirks.vocabulary) for text in texts.parts]


def usage_of_counts(counts: Sequence[int], texts: Texts, quirks: Quirks, output_tokens_max: int) -> Usage:
    """What the call used, by counts of `texts.parts` in the candidate's vocabulary."""
    prompt, content, reasoning, calls = (
        min(round(count * quirks.vocabulary_factor), utf8_bytes(text))
        for count, text in zip(counts, texts.parts, strict=True)
    )
    reasoning = min(output_tokens_max, reasoning)
    return usage.of(prompt, min(output_tokens_max, reasoning + content + calls), reasoning_tokens=reasoning)


def prompt_text(request: ChatRequest) -> str:
    """The text of the messages and the tools' definitions. Images, sounds and files count nothing."""
    return "\n".join(_prompt_texts(request))


def prompt_size(request: ChatRequest) -> TextSize:
    """The size of `prompt_text`, line breaks left out."""
    size = TextSize()
    for text in _prompt_texts(request):
        size.add(text)
    return size


def _prompt_texts(request: ChatRequest) -> Iterator[str]:
    for message in request.messages:
        yield from _texts(message)
    for definition in (request.tools, request.functions):
        if definition:
            yield msgspec.json.encode(definition).decode()


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
