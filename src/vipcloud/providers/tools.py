"""Tools and the choice among them, as an upstream takes them.

A choice that an upstream does not know is said in another way where there is one: no tools at all for "none", the only
tool by its name for "required". A name that it keeps for itself is sent under another, and `renames` tells which, so
that the history goes out with it and an answer comes back without it.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

from msgspec import Struct

from vipcloud.dialects.openai import (
    AllowedToolsChoice,
    AssistantMessage,
    ChatRequest,
    CustomChoice,
    FunctionChoice,
    FunctionSpec,
    FunctionTool,
    NamedFunction,
    ToolChoice,
)
from vipcloud.errors import BadRequest
from vipcloud.providers.catalog_rows import Quirks
from vipcloud.providers.schemas import subset

RENAMED_PREFIX = "fn_"

ChoiceKind = Literal["none", "auto", "required", "named"]

_NO_ARGUMENTS: dict[str, object] = {"type": "object", "properties": {}}


class Offer(Struct, frozen=True):
    """What is sent of tools: the fields of the body."""

    tools: list[FunctionTool]
    tool_choice: str | FunctionChoice | None
    parallel_tool_calls: bool | None


def choice(request: ChatRequest) -> ToolChoice | None:
    """`tool_choice`, or the old `function_call` in its terms."""
    if request.tool_choice is not None:
        return request.tool_choice
    if isinstance(request.function_call, NamedFunction):
        return FunctionChoice(request.function_call)
    return request.function_call


def choice_kind(asked: ToolChoice | None) -> ChoiceKind:
    if isinstance(asked, FunctionChoice | CustomChoice):
        return "named"
    if isinstance(asked, AllowedToolsChoice):
        return asked.allowed_tools.mode
    return "required" if asked == "any" else asked or "auto"


def forcible(request: ChatRequest, quirks: Quirks) -> ToolChoice | None:
    """The choice as it can be sent: the caller's, or one tool by its name where "required" is not known."""
    asked = choice(request)
    if choice_kind(asked) == "required" and "required" not in quirks.tool_choice and "named" in quirks.tool_choice:
        specs = _specs(request)
        if len(specs) == 1:
            return FunctionChoice(NamedFunction(specs[0].name))
    return asked


def offer(request: ChatRequest, quirks: Quirks, names: Mapping[str, str]) -> Offer | None:
    """What is offered; None where no tools are sent. Raises BadRequest if `allowed_tools` leaves none."""
    asked = forcible(request, quirks)
    kind = choice_kind(asked)
    if kind == "none" and "none" not in quirks.tool_choice:
        return None
    specs = [_spec(spec, quirks, names) for spec in _specs(request)]
    if not quirks.tools_repeat:
        specs = list({spec.name: spec for spec in reversed(specs)}.values())[::-1]
    told: str | FunctionChoice | None = None
    if isinstance(asked, FunctionChoice):
        name = asked.function.name
        told = FunctionChoice(NamedFunction(names[name])) if name in names else asked
    elif asked is not None and kind in quirks.tool_choice:
        told = kind
    parallel = request.parallel_tool_calls
    if parallel is None and quirks.parallel_said:
        parallel = True
    if "parallel_tool_calls" in quirks.drop:
        parallel = None
    return Offer([FunctionTool(spec) for spec in specs], told, parallel)


def renames(request: ChatRequest, quirks: Quirks) -> dict[str, str]:
    """Names of tools, offered or called before, that the upstream keeps for itself → what they are called there."""
    if not quirks.tool_names_reserved:
        return {}
    known = set(_names(request))
    found: dict[str, str] = {}
    for name in sorted(known & quirks.tool_names_reserved):
        other = RENAMED_PREFIX + name
        while other in known:
            other = RENAMED_PREFIX + other
        found[name] = other
        known.add(other)
    return found


def _names(request: ChatRequest) -> Iterator[str]:
    for tool in request.tools or ():
        if isinstance(tool, FunctionTool):
            yield tool.function.name
    for spec in request.functions or ():
        yield spec.name
    for message in request.messages:
        if isinstance(message, AssistantMessage):
            if message.function_call is not None:
                yield message.function_call.name
            for call in message.tool_calls or ():
                if call.function is not None:
                    yield call.function.name


def _specs(request: ChatRequest) -> list[FunctionSpec]:
    """The functions offered, as far as `allowed_tools` leaves them."""
    specs = [tool.function for tool in request.tools or () if isinstance(tool, FunctionTool)] or request.functions or []
    if not isinstance(request.tool_choice, AllowedToolsChoice):
        return specs
    functions = [tool.get("function") for tool in request.tool_choice.allowed_tools.tools]
    names = {function.get("name") for function in functions if isinstance(function, dict)}
    left = [spec for spec in specs if spec.name in names]
    if not left:
        raise BadRequest("'tool_choice.allowed_tools' names none of the tools offered.", param="tool_choice")
    return left


def _spec(spec: FunctionSpec, quirks: Quirks, names: Mapping[str, str]) -> FunctionSpec:
    """Without `strict`, which upstreams refuse or ignore; with parameters, which some insist on."""
    if spec.strict is None and spec.parameters is not None and spec.name not in names and not quirks.schema_subset:
        return spec
    parameters = _NO_ARGUMENTS if spec.parameters is None else spec.parameters
    return FunctionSpec(
        name=names.get(spec.name, spec.name),
        description=spec.description,
        parameters=subset(parameters, bounds=True).schema if quirks.schema_subset else parameters,
    )
