"""`vipcloud models`: what newcomers read, what scripts read, and switching models without a restart."""

import re
from pathlib import Path

import pytest

OWN = """# Our catalogue.
[models.glm-4-air]
price = { input = "0.05", output = "0.18" }   # a loss leader

[models.labs]
alias_of = "glm-4"
name = "Labs"
notes = "ours"
created = 1764547200
"""
ARRIVING = """
[models.glm-4-air]
price = [
  { input = "0.16", output = "0.16" },
  { input = "0.18", output = "0.2", effective = 2999-01-01T00:00:00Z },
]
"""
NOT_READY = "[providers.moonshot]\nready = false\n[providers.dashscope]\nready = false\n"


@pytest.fixture
def own(data: Path) -> Path:
    data.mkdir()
    path = data / "catalog.toml"
    path.write_text(OWN)
    return path


def test_a_model_is_shown_with_what_each_upstream_leaves_of_its_price(vipcloud) -> None:
    shown = vipcloud("models", "show", "deepseek-chat")
    assert re.search(r"model +deepseek-chat\n", shown.stdout)
    assert re.search(r"price id +base\.[0-9a-f]{12}\n", shown.stdout)
    assert re.search(r"the price +0\.31 +0\.31 +1\.27\n", shown.stdout)
    assert re.search(r"deepseek/deepseek-flash +0\.15 +\+51 % +0\.003 +\+99 % +0\.60 +\+52 %\n", shown.stdout)
    assert re.search(r"deepseek/deepseek-flash, deepseek-peak +0\.30 +\+3 % ", shown.stdout)
    assert shown.stderr == ""
    assert "alias of deepseek-chat" in vipcloud("models", "show", "deepseek-v3.2").stdout


def test_a_price_below_cost_is_told_everywhere(vipcloud) -> None:
    shown = vipcloud("models", "show", "kimi-k2")
    assert "Below cost at moonshot/kimi-k2.6 (input, output)" in shown.stderr
    assert "−38 %" in shown.stdout
    assert "kimi-k2" in vipcloud("models", "list").stderr
    as_json = vipcloud.json("models", "show", "kimi-k2")
    assert as_json["below_cost"][0] == {"upstream": "moonshot/kimi-k2.6", "classes": ["input", "output"]}
    (line,) = as_json["upstreams"][0]["margins"]
    assert line["input"] == {"price": "0.69", "cost": "0.95", "margin": -0.3768}
    assert line["output"] == {"price": "2.88", "cost": "4.00", "margin": -0.3889}


def test_a_free_model_is_no_loss(vipcloud) -> None:
    shown = vipcloud("models", "show", "glm-4-flash")
    assert "calls cost nothing" in shown.stdout
    assert shown.stderr == ""


def test_what_takes_effect_later_is_announced(vipcloud, data: Path) -> None:
    data.mkdir()
    (data / "catalog.toml").write_text(ARRIVING)
    shown = vipcloud("models", "show", "glm-4-air").stdout
    assert "From 2999-01-01T00:00:00Z on: input 0.18, output 0.20 (2999-01-01." in shown


def test_models_go_off_and_on_and_the_file_keeps_its_words(vipcloud, own: Path) -> None:
    off = vipcloud("models", "disable", "glm-4-air")
    assert "glm-4-air is soon now" in off.stdout
    assert vipcloud.json("models", "show", "glm-4-air")["status"] == "soon"
    on = vipcloud("models", "enable", "glm-4-air")
    assert "within a second" in on.stdout
    assert "Below cost at zhipu/glm-4-air-250414 (input" in on.stderr
    assert "ZHIPU_API_KEY" in on.stderr
    assert own.read_text() == OWN.replace("leader\n", 'leader\nstatus = "live"\n')
    assert "is live already" in vipcloud("models", "enable", "glm-4-air").stdout
    vipcloud("models", "disable", "glm-4-flash")
    assert vipcloud.json("models", "enable", "glm-4-flash")["status"] == "free"


def test_an_alias_follows_its_model_unless_it_was_switched_itself(vipcloud, own: Path) -> None:
    switched = vipcloud.json("models", "disable", "glm-4")
    assert switched == {
        "id": "glm-4",
        "status": "soon",
        "changed": True,
        "also": ["labs"],
        "file": str(own),
        "below_cost": [],
    }
    vipcloud("models", "enable", "labs")
    statuses = {model["id"]: model["status"] for model in vipcloud.json("models", "list")["data"]}
    assert (statuses["glm-4"], statuses["labs"]) == ("soon", "live")
    assert vipcloud.json("models", "enable", "glm-4")["also"] == []
    assert vipcloud.json("models", "enable", "glm-4")["changed"] is False


def test_no_key_is_no_worry_where_there_is_one(vipcloud, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZHIPU_API_KEY", "id.secret-of-ours")
    vipcloud("models", "disable", "glm-4-plus")
    result = vipcloud("models", "enable", "glm-4-plus")
    assert "No key" not in result.stderr
    assert "secret-of-ours" not in result.stdout + result.stderr + own.read_text()


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        (OWN, ["show", "gpt-9"], "There is no model 'gpt-9'; there are deepseek-chat"),
        (OWN, ["enable", "gpt-9"], "There is no model 'gpt-9'"),
        (OWN, ["disable", "[bold]"], "There is no model '[bold]'"),
        (NOT_READY, ["enable", "kimi-k2"], "kimi-k2 cannot be switched on: it is served by Moonshot, Alibaba, and"),
        (
            '[models.labs]\nname = "L"\nprovider = "zhipu"\nowned_by = "l"\nstatus = "soon"\nnotes = ""\ncreated = 1\n'
            "context_tokens = 1024\noutput_tokens_max = 256\n",
            ["enable", "labs"],
            "labs has no price, and nothing is sold without one",
        ),
        ("[models.x", ["enable", "glm-4"], "is not TOML"),
        ('[models]\nglm-4 = { status = "odd" }', ["disable", "glm-4"], "'odd' is not one of free, live, soon"),
    ],
)
def test_what_cannot_be_done_is_told_and_the_file_left_alone(
    vipcloud, data: Path, text: str, arguments: list[str], said: str
) -> None:
    data.mkdir()
    path = data / "catalog.toml"
    path.write_text(text)
    result = vipcloud("models", *arguments, status=1)
    assert (said in result.stderr, result.stderr.count("\n")) == (True, 1), result.stderr
    assert path.read_text() == text
    assert [entry.name for entry in data.iterdir()] == ["catalog.toml"]


def test_a_file_that_cannot_be_written_is_told(vipcloud, data: Path) -> None:
    data.mkdir()
    (data / "catalog.toml").mkdir()
    result = vipcloud("models", "disable", "glm-4", status=1)
    assert "cannot be changed" in result.stderr


def test_a_running_gateway_follows_without_a_restart(serve, vipcloud, until) -> None:
    served = serve()
    announced = ("kimi-k2", "qwen3-max", "minimax-text-01")
    assert [served.chat(model=model_id)[0] for model_id in announced] == [501, 501, 501]
    for model_id in announced:
        told = vipcloud("models", "enable", model_id)
        assert f"The gateway at {served.base.removesuffix('/v1')} takes it within a second" in told.stdout
        assert "No key" not in told.stderr  # its providers are simulated
    until(lambda: [served.chat(model=model_id)[0] for model_id in announced] == [200, 200, 200])
    vipcloud("models", "disable", "kimi-k2")
    until(lambda: served.chat(model="kimi-k2")[0] == 501)
    assert served.chat(model="qwen3-max")[0] == 200
