"""How many tokens a call took, as compiled code counts them; `openai.Usage` is the same as a type of the API."""

from msgspec import UNSET, Raw

from vipcloud.dialects.openai import CompletionDetails, PromptDetails, Usage


class Tokens:
    """`cached` and `written` (to a cache) are parts of the prompt, `reasoning` of the completion.

    `cost` and `upstream_cost` are dollars as JSON numbers, empty until the call is settled.
    """

    def __init__(self, prompt: int, completion: int, cached: int, written: int, reasoning: int) -> None:
        self.prompt = prompt
        self.completion = completion
        self.cached = cached
        self.written = written
        self.reasoning = reasoning
        self.cost = b""
        self.upstream_cost = b""

    @property
    def cost_details(self) -> bytes:
        return b'{"upstream_inference_cost":%b}' % self.upstream_cost

    def encode(self) -> bytes:
        """A reply's `usage`, as msgspec would write it."""
        written = b',"cache_write_tokens":%d' % self.written if self.written else b""
        cost = b',"cost":%b,"cost_details":%b' % (self.cost, self.cost_details) if self.cost else b""
        return (
            b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,'
            b'"prompt_tokens_details":{"cached_tokens":%d,"audio_tokens":0%b},'
            b'"completion_tokens_details":{"reasoning_tokens":%d,"audio_tokens":0,"accepted_prediction_tokens":0,'
            b'"rejected_prediction_tokens":0}%b}'
        ) % (
            self.prompt,
            self.completion,
            self.prompt + self.completion,
            self.cached,
            written,
            self.reasoning,
            cost,
        )

    def usage(self) -> Usage:
        """The same as the API's type."""
        made = Usage(
            self.prompt,
            self.completion,
            self.prompt + self.completion,
            PromptDetails(self.cached, cache_write_tokens=self.written or UNSET),
            CompletionDetails(self.reasoning),
        )
        if self.cost:
            made.cost, made.cost_details = Raw(self.cost), Raw(self.cost_details)
        return made


def tokens_of(usage: Usage) -> Tokens:
    """Its counts, without what it cost."""
    details = usage.prompt_tokens_details
    return Tokens(
        usage.prompt_tokens,
        usage.completion_tokens,
        details.cached_tokens,
        details.cache_write_tokens or 0,
        usage.completion_tokens_details.reasoning_tokens,
    )
