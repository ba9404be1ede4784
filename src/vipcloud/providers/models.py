"""Providers, candidates and models as the rest of the house sees them: what `catalog` makes of its rows.

Values: nothing of them changes once they are made. They compare by identity; two loads of the catalogue make two of
each. What follows from the rest, and is asked for in every call, is worked out once and kept beside it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from vipcloud.errors import ModelNotFound, NotImplementedYet
from vipcloud.providers.catalog_rows import Balance, Capabilities, ErrorRule, Quirks, Status
from vipcloud.providers.prices import Calendar, PriceBook

_encode: Final = msgspec.json.Encoder().encode


class Provider:
    """A company we call.

    `regions` are all its addresses by a name for people: keys of one are refused at the others.
    One that has a `continue_field` goes on with an answer whose beginning is the last message, marked with it, at
    `continue_path`.
    """

    def __init__(
        self,
        *,
        id: str,  # noqa: A002
        name: str,
        ready: bool,
        base_url: str,
        chat_path: str,
        key_env: str,
        auth: str,  # a catalog_rows.Auth
        headers: Mapping[str, str],
        first_byte_s: float,
        limits_per: str,  # account or model
        code_in_message: bool,
        continue_field: str | None,
        continue_path: str,
        quirks: Quirks,
        errors: tuple[ErrorRule, ...],
        regions: Mapping[str, str],
        balance: Balance | None,
    ) -> None:
        self.id: Final = id
        self.name: Final = name
        self.ready: Final = ready
        self.base_url: Final = base_url
        self.chat_path: Final = chat_path
        self.key_env: Final = key_env
        self.auth: Final = auth
        self.headers: Final = headers
        self.first_byte_s: Final = first_byte_s
        self.limits_per: Final = limits_per
        self.code_in_message: Final = code_in_message
        self.continue_field: Final = continue_field
        self.continue_path: Final = continue_path
        self.quirks: Final = quirks
        self.errors: Final = errors
        self.regions: Final = regions
        self.balance: Final = balance

    def with_auth(self, auth: str) -> "Provider":
        """The same, called by another scheme."""
        return Provider(
            id=self.id,
            name=self.name,
            ready=self.ready,
            base_url=self.base_url,
            chat_path=self.chat_path,
            key_env=self.key_env,
            auth=auth,
            headers=self.headers,
            first_byte_s=self.first_byte_s,
            limits_per=self.limits_per,
            code_in_message=self.code_in_message,
            continue_field=self.continue_field,
            continue_path=self.continue_path,
            quirks=self.quirks,
            errors=self.errors,
            regions=self.regions,
            balance=self.balance,
        )


class Candidate:
    """A model at an upstream that could serve a call. `output_tokens_max` holds for what we sell and for the upstream.

    `extra` are fields of the upstream's body beside those translated; `first_byte_s` is how long the first byte may
    take, reasoning included. `reasoning`: its model is sold with reasoning, so that a caller may turn it on, off, up or
    down.

    Of a body, `body_head` is the beginning up to the messages, and `body_tail` the end, `extra` encoded;
    `thinking_tail` and `silent_tail` are the same with reasoning told on or off, `stream_fields` what asks for a
    stream. With `messages_stand` and `sampling_stands` a plain request's messages, and its ceiling, `temperature` and
    `top_p`, are sent as they came.
    """

    def __init__(
        self,
        *,
        provider: Provider,
        upstream_model: str,
        chat_path: str,
        extra: dict[str, Any],
        costs: PriceBook,
        output_tokens_max: int,
        first_byte_s: float,
        quirks: Quirks,
        reasoning: bool,
    ) -> None:
        self.provider: Final = provider
        self.upstream_model: Final = upstream_model
        self.chat_path: Final = chat_path
        self.extra: Final = extra
        self.costs: Final = costs
        self.output_tokens_max: Final = output_tokens_max
        self.first_byte_s: Final = first_byte_s
        self.quirks: Final = quirks
        self.reasoning: Final = reasoning
        self.body_head: Final = b'{"model":%b,"messages":' % _encode(upstream_model)
        self.body_tail: Final = _tail(extra)
        self.thinking_tail: Final = _tail(extra | quirks.thinking_on)
        self.silent_tail: Final = _tail(extra | quirks.thinking_off)
        option = b',"stream_options":{"include_usage":true}' if quirks.usage_option else b""
        self.stream_fields: Final = b',"stream":true' + option
        self.ceiling_field: Final = quirks.ceiling_field.encode()
        self.user_field: Final = None if quirks.user_field is None else quirks.user_field.encode()
        self.takes_request_id: Final = quirks.request_id
        self.inline_thinking: Final = quirks.inline_thinking
        self.messages_stand: Final = not quirks.system_first
        self.sampling_stands: Final = (
            quirks.temperature_range is None
            and quirks.temperature_zero == "pass"
            and quirks.top_p_range is None
            and quirks.sampling_decimals is None
            and not {"temperature", "top_p"} & quirks.drop
        )

    @property
    def id(self) -> str:
        """A name for logs, metrics and health: `zhipu/glm-4-plus`."""
        return f"{self.provider.id}/{self.upstream_model}"

    @property
    def continues(self) -> bool:
        """Whether it can go on with an answer that another upstream has begun."""
        return self.provider.continue_field is not None and not self.quirks.thinking

    @property
    def caches_prompts(self) -> bool:
        """Whether a prompt that was sent before costs less: then a conversation had better stay at its account."""
        return any(price.cached_input < price.input for price in self.costs.prices)


class Model:
    """What a customer names. `candidates` stand in order of preference; empty only where the status is `soon`.

    `listed` are those and the ones on providers that are not ready, in the catalogue's order: nothing is sent to these.
    `on_sale`: it can be called at all; `takes_plain`: every candidate can serve any `PlainChat`.
    """

    def __init__(
        self,
        *,
        id: str,  # noqa: A002
        name: str,
        owned_by: str,
        provider_name: str,
        status: Status,
        notes: str,
        created: int,
        context_tokens: int,
        output_tokens_max: int,
        capabilities: Capabilities,
        prices: PriceBook | None,
        alias_of: str | None,
        candidates: tuple[Candidate, ...],
        listed: tuple[Candidate, ...],
    ) -> None:
        self.id: Final = id
        self.id_json: Final = _encode(id)
        self.name: Final = name
        self.owned_by: Final = owned_by
        self.provider_name: Final = provider_name
        self.status: Final = status
        self.notes: Final = notes
        self.created: Final = created
        self.context_tokens: Final = context_tokens
        self.output_tokens_max: Final = output_tokens_max
        self.capabilities: Final = capabilities
        self.prices: Final = prices
        self.alias_of: Final = alias_of
        self.candidates: Final = candidates
        self.listed: Final = listed
        self.on_sale: Final = status != "soon" and prices is not None
        self.takes_plain: Final = not any(candidate.quirks.user_message_required for candidate in candidates)


class Catalog:
    """All models, providers and calendars, in the file's order."""

    def __init__(
        self, models: dict[str, Model], providers: dict[str, Provider], calendars: dict[str, Calendar]
    ) -> None:
        self._models: Final = models
        self.models: Final[Mapping[str, Model]] = MappingProxyType(models)
        self.providers: Final[Mapping[str, Provider]] = MappingProxyType(providers)
        self.calendars: Final[Mapping[str, Calendar]] = MappingProxyType(calendars)

    def model(self, model_id: str) -> Model:
        """The model to call. Raises ModelNotFound, and NotImplementedYet where it is announced only or has no price."""
        model = self._models.get(model_id)
        if model is None:
            raise ModelNotFound(model_id)
        if model.on_sale:
            return model
        if model.status == "soon":
            raise NotImplementedYet(
                f"The model '{model_id}' is announced and not switched on yet; GET /v1/models shows its status.",
                param="model",
            )
        raise NotImplementedYet(f"The model '{model_id}' has no price yet and cannot be called.", param="model")


def _tail(extra: dict[str, Any]) -> bytes:
    """The end of a body, with `extra` in it."""
    return b"," + msgspec.json.encode(extra)[1:] if extra else b"}"
