"""What a candidate cannot do of what a request asks: refused by its name, so that routing can pass over it."""

from collections.abc import Sequence

from vipcloud.dialects.openai import (
    AssistantMessage,
    AudioPart,
    ChatRequest,
    CustomChoice,
    CustomTool,
    FilePart,
    FunctionMessage,
    ImagePart,
    TextPart,
    ToolMessage,
    UserMessage,
)
from vipcloud.errors import BadRequest, GatewayError, NotImplementedYet
from vipcloud.providers import reasoning, structured, tools
from vipcloud.providers.catalog_rows import Quirks
from vipcloud.providers.models import Candidate

_ANSWERS = (ToolMessage, FunctionMessage)


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


def refusal(request: ChatRequest, candidate: Candidate) -> GatewayError | None:
    """Why `candidate` cannot serve `request`; None if it can. The error names the parameter."""
    quirks = candidate.quirks
    if request.n is not None and request.n > 1:
        problem = _choices_refusal(request, candidate)
        if problem is not None:
            return problem
    if request.logprobs and (not quirks.logprobs or _reasons_too(request, candidate, "logprobs")):
        return _cannot(request, "`logprobs`", "logprobs")
    if request.audio is not None or (request.modalities is not None and "audio" in request.modalities):
        return _cannot(request, "audio output", "modalities" if request.modalities else "audio")
    if request.web_search_options is not None:
        return _cannot(request, "web search", "web_search_options")
    if request.tools or request.functions:
        problem = _tool_refusal(request, candidate)
        if problem is not None:
            return problem
    return _message_refusal(request, quirks)


def _cannot(request: ChatRequest, what: str, param: str) -> NotImplementedYet:
    return NotImplementedYet(f"The model '{request.model}' does not support {what}.", param=param)


def _reasons_too(request: ChatRequest, candidate: Candidate, what: str) -> bool:
    """Whether `what` is asked of an upstream that cannot do it while it reasons, and it does."""
    return what in candidate.quirks.thinking_excludes and reasoning.thinks(request, candidate)


def _choices_refusal(request: ChatRequest, candidate: Candidate) -> NotImplementedYet | None:
    quirks = candidate.quirks
    assert request.n is not None, "asked for by the caller"
    if request.n > quirks.choices_max:
        more = "one choice" if quirks.choices_max == 1 else f"{quirks.choices_max} choices"
        return _cannot(request, f"more than {more} per request (`n`)", "n")
    if not quirks.choices_with_tools and (request.tools or request.functions):
        return _cannot(request, "more than one choice (`n`) together with tools", "n")
    if structured.plan(request, candidate).checked:
        return _cannot(request, "more than one choice (`n`) together with this `response_format`", "n")
    return None


def _tool_refusal(request: ChatRequest, candidate: Candidate) -> NotImplementedYet | None:
    for index, tool in enumerate(request.tools or ()):
        if isinstance(tool, CustomTool):
            return _cannot(request, "custom tools; offer functions", f"tools[{index}]")
    quirks = candidate.quirks
    choice = tools.choice(request)
    if isinstance(choice, CustomChoice):
        return _cannot(request, "custom tools; offer functions", "tool_choice")
    if tools.choice_kind(choice) not in ("required", "named"):
        return None
    kind = tools.choice_kind(tools.forcible(request, quirks))
    if kind not in quirks.tool_choice or _reasons_too(request, candidate, kind):
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
