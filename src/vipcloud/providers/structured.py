"""Answers in JSON: what is asked of the upstream itself, what is asked for in words, and what has to be checked here.

An upstream that knows a form keeps to it. Where it does not, the form is asked for by a system message (beside JSON
mode, if there is one), and the answer has to be held to it here. So has one to a schema that was loosened for its
upstream.
"""

from typing import Any

import msgspec
from msgspec import Struct

from vipcloud.dialects.openai import (
    ChatRequest,
    JSONObjectFormat,
    JSONSchemaFormat,
    ResponseFormat,
    SchemaSpec,
)
from vipcloud.providers.catalog_rows import Quirks
from vipcloud.providers.messages import mention_json
from vipcloud.providers.models import Candidate
from vipcloud.providers.schemas import subset

_JSON_INSTRUCTION = "Answer with one JSON object and nothing else: no prose, no code fence."
_SCHEMA_INSTRUCTION = "Answer with one JSON value that is valid under the JSON Schema below, and nothing else."

_encode = msgspec.json.Encoder().encode


class Plan(Struct, frozen=True):
    """`asked` goes into the body, `instruction` into the conversation; `checked`: the answer must be looked at."""

    asked: ResponseFormat | None = None
    instruction: str = ""
    checked: bool = False


AS_IT_COMES = Plan()


def plan(request: ChatRequest, candidate: Candidate) -> Plan:
    """How `candidate` is brought to answer in the form that `request` wants."""
    form, quirks = request.response_format, candidate.quirks
    if isinstance(form, JSONSchemaFormat):
        if form.json_schema.schema is None:
            return _object(request, quirks, for_schema=True)
        return _native(form, form.json_schema.schema, quirks) or _in_words(form, form.json_schema.schema, quirks)
    return _object(request, quirks) if isinstance(form, JSONObjectFormat) else AS_IT_COMES


def _object(request: ChatRequest, quirks: Quirks, *, for_schema: bool = False) -> Plan:
    """JSON mode; also what a schema that says nothing amounts to."""
    if quirks.json_object == "emulate":
        return Plan(None, _JSON_INSTRUCTION, checked=True)
    told = for_schema or (quirks.json_word and not mention_json(request.messages))
    return Plan(JSONObjectFormat(), _JSON_INSTRUCTION if told else "")


def _native(form: JSONSchemaFormat, schema: dict[str, Any], quirks: Quirks) -> Plan | None:
    """The schema as the upstream takes it; None if it does not."""
    if quirks.json_schema != "native" or (quirks.json_all_required and not _requires_all(schema)):
        return None
    if not quirks.schema_subset:
        return Plan(form)
    made = subset(schema, bounds=False)
    spec = form.json_schema
    smaller = SchemaSpec(name=spec.name, description=spec.description, schema=made.schema, strict=spec.strict)
    return Plan(JSONSchemaFormat(smaller), checked=made.loosened)


def _in_words(form: JSONSchemaFormat, schema: dict[str, Any], quirks: Quirks) -> Plan:
    """JSON mode yields an object: where the schema wants something else, words alone have to do."""
    purpose = f" {form.json_schema.description}" if form.json_schema.description else ""
    text = f"{_SCHEMA_INSTRUCTION}{purpose}\n\n{_encode(schema).decode()}"
    mode = quirks.json_object == "native" and schema.get("type", "object") == "object"
    return Plan(JSONObjectFormat() if mode else None, text, checked=True)


def _requires_all(schema: Any) -> bool:
    """Whether every object in `schema` requires all its properties."""
    pending = [schema]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending += node
        elif isinstance(node, dict):
            properties, required = node.get("properties"), node.get("required")
            if isinstance(properties, dict) and not properties.keys() <= _names(required):
                return False
            pending += node.values()
    return True


def _names(required: Any) -> set[str]:
    return {name for name in required if isinstance(name, str)} if isinstance(required, list) else set()
