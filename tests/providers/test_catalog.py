"""The packaged catalogue, what an operator's file may change, and how a wrong one is refused."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipcloud.errors import ModelNotFound, NotImplementedYet, SettingsError
from vipcloud.providers import catalog
from vipcloud.providers.catalog import catalog_of
from vipcloud.providers.models import Model

PACKAGED = catalog.packaged_toml()
CATALOG = catalog_of(PACKAGED)

# id, provider, status, context, input and output in pico-dollars per token
PROMISED = [
    ("deepseek-chat", "DeepSeek", "live", 65_536, 310_000, 1_270_000),
    ("deepseek-reasoner", "DeepSeek", "live", 65_536, 630_000, 2_530_000),
    ("deepseek-v3.2", "DeepSeek", "live", 65_536, 310_000, 1_270_000),
    ("glm-4-flash", "Zhipu BigModel", "free", 131_072, 0, 0),
    ("glm-4-air", "Zhipu BigModel", "live", 131_072, 160_000, 160_000),
    ("glm-4-plus", "Zhipu BigModel", "live", 131_072, 8_050_000, 8_050_000),
    ("glm-4", "Zhipu BigModel", "live", 131_072, 805_000, 805_000),
    ("kimi-k2", "Moonshot", "soon", 204_800, 690_000, 2_880_000),
    ("qwen3-max", "Alibaba", "soon", 262_144, 1_380_000, 5_520_000),
    ("minimax-text-01", "MiniMax", "soon", 1_000_192, 230_000, 1_265_000),
]


def pico_dollars(model: Model) -> tuple[int, int]:
    """Per token of input and of output, at any time and of any size: the public prices know no other."""
    assert model.prices is not None
    (price,) = model.prices.prices
    assert (price.tiers, price.input_max) == ((), price.input)
    return price.input, price.output


def test_the_ten_models_are_those_promised_in_order() -> None:
    found = [
        (
            model.id,
            model.provider_name,
            model.status,
            model.context_tokens,
            *pico_dollars(model),
        )
        for model in CATALOG.models.values()
    ]
    assert found == PROMISED


@pytest.mark.parametrize(
    ("model_id", "upstreams"),
    [
        (
            "deepseek-chat",
            [
                ("deepseek/deepseek-flash", {"thinking": {"type": "disabled"}}),
                ("dashscope/deepseek-v3.2", {"enable_thinking": False}),
            ],
        ),
        (
            "deepseek-reasoner",
            [
                ("deepseek/deepseek-flash", {"thinking": {"type": "enabled"}}),
                ("dashscope/deepseek-v3.2", {"enable_thinking": True}),
            ],
        ),
        (
            "deepseek-v3.2",
            [
                ("dashscope/deepseek-v3.2", {"enable_thinking": False}),
                ("deepseek/deepseek-flash", {"thinking": {"type": "disabled"}}),
            ],
        ),
        (
            "glm-4-flash",
            [("zhipu/glm-4-flash-250414", {}), ("zhipu/glm-4.7-flash", {"thinking": {"type": "disabled"}})],
        ),
        ("glm-4-air", [("zhipu/glm-4-air-250414", {}), ("zhipu/glm-4.5-air", {"thinking": {"type": "disabled"}})]),
        (
            "glm-4-plus",
            [
                ("zhipu/glm-4-plus", {}),
                ("zhipu/glm-4.7", {"thinking": {"type": "disabled"}}),
                ("zhipu/glm-4.6v", {"thinking": {"type": "disabled"}}),
            ],
        ),
        ("glm-4", [("zhipu/glm-4-plus", {}), ("zhipu/glm-4.7", {"thinking": {"type": "disabled"}})]),
        (
            "kimi-k2",
            [
                ("moonshot/kimi-k2.6", {"thinking": {"type": "disabled"}}),
                ("dashscope/kimi-k2.6", {"enable_thinking": False}),
            ],
        ),
        (
            "qwen3-max",
            [
                ("dashscope/qwen3-max", {"enable_thinking": False}),
                ("dashscope/qwen3.7-max", {"enable_thinking": False}),
                ("dashscope/qwen3-vl-plus", {"enable_thinking": False}),
            ],
        ),
        (
            "minimax-text-01",
            [
                ("minimax/MiniMax-Text-01", {"mask_sensitive_info": False}),
                ("minimax/MiniMax-M3", {"thinking": {"type": "disabled"}, "reasoning_split": True}),
            ],
        ),
    ],
)
def test_a_model_is_served_by_its_ready_candidates_in_order(model_id: str, upstreams: list[Any]) -> None:
    assert [(one.id, one.extra) for one in CATALOG.models[model_id].candidates] == upstreams


@pytest.mark.parametrize("model_id", ["kimi-k2", "qwen3-max", "minimax-text-01"])
def test_an_announced_model_is_switched_on_by_one_line(model_id: str) -> None:
    switched = catalog_of(PACKAGED, f'[models.{model_id}]\nstatus = "live"')
    assert switched.model(model_id).candidates


def test_a_candidate_may_be_called_at_another_path_than_its_provider() -> None:
    text_01, m3 = CATALOG.models["minimax-text-01"].candidates
    assert (text_01.chat_path, m3.chat_path) == ("/text/chatcompletion_v2", "/chat/completions")


def test_an_alias_keeps_its_own_id_and_name_and_has_its_targets_rest() -> None:
    alias, target = CATALOG.models["deepseek-v3.2"], CATALOG.models["deepseek-chat"]
    assert (alias.id, alias.name, alias.alias_of) == ("deepseek-v3.2", "DeepSeek V3.2", "deepseek-chat")
    assert alias.prices is not None
    assert target.prices is not None
    assert (alias.prices.versions, alias.capabilities) == (target.prices.versions, target.capabilities)


def test_an_alias_is_served_as_its_target_is_unless_it_says_otherwise() -> None:
    override = '[models.glm-4-latest]\nalias_of = "glm-4"'
    loaded = catalog_of(PACKAGED, override).models
    assert [one.id for one in loaded["glm-4-latest"].candidates] == [one.id for one in loaded["glm-4"].candidates]
    assert loaded["deepseek-v3.2"].candidates[0].id == "dashscope/deepseek-v3.2"


def test_an_unknown_model_is_not_found() -> None:
    with pytest.raises(ModelNotFound, match="gpt-9"):
        CATALOG.model("gpt-9")


@pytest.mark.parametrize("model_id", ["kimi-k2", "qwen3-max", "minimax-text-01"])
def test_an_announced_model_is_not_implemented_yet(model_id: str) -> None:
    with pytest.raises(NotImplementedYet, match="announced and not switched on") as caught:
        CATALOG.model(model_id)
    assert caught.value.param == "model"


def test_a_model_without_a_price_is_refused_never_free() -> None:
    override = """
        [models.new]
        name = "New"
        provider = "zhipu"
        owned_by = "zhipu"
        status = "live"
        notes = ""
        created = 1
        context_tokens = 1024
        output_tokens_max = 256
        candidates = [{ provider = "zhipu", model = "new", cost = { input = "1", output = "1" } }]
    """
    loaded = catalog_of(PACKAGED, override)
    with pytest.raises(NotImplementedYet, match="no price"):
        loaded.model("new")
    assert loaded.models["new"].prices is None


def test_a_candidates_quirks_win_over_its_providers() -> None:
    chat = CATALOG.models["deepseek-chat"].candidates[0]
    reasoner = CATALOG.models["deepseek-reasoner"].candidates[0]
    assert (chat.quirks.thinking, reasoner.quirks.thinking) == (False, True)
    assert (chat.quirks.stop_max, reasoner.quirks.stop_max) == (16, 16)
    assert (chat.first_byte_s, reasoner.first_byte_s) == (60, 300)


def test_what_we_sell_caps_the_output_and_so_does_the_upstream() -> None:
    assert CATALOG.models["deepseek-chat"].candidates[0].output_tokens_max == 8_192
    override = "[models.glm-4-air]\noutput_tokens_max = 50_000"
    raised = catalog_of(PACKAGED, override).models["glm-4-air"]
    assert [one.output_tokens_max for one in raised.candidates] == [16_000, 50_000]


# --- an operator's file --------------------------------------------------------------------------------------------


def test_an_override_changes_only_the_keys_it_names() -> None:
    loaded = catalog_of(PACKAGED, '[models.glm-4-air.price]\ninput = "0.2"')
    assert pico_dollars(loaded.models["glm-4-air"]) == (200_000, 160_000)
    assert list(loaded.models) == list(CATALOG.models)


def test_a_provider_that_is_not_ready_serves_nothing() -> None:
    loaded = catalog_of(PACKAGED, "[providers.dashscope]\nready = false")
    assert [one.id for one in loaded.model("deepseek-chat").candidates] == ["deepseek/deepseek-flash"]


def test_an_override_replaces_an_array_whole() -> None:
    override = """
        [[models.glm-4.candidates]]
        provider = "zhipu"
        model = "glm-4.7"
        cost = { input = "0.6", output = "2.2" }
    """
    assert [one.upstream_model for one in catalog_of(PACKAGED, override).models["glm-4"].candidates] == ["glm-4.7"]


def test_an_override_may_add_a_provider_and_a_model() -> None:
    override = """
        [providers.local]
        name = "Local"
        ready = true
        base_url = "http://127.0.0.1:8000/v1"
        chat_path = "/chat/completions"
        key_env = "LOCAL_API_KEY"
        first_byte_s = 30
        limits_per = "account"
        [models."mine/tiny:1b"]
        name = "Tiny"
        provider = "local"
        owned_by = "me"
        status = "free"
        notes = ""
        created = 1
        context_tokens = 1024
        output_tokens_max = 256
        price = { input = "0", output = "0" }
        candidates = [{ provider = "local", model = "tiny", cost = { input = "0", output = "0" } }]
    """
    loaded = catalog_of(PACKAGED, override)
    assert loaded.model("mine/tiny:1b").candidates[0].provider.base_url == "http://127.0.0.1:8000/v1"


CANDIDATE = '[[models.glm-4.candidates]]\nprovider = "zhipu"\nmodel = "m"\ncost = { input = "1", output = "1" }\n'


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("a = 1\na = 2", "not TOML"),
        ("[models.glm-4]\n[models.glm-4]", "not TOML"),
        ("[pages]", "pages is not a table of the catalogue; it has calendars"),
        ("models = 3", "models must be a table of tables"),
        ("[models]\nx = 3", "models.x must be a table"),
        ("[models.glm-4]\ncolour = 1", "models.glm-4.colour is not a field here; there are alias_of, candidates"),
        (
            "[models.glm-4.capabilities]\nspeech = true",
            "capabilities.speech is not a field here; there are json_object",
        ),
        ("[providers.zhipu]\nurl = 1", "providers.zhipu.url is not a field here"),
        ("[providers.zhipu.quirks]\nfast = 1", "providers.zhipu.quirks.fast is not a field here"),
        (CANDIDATE + "colour = 1", r"models.glm-4.candidates\[0\].colour is not a field here; there are chat_path"),
        (CANDIDATE + "quirks = { fast = 1 }", r"candidates\[0\].quirks.fast is not a field here"),
        (CANDIDATE + CANDIDATE, r"candidates\[1\]: zhipu/m is there already"),
        ("[models.glm-4-air.price]\ninput = 0.805", "models.glm-4-air.price.input: a price is text"),
        ("[models.glm-4-air.price]\ninput = 1", "models.glm-4-air.price.input: a price is text"),
        (CANDIDATE.replace('"1"', "1"), r"candidates\[0\].cost.input: a price is text"),
        ('[models.glm-4-air.price]\ninput = "-1"', "models.glm-4-air.price.input: '-1' is not dollars per 1M"),
        ('[models.glm-4-air.price]\ncached_input = "1e3"', "models.glm-4-air.price.cached_input: '1e3'"),
        ('[models.glm-4-air.price]\noutput = "0.1234567"', "at most six decimals"),
        ('[models.glm-4]\nstatus = "free"', "price and status disagree"),
        ('[models.glm-4-flash]\nstatus = "live"', "price and status disagree"),
        ('[models.glm-4]\nstatus = "on"', "models.glm-4.status: 'on' is not one of free, live, soon"),
        ("[models.glm-4]\ncontext_tokens = 0", "models.glm-4.context_tokens: expected `int` >= 1"),
        ('[models.glm-4]\nprovider = "acme"', "models.glm-4.provider: 'acme' is not a provider; name one of dashscope"),
        (CANDIDATE.replace("zhipu", "acme"), r"candidates\[0\].provider: 'acme' is not a provider"),
        ("[providers.zhipu]\nready = false", "models.glm-4-flash.status: 'free' needs a candidate on a provider that"),
        ("[providers.deepseek]\nready = false", "capabilities.logprobs: no candidate on a ready provider can do this"),
        ("[models.glm-4-air]\ncandidates = []", "model's are on none at all"),
        ('[models.glm-4]\nalias_of = "x"', "models.glm-4.alias_of: 'x' is not a model"),
        ('[models.x]\nalias_of = "y"\n[models.y]\nalias_of = "x"', "models.y.alias_of: a loop, x → y → x"),
        ('[models.x]\nalias_of = "x"', "models.x.alias_of: a loop, x → x"),
        ("[models.glm-4.capabilities]\nvision = true", "capabilities.vision: no candidate on a ready provider can"),
        ("[models.glm-4.capabilities]\nlogprobs = true", "capabilities.logprobs: no candidate"),
        ("[models.glm-4.capabilities]\nreasoning = true", "capabilities.reasoning: no candidate"),
        ('[models."a b"]\nalias_of = "glm-4"', "models.a b: an id is at most 128"),
        ("[providers.X]", "providers.X: an id is lower-case"),
        ('[providers.zhipu]\nbase_url = "ftp://x"', "providers.zhipu.base_url: expected `str` matching regex"),
        ('[providers.zhipu.headers]\nauthorization = "x"', "providers.zhipu.headers.authorization: not a header"),
        ('[providers.zhipu.headers]\nx-a = "a\\r\\nb: c"', "providers.zhipu.headers.x-a: not a header"),
        ("[providers.zhipu.quirks]\ntop_p_range = [1.0, 0.5]", "top_p_range: the lower bound stands first"),
        ('[[providers.zhipu.errors]]\nkind = "auth"', r"providers.zhipu.errors\[0\]: give at least one of status"),
        ('[[providers.zhipu.errors]]\nkind = "odd"', r"providers.zhipu.errors\[0\].kind: 'odd' is not one of arrears"),
        ('[models.new]\nname = "New"', "models.new: object missing required field"),
    ],
)
def test_a_wrong_catalogue_is_refused_with_its_path_and_what_would_be_right(override: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        catalog_of(PACKAGED, override)


# --- properties ----------------------------------------------------------------------------------------------------


TABLES = st.recursive(
    st.dictionaries(st.sampled_from("abc"), st.integers() | st.lists(st.integers(), max_size=2), max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner | st.integers(), max_size=3),
    max_leaves=8,
)


@given(TABLES, TABLES)
def test_a_merge_has_every_key_and_the_upper_value(below: dict[str, Any], above: dict[str, Any]) -> None:
    merged = catalog.merge(below, above)
    assert merged.keys() == below.keys() | above.keys()
    for key, value in merged.items():
        if isinstance(below.get(key), dict) and isinstance(above.get(key), dict):
            assert value == catalog.merge(below[key], above[key])
        else:
            assert value == (above[key] if key in above else below[key])


@given(TABLES)
def test_a_merge_with_nothing_or_itself_changes_nothing(table: dict[str, Any]) -> None:
    assert catalog.merge(table, {}) == catalog.merge({}, table) == catalog.merge(table, table) == table


@given(TABLES, TABLES, TABLES)
def test_a_merge_leaves_its_arguments_alone(below: dict[str, Any], above: dict[str, Any], more: dict[str, Any]) -> None:
    before = msgspec.json.encode([below, above, more])
    catalog.merge(catalog.merge(below, above), more)
    assert msgspec.json.encode([below, above, more]) == before
