"""Every error a caller can see, with its wire form. Rendering happens here and nowhere else.

    GatewayError
    ├── BadRequest                 400  bad_request
    │   ├── ContextLengthExceeded  400  context_length_exceeded
    │   └── ContentFiltered        400  content_filter
    ├── Unauthenticated            401  invalid_api_key
    ├── InsufficientCredit         402  insufficient_credit
    │   └── BudgetExceeded         402  budget_exceeded
    ├── Forbidden                  403  forbidden
    ├── ModelNotFound              404  model_not_found
    ├── NoProviderAllowed          404  no_provider_allowed
    ├── RouteNotFound              404  not_found
    ├── GenerationNotFound         404  generation_not_found
    ├── KeyNotFound                404  key_not_found
    ├── MethodNotAllowed           405  method_not_allowed
    ├── RequestTimeout             408  request_timeout
    ├── RequestInProgress          409  request_in_progress
    ├── AlreadyAnswered            409  already_answered
    ├── RequestTooLarge            413  request_too_large
    ├── TargetTooLong              414  target_too_long
    ├── UnsupportedMediaType       415  unsupported_media_type
    ├── ExpectationFailed          417  expectation_failed
    ├── IdempotencyKeyReused       422  idempotency_key_reused
    ├── RateLimited                429  rate_limited
    ├── HeadTooLarge               431  head_too_large
    ├── InternalError              500  internal_error
    ├── NotImplementedYet          501  not_implemented
    ├── MethodUnknown              501  method_unknown
    ├── UpstreamFailed             502  upstream_error
    │   ├── StructuredOutputFailed 502  structured_output_failed
    │   ├── UpstreamInterrupted    502  upstream_interrupted
    │   └── UpstreamTimeout        504  upstream_timeout
    ├── VersionNotSupported        505  version_not_supported
    └── Unavailable                503  service_unavailable
        ├── NoUpstream             503  no_upstream
        └── Overloaded             503  overloaded

`SettingsError` stands apart: it stops the process at start and never reaches a caller.

The envelope is OpenAI's: `{"error": {"message", "type", "param", "code"}}`, all four keys always there
(OpenAI's openapi.json, schema `ErrorResponse`). Before the first byte of an answer an error is a status;
after it, an event of the same shape (`event`).
"""

import math
from typing import ClassVar

import msgspec

_encode = msgspec.json.Encoder().encode


class SettingsError(Exception):
    """A setting is wrong. The text names the setting and says what would be right."""


class GatewayError(Exception):
    """What a caller is told. `message` is for people; `code` is for programs."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    meaning: ClassVar[str] = ""
    retryable: bool | None = None  # None: the SDK's own rule by status; else sent as `x-should-retry`

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    def body(self) -> bytes:
        """The JSON envelope."""
        return _encode({"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}})

    def event(self) -> bytes:
        """The same envelope as a server-sent event, for a stream that has begun."""
        return b"data: " + self.body() + b"\n\n"

    def headers(self) -> list[tuple[str, str]]:
        """Headers beside `content-type`. Retry-After is whole seconds, at least 1: SDKs ignore 0."""
        lines = []
        if self.retry_after_s is not None:
            lines.append(("retry-after", str(max(1, math.ceil(self.retry_after_s)))))
        if self.retryable is not None:
            lines.append(("x-should-retry", "true" if self.retryable else "false"))
        return lines


class BadRequest(GatewayError):
    status, type, code = 400, "invalid_request_error", "bad_request"
    meaning = "The body is not JSON, a required field is missing, or a field has a wrong type or value."


class ContextLengthExceeded(BadRequest):
    code = "context_length_exceeded"
    meaning = "The messages are longer than the model's context."


class ContentFiltered(BadRequest):
    code = "content_filter"
    meaning = "The provider's moderation refused the input or the output."


class Unauthenticated(GatewayError):
    status, type, code = 401, "invalid_request_error", "invalid_api_key"
    meaning = "The API key is missing, malformed, unknown or revoked; `WWW-Authenticate` says how keys are sent."
    retryable = False

    def headers(self) -> list[tuple[str, str]]:
        return [*super().headers(), ("www-authenticate", 'Bearer realm="vipcloud"')]  # RFC 9110 §15.5.2, RFC 6750 §3


class InsufficientCredit(GatewayError):
    status, type, code = 402, "insufficient_quota", "insufficient_credit"
    meaning = "The account's prepaid credit does not cover this request."
    retryable = False


class BudgetExceeded(InsufficientCredit):
    code = "budget_exceeded"
    meaning = "A spending limit that the account or the key was given (per day, per month, or in all) is used up."


class Forbidden(GatewayError):
    status, type, code = 403, "permission_error", "forbidden"
    meaning = "The key may not do this."
    retryable = False


class ModelNotFound(GatewayError):
    status, type, code = 404, "invalid_request_error", "model_not_found"
    meaning = "No model has this id, or the key may not use it."

    def __init__(self, model: str) -> None:
        super().__init__(f"The model '{shorten(model)}' does not exist or you do not have access to it.", param="model")


class NoProviderAllowed(GatewayError):
    status, type, code = 404, "invalid_request_error", "no_provider_allowed"
    meaning = "No provider that `provider` allows serves the model, or its price is above `provider.max_price`."

    def __init__(self, message: str) -> None:
        super().__init__(message, param="provider")


class RouteNotFound(GatewayError):
    status, type, code = 404, "invalid_request_error", "not_found"
    meaning = "No route has this path."


class MethodNotAllowed(GatewayError):
    status, type, code = 405, "invalid_request_error", "method_not_allowed"
    meaning = "The route exists, the method does not; `Allow` lists those that do."

    def __init__(self, message: str, allow: str) -> None:
        super().__init__(message)
        self.allow = allow

    def headers(self) -> list[tuple[str, str]]:
        return [*super().headers(), ("allow", self.allow)]


class GenerationNotFound(GatewayError):
    status, type, code = 404, "invalid_request_error", "generation_not_found"
    meaning = "You have no request with this id, or it has not ended yet."


class KeyNotFound(GatewayError):
    status, type, code = 404, "invalid_request_error", "key_not_found"
    meaning = "Your account has no key with this hash, or it manages keys itself."


class _KeyTaken(GatewayError):
    """An `Idempotency-Key` that cannot be used. `request_id` is of the request that has it, `charge_usd` its charge."""

    retryable = False  # SDKs would try a 409 again

    def __init__(self, message: str, request_id: str, charge_usd: str | None = None) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.charge_usd = charge_usd

    def headers(self) -> list[tuple[str, str]]:
        charge = [] if self.charge_usd is None else [("x-vipcloud-original-charge-usd", self.charge_usd)]
        return [*super().headers(), ("x-vipcloud-original-request-id", self.request_id), *charge]


class RequestInProgress(_KeyTaken):
    status, type, code = 409, "idempotency_error", "request_in_progress"
    meaning = "A request with this Idempotency-Key and body is running; a header tells its id."


class AlreadyAnswered(_KeyTaken):
    status, type, code = 409, "idempotency_error", "already_answered"
    meaning = (
        "The request with this Idempotency-Key and body was answered, and charged once; headers tell id and charge."
    )


class IdempotencyKeyReused(_KeyTaken):
    status, type, code = 422, "idempotency_error", "idempotency_key_reused"
    meaning = "This Idempotency-Key came with another body before."


class RequestTimeout(GatewayError):
    status, type, code = 408, "timeout_error", "request_timeout"
    meaning = "The request's head or body arrived too slowly."


class RequestTooLarge(GatewayError):
    status, type, code = 413, "invalid_request_error", "request_too_large"
    meaning = "The body is above the size limit."


class TargetTooLong(GatewayError):
    status, type, code = 414, "invalid_request_error", "target_too_long"
    meaning = "Request line and headers are above the size limit, mostly by the request's target: its path and query."


class UnsupportedMediaType(GatewayError):
    status, type, code = 415, "invalid_request_error", "unsupported_media_type"
    meaning = "The body is not plain `application/json`: another type, or encoded, and then `Accept-Encoding` is told."

    def __init__(self, message: str, *, encoded: bool = False) -> None:
        super().__init__(message)
        self.encoded = encoded

    def headers(self) -> list[tuple[str, str]]:
        # Its absence says that the type is at fault (RFC 9110 §12.5.3).
        return [*super().headers(), *([("accept-encoding", "identity")] if self.encoded else [])]


class ExpectationFailed(GatewayError):
    status, type, code = 417, "invalid_request_error", "expectation_failed"
    meaning = "`Expect` asks for something other than `100-continue`."


class RateLimited(GatewayError):
    status, type, code = 429, "rate_limit_error", "rate_limited"
    meaning = "A limit of the account is used up, or every upstream is throttled; `Retry-After` says when to come back."


class HeadTooLarge(GatewayError):
    status, type, code = 431, "invalid_request_error", "head_too_large"
    meaning = "Request line and headers are above the size limit."


class InternalError(GatewayError):
    meaning = "A fault of ours. The request id lets us find it."


class NotImplementedYet(GatewayError):
    status, type, code = 501, "invalid_request_error", "not_implemented"
    meaning = "The model is not switched on yet, or it cannot do what the request asks for."
    retryable = False


class MethodUnknown(GatewayError):
    status, type, code = 501, "invalid_request_error", "method_unknown"
    meaning = "No route has the request's method."
    retryable = False


class UpstreamFailed(GatewayError):
    status, type, code = 502, "upstream_error", "upstream_error"
    meaning = "The provider refused, failed or could not be reached. Retry with back-off."


class StructuredOutputFailed(UpstreamFailed):
    code = "structured_output_failed"
    meaning = "The model's answer was not of the form that `response_format` asks for, nor was its second. Not charged."
    retryable = False


class UpstreamInterrupted(UpstreamFailed):
    code = "upstream_interrupted"
    meaning = "The provider's stream broke off; what was delivered is charged. Sent as an event."


class UpstreamTimeout(UpstreamFailed):
    status, type, code = 504, "timeout_error", "upstream_timeout"
    meaning = "The provider took too long: to connect, to the first byte, between events, or in all."


class VersionNotSupported(GatewayError):
    status, type, code = 505, "invalid_request_error", "version_not_supported"
    meaning = "The request is neither HTTP/1.1 nor HTTP/1.0."
    retryable = False


class Unavailable(GatewayError):
    status, type, code = 503, "service_unavailable_error", "service_unavailable"
    meaning = "The gateway is starting, draining, or cannot reach its store. Retry after `Retry-After`, if it is there."


class NoUpstream(Unavailable):
    code = "no_upstream"
    meaning = "No upstream of the model can serve it at present. Retry after `Retry-After`."


class Overloaded(Unavailable):
    """Nothing was done yet, so that trying again is right, but at another moment than everybody else."""

    code = "overloaded"
    meaning = (
        "The gateway is at its limit and takes no new request of this tier for a moment. Retry after `Retry-After`."
    )
    retryable = True


def shorten(text: str, length_max: int = 128) -> str:
    """`text` cut for an error message, so that a caller's megabyte does not come back."""
    return text if len(text) <= length_max else text[: length_max - 1] + "…"


def documented() -> list[type[GatewayError]]:
    """Every class of the tree with a meaning, in order of status; the reference page lists these."""

    def below(kind: type[GatewayError]) -> list[type[GatewayError]]:
        return [kind, *(found for child in kind.__subclasses__() for found in below(child))]

    return sorted((kind for kind in below(GatewayError) if kind.meaning), key=lambda kind: (kind.status, kind.code))
