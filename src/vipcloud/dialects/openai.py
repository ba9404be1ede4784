"""OpenAI's chat completions as types: what a caller may send and what we answer.

Theory of operation. The request is decoded once, typed, by msgspec; a violation is turned into OpenAI's words by
`refusals`. What msgspec cannot say (rules between fields) is checked by `requests.check`. The caller's bytes go no
further than this: upstreams get what `providers` encodes from these values, but for the messages of requests that
`shapes` recognises.

Replies and chunks, in `replies` and `chunks`, are written in the key order that api.openai.com uses.

Sources: openai/openai-openapi `CreateChatCompletionRequest`, `CreateChatCompletionResponse`,
`CreateChatCompletionStreamResponse`, `CompletionUsage` (API 2.3.0, seen 2026-08-21).
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

# --- the request -----------------------------------------------------------------------------------------------

Name = Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]+$", min_length=1, max_length=64)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
JSONObject = dict[str, Any]

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Verbosity = Literal["low", "medium", "high"]
ServiceTier = Literal["auto", "default", "flex", "scale", "priority", "fast"]


class TextPart(Struct, tag="text", tag_field="type"):
    text: str


class ImageURL(Struct, omit_defaults=True):
    """`url` is http(s) or `data:<mime>;base64,…`. It is passed on and never fetched by us."""

    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(Struct, tag="image_url", tag_field="type"):
    image_url: ImageURL | str  # a bare string is what sloppy clients send; `check` wraps it


class InputAudio(Struct):
    data: str
    format: Literal["wav", "mp3"]


class AudioPart(Struct, tag="input_audio", tag_field="type"):
    input_audio: InputAudio


class FileReference(Struct, omit_defaults=True):
    file_id: str | None = None
    file_data: str | None = None
    filename: str | None = None


class FilePart(Struct, tag="file", tag_field="type"):
    file: FileReference


class RefusalPart(Struct, tag="refusal", tag_field="type"):
    refusal: str


Parts = Annotated[list[TextPart], Meta(min_length=1)]
UserParts = Annotated[list[TextPart | ImagePart | AudioPart | FilePart], Meta(min_length=1)]
AssistantParts = Annotated[list[TextPart | RefusalPart], Meta(min_length=1)]


class FunctionCall(Struct):
    """`arguments` is JSON text, a string and never an object; it may be invalid JSON."""

    name: str
    arguments: str = ""


class CustomCall(Struct):
    name: str
    input: str = ""


class ToolCall(Struct, omit_defaults=True):
    id: str
    type: Literal["function", "custom"]
    function: FunctionCall | None = None
    custom: CustomCall | None = None


class SystemMessage(Struct, tag="system", tag_field="role", omit_defaults=True):
    content: str | Parts
    name: str | None = None


class DeveloperMessage(Struct, tag="developer", tag_field="role", omit_defaults=True):
    content: str | Parts
    name: str | None = None


class UserMessage(Struct, tag="user", tag_field="role", omit_defaults=True):
    content: str | UserParts | None = None  # OpenAI accepts a user message without content
    name: str | None = None


class AssistantMessage(Struct, tag="assistant", tag_field="role", omit_defaults=True):
    """A former turn. `reasoning_content` and `reasoning` are conventions of reasoning hosts, not OpenAI's."""

    content: str | AssistantParts | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: FunctionCall | None = None
    audio: JSONObject | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class ToolMessage(Struct, tag="tool", tag_field="role", omit_defaults=True):
    content: str | Parts
    tool_call_id: str


class FunctionMessage(Struct, tag="function", tag_field="role", omit_defaults=True):
    name: str
    content: str | None = None


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage


class FunctionSpec(Struct, omit_defaults=True):
    name: Name
    description: str | None = None
    parameters: JSONObject | None = None
    strict: bool | None = None


class FunctionTool(Struct, tag="function", tag_field="type"):
    function: FunctionSpec


class FreeText(Struct, tag="text", tag_field="type"):
    pass


class Grammar(Struct):
    syntax: Literal["lark", "regex"]
    definition: str


class GrammarText(Struct, tag="grammar", tag_field="type"):
    grammar: Grammar


class CustomSpec(Struct, omit_defaults=True):
    name: Name
    description: str | None = None
    format: FreeText | GrammarText | None = None


class CustomTool(Struct, tag="custom", tag_field="type"):
    custom: CustomSpec


class NamedFunction(Struct):
    name: str


class FunctionChoice(Struct, tag="function", tag_field="type"):
    function: NamedFunction


class CustomChoice(Struct, tag="custom", tag_field="type"):
    custom: NamedFunction


class AllowedTools(Struct):
    mode: Literal["auto", "required"]
    tools: list[JSONObject]


class AllowedToolsChoice(Struct, tag="allowed_tools", tag_field="type"):
    allowed_tools: AllowedTools


ToolChoice = Literal["none", "auto", "required", "any"] | FunctionChoice | CustomChoice | AllowedToolsChoice


class TextFormat(Struct, tag="text", tag_field="type"):
    pass


class JSONObjectFormat(Struct, tag="json_object", tag_field="type"):
    pass


class SchemaSpec(Struct, omit_defaults=True, rename={"schema": "schema"}):
    name: Name
    description: str | None = None
    schema: JSONObject | None = None
    strict: bool | None = None


class JSONSchemaFormat(Struct, tag="json_schema", tag_field="type"):
    json_schema: SchemaSpec


ResponseFormat = TextFormat | JSONObjectFormat | JSONSchemaFormat


class StreamOptions(Struct):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # accepted; we send no padding


class Prediction(Struct):
    type: Literal["content"]
    content: str | Parts


class AudioOutput(Struct):
    voice: str | JSONObject
    format: Literal["wav", "aac", "mp3", "flac", "opus", "pcm16"]


class ReasoningOptions(Struct):
    """OpenRouter's way to ask for reasoning. `exclude` leaves it out of the answer, not out of the work.

    Source: openrouter.ai/docs/use-cases/reasoning-tokens (seen 2026-11).
    """

    effort: Effort | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    exclude: bool | None = None
    enabled: bool | None = None


class ThinkingOptions(Struct):
    """The way of DeepSeek, Zhipu, Moonshot and Anthropic to ask for it."""

    type: Literal["enabled", "adaptive", "auto", "disabled"] | None = None
    budget_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None


Dollars = Annotated[float, Meta(ge=0)] | Annotated[str, Meta(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9})?$")]
ProviderNames = Annotated[list[Annotated[str, Meta(min_length=1, max_length=64)]], Meta(max_length=32)]


class PriceLimit(Struct):
    """The most that a caller will pay: dollars per million tokens, as a number or a string."""

    prompt: Dollars | None = None
    completion: Dollars | None = None


class ProviderOptions(Struct):
    """OpenRouter's way to say which providers may answer, and in which order.

    Source: openrouter.ai/docs/features/provider-routing (seen 2026-11).
    """

    order: ProviderNames | None = None
    only: ProviderNames | None = None
    ignore: ProviderNames | None = None
    allow_fallbacks: bool | None = None
    sort: Literal["price", "throughput", "latency"] | None = None
    max_price: PriceLimit | None = None


class Approximate(Struct):
    city: str | None = None
    country: str | None = None
    region: str | None = None
    timezone: str | None = None


class UserLocation(Struct):
    type: Literal["approximate"]
    approximate: Approximate


class WebSearchOptions(Struct):
    search_context_size: Literal["low", "medium", "high"] | None = None
    user_location: UserLocation | None = None


class PromptCacheOptions(Struct, forbid_unknown_fields=True):
    mode: Literal["implicit", "explicit"] | None = None
    ttl: str | None = None


class ModerationMode(Struct):
    mode: Literal["score", "block"] | None = None


class ModerationPolicy(Struct):
    input: ModerationMode | None = None
    output: ModerationMode | None = None


class Moderation(Struct):
    model: str
    policy: ModerationPolicy | None = None


class ChatRequest(Struct):
    """The body of `POST /v1/chat/completions`. `None` is "absent" everywhere: the schema admits null.

    `reasoning`, `thinking` and `include_reasoning` are conventions of other hosts, beside OpenAI's `reasoning_effort`.
    `models` and `provider` are OpenRouter's: further models to take if the first does not answer, and who may serve.
    """

    model: Annotated[str, Meta(min_length=1)]
    messages: Annotated[list[Message], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: str | Annotated[list[str], Meta(min_length=1, max_length=4)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[int, Meta(ge=-100, le=100)]] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    tools: Annotated[list[FunctionTool | CustomTool], Meta(max_length=128)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[FunctionSpec], Meta(min_length=1, max_length=128)] | None = None
    function_call: Literal["none", "auto"] | NamedFunction | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Effort | None = None
    reasoning: ReasoningOptions | None = None
    thinking: ThinkingOptions | None = None
    include_reasoning: bool | None = None
    verbosity: Verbosity | None = None
    modalities: list[Literal["text", "audio"]] | None = None
    audio: AudioOutput | None = None
    prediction: Prediction | None = None
    service_tier: ServiceTier | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: Annotated[str, Meta(max_length=128)] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    web_search_options: WebSearchOptions | None = None
    prompt_cache_options: PromptCacheOptions | None = None
    moderation: Moderation | None = None
    models: Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(max_length=8)] | None = None
    provider: ProviderOptions | None = None


class PlainSystemMessage(SystemMessage):
    content: str
    name: None = None


class PlainUserMessage(UserMessage):
    content: str
    name: None = None


class PlainAssistantMessage(AssistantMessage):
    content: str
    name: None = None
    refusal: None = None
    tool_calls: None = None
    function_call: None = None
    audio: None = None
    reasoning_content: None = None
    reasoning: None = None


PlainMessage = PlainSystemMessage | PlainUserMessage | PlainAssistantMessage


class Names(Struct):
    """What a body says of models, whatever else it says."""

    model: str | None = None
    models: list[str] | None = None


class PlainChat(ChatRequest, kw_only=True):
    """A request as most are: messages of text, and no field with a rule of its own but `stream_options`.

    Nothing marks it on the wire. A body that decodes as this type is known to need no rewriting and next to no checks,
    so decoding it, in C, takes the place of looking at every message and field several times. Where a field is `None`
    here, the caller left it out or sent null.
    """

    messages: Annotated[list[PlainMessage], Meta(min_length=1)]  # type: ignore[assignment]  # never added to
    n: Literal[1] | None = None
    stop: None = None
    presence_penalty: None = None
    frequency_penalty: None = None
    logit_bias: None = None
    logprobs: None = None
    top_logprobs: None = None
    seed: None = None
    tools: None = None
    tool_choice: None = None
    parallel_tool_calls: None = None
    functions: None = None
    function_call: None = None
    response_format: None = None
    reasoning_effort: None = None
    reasoning: None = None
    thinking: None = None
    include_reasoning: None = None
    modalities: None = None
    audio: None = None
    metadata: None = None
    web_search_options: None = None
    prompt_cache_options: None = None
    moderation: None = None
    models: None = None
    provider: None = None


class BareSystemMessage(PlainSystemMessage, forbid_unknown_fields=True):
    pass


class BareUserMessage(PlainUserMessage, forbid_unknown_fields=True):
    pass


class BareAssistantMessage(PlainAssistantMessage, forbid_unknown_fields=True):
    pass


class BareStreamOptions(StreamOptions, forbid_unknown_fields=True):
    pass


class BareChat(PlainChat, kw_only=True, forbid_unknown_fields=True):
    """A plain request in which the caller's own words are nowhere but in the texts of its messages.

    There are only fields that we know, and their values are numbers, truth values, null or words from a list. Of the
    others that a plain request may have these are left out: `prediction`, which is of the prompt, `user` and
    `safety_identifier`, which are of a person, and `prompt_cache_key`, which may be any text. A model's name is none:
    it has no spaces, and is kept with each request that is served.
    """

    model: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:/@+-]{1,96}$")]
    messages: Annotated[list[BareSystemMessage | BareUserMessage | BareAssistantMessage], Meta(min_length=1)]  # type: ignore[assignment]
    stream_options: BareStreamOptions | None = None
    prediction: None = None
    user: None = None
    safety_identifier: None = None
    prompt_cache_key: None = None


# --- the reply -------------------------------------------------------------------------------------------------

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class PromptDetails(Struct):
    """`cache_write_tokens` is there only where a provider counts what it put into a cache, which has its own price."""

    cached_tokens: int = 0
    audio_tokens: int = 0
    cache_write_tokens: int | UnsetType = UNSET


class CompletionDetails(Struct):
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class Usage(Struct):
    """Cached tokens are inside `prompt_tokens`, reasoning tokens inside `completion_tokens`.

    `cost` is what the call cost the caller, in dollars, and `cost_details` what is in it: OpenRouter's fields
    (openrouter.ai/docs, usage accounting, seen 2026-11), as JSON that who settles the bill has rendered.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails
    cost: Annotated[Raw, Meta(description="US dollars, exact.", extra_json_schema={"type": "number"})] | UnsetType = (
        UNSET
    )
    cost_details: Annotated[Raw, Meta(extra_json_schema={"type": "object"})] | UnsetType = UNSET
