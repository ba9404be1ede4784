"""The public API as an OpenAPI 3.1 document, made from the types that serve it and from the tree of errors.

What is written here and nowhere else is which routes there are and what each is for; a test compares them with those
that the gateway serves. Schemas are the structs' own, and an error stands where its class says it can come.

Theory of operation. Errors of HTTP and of keys can come of every route (`ANYWHERE`), so every operation has them; to
these an operation adds its own. Statuses with several codes are one response, whose `code` is one of them. A stream's
events have no place in OpenAPI 3.1: its 200 names the schema of one event as `x-event-schema`.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Struct

from vipcloud import errors
from vipcloud.dialects import models, openai, openrouter, replies
from vipcloud.errors import GatewayError

TITLE = "vipcloud"
ABOUT = (
    "Chat completions of several providers' models in OpenAI's shapes, and what an account used, in OpenRouter's. "
    "Every answer has the header `x-request-id`."
)
SCHEMAS = "#/components/schemas/"
RESPONSES = "#/components/responses/"


class Error(Struct, forbid_unknown_fields=True):
    """`code` is for programs, `message` for people; `param` is the field of the request that is at fault."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorEnvelope(Struct, forbid_unknown_fields=True):
    """Every error, before the first byte of an answer or as the last event of a stream."""

    error: Error


class Parameter(NamedTuple):
    """Something of the path, the query or the headers; `schema` is a JSON schema."""

    name: str
    place: Literal["path", "query", "header"]
    schema: dict[str, Any]
    meaning: str
    required: bool = False


class Operation(NamedTuple):
    """A route. `path` has no `/v1`; `errors` are those beside `ANYWHERE`."""

    method: Literal["get", "post", "patch", "delete"]
    path: str
    name: str
    summary: str
    tag: str
    answer: type[Struct]
    body: type[Struct] | None = None
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[type[GatewayError], ...] = ()
    status: int = 200
    management: bool = False
    streams: bool = False


ANYWHERE: tuple[type[GatewayError], ...] = (
    errors.BadRequest,
    errors.Unauthenticated,
    errors.Forbidden,
    errors.RequestTimeout,
    errors.RequestTooLarge,
    errors.TargetTooLong,
    errors.UnsupportedMediaType,
    errors.ExpectationFailed,
    errors.HeadTooLarge,
    errors.InternalError,
    errors.Unavailable,
)
COMPLETION: tuple[type[GatewayError], ...] = (
    errors.ContextLengthExceeded,
    errors.ContentFiltered,
    errors.InsufficientCredit,
    errors.BudgetExceeded,
    errors.ModelNotFound,
    errors.NoProviderAllowed,
    errors.RequestInProgress,
    errors.AlreadyAnswered,
    errors.IdempotencyKeyReused,
    errors.RateLimited,
    errors.NotImplementedYet,
    errors.UpstreamFailed,
    errors.StructuredOutputFailed,
    errors.UpstreamInterrupted,
    errors.UpstreamTimeout,
    errors.NoUpstream,
    errors.Overloaded,
)
_DIGEST = {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"}
_KEY = Parameter("hash", "path", _DIGEST, "SHA-256 of the key's text, in hexadecimal.", required=True)
_ID = {"type": "string", "pattern": "^(chatcmpl-|req_|gen-)?[0-9A-Za-z]{1,64}$"}

OPERATIONS = (
    Operation(
        *("post", "/chat/completions", "createChatCompletion", "Ask a model", "Chat", replies.Reply),
        body=openai.ChatRequest,
        parameters=(
            Parameter(
                *("Idempotency-Key", "header", {"type": "string", "maxLength": 255}),
                "The same key and body are generated and charged at most once in 24 hours.",
            ),
            Parameter(
                *("x-vipcloud-rescue", "header", {"enum": ["continue", "buffer"]}),
                "What to do when a provider's stream breaks off midway.",
            ),
        ),
        errors=COMPLETION,
        streams=True,
    ),
    Operation("get", "/models", "listModels", "The models that the key may use", "Models", models.ModelList),
    Operation(
        *("get", "/models/{model}", "getModel", "One model", "Models", models.ModelObject),
        parameters=(Parameter("model", "path", {"type": "string"}, "The model's id.", required=True),),
        errors=(errors.ModelNotFound,),
    ),
    Operation(
        *("get", "/generation", "getGeneration", "What one request used and cost", "Account"),
        openrouter.GenerationAnswer,
        parameters=(Parameter("id", "query", _ID, "The answer's `id`, or its `x-request-id`.", required=True),),
        errors=(errors.GenerationNotFound,),
    ),
    Operation(
        *("get", "/credits", "getCredits", "What the account was credited and used", "Account"),
        openrouter.CreditsAnswer,
    ),
    Operation("get", "/key", "getKey", "The key that asks", "Account", openrouter.OwnKeyAnswer),
    Operation(
        *("get", "/keys", "listKeys", "The account's keys, newest first", "Management", openrouter.KeyList),
        parameters=(
            Parameter("offset", "query", {"type": "integer", "minimum": 0, "maximum": 999_999_999}, "Keys to skip."),
            Parameter("include_disabled", "query", {"type": "boolean"}, "Disabled ones too."),
        ),
        errors=(errors.RateLimited,),
        management=True,
    ),
    Operation(
        *("post", "/keys", "createKey", "Make a key", "Management", openrouter.KeyMade),
        body=openrouter.NewKey,
        errors=(errors.RateLimited,),
        status=201,
        management=True,
    ),
    Operation(
        *("get", "/keys/{hash}", "getManagedKey", "One key", "Management", openrouter.KeyAnswer),
        parameters=(_KEY,),
        errors=(errors.KeyNotFound, errors.RateLimited),
        management=True,
    ),
    Operation(
        *("patch", "/keys/{hash}", "changeKey", "Change a key", "Management", openrouter.KeyAnswer),
        body=openrouter.KeyChanges,
        parameters=(_KEY,),
        errors=(errors.KeyNotFound, errors.RateLimited),
        management=True,
    ),
    Operation(
        *("delete", "/keys/{hash}", "deleteKey", "End a key for good", "Management", openrouter.KeyDeleted),
        parameters=(_KEY,),
        errors=(errors.KeyNotFound, errors.RateLimited),
        management=True,
    ),
    Operation(
        *("get", "/activity", "getActivity", "Usage by day, model and provider", "Management", openrouter.Activity),
        parameters=(
            Parameter(
                "date", "query", {"type": "string", "format": "date"}, "One UTC day of the last 30 that are over."
            ),
            Parameter("api_key_hash", "query", _DIGEST, "One key."),
        ),
        errors=(errors.KeyNotFound, errors.RateLimited),
        management=True,
    ),
)


@cache
def document_body() -> bytes:
    """The document as JSON."""
    return msgspec.json.format(msgspec.json.encode(document()), indent=1)


def document() -> dict[str, Any]:
    """The OpenAPI document; its address is that of the server, so it names no other."""
    types = {kind for each in OPERATIONS for kind in (each.answer, each.body) if kind is not None}
    types |= {replies.Chunk, ErrorEnvelope}
    ordered = sorted(types, key=lambda kind: kind.__name__)
    _, schemas = msgspec.json.schema_components(ordered, ref_template=SCHEMAS + "{name}")
    paths: dict[str, Any] = {}
    for each in OPERATIONS:
        paths.setdefault(each.path, {})[each.method] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": "1", "description": ABOUT},
        "servers": [{"url": "/v1"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": {name: {**schema, **_plain(schema)} for name, schema in schemas.items()},
            "responses": {f"Error{status}": _response(kinds) for status, kinds in by_status(ANYWHERE).items()},
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key, `vc-sk-…`."},
                "managementKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key that manages the account's other keys, `vc-sk-…`.",
                },
            },
        },
    }


def _operation(each: Operation) -> dict[str, Any]:
    anywhere = by_status(ANYWHERE)
    found: dict[str, Any] = {
        "operationId": each.name,
        "summary": each.summary,
        "tags": [each.tag],
        "security": [{"managementKey": []}] if each.management else [{"key": []}],
        "responses": {
            str(each.status): _answer(each),
            **{
                str(status): _response(kinds)
                if kinds != anywhere.get(status)
                else {"$ref": f"{RESPONSES}Error{status}"}
                for status, kinds in by_status((*ANYWHERE, *each.errors)).items()
            },
        },
    }
    if each.parameters:
        found["parameters"] = [
            {
                "name": parameter.name,
                "in": parameter.place,
                "required": parameter.required,
                "description": parameter.meaning,
                "schema": parameter.schema,
            }
            for parameter in each.parameters
        ]
    if each.body is not None:
        found["requestBody"] = {"required": True, "content": _json(_named(each.body))}
    return found


def _answer(each: Operation) -> dict[str, Any]:
    if not each.streams:
        return {"description": each.summary, "headers": _headers(), "content": _json(_named(each.answer))}
    late = {"anyOf": [_named(each.answer), _named(ErrorEnvelope)]}
    told = (
        "The answer; with `stream`, events. An answer that takes long begins with white space, to keep the connection; "
        "a failure after that is an error in the body. Events end with `data: [DONE]`, or with an error without it."
    )
    event = {"anyOf": [_named(replies.Chunk), _named(ErrorEnvelope)]}
    stream = {"text/event-stream": {"schema": {"type": "string"}, "x-event-schema": event}}
    return {"description": told, "headers": _headers(), "content": {**_json(late), **stream}}


def by_status(kinds: Iterable[type[GatewayError]]) -> dict[int, list[type[GatewayError]]]:
    """Errors that are answered alike, in order of their codes."""
    found: dict[int, list[type[GatewayError]]] = {}
    for kind in sorted(kinds, key=lambda kind: (kind.status, kind.code)):
        found.setdefault(kind.status, []).append(kind)
    return found


def _response(kinds: list[type[GatewayError]]) -> dict[str, Any]:
    """Of one status: each code with its meaning."""
    return {
        "description": " ".join(f"`{kind.code}`: {kind.meaning}" for kind in kinds),
        "headers": _headers(*(("retry-after",) if kinds[0].status in (429, 503) else ())),
        "content": _json(_narrowed(kinds)),
    }


def _plain(schema: dict[str, Any]) -> dict[str, str]:
    """The description without a docstring's line breaks."""
    return {"description": " ".join(schema["description"].split())} if "description" in schema else {}


def _narrowed(kinds: Iterable[type[GatewayError]]) -> dict[str, Any]:
    code = {"enum": [kind.code for kind in kinds]}
    within = {"properties": {"error": {"properties": {"code": code}}}}
    return {"allOf": [_named(ErrorEnvelope), within]}


def _headers(*more: str) -> dict[str, Any]:
    text = {"schema": {"type": "string"}}
    return {"x-request-id": {**text, "required": True}, **dict.fromkeys(more, text)}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _named(kind: type[Struct]) -> dict[str, Any]:
    return {"$ref": f"{SCHEMAS}{kind.__name__}"}


# --- for pages -----------------------------------------------------------------------------------------------------


class Field(NamedTuple):
    """One field of a body, for people."""

    name: str
    kind: str
    meaning: str
    required: bool


def fields(kind: type[Struct]) -> list[Field]:
    """The fields of a struct in the order of their declaration; `kind` in words, such as `number or null`."""
    named = msgspec.json.schema(kind)["$defs"]
    schema = named[kind.__name__]
    required = schema.get("required", ())
    return [
        Field(name, " or ".join(_kinds(each, named)), each.get("description", ""), name in required)
        for name, each in schema["properties"].items()
    ]


def _kinds(schema: dict[str, Any], named: dict[str, Any]) -> list[str]:
    if "anyOf" in schema:
        return list(dict.fromkeys(kind for each in schema["anyOf"] for kind in _kinds(each, named)))
    if "$ref" in schema:
        return _kinds(named[schema["$ref"].rpartition("/")[2]], named)
    if "enum" in schema:
        return ["null" if word is None else f"`{word}`" for word in schema["enum"]]
    if schema.get("type") == "array":
        return [f"array of {' or '.join(_kinds(schema['items'], named))}s"]
    return [str(schema.get("type", "any"))]
