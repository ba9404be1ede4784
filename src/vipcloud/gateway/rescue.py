"""`x-vipcloud-rescue`: how a stream that breaks off midway becomes a whole answer, for callers who ask for it.

`continue`: another route that can goes on where the answer broke off, by its provider's prefix mode; a route that
cannot is never asked to. `buffer`: the answer is kept here until it is whole, and generated anew by another route if it
breaks off. Either way the stream says in a comment that it was rescued, and by which try.

The caller pays for the answer: of a continued one the prompt once and all of what was delivered, counted here as far as
nobody else counted it; of a buffered one what the try that came through used. The rest is our waste: each try that
broke off costs us what its provider bills for it, and a last one that went on from others has their text in its prompt.
"""

from typing import Literal

from vipcloud.dialects.openai import ChatRequest, PlainChat, Usage
from vipcloud.errors import BadRequest, GatewayError
from vipcloud.metering import estimate
from vipcloud.providers import usage as usages
from vipcloud.providers.stream import StreamTranslator
from vipcloud.providers.usage import Delivered, TextSize

MODES: dict[bytes, Literal["continue", "buffer"]] = {b"continue": "continue", b"buffer": "buffer"}


class Rescue:
    """What a caller asked for, and what has been delivered by tries that broke off.

    `plain`: text alone, without tools, other choices, or anything that has to be watched across the seam.
    """

    def __init__(self, mode: Literal["continue", "buffer"], plain: bool) -> None:
        self.mode = mode
        self.plain = plain
        self.said = ""
        self.added = False  # whether the try that broke off last had said anything
        self.broken = 0

    @classmethod
    def of(cls, header: bytes | None, request: ChatRequest) -> "Rescue | None":
        """None where the caller asked for none, or the answer is not streamed. Raises BadRequest for another word."""
        if header is None:
            return None
        mode = MODES.get(header.strip().lower())
        if mode is None:
            raise BadRequest("The header x-vipcloud-rescue must be 'continue' or 'buffer'.")
        return cls(mode, type(request) is PlainChat) if request.stream else None

    @property
    def buffers(self) -> bool:
        return self.mode == "buffer"

    @property
    def delivered(self) -> Delivered:
        size = TextSize()
        size.add(self.said)
        return Delivered(content=size, reasoning=TextSize(), calls=TextSize())

    @property
    def tokens_said(self) -> int:
        return estimate.tokens(self.delivered.content)

    def begin(self, translator: StreamTranslator) -> bool:
        """Whether this try goes on with what was said before; then `translator` does, too."""
        if not self.said:
            return False
        translator.carry_on(self.said)
        return True

    def takes(self, translator: StreamTranslator, failure: GatewayError) -> bool:
        """Whether another try may make up for a stream that has failed after its first token."""
        if isinstance(failure, BadRequest):
            return False
        if not self.buffers:
            said = translator.content.text
            if not self.plain or not said or translator.reasoning.size.chars or translator.calls.size.chars:
                return False
            self.added = len(said) > len(self.said)
            self.said = said
        self.broken += 1
        return True

    def whole(self, usage: Usage, prompt_tokens: int) -> Usage:
        """`usage` of the last try as that of the whole answer: what was said before stood in its prompt.

        `prompt_tokens` is our own count of the prompt. The lower one is taken: the caller pays no prompt twice.
        """
        if not self.said:
            return usage
        before = self.tokens_said
        prompt = min(max(0, usage.prompt_tokens - before), prompt_tokens)
        cached = min(usage.prompt_tokens_details.cached_tokens, prompt)
        return usages.of(prompt, usage.completion_tokens + before, cached_tokens=cached)

    def last_call(self, usage: Usage) -> Usage:
        """Of `usage` of the answer so far, counted here, what the last try's provider counts: its prompt had in it what
        was said before."""
        before = min(self.tokens_said, usage.completion_tokens)
        return usages.of(usage.prompt_tokens + before, usage.completion_tokens - before)

    def note(self, attempts: int) -> bytes:
        """What the stream says of it: a comment, which SDKs skip. Nothing if nothing broke off."""
        return b": rescued (%b) by try %d\n\n" % (self.mode.encode(), attempts) if self.broken else b""
