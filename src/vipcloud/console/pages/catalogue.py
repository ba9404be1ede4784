"""Models, prices and limits as pages show them. Everything comes from the catalogue and the settings."""

from collections.abc import Mapping
from dataclasses import dataclass

from vipcloud.providers.models import Catalog, Model
from vipcloud.settings import TierSettings

TIER_NAMES = {"demo": "Demo, no key", "payg": "Pay as you go", "pro": "Pro", "enterprise": "Enterprise"}


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One line of the model table. Prices in pico-dollars per token, None where there is none."""

    id: str
    name: str
    provider: str
    status: str
    notes: str
    context_tokens: int
    output_tokens_max: int
    abilities: tuple[str, ...]
    input: int | None
    output: int | None
    cached_input: int | None

    @property
    def state(self) -> str:
        """The shape of its status."""
        return "off" if self.status == "soon" else "ok"


def rows(catalog: Catalog, now_s: float) -> list[ModelRow]:
    """All models, with the prices in force."""
    return [row(model, now_s) for model in catalog.models.values()]


def row(model: Model, now_s: float) -> ModelRow:
    price = model.prices.at(now_s) if model.prices is not None else None
    return ModelRow(
        id=model.id,
        name=model.name,
        provider=model.provider_name,
        status=model.status,
        notes=model.notes,
        context_tokens=model.context_tokens,
        output_tokens_max=model.output_tokens_max,
        abilities=abilities(model),
        input=None if price is None else price.input,
        output=None if price is None else price.output,
        cached_input=None if price is None else price.cached_input,
    )


def abilities(model: Model) -> tuple[str, ...]:
    """What it is sold with, in words."""
    able = model.capabilities
    words = {
        "tools": able.tools,
        "JSON mode": able.json_object,
        "structured output": able.json_schema,
        "images": able.vision,
        "reasoning": able.reasoning,
    }
    return tuple(word for word, can in words.items() if can)


@dataclass(frozen=True, slots=True)
class TierRow:
    name: str
    per_minute: str
    per_day: str
    at_once: str


def tiers(settings: Mapping[str, TierSettings]) -> list[TierRow]:
    """The tiers of accounts, as the settings have them."""
    return [
        TierRow(TIER_NAMES.get(name, name.capitalize()), *map(_limit, (tier.rpm, tier.rpd, tier.concurrency)))
        for name, tier in settings.items()
        if name != "demo"
    ]


def _limit(number: int) -> str:
    return f"{number:,}" if number else "no limit"
