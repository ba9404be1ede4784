"""The document of the API: that it is a whole one, names every error where it can come, and what chunks look like."""

import json
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from vipcloud import errors
from vipcloud.dialects import contract, openrouter
from vipcloud.dialects.chunks import ChunkWriter
from vipcloud.dialects.openai import CompletionDetails, PromptDetails, Usage
from vipcloud.dialects.replies import Chunk, Logprobs, TokenLogprob

DOCUMENT = json.loads(contract.document_body())


def refs(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for each in value.values() for found in refs(each)]
    return [found for each in value for found in refs(each)] if isinstance(value, list) else []


def test_the_document_is_one_of_openapi_and_refers_to_nothing_that_is_not_there() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    for ref in refs(DOCUMENT):
        found: Any = DOCUMENT
        for step in ref.removeprefix("#/").split("/"):
            found = found[step]
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)
        assert "\n" not in schema.get("description", "")
    names = [each.name for each in contract.OPERATIONS]
    assert len(set(names)) == len(names)


def test_parameters_of_a_path_are_declared() -> None:
    for each in contract.OPERATIONS:
        in_path = {part[1:-1] for part in each.path.split("/") if part.startswith("{")}
        assert in_path == {parameter.name for parameter in each.parameters if parameter.place == "path"}
        assert all(parameter.required for parameter in each.parameters if parameter.place == "path")


def test_every_error_that_the_routes_can_raise_is_told() -> None:
    """Of the tree, these are of paths, methods and versions that are none of the document."""
    told = {kind for each in contract.OPERATIONS for kind in (*contract.ANYWHERE, *each.errors)}
    others = {errors.RouteNotFound, errors.MethodNotAllowed, errors.MethodUnknown, errors.VersionNotSupported}
    assert set(errors.documented()) - told == others


def test_an_errors_body_is_as_documented() -> None:
    for kind in contract.ANYWHERE:
        msgspec.json.decode(kind("Why.").body(), type=contract.ErrorEnvelope, strict=True)
        response = DOCUMENT["components"]["responses"][f"Error{kind.status}"]
        schema = {**response["content"]["application/json"]["schema"], "components": DOCUMENT["components"]}
        jsonschema_rs.validate(schema, json.loads(kind("Why.").body()))
        assert kind.code in response["description"]
        with pytest.raises(jsonschema_rs.ValidationError):
            jsonschema_rs.validate(schema, json.loads(errors.ModelNotFound("x").body()))


@pytest.mark.parametrize("include_usage", [True, False])
def test_every_chunk_that_is_written_is_one(include_usage: bool) -> None:
    writer = ChunkWriter("chatcmpl-1", 1, "m", include_usage=include_usage)
    usage = Usage(1, 2, 3, PromptDetails(), CompletionDetails(), msgspec.Raw(b"0.5"), msgspec.Raw(b"{}"))
    logprobs = Logprobs([TokenLogprob("a", -0.5)])
    written = [
        writer.role(""),
        writer.role(None, index=1),
        writer.content("a"),
        writer.content("a", index=1, logprobs=logprobs),
        writer.reasoning("a"),
        writer.reasoning("a", index=1),
        writer.refusal("a", logprobs=logprobs),
        writer.tool_start(0, "call_1", "f", first=True),
        writer.tool_start(1, "call_2", "f", "{}"),
        writer.tool_arguments(0, "{}"),
        writer.function_start("f", first=True),
        writer.function_arguments("{}"),
        writer.finish("stop"),
        writer.finish("length", usage=usage),
        writer.usage_chunk(usage),
    ]
    schema = {"$ref": "#/components/schemas/Chunk", "components": DOCUMENT["components"]}
    for event in written:
        data = event.removeprefix(b"data: ").removesuffix(b"\n\n")
        msgspec.json.decode(data, type=Chunk, strict=True)
        jsonschema_rs.validate(schema, json.loads(data))


def test_fields_are_told_in_words() -> None:
    told = {field.name: field for field in contract.fields(openrouter.NewKey)}
    assert (told["name"].kind, told["name"].required) == ("string", True)
    assert (told["limit"].kind, told["limit"].required) == ("number or null", False)
    assert told["limit_reset"].kind == "`daily` or `monthly` or null"
    assert told["allowed_models"].kind == "array of strings or null"
    assert told["caps"].kind == "object"
    for kind in (openrouter.NewKey, openrouter.Key, openrouter.ActivityItem):
        assert all(field.kind != "any" for field in contract.fields(kind))
