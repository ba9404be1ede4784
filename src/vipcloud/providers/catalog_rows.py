"""What the catalogue's file says of providers and models, as types for msgspec; what comes of it is `models`."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from vipcloud.dialects.openai import Effort
from vipcloud.providers.price_rows import PriceRow

Status = Literal["live", "free", "soon"]
Auth = Literal["bearer", "jwt"]
Choice = Literal["none", "auto", "required", "named"]
Droppable = Literal[
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "logit_bias",
    "parallel_tool_calls",
]
Inert = Literal["temperature", "top_p", "presence_penalty", "frequency_penalty"]
NotThinking = Literal["required", "named", "logprobs", "json"]
Vocabulary = Literal["deepseek", "qwen", "qwen3.5"]
FailureKind = Literal[
    "rate_limited",
    "quota_exhausted",
    "overloaded",
    "auth",
    "token_expired",
    "arrears",
    "no_access",
    "stale_mapping",
    "duplicate_request",
    "bad_request",
    "context_length",
    "content_filter",
    "output_filtered",  # as `content_filter`, and what a stream has said before stands
    "server_error",
    "timeout",
    "malformed",
]

Text = Annotated[str, Meta(min_length=1)]
Tokens = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Seconds = Annotated[float, Meta(gt=0)]
URLPath = Annotated[str, Meta(pattern=r"^/[^\s]+$")]
BaseURL = Annotated[str, Meta(pattern=r"^https?://[^/\s]+(/[^\s]*[^/\s])?$")]


class Quirks(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an upstream differs from OpenAI's chat completions. The defaults describe one that does not."""

    vision: bool = False  # takes images
    logprobs: bool = False
    thinking: bool = False  # reasons before it answers, unless told not to
    thinking_on: dict[str, Any] = {}  # what tells it to reason; a model sold without reasoning is never told
    thinking_off: dict[str, Any] = {}  # what tells it not to
    thinking_budget: bool = False  # takes `thinking_budget`, the most tokens of reasoning
    thinking_excludes: frozenset[NotThinking] = frozenset()  # what it cannot do while it reasons; "json": reasons not
    reasoning_efforts: dict[Effort, str] = {}  # OpenAI's word → the upstream's; one that is not here is not sent
    replay_reasoning: Literal["never", "given", "always"] = "never"  # `reasoning_content` of former turns, "" for none
    choices_max: Annotated[int, Meta(ge=1, le=128)] = 1  # `n`
    choices_with_tools: bool = True  # takes `n` above 1 together with tools
    json_object: Literal["native", "emulate"] = "native"
    json_schema: Literal["native", "emulate"] = "emulate"
    json_word: bool = False  # JSON mode needs the word "json" in the messages
    json_all_required: bool = False  # takes a schema for the answer only if it requires every property
    schema_subset: bool = (
        False  # schemas without references, bounds, patterns and mixed enums; a type on every property
    )
    tool_choice: frozenset[Choice] = frozenset({"none", "auto", "required", "named"})
    tool_names_reserved: frozenset[str] = frozenset()  # refused as names of tools; sent under another and renamed back
    tools_repeat: bool = True  # takes two tools of one name; else the first is sent
    parallel_said: bool = False  # `parallel_tool_calls` is sent with tools even where the caller left it out
    arguments_valid: bool = False  # refuses former calls whose arguments are not JSON
    temperature_range: tuple[float, float] | None = None  # clamped into it
    temperature_zero: Literal["pass", "greedy"] = "pass"  # greedy: `do_sample: false`
    top_p_range: tuple[float, float] | None = None
    sampling_decimals: Annotated[int, Meta(ge=0, le=6)] | None = None
    seed_bits: Annotated[int, Meta(ge=1, le=63)] | None = None  # only the lowest of a seed's bits are sent
    stop_max: Annotated[int, Meta(ge=0)] = 4  # the gateway looks for the others itself
    stop_bytes_max: Annotated[int, Meta(ge=1)] | None = None  # and for longer ones
    drop: frozenset[Droppable] = frozenset()
    inert: frozenset[Inert] = frozenset()  # taken without a complaint and without effect: sent, and not advertised
    ceiling_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    user_field: Literal["user_id", "safety_identifier"] | None = None  # takes a pseudonym of 34 of [A-Za-z0-9_-]
    request_id: bool = False  # takes `request_id`, fresh per attempt
    usage_option: bool = True  # needs `stream_options.include_usage`
    image_data_bare: bool = False  # images as base64 without the `data:` prefix
    text_parts: bool = True  # takes text as an array of parts; else it is sent as one string
    empty_text: bool = True  # takes an empty text part, and "" beside tool calls
    message_names: bool = True  # takes `name` on messages
    system_first: bool = False  # takes one system message, the first of all: all are joined to it
    user_message_required: bool = False  # refuses a conversation of system and assistant messages alone
    vocabulary: Vocabulary = "qwen"  # nearest to the model's own; for counts where the upstream gives none
    vocabulary_factor: Annotated[float, Meta(ge=0.25, le=4)] = 1.0  # the model's tokens for one of that vocabulary
    inline_thinking: bool = False  # puts `<think>…</think>` before the text
    call_ids_repeat: bool = False  # its ids of tool calls are unique in one answer only; clients see ours instead


ORDINARY = Quirks()


class ErrorRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All conditions given must hold; `contains` ignores case, and a code may end with `*`. At least one condition is
    given. `until_tomorrow`: what is used up comes back at the provider's midnight, where the answer says nothing else.
    """

    kind: FailureKind
    status: Annotated[int, Meta(ge=100, le=599)] | None = None
    codes: frozenset[str] = frozenset()
    type: str | None = None
    contains: str | None = None
    auth: Auth | None = None  # holds only while the provider is called with this scheme
    until_tomorrow: bool = False


class Capabilities(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the model is sold with."""

    tools: bool = False
    json_object: bool = False
    json_schema: bool = False
    vision: bool = False
    reasoning: bool = False
    logprobs: bool = False


class Balance(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a provider tells an account's balance, below its address, and where in the answer it stands."""

    path: URLPath
    amount: tuple[str | int, ...]
    currency: tuple[str | int, ...] = ()


class ProviderRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Text
    base_url: BaseURL
    chat_path: URLPath
    key_env: Annotated[str, Meta(pattern=r"^[A-Z][A-Z0-9_]*$")]
    first_byte_s: Seconds
    limits_per: Literal["account", "model"]
    ready: bool = False
    auth: Auth = "bearer"
    code_in_message: bool = False
    continue_field: Literal["prefix", "partial"] | None = None
    continue_path: Annotated[str, Meta(pattern=r"^(/[^\s]+)?$")] = ""
    headers: dict[str, str] = {}
    quirks: dict[str, Any] = {}
    errors: tuple[ErrorRule, ...] = ()
    regions: dict[str, BaseURL] = {}
    balance: Balance | None = None


class CandidateRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    provider: Text
    model: Text
    cost: PriceRow | tuple[PriceRow, ...]
    extra: dict[str, Any] = {}
    chat_path: URLPath | None = None
    output_tokens_max: Tokens | None = None
    first_byte_s: Seconds | None = None
    quirks: dict[str, Any] = {}


class ModelRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Text
    provider: Text
    owned_by: Text
    status: Status
    notes: str
    created: Annotated[int, Meta(ge=0)]
    context_tokens: Tokens
    output_tokens_max: Tokens
    capabilities: Capabilities = Capabilities()
    price: PriceRow | tuple[PriceRow, ...] | None = None
    alias_of: str | None = None
    candidates: tuple[CandidateRow, ...] = ()
