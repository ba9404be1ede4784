"""The OpenAPI document, held against a running gateway: whatever it allows and forbids to send, answers keep to it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from running import Gateway
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from vipcloud.dialects import contract
from vipcloud.dialects.contract import ErrorEnvelope
from vipcloud.dialects.replies import Chunk

pytestmark = [pytest.mark.clients, pytest.mark.timeout(120)]

EXAMPLES = 40
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]
NOT_SERVED = 501  # documented: what the model at hand cannot do, which random requests often ask for
BY_NAME = {each.name: each for each in contract.OPERATIONS}
ANY_TEXT = {"type": "string"}
CAN_BE_WRONG = [
    each.name
    for each in contract.OPERATIONS
    if each.body is not None or any(parameter.schema != ANY_TEXT for parameter in each.parameters)
]


class Customer:
    """Somebody with a key of each kind, and the document."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        account = gateway.account(credit="1000")
        self.key = gateway.key(account)
        self.manager = gateway.management_key(account)
        self.schema = schemathesis.openapi.from_url(f"{gateway.origin}/openapi.json")
        self.schema.config.generation.update(with_security_parameters=False)

    def operation(self, name: str) -> Any:
        every = (found.ok() for found in self.schema.get_all_operations())
        return next(each for each in every if each.definition.raw["operationId"] == name)

    def head(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.manager if BY_NAME[name].management else self.key}"}

    def ask(self, name: str, status: int = 200, body: Any = None, query: Any = None, **path: str) -> Any:
        """A request as a program makes it; its answer is held against the document."""
        asked = BY_NAME[name]
        url = self.gateway.base_url + asked.path.format(**path)
        answer = httpx.request(
            asked.method.upper(), url, headers=self.head(name), params=query, **({} if body is None else {"json": body})
        )
        assert answer.status_code == status, answer.text
        documented = DOCUMENT["paths"][asked.path][asked.method]["responses"][str(status)]
        if "$ref" in documented:
            documented = DOCUMENT["components"]["responses"][documented["$ref"].rpartition("/")[2]]
        kind = answer.headers["content-type"].partition(";")[0]
        if kind == "application/json":
            holds(documented["content"][kind]["schema"], answer.json())
            return answer.json()
        return answer.text


DOCUMENT = contract.document()


def holds(schema: dict[str, Any], value: Any) -> None:
    """Raises ValidationError if the value is not what the schema of the document says."""
    whole = {**schema, "components": DOCUMENT["components"]}
    jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(value)


@pytest.fixture(scope="module")
def customer(folder: Path) -> Iterator[Customer]:
    """Of a gateway that may be asked to manage keys as often as this takes."""
    gateway = Gateway(folder / "documented", "[accounts]\nmanagement_rpm = 0\n")
    gateway.start()
    yield Customer(gateway)
    gateway.stop()


def run(customer: Customer, name: str, mode: GenerationMode) -> None:
    head = customer.head(name)
    fixed = settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    @given(case=customer.operation(name).as_strategy(generation_mode=mode))
    @fixed
    def ask(case: Any) -> None:
        answer = case.call(base_url=customer.gateway.base_url, headers=head)
        case.validate_response(answer, checks=CHECKS)
        assert answer.status_code < 500 or answer.status_code == NOT_SERVED, answer.text
        if answer.headers["content-type"][0].startswith("text/event-stream"):
            is_a_stream(answer.text)

    ask()


@pytest.mark.parametrize("name", list(BY_NAME))
def test_what_may_be_sent_gets_an_answer_as_documented(customer: Customer, name: str) -> None:
    run(customer, name, GenerationMode.POSITIVE)


@pytest.mark.parametrize("name", CAN_BE_WRONG)
def test_what_may_not_be_sent_is_refused_as_documented(customer: Customer, name: str) -> None:
    run(customer, name, GenerationMode.NEGATIVE)


def is_a_stream(text: str) -> None:
    """Events as `x-event-schema` has them, to the end."""
    events = [block.removeprefix("data: ") for block in text.split("\n\n") if block.startswith("data: ")]
    assert events
    done = events[-1] == "[DONE]"
    for number, event in enumerate(events[: -1 if done else None]):
        failed = not done and number == len(events) - 1
        msgspec.json.decode(event, type=ErrorEnvelope if failed else Chunk, strict=True)


def test_real_answers_are_as_documented(customer: Customer) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    for fields in ({}, {"tools": [tool]}, {"model": "deepseek-reasoner"}, {"logprobs": True, "top_logprobs": 2}):
        body = {"model": "deepseek-chat", "messages": messages, **fields}
        reply = customer.ask("createChatCompletion", body=body)
        for usage in (True, False):
            options = {"stream": True, "stream_options": {"include_usage": usage}}
            is_a_stream(customer.ask("createChatCompletion", body={**body, **options}))
    customer.ask("createChatCompletion", 400, body={"model": "deepseek-chat"})
    customer.ask("createChatCompletion", 404, body={"model": "gpt-9", "messages": messages})
    assert customer.ask("getGeneration", query={"id": reply["id"]})["data"]["id"] == reply["id"]
    customer.ask("getGeneration", 404, query={"id": "chatcmpl-0"})
    assert customer.ask("getModel", model="glm-4-air")["id"] == "glm-4-air"
    for name in ("listModels", "getCredits", "getKey"):
        customer.ask(name)
    wanted = {"limit": 1.5, "limit_reset": "daily", "expires_at": "2099-01-01T00:00:00Z", "allowed_ips": ["::1"]}
    made = customer.ask("createKey", 201, body={"name": "documented", "allowed_models": ["glm-4-air"], **wanted})
    customer.ask("createKey", 400, body={"name": "documented"})
    each = {"hash": made["data"]["hash"]}
    assert made["data"] in customer.ask("listKeys", query={"include_disabled": "true"})["data"]
    assert customer.ask("getManagedKey", **each)["data"] == made["data"]
    customer.ask("changeKey", body={"caps": {"daily": 1, "total": 5}, "disabled": True}, **each)
    customer.ask("deleteKey", **each)
    customer.ask("getManagedKey", 404, **each)
    customer.ask("getActivity")
