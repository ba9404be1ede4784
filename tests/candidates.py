"""Candidates that differ from those of the catalogue."""

from vipcloud.providers.models import Candidate

_GIVEN = (
    "provider",
    "upstream_model",
    "chat_path",
    "extra",
    "costs",
    "output_tokens_max",
    "first_byte_s",
    "quirks",
    "reasoning",
)


def varied(candidate: Candidate, **changed: object) -> Candidate:
    """The same, but for what is `changed`; what follows from that follows."""
    given: dict[str, object] = {name: getattr(candidate, name) for name in _GIVEN}
    return Candidate(**(given | changed))  # type: ignore[arg-type]
