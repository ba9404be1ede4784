"""Where settings come from, which source wins, and that a wrong one is named with what would be right."""

import os
from pathlib import Path

import msgspec
import pytest

from vipcloud.errors import SettingsError
from vipcloud.settings import Secret, Settings, load


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("VIPCLOUD_"):
            monkeypatch.delenv(name)
    return tmp_path


def test_the_defaults_hold_without_a_source() -> None:
    assert load() == Settings()


def test_a_later_source_wins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "vipcloud.toml"
    file.write_text('data = "of-file"\n[server]\nport = 1\nhost = "::1"\nbacklog = 7\n')
    assert (load().server.port, load().server.host, load().data) == (1, "::1", "of-file")
    monkeypatch.setenv("VIPCLOUD_SERVER_PORT", "2")
    monkeypatch.setenv("VIPCLOUD_DATA", "of-environment")
    assert (load().server.port, load().server.backlog, load().data) == (2, 7, "of-environment")
    settings = load(None, {"server": {"port": 3}, "data": "of-command"})
    assert (settings.server.port, settings.server.backlog, settings.data) == (3, 7, "of-command")


def test_another_file_is_read_instead_of_the_usual_one(folder: Path) -> None:
    (folder / "vipcloud.toml").write_text("[server]\nport = 1\n")
    (folder / "other.toml").write_text("[server]\nbacklog = 9\n")
    assert (load(folder / "other.toml").server.port, load(folder / "other.toml").server.backlog) == (8080, 9)


@pytest.mark.parametrize(
    ("name", "text", "group", "field", "value"),
    [
        ("VIPCLOUD_TIMEOUTS_IDLE_S", "1.5", "timeouts", "idle_s", 1.5),
        ("VIPCLOUD_GATEWAY_STRICT_PARAMETERS", "true", "gateway", "strict_parameters", True),
        ("VIPCLOUD_GATEWAY_STRICT_PARAMETERS", "0", "gateway", "strict_parameters", False),
        ("VIPCLOUD_SERVER_BODY_BYTES_MAX", "4096", "server", "body_bytes_max", 4096),
        ("VIPCLOUD_STORE_URL", "sqlite:///x.db", "store", "url", "sqlite:///x.db"),
        ("VIPCLOUD_ACCOUNTS_STARTER_CREDIT_USD", "0.50", "accounts", "starter_credit_usd", "0.50"),
    ],
)
def test_the_environment_sets_any_field(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, group: str, field: str, value: object
) -> None:
    monkeypatch.setenv(name, text)
    assert getattr(getattr(load(), group), field) == value


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("[server]\nport = 70000\n", "server.port: expected `int` <= 65535."),
        ('[server]\nport = "80"\n', "server.port: expected `int`, got `str`."),
        ("[server]\ncolour = 1\n", "server.colour is not a setting"),
        ("[sever]\nport = 1\n", "sever is not a setting"),
        ("[timeouts]\nidle_s = 0\n", "timeouts.idle_s: expected `float` > 0"),
        ("[tiers.gold]\nrpm = -1\n", "tiers[...].rpm: expected `int` >= 0."),
        ('[accounts]\nstarter_credit_usd = "5,00"\n', "accounts.starter_credit_usd: "),
        ('[telemetry]\notlp_endpoint = "localhost:4318"\n', "telemetry.otlp_endpoint"),
        ('[upstreams.deepseek]\nbase_url = "example.com"\n', "upstreams.deepseek.base_url must begin with http"),
        ('[upstreams.zhipu]\nauth = "basic"\n', "upstreams[...].auth"),
        ("[upstreams.zhipu]\nkeys = [1]\n", "upstreams[...].keys[0]: expected `str`"),
        ("[server\n", "vipcloud.toml: "),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(folder: Path, source: str, said: str) -> None:
    (folder / "vipcloud.toml").write_text(source)
    with pytest.raises(SettingsError) as told:
        load()
    assert said in str(told.value)


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIPCLOUD_SERVER_PORT", "eighty")
    with pytest.raises(SettingsError, match="VIPCLOUD_SERVER_PORT: "):
        load()


def test_a_file_that_is_named_must_be_there(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml does not exist"):
        load(folder / "absent.toml")


def test_tiers_are_added_to_and_changed_field_by_field(folder: Path) -> None:
    (folder / "vipcloud.toml").write_text("[tiers.payg]\nrpm = 5\n[tiers.gold]\nrpd = 10\n")
    tiers = load().tiers
    assert set(tiers) == {"payg", "pro", "enterprise", "gold"}
    assert (tiers["payg"].rpm, tiers["payg"].concurrency, tiers["gold"].rpd) == (5, 10, 10)


def test_keys_come_from_the_file_or_a_variable_that_it_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_KEY", "sk-1")
    (folder / "vipcloud.toml").write_text('[upstreams.deepseek]\nkeys = ["env:OUR_KEY", "env:UNSET_KEY", "sk-2"]\n')
    assert [key.reveal() for key in load().upstreams["deepseek"].keys] == ["sk-1", "sk-2"]


def test_a_secret_never_prints(folder: Path) -> None:
    (folder / "vipcloud.toml").write_text('[upstreams.deepseek]\nkeys = ["sk-of-ours"]\n')
    settings = load()
    for text in (repr(settings), str(settings), f"{settings.upstreams['deepseek'].keys[0]}"):
        assert "sk-of-ours" not in text
    with pytest.raises(TypeError):
        msgspec.json.encode(settings)
    assert Secret("a") == Secret("a") != Secret("b")


def test_every_setting_with_a_unit_says_it_last() -> None:
    units = (
        "_s",
        "_max",
        "_min",
        "_usd",
        "rpm",
        "rpd",
        "share",
        "in_row",
        "successes",
        "burst",
        "jitter",
        "nodes",
        "_tokens",
    )
    for group in msgspec.structs.fields(Settings):
        if not (isinstance(group.type, type) and issubclass(group.type, msgspec.Struct)):
            continue
        for field in msgspec.structs.fields(group.type):
            if isinstance(field.default, int | float) and not isinstance(field.default, bool):
                assert field.name.endswith(units) or field.name in ("port", "backlog"), f"{group.name}.{field.name}"


def test_a_secret_comes_from_its_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VIPCLOUD_MAIL_PASSWORD", "hunter2")
    monkeypatch.setenv("VIPCLOUD_PAYMENTS_STRIPE_KEY", "env:OUR_STRIPE_KEY")
    monkeypatch.setenv("OUR_STRIPE_KEY", "sk_test_1")
    found = load()
    assert found.mail.password.reveal() == "hunter2"
    assert found.payments.stripe_key.reveal() == "sk_test_1"
