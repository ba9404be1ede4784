"""Whether a call reasons, and how much: what the caller asked for, in the terms of the candidate that serves it.

A model that is sold without reasoning never reasons, whatever is asked: its candidates' rows tell the upstream so, and
nothing here changes that. One that is sold with it does as the caller says, where the upstream can be told.

Callers ask in three ways, the first of which wins: OpenRouter's `reasoning`, OpenAI's `reasoning_effort`, and the
`thinking` of several vendors. A budget of tokens becomes an effort where an upstream takes only words, and an effort a
share of the answer's ceiling where it takes only a budget; the shares are OpenRouter's.

Source: openrouter.ai/docs/use-cases/reasoning-tokens (seen 2026-11).
"""

from msgspec import Struct

from vipcloud.dialects.openai import ChatRequest, Effort, JSONObjectFormat, JSONSchemaFormat
from vipcloud.providers.models import Candidate

BUDGET_TOKENS_MIN = 1024
EFFORT_SHARES: dict[Effort, float] = {
    "minimal": 0.1,
    "low": 0.2,
    "medium": 0.5,
    "high": 0.8,
    "xhigh": 0.95,
    "max": 0.95,
}


class Wish(Struct, frozen=True):
    """What the caller said of reasoning. `on` is None where nothing was said of it."""

    on: bool | None = None
    effort: Effort | None = None
    budget_tokens: int | None = None


class Told(Struct, frozen=True):
    """What the upstream is told: the end of the body, and the fields that say how much."""

    tail: bytes
    effort: str | None = None
    budget_tokens: int | None = None


NOTHING = Wish()


def wish(request: ChatRequest) -> Wish:
    options = request.reasoning
    if options is not None and (options.effort, options.max_tokens, options.enabled) != (None, None, None):
        off = options.enabled is False or options.effort == "none"
        return Wish(not off, None if off else options.effort, None if off else options.max_tokens)
    if request.reasoning_effort is not None:
        off = request.reasoning_effort == "none"
        return Wish(not off, None if off else request.reasoning_effort)
    if request.thinking is not None and request.thinking.type is not None:
        off = request.thinking.type == "disabled"
        return Wish(not off, None, None if off else request.thinking.budget_tokens)
    return NOTHING


def thinks(request: ChatRequest, candidate: Candidate) -> bool:
    """Whether `candidate` reasons about `request`."""
    quirks = candidate.quirks
    if not candidate.reasoning:
        return quirks.thinking
    if "json" in quirks.thinking_excludes and isinstance(request.response_format, JSONObjectFormat | JSONSchemaFormat):
        return False
    on = wish(request).on
    if on is None or not (quirks.thinking_on if on else quirks.thinking_off):
        return quirks.thinking
    return on


def told(request: ChatRequest, candidate: Candidate, ceiling: int) -> Told:
    """What to tell `candidate`, for an answer of at most `ceiling` tokens, reasoning included."""
    if not candidate.reasoning:
        return Told(candidate.body_tail)
    quirks = candidate.quirks
    if not thinks(request, candidate):
        return Told(candidate.silent_tail if quirks.thinking_off else candidate.body_tail)
    asked = wish(request)
    tail = candidate.body_tail if quirks.thinking or not quirks.thinking_on else candidate.thinking_tail
    if quirks.thinking_budget:
        return Told(tail, budget_tokens=_budget(asked, ceiling))
    effort = asked.effort or (_effort(asked.budget_tokens, ceiling) if asked.budget_tokens else None)
    return Told(tail, effort=quirks.reasoning_efforts.get(effort) if effort else None)


def shown(request: ChatRequest) -> bool:
    """Whether the caller wants to see the reasoning."""
    if request.reasoning is not None and request.reasoning.exclude is not None:
        return not request.reasoning.exclude
    return request.include_reasoning is not False


def _budget(asked: Wish, ceiling: int) -> int | None:
    if asked.budget_tokens is not None:
        return min(asked.budget_tokens, ceiling)
    if asked.effort is None:
        return None
    return min(ceiling, max(BUDGET_TOKENS_MIN, int(ceiling * EFFORT_SHARES[asked.effort])))


def _effort(budget_tokens: int, ceiling: int) -> Effort:
    """The smallest effort whose share of the ceiling covers the budget."""
    return next((effort for effort, share in EFFORT_SHARES.items() if budget_tokens <= share * ceiling), "max")
