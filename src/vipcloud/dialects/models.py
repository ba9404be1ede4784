"""`GET /v1/models` and `GET /v1/models/{id}` as OpenAI writes them, with the extras that model pickers read.

OpenAI's four fields come first (schema `Model` of openai/openai-openapi, seen 2026-08-21); `name`, `description`,
`context_length`, `architecture`, `pricing`, `top_provider` and what follows have OpenRouter's names and shapes, those
included that its SDK insists on and that say nothing here; `status` is ours. There is one page and no pagination: both
SDKs read `data` and ask for no more. What a row says is the business of `providers.abilities`.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec
from msgspec import Struct

from vipcloud.money import PicoUSDPerToken

_DOLLAR_DECIMALS = 12  # a pico-dollar is the twelfth

_encode = msgspec.json.Encoder().encode


class ModelEntry(Struct, frozen=True, kw_only=True):
    """One row of the list. `created` is seconds since 1970; prices are None where a model has none yet.

    What tokens from or into a cache cost is told only where it is something else than `price_input`.
    """

    id: str
    created: int
    owned_by: str
    name: str
    status: Literal["live", "free", "soon"]
    description: str
    context_tokens: int
    output_tokens_max: int
    input_modalities: tuple[str, ...]
    output_modalities: tuple[str, ...]
    supported_parameters: tuple[str, ...]
    price_input: PicoUSDPerToken | None = None
    price_output: PicoUSDPerToken | None = None
    price_cached_input: PicoUSDPerToken | None = None
    price_cache_write: PicoUSDPerToken | None = None


class Architecture(Struct):
    modality: str
    input_modalities: tuple[str, ...]
    output_modalities: tuple[str, ...]


class Pricing(Struct, omit_defaults=True):
    """US dollars per token at this moment, as decimal text."""

    prompt: str
    completion: str
    input_cache_read: str | None = None
    input_cache_write: str | None = None


class TopProvider(Struct):
    context_length: int
    max_completion_tokens: int
    is_moderated: bool = False


class ModelLinks(Struct):
    details: str


class ModelObject(Struct):
    """The wire form; fields stand in the order in which they are written."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    name: str
    status: str
    description: str
    context_length: int
    architecture: Architecture
    pricing: Pricing | None
    top_provider: TopProvider
    supported_parameters: tuple[str, ...]
    canonical_slug: str
    links: ModelLinks
    default_parameters: None = None
    per_request_limits: None = None
    supported_voices: None = None


class ListLinks(Struct):
    next: None = None


class ModelList(Struct):
    """All of them: there is one page."""

    object: Literal["list"]
    data: list[ModelObject]
    total_count: int
    links: ListLinks


def list_body(entries: Iterable[ModelEntry]) -> bytes:
    """The JSON of `GET /v1/models`, rows in the order given."""
    rows = [_model(entry) for entry in entries]
    return _encode(ModelList("list", rows, len(rows), ListLinks()))


def model_body(entry: ModelEntry) -> bytes:
    """The JSON of `GET /v1/models/{id}`."""
    return _encode(_model(entry))


def usd_per_token(price: PicoUSDPerToken) -> str:
    """Dollars for one token, exact and never in exponents: `310_000` → `"0.00000031"`."""
    whole, fraction = divmod(price, 10**_DOLLAR_DECIMALS)
    return f"{whole}.{fraction:0{_DOLLAR_DECIMALS}d}".rstrip("0").rstrip(".")


def _model(entry: ModelEntry) -> ModelObject:
    pricing = None
    if entry.price_input is not None and entry.price_output is not None:
        pricing = Pricing(
            prompt=usd_per_token(entry.price_input),
            completion=usd_per_token(entry.price_output),
            input_cache_read=_if_other(entry.price_cached_input, entry.price_input),
            input_cache_write=_if_other(entry.price_cache_write, entry.price_input),
        )
    return ModelObject(
        id=entry.id,
        object="model",
        created=entry.created,
        owned_by=entry.owned_by,
        name=entry.name,
        status=entry.status,
        description=entry.description,
        context_length=entry.context_tokens,
        architecture=Architecture(
            f"{'+'.join(entry.input_modalities)}->{'+'.join(entry.output_modalities)}",
            entry.input_modalities,
            entry.output_modalities,
        ),
        pricing=pricing,
        top_provider=TopProvider(entry.context_tokens, entry.output_tokens_max),
        supported_parameters=entry.supported_parameters,
        canonical_slug=entry.id,
        links=ModelLinks(f"/v1/models/{entry.id}"),
    )


def _if_other(price: PicoUSDPerToken | None, usual: PicoUSDPerToken) -> str | None:
    return None if price is None or price == usual else usd_per_token(price)
