"""`vipcloud upstreams`: accounts as operators read them, and their test with its exit status."""

import os
from pathlib import Path

import msgspec
import pytest

from vipcloud.cli import context, running
from vipcloud.cli.running import Running
from vipcloud.settings import Settings
from vipcloud.status import upstreams as upstream_state

DEEPSEEK_KEY, ZHIPU_KEY = "sk-acme-0123456789abcdef", "acme0123456789abcdef.0123456789abwxyz"


def rows(vipcloud) -> dict[str, dict]:
    return {row["id"]: row for row in vipcloud.json("upstreams", "list")}


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", DEEPSEEK_KEY)
    monkeypatch.setenv("ZHIPU_API_KEY", ZHIPU_KEY)


def test_without_keys_the_providers_are_listed_with_what_is_missing(vipcloud) -> None:
    listed = rows(vipcloud)
    assert list(listed) == ["deepseek", "zhipu", "moonshot", "dashscope", "minimax"]
    assert listed["deepseek"]["state"] == "no key"
    assert listed["deepseek"]["base_url"] == "https://api.deepseek.com"
    assert {"deepseek-chat", "deepseek-reasoner"} <= set(listed["deepseek"]["models"])
    shown = vipcloud("upstreams", "list")
    assert "DEEPSEEK_API_KEY, ZHIPU_API_KEY" in shown.stderr
    refused = vipcloud("upstreams", "test", status=1)
    assert "No provider key is set, so there is nothing to test" in refused.stderr


def test_a_key_shows_its_last_four_characters_and_no_more(vipcloud, keys: None, data: Path) -> None:
    Path("vipcloud.toml").write_text('[upstreams.zhipu]\nkeys = ["short.key", "env:ZHIPU_API_KEY"]\n')
    listed = rows(vipcloud)
    assert listed["deepseek/1"]["keys"] == ["…cdef"]
    assert (listed["zhipu/1"]["keys"], listed["zhipu/2"]["keys"]) == (["(short)"], ["…wxyz"])
    shown = vipcloud("upstreams", "list")
    for key in (DEEPSEEK_KEY, ZHIPU_KEY, "short.key"):
        assert key not in shown.stdout + shown.stderr


def test_accounts_have_their_names_addresses_and_models(vipcloud, data: Path) -> None:
    Path("vipcloud.toml").write_text(
        '[upstreams.zhipu]\nbase_url = "http://127.0.0.1:9/v4"\n'
        f'[[upstreams.zhipu.accounts]]\nname = "main"\nkeys = ["{ZHIPU_KEY}"]\nmodels = ["glm-4-air"]\n'
        f'[[upstreams.zhipu.accounts]]\nname = "spare"\nkeys = ["{ZHIPU_KEY}"]\nbase_url = "http://127.0.0.1:8"\n'
    )
    listed = rows(vipcloud)
    assert (listed["zhipu/main"]["base_url"], listed["zhipu/main"]["models"]) == (
        "http://127.0.0.1:9/v4",
        ["glm-4-air"],
    )
    assert listed["zhipu/main"]["upstream_models"] == ["glm-4-air-250414", "glm-4.5-air"]
    assert listed["zhipu/spare"]["base_url"] == "http://127.0.0.1:8"
    assert len(listed["zhipu/spare"]["models"]) == 4


def test_an_account_that_cannot_be_reached_fails_the_test(vipcloud, data: Path) -> None:
    Path("vipcloud.toml").write_text(
        f'[upstreams.deepseek]\nbase_url = "http://127.0.0.1:9"\nkeys = ["{DEEPSEEK_KEY}"]\n'
    )
    told = vipcloud("upstreams", "test", status=1)
    assert told.stdout.startswith("fail  deepseek/1 …cdef: http://127.0.0.1:9 cannot be reached")
    assert DEEPSEEK_KEY not in told.stdout + told.stderr
    assert "'zhipu' is no upstream with a key" in vipcloud("upstreams", "test", "zhipu", status=1).stderr


def test_the_simulators_of_a_running_gateway_are_listed_and_tested(serve, vipcloud) -> None:
    serve()
    listed = rows(vipcloud)
    assert (listed["deepseek/1"]["state"], listed["zhipu/1"]["state"]) == ("simulated", "simulated")
    told = vipcloud.json("upstreams", "test")
    assert {each["upstream"]: each["verdict"] for each in told}.items() >= {"deepseek/1": "ok", "zhipu/1": "ok"}.items()
    assert "balance 110.00 CNY" in vipcloud("upstreams", "test", "deepseek").stdout
    every = vipcloud("upstreams", "test", "zhipu/1", "--every-model").stdout
    assert "glm-4-plus answers" in every
    assert every.count("ok ") == every.count("\n") == len(listed["zhipu/1"]["upstream_models"])


@pytest.fixture
def settings(data: Path) -> Settings:
    data.mkdir()
    return Settings(data=str(data))


def test_a_gateway_is_found_while_it_runs_and_not_after(settings: Settings) -> None:
    said = Running(origin="http://127.0.0.1:1", simulated={"zhipu": "http://127.0.0.1:2"})
    assert running.find(settings) is None
    with running.announced(settings, said):
        assert running.find(settings) == said
        assert running.as_served(settings)[0].upstreams["zhipu"].base_url == "http://127.0.0.1:2"
    assert running.find(settings) is None
    assert os.listdir(settings.data) == []


def test_what_a_killed_gateway_has_left_is_not_taken_for_one(settings: Settings) -> None:
    (settings.data_path / running.FILE).write_text('{"origin":"http://127.0.0.1:1"}')
    assert running.find(settings) is None
    assert running.as_served(settings) == (settings, None)


def test_an_account_is_drained_and_revived_and_shown_as_the_gateway_sees_it(
    vipcloud, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", "sk-of-ours")
    assert rows(vipcloud)["deepseek/1"]["live"] is None
    assert "gets no new requests" in vipcloud("upstreams", "drain", "deepseek/1").stdout
    assert upstream_state.read_control(data).drained == {"deepseek/1"}
    model = upstream_state.ModelState("deepseek-flash", "active", "open", 2, 3.5)
    for drained, shown in ((True, "drained"), (False, "deepseek-flash breaker open, next try in 3.5 s")):
        account = upstream_state.AccountState("deepseek/1", 4, 1, 0, drained, "", [model])
        state = upstream_state.State(context.clock.wall_s(), [account])
        (data / upstream_state.STATE_FILE).write_bytes(msgspec.json.encode(state))
        assert shown in vipcloud("upstreams", "list").stdout
    assert rows(vipcloud)["deepseek/1"]["live"]["models"][0]["opened"] == 2
    assert "gets requests again" in vipcloud("upstreams", "revive", "deepseek/1").stdout
    control = upstream_state.read_control(data)
    assert (control.drained, control.revived) == (frozenset(), {"deepseek/1": 1})
    assert "There is no upstream account 'deepseek/9'" in vipcloud("upstreams", "drain", "deepseek/9", status=1).stderr
