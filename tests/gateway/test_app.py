"""Which path means what, and that every answer says who it is and may be read by a browser."""

import re

import pytest
from front_door import House, Reply, request

from wire import dial

CHAT = "/v1/chat/completions"
BODY = b'{"model":"deepseek-chat","messages":[{"role":"user","content":"Hello"}]}'


def is_signed(reply: Reply) -> None:
    assert re.fullmatch(r"req_[0-9a-f]{22}", reply.headers["x-request-id"])
    assert reply.headers["access-control-allow-origin"] == "*"
    assert "x-request-id" in reply.headers["access-control-expose-headers"]


@pytest.mark.parametrize("prefix", ["/v1", "", "/v1/v1"])
@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("query", ["", "?a=b/c"])
async def test_a_route_has_several_spellings(house: House, prefix: str, slash: str, query: str) -> None:
    chat = await house.ask("POST", f"{prefix}/chat/completions{slash}{query}", BODY)
    models = await house.ask("GET", f"{prefix}/models{slash}{query}")
    assert (chat.status, models.status) == (200, 200)
    assert chat.json["object"] == "chat.completion"
    assert models.json["object"] == "list"
    is_signed(chat)
    is_signed(models)


async def test_a_target_may_be_a_whole_url(house: House) -> None:
    assert (await house.ask("GET", "http://elsewhere.example/v1/models")).status == 200


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v2/models", "/v1/chat", "/v1/chat/completions/x", "/v1/Models", "/%76%31/models", "//models"]
)
async def test_any_other_path_is_404_with_the_path_in_words(house: House, path: str) -> None:
    for headers in ({}, house.head()):
        reply = await house.ask("GET", path, headers=headers)
        assert (reply.status, reply.error["code"]) == (404, "not_found")
        assert reply.error["message"] == f"Invalid URL (GET {path})"
        is_signed(reply)


async def test_a_long_path_does_not_come_back_whole(house: House) -> None:
    reply = await house.ask("GET", "/" + "x" * 5000)
    assert reply.status == 404
    assert len(reply.body) < 400


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", CHAT, "POST, OPTIONS"),
        ("HEAD", CHAT, "POST, OPTIONS"),
        ("DELETE", CHAT, "POST, OPTIONS"),
        ("POST", "/v1/models", "GET, HEAD, OPTIONS"),
        ("PUT", "/v1/models/glm-4", "GET, HEAD, OPTIONS"),
        ("POST", "/healthz", "GET, HEAD, OPTIONS"),
    ],
)
async def test_a_wrong_method_is_405_and_told_the_right_ones(house: House, method: str, path: str, allow: str) -> None:
    reply = await house.ask(method, path)
    assert (reply.status, reply.headers["allow"]) == (405, allow)
    is_signed(reply)
    if method != "HEAD":
        assert reply.error["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/glm-4", "/healthz", "/readyz"])
async def test_head_is_get_without_the_body(house: House, path: str) -> None:
    get, head = await house.ask("GET", path), await house.ask("HEAD", path)
    assert (head.status, head.body) == (get.status, b"")
    assert head.headers["content-length"] == get.headers["content-length"]
    is_signed(head)


async def test_a_preflight_is_answered_without_a_key_and_echoes_what_is_asked_for(house: House) -> None:
    asked = "authorization, content-type, x-stainless-os"
    headers = {"Origin": "https://app.example", "Access-Control-Request-Headers": asked}
    reply = await house.ask("OPTIONS", CHAT, headers={**headers, "Access-Control-Request-Method": "POST"})
    assert (reply.status, reply.body) == (204, b"")
    assert reply.headers["access-control-allow-headers"] == asked
    assert "POST" in reply.headers["access-control-allow-methods"]
    assert reply.headers["access-control-max-age"] == "86400"
    is_signed(reply)


async def test_options_of_the_whole_server_are_told(house: House) -> None:
    reply = await house.ask("OPTIONS", "*")
    assert (reply.status, reply.body) == (204, b"")
    assert reply.headers["allow"] == "GET, POST, PATCH, DELETE, OPTIONS, HEAD"
    is_signed(reply)
    assert (await house.ask("GET", "*")).status == 404


async def test_ids_differ_on_one_connection_and_on_many(house: House) -> None:
    found = [(await house.ask("GET", "/healthz")).headers["x-request-id"] for _ in range(3)]
    async with dial(house.port) as wire:
        wire.send(request("GET", "/healthz", b"", {}) * 3)
        found += [(await wire.answer()).headers["x-request-id"] for _ in range(3)]
    assert len(set(found)) == 6


# Each error comes in the envelope, with its headers, over one connection that stays open where it may.
ERRORS: list[tuple[str, str, bytes, dict[str, str], int, str]] = [
    ("POST", CHAT, b"{", {}, 400, "bad_request"),
    ("POST", CHAT, BODY, {"Authorization": "Bearer nonsense"}, 401, "invalid_api_key"),
    ("POST", CHAT, BODY.replace(b"deepseek-chat", b"gpt-9"), {}, 404, "model_not_found"),
    ("POST", CHAT, BODY.replace(b"deepseek-chat", b"kimi-k2"), {}, 501, "not_implemented"),
    ("POST", CHAT, BODY, {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
    ("POST", CHAT, BODY, {"Content-Encoding": "gzip"}, 415, "unsupported_media_type"),
    ("POST", CHAT, BODY, {"Expect": "the-worst"}, 417, "expectation_failed"),
    ("POST", CHAT, BODY, {"X-Long": "x" * 70_000}, 431, "head_too_large"),
    ("POST", CHAT, b"x" * 40_000, {}, 413, "request_too_large"),
    ("FETCH", CHAT, BODY, {}, 501, "method_unknown"),
    ("GET", "/nowhere", b"", {}, 404, "not_found"),
    ("DELETE", CHAT, b"", {}, 405, "method_not_allowed"),
]


@pytest.mark.parametrize(("method", "path", "body", "headers", "status", "code"), ERRORS)
async def test_an_error_has_the_envelope_an_id_and_cors(
    open_house, method: str, path: str, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    house = await open_house(server={"body_bytes_max": 32_768})
    reply = await house.ask(method, path, body, {**house.head(), **headers})
    assert (reply.status, reply.error["code"]) == (status, code)
    assert reply.headers["content-type"] == "application/json"
    is_signed(reply)
    assert house.rows() == []


async def test_what_a_refusal_must_tell_by_a_header_it_tells(house: House) -> None:
    unknown = await house.ask("POST", CHAT, BODY, house.head(Authorization="Bearer nonsense"))
    encoded = await house.ask("POST", CHAT, BODY, house.head(**{"Content-Encoding": "gzip"}))
    no_json = await house.ask("POST", CHAT, BODY, house.head(**{"Content-Type": "text/plain"}))
    assert (unknown.status, unknown.headers["www-authenticate"]) == (401, 'Bearer realm="vipcloud"')
    assert (encoded.status, encoded.headers["accept-encoding"]) == (415, "identity")
    assert (no_json.status, "accept-encoding" in no_json.headers) == (415, False)


async def test_bytes_that_are_no_http_get_the_envelope_too(house: House) -> None:
    async with dial(house.port) as wire:
        wire.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        reply = Reply.of(await wire.answer())
    assert (reply.status, reply.error["code"]) == (400, "bad_request")
    is_signed(reply)


async def test_the_connection_lives_on_after_a_refusal(house: House) -> None:
    async with dial(house.port) as wire:
        for body, status in ((b"{", 400), (BODY, 200), (b'{"model":1}', 400), (BODY, 200)):
            wire.send(request("POST", CHAT, body, house.head()))
            answer = await wire.answer()
            assert answer.status == status
            assert "connection" not in answer.headers


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (None, 200),
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("application/json ", 200),
        ("APPLICATION/JSON", 200),
        ("application/vnd.api+json", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=json", 415),
        ("application/jsonp", 415),
        ("", 415),
    ],
)
async def test_only_json_is_read(house: House, content_type: str | None, status: int) -> None:
    headers = {"Authorization": f"Bearer {house.key}"}
    if content_type is not None:
        headers["Content-Type"] = content_type
    reply = await house.ask("POST", CHAT, BODY, headers)
    assert reply.status == status, reply.body


FAULTY: list[tuple[bytes, str | None]] = [
    (b"", None),
    (b"null", None),
    (b"[]", None),
    (b'"text"', None),
    (b"{", None),
    (BODY + b"x", None),
    (b"\xff" + BODY, None),
    (BODY.replace(b"Hello", b"\xc3\x28"), None),
    (BODY.replace(b"Hello", b"\\ud800"), None),
    (b"[" * 100_000, None),
    (b'{"model":"deepseek-chat","messages":[],"temperature":NaN}', None),
    (b'{"model":"deepseek-chat"}', "messages"),
    (b'{"messages":[{"role":"user","content":"x"}]}', "model"),
    (b'{"model":7,"messages":[{"role":"user","content":"x"}]}', "model"),
    (b'{"model":"deepseek-chat","messages":[]}', "messages"),
    (b'{"model":"deepseek-chat","messages":[{"role":"king","content":"x"}]}', "messages[0].role"),
    (BODY[:-1] + b',"temperature":3}', "temperature"),
    (BODY[:-1] + b',"max_tokens":0}', "max_tokens"),
    (BODY[:-1] + b',"max_tokens":' + b"9" * 5000 + b"}", "max_tokens"),
    (BODY[:-1] + b',"stream":"yes"}', "stream"),
    (BODY[:-1] + b',"stop":["a","b","c","d","e"]}', "stop"),
    (BODY[:-1] + b',"tool_choice":{"type":"function","function":{"name":"absent"}}}', "tool_choice"),
]


@pytest.mark.parametrize(("body", "param"), FAULTY)
async def test_a_faulty_body_is_a_400_that_names_the_field(house: House, body: bytes, param: str | None) -> None:
    reply = await house.ask("POST", CHAT, body)
    assert (reply.status, reply.error["type"]) == (400, "invalid_request_error"), reply.body
    if param is not None:
        assert reply.error["param"] == param
    assert len(reply.body) < 1000
    assert await house.upstream.log() == []


async def test_unknown_fields_are_dropped_or_refused_as_set(open_house) -> None:
    lenient = await open_house()
    reply = await lenient.chat(top_k=5, vendor={"x": 1})
    assert reply.status == 200
    assert not {"top_k", "vendor"} & set((await lenient.upstream.log())[0]["body"])
    strict = await open_house(data_suffix="-strict", gateway={"strict_parameters": True})
    reply = await strict.chat(top_k=5)
    assert (reply.status, reply.error["param"]) == (400, "top_k")
    assert (await strict.chat()).status == 200
