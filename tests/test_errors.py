"""One envelope for every error, as a body and as an event, with the headers that tell a client when to come back."""

import json

import pytest

from vipcloud import errors
from vipcloud.errors import (
    GatewayError,
    MethodNotAllowed,
    ModelNotFound,
    RateLimited,
    Unauthenticated,
    UnsupportedMediaType,
    shorten,
)

KINDS = errors.documented()


def made(kind: type[GatewayError]) -> GatewayError:
    if kind is MethodNotAllowed:
        return MethodNotAllowed("No.", "GET")
    if kind.type == "idempotency_error":
        return kind("No.", request_id="req_1")
    return ModelNotFound("x") if kind is ModelNotFound else kind("No.")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_renders_the_same_envelope_in_both_forms(kind: type[GatewayError]) -> None:
    error = made(kind)
    body = json.loads(error.body())
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    assert (body["error"]["type"], body["error"]["code"]) == (kind.type, kind.code)
    assert error.event() == b"data: " + error.body() + b"\n\n"
    assert 400 <= kind.status < 600


def test_every_class_is_documented_and_drawn_in_the_tree() -> None:
    tree = errors.__doc__ or ""
    for kind in KINDS:
        assert f"{kind.__name__} " in tree, kind
        assert f"{kind.status}  {kind.code}" in tree, kind


def test_codes_name_one_error_each() -> None:
    codes = [kind.code for kind in KINDS]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize(("seconds", "told"), [(0, "1"), (0.2, "1"), (1, "1"), (1.01, "2"), (59.5, "60")])
def test_retry_after_is_whole_seconds_and_never_zero(seconds: float, told: str) -> None:
    assert RateLimited("Wait.", retry_after_s=seconds).headers() == [("retry-after", told)]


def test_errors_that_a_retry_cannot_mend_say_so() -> None:
    final = {kind.code for kind in KINDS if ("x-should-retry", "false") in made(kind).headers()}
    assert {"invalid_api_key", "insufficient_credit", "not_implemented"} <= final
    assert not {"rate_limited", "upstream_error", "service_unavailable"} & final


def test_a_401_says_how_keys_are_sent() -> None:
    assert ("www-authenticate", 'Bearer realm="vipcloud"') in Unauthenticated("No.").headers()


@pytest.mark.parametrize(("encoded", "told"), [(True, ["identity"]), (False, [])])
def test_a_415_names_the_encodings_only_where_the_encoding_is_at_fault(encoded: bool, told: list[str]) -> None:
    headers = UnsupportedMediaType("No.", encoded=encoded).headers()
    assert [value for name, value in headers if name == "accept-encoding"] == told


def test_a_long_text_is_cut_for_a_message() -> None:
    assert (shorten("x" * 128), len(shorten("x" * 129)), shorten("x" * 129)[-1]) == ("x" * 128, 128, "…")
    assert len(ModelNotFound("x" * 10_000).message) < 250
