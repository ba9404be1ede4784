"""The list of models, and the two probes."""

import re

import pytest
from front_door import PRICES, House

from vipcloud.gateway import routes
from vipcloud.gateway.routes import CHANGES_LAG_MAX_S
from vipcloud.simulators.app import PROVIDERS

SOON = {"kimi-k2", "qwen3-max", "minimax-text-01"}


async def test_the_list_names_every_model_with_its_price_and_status(house: House) -> None:
    listed = {model["id"]: model for model in (await house.ask("GET", "/v1/models")).json["data"]}
    assert set(listed) == set(PRICES) | SOON
    assert {name for name, model in listed.items() if model["status"] == "soon"} == SOON
    assert listed["deepseek-chat"]["pricing"] == {"prompt": "0.00000031", "completion": "0.00000127"}


async def test_each_model_can_be_asked_for_by_itself(house: House) -> None:
    for model in (await house.ask("GET", "/v1/models")).json["data"]:
        for path in (f"/v1/models/{model['id']}", f"/models/{model['id']}/"):
            assert (await house.ask("GET", path)).json == model


OWN = """
[models."labs/glm-4"]
alias_of = "glm-4-air"
name = "Ours"
notes = "named with a slash"
created = 1764547200
"""


@pytest.mark.parametrize("spelled", ["labs/glm-4", "labs%2Fglm-4", "labs%2fglm%2D4"])
async def test_a_slash_in_a_models_name_may_be_encoded_or_not(open_house, tmp_path, spelled: str) -> None:
    (tmp_path / "own.toml").write_text(OWN)
    house = await open_house(gateway={"catalog": str(tmp_path / "own.toml")})
    reply = await house.ask("GET", f"/v1/models/{spelled}")
    assert (reply.status, reply.json["id"]) == (200, "labs/glm-4")


@pytest.mark.parametrize("name", ["gpt-9", "deepseek-chat%00", "%E4%BD%A0", "%ff", "..", "deepseek-chat/x"])
async def test_an_unknown_model_is_404(house: House, name: str) -> None:
    reply = await house.ask("GET", f"/v1/models/{name}")
    assert (reply.status, reply.error["code"], reply.error["param"]) == (404, "model_not_found", "model")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/glm-4", "/v1/models/gpt-9"])
async def test_models_need_a_key(house: House, path: str) -> None:
    reply = await house.ask("GET", path, headers={})
    assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")


async def test_probes_need_no_key(house: House) -> None:
    assert (await house.ask("GET", "/healthz", headers={})).json == {"status": "ok"}
    ready = await house.ask("GET", "/readyz", headers={})
    assert (ready.status, ready.json) == (200, {"ready": True, "reasons": []})


async def test_it_is_not_ready_without_any_key_of_a_provider(open_house) -> None:
    house = await open_house(keys=dict.fromkeys(PROVIDERS, ()))
    ready = await house.ask("GET", "/readyz")
    assert (ready.status, ready.json["ready"]) == (503, False)
    assert ready.json["reasons"][0].startswith("upstreams:")
    reply = await house.chat()
    assert (reply.status, reply.error["code"]) == (503, "no_upstream")
    assert house.rows() == []


async def test_it_is_not_ready_while_the_store_cannot_be_read(open_house, clock) -> None:
    house = await open_house(clock=clock)
    clock.advance(CHANGES_LAG_MAX_S + 1)
    ready = await house.ask("GET", "/readyz")
    assert ready.status == 503
    assert ready.json["reasons"] == [f"store: not read for {CHANGES_LAG_MAX_S + 1:.0f} s"]
    await house.noticed()
    assert (await house.ask("GET", "/readyz")).status == 200


NOT_OF_THE_API = {  # for operators, our own pages, the status page, and what tells of the API
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/status",
    "/status.json",
    "/status/*",
    "/demo/chat/completions",
    "/playground/chat/completions",
    *routes.NOT_SERVED,
}


async def test_the_document_has_every_public_route_and_no_other(open_house) -> None:
    house: House = await open_house(demo={"enabled": True}, console={"enabled": True})
    served = {
        (method.lower(), re.sub(r"\*$", "", path))
        for path, methods in routes.table(house.gateway.parts).items()
        if path not in NOT_OF_THE_API
        for method in methods
    }
    reply = await house.ask("GET", "/openapi.json", headers={})
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    told = {
        (method, re.sub(r"\{\w+\}$", "", path)) for path, methods in reply.json["paths"].items() for method in methods
    }
    assert told == served
    assert len(told) >= 12
    assert (await house.ask("GET", "/v1/openapi.json")).body == reply.body
