"""Accounts, keys, models and the doctor: what they print, for people and for scripts, and how they refuse."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from databases import Postgres
from vipcloud.cli import commands
from vipcloud.http import server


def test_an_account_is_created_listed_shown_and_given_credit(vipcloud) -> None:
    assert "No accounts yet" in vipcloud("accounts", "list").stdout
    created = vipcloud("accounts", "create", "Ada@Example.com", "--tier", "pro", "--rpd", "0", "--credit", "1.50")
    assert "ada@example.com" in created.stdout
    assert "$1.50" in created.stdout
    assert "vipcloud accounts grant" not in created.stdout
    assert "now has $4.25 credit" in vipcloud("accounts", "grant", "ada@example.com", "2.75").stdout
    (listed,) = vipcloud.json("accounts", "list")
    assert listed == vipcloud.json("accounts", "show", "ADA@example.com")
    assert {name: listed[name] for name in ("tier", "credit_usd", "spent_usd", "rpm", "rpd", "concurrency")} == {
        "tier": "pro",
        "credit_usd": "4.25",
        "spent_usd": "0.00",
        "rpm": 600,
        "rpd": 0,
        "concurrency": 100,
    }
    shown = vipcloud("accounts", "show", "ada@example.com").stdout
    assert re.search(r"rpd +no limit\n", shown)
    assert re.search(r"suspended +False\n", shown)


def test_an_account_begins_with_the_starter_credit(vipcloud) -> None:
    assert vipcloud.json("accounts", "create", "ada@example.com")["credit_usd"] == "5.00"
    assert vipcloud.json("accounts", "create", "bob@example.com", "--credit", "0")["credit_usd"] == "0.00"


def test_a_key_is_shown_once_and_revoked_by_any_of_its_names(vipcloud, data: Path) -> None:
    vipcloud("accounts", "create", "ada@example.com")
    assert "No keys yet" in vipcloud("keys", "list").stdout
    plain = vipcloud("keys", "create", "--account", "ada@example.com")
    key = plain.stdout.strip()
    assert re.fullmatch(r"vc-sk-[0-9A-Za-z]{46}", key)
    assert "not shown again" in plain.stderr
    made = vipcloud.json("keys", "create", "--account", "ada@example.com", "--name", "laptop")
    third = vipcloud.json("keys", "create", "--account", "ada@example.com")
    listed = vipcloud.json("keys", "list", "--account", "ada@example.com")
    assert [row["name"] for row in listed] == ["", "laptop", ""]
    assert all(row["revoked_at"] is None for row in listed)

    masked = next(row["key"] for row in listed if row["id"] == third["id"])
    for reference in (key, made["id"], masked):
        assert vipcloud.json("keys", "revoke", reference)["revoked_at"]
    assert all(row["revoked_at"] for row in vipcloud.json("keys", "list"))
    assert "Revoked vc-sk-" in vipcloud("keys", "revoke", made["id"]).stdout
    written = b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file())
    for text in (key, made["key"], third["key"]):
        assert text.encode() not in written
        assert text not in vipcloud("keys", "list").stdout


def test_a_key_has_the_terms_that_its_options_name(vipcloud) -> None:
    vipcloud("accounts", "create", "ada@example.com")
    options = ["--cap-daily", "1.50", "--cap-monthly", "20", "--cap-total", "0.000000001", "--rpm", "5", "--rpd", "60"]
    options += ["--concurrency", "2", "--models", "glm-4-air", "--models", "deepseek-chat", "--ips", "203.0.113.0/24"]
    vipcloud("keys", "create", "--account", "ada@example.com", "--name", "bound", *options, "--expires", "2099-01-31")
    vipcloud("keys", "create", "--account", "ada@example.com", "--name", "ops", "--management", "--ips", "::1")
    bound, ops = vipcloud.json("keys", "list")
    assert {name: bound[name] for name in ("cap_daily_usd", "cap_monthly_usd", "cap_total_usd")} == {
        "cap_daily_usd": "1.50",
        "cap_monthly_usd": "20.00",
        "cap_total_usd": "0.000000001",
    }
    assert (bound["rpm"], bound["rpd"], bound["concurrency"]) == (5, 60, 2)
    assert (bound["models"], bound["ips"]) == ("glm-4-air,deepseek-chat", "203.0.113.0/24")
    assert (bound["expires_at"], bound["management"]) == ("2099-01-31T00:00:00Z", None)
    assert (ops["management"], ops["ips"], ops["cap_total_usd"]) == (True, "::1/128", None)
    assert "management" in vipcloud("keys", "list").stdout


def test_an_accounts_limits_are_changed_one_by_one(vipcloud) -> None:
    vipcloud("accounts", "create", "ada@example.com", "--rpm", "7")

    def told() -> tuple[object, ...]:
        shown = vipcloud.json("accounts", "show", "ada@example.com")
        return shown["tier"], shown["rpm"], shown["rpd"], shown["concurrency"]

    payg = vipcloud.json("accounts", "create", "b@example.com")
    assert told() == ("payg", 7, payg["rpd"], payg["concurrency"])
    assert "rpd 100" in vipcloud("accounts", "limit", "ada@example.com", "--rpd", "100").stdout
    assert told() == ("payg", 7, 100, payg["concurrency"])
    vipcloud("accounts", "limit", "ada@example.com", "--tier", "pro", "--rpd", "0", "--concurrency", "3")
    assert told() == ("pro", 7, 0, 3)
    printed = vipcloud("accounts", "limit", "ada@example.com", "--rpm", "tier").stdout
    tier, rpm, *_ = told()
    assert (tier, rpm != 7, "rpd no limit" in printed) == ("pro", True, True)


def test_an_accounts_caps_are_changed_one_by_one(vipcloud) -> None:
    vipcloud("accounts", "create", "ada@example.com")

    def told() -> tuple[object, ...]:
        shown = vipcloud.json("accounts", "show", "ada@example.com")
        return shown["cap_daily_usd"], shown["cap_monthly_usd"], shown["cap_total_usd"]

    assert told() == (None, None, None)
    vipcloud("accounts", "cap", "ada@example.com", "--daily", "2", "--total", "0")
    assert told() == ("2.00", None, "0.00")
    printed = vipcloud("accounts", "cap", "ada@example.com", "--daily", "none", "--monthly", "12.345").stdout
    assert told() == (None, "12.345", "0.00")
    assert "cap_daily_usd no cap, cap_monthly_usd 12.345" in printed


def test_the_models_are_listed(vipcloud) -> None:
    table = vipcloud("models", "list").stdout
    listed = vipcloud.json("models", "list")["data"]
    assert len(listed) == 10
    for model in listed:
        assert model["id"] in table
    assert re.search(r"deepseek-chat +live +65,536 +0\.31 +1\.27 +deepseek/deepseek-flash", table)


def test_the_doctor_finds_a_new_house_in_order(vipcloud) -> None:
    findings = {finding["what"]: finding for finding in vipcloud.json("doctor")}
    assert {name: finding["verdict"] for name, finding in findings.items() if name != "open files"} == {
        "settings": "ok",
        "data plane": "note" if server.__file__.endswith(".py") else "ok",
        "store": "note",
        "books": "ok",
        "journal": "ok",
        "catalogue": "ok",
        "prices": "note",
        "upstream deepseek": "note",
        "upstream zhipu": "note",
        "upstream moonshot": "note",
        "upstream dashscope": "note",
        "upstream minimax": "note",
        "upstreams": "note",
    }
    vipcloud("accounts", "create", "ada@example.com")
    printed = vipcloud("doctor").stdout
    assert re.search(r"ok    store: sqlite:///.*/vipcloud\.db, 1 accounts", printed)
    assert "DEEPSEEK_API_KEY" in printed


def test_commands_work_on_postgresql(vipcloud, data: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIPCLOUD_STORE_URL", postgres.create())
    vipcloud("accounts", "create", "ada@example.com", "--credit", "2.50")
    made = vipcloud.json("keys", "create", "--account", "ada@example.com")
    assert [key["id"] for key in vipcloud.json("keys", "list")] == [made["id"]]
    vipcloud("keys", "revoke", made["key"])
    assert vipcloud.json("accounts", "show", "ada@example.com")["credit_usd"] == "2.50"
    printed = vipcloud("doctor").stdout
    assert re.search(r"ok    store: postgresql://\S+, 1 accounts", printed)
    assert not list(data.glob("*.db"))


def test_the_doctor_says_what_is_wrong_and_fails(vipcloud, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", "sk-secret-of-ours")
    Path("vipcloud.toml").write_text('[upstreams.deepseek]\nbase_url = "http://127.0.0.1:9"\n')
    result = vipcloud("doctor", status=1)
    assert re.search(r"fail  upstream deepseek: http://127\.0\.0\.1:9: ", result.stdout)
    assert "sk-secret-of-ours" not in result.stdout + result.stderr
    data.mkdir(exist_ok=True)
    (data / "catalog.toml").write_text("[models.x")
    assert "fail  catalogue" in vipcloud("doctor", status=1).stdout
    Path("vipcloud.toml").write_text("[server]\nport = 0.5\n")
    assert "fail  settings: server.port" in vipcloud("doctor", status=1).stdout


# The words that follow `vipcloud`, and those that the error must have.
REFUSED = [
    (["accounts", "show", "nobody@example.com"], "nobody@example.com has no account"),
    (["accounts", "create", "ada@example.com"], "has an account already"),
    (["accounts", "create", "nonsense"], "is not an e-mail address"),
    (["accounts", "create", "b@example.com", "--tier", "gold"], "the tiers are payg, pro, enterprise"),
    (["accounts", "create", "b@example.com", "--credit", "5,00"], "--credit: '5,00' is not an amount of dollars"),
    (["accounts", "create", "b@example.com", "--credit", "-1"], "--credit must not be below 0"),
    (["accounts", "grant", "ada@example.com", "0"], "Credit cannot be given"),
    (["accounts", "grant", "ada@example.com", "1e9"], "AMOUNT: '1e9' is not an amount"),
    (["keys", "create", "--account", "nobody@example.com"], "has no account"),
    (["keys", "create", "--account", "ada@example.com", "--name", "x" * 200], "at most 100"),
    (["keys", "create", "--account", "ada@example.com", "--cap-daily", "ten"], "--cap-daily: 'ten' is not an amount"),
    (["keys", "create", "--account", "ada@example.com", "--cap-total", "-1"], "--cap-total must not be below 0"),
    (["keys", "create", "--account", "ada@example.com", "--models", "gpt-9"], "--models gpt-9: there is no such"),
    (["keys", "create", "--account", "ada@example.com", "--expires", "soon"], "--expires soon: say such as"),
    (["keys", "create", "--account", "ada@example.com", "--expires", "2020-01-31"], "must expire later than now"),
    (["keys", "create", "--account", "ada@example.com", "--ips", "here"], "'here' is not an address"),
    (["keys", "create", "--account", "ada@example.com", "--management", "--rpm", "5"], "takes no caps, limits or"),
    (["keys", "list", "--account", "nobody@example.com"], "has no account"),
    (["accounts", "limit", "nobody@example.com", "--rpm", "5"], "has no account"),
    (["accounts", "limit", "ada@example.com", "--tier", "gold"], "the tiers are payg, pro, enterprise"),
    (["accounts", "limit", "ada@example.com", "--rpm", "many"], "--rpm many: say a number"),
    (["accounts", "cap", "ada@example.com", "--daily", "-1"], "--daily must not be below 0"),
    (["accounts", "cap", "ada@example.com", "--monthly", "5,00"], "--monthly: '5,00' is not an amount"),
    (["keys", "revoke", "vc-sk-absent"], "No such key"),
    (["models", "list", "--config", "absent.toml"], "The settings file absent.toml does not exist"),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED)
def test_a_refusal_is_one_line_on_standard_error(vipcloud, arguments: list[str], said: str) -> None:
    vipcloud("accounts", "create", "ada@example.com")
    for as_json in ([], ["--json"] if arguments[1] not in ("grant", "limit", "cap") else []):
        result = vipcloud(*arguments, *as_json, status=1)
        assert result.stdout == ""
        assert result.stderr.startswith("Error: ")
        assert (said in result.stderr, result.stderr.count("\n")) == (True, 1), result.stderr


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("VIPCLOUD_SERVER_PORT", "eighty", "VIPCLOUD_SERVER_PORT"),
        ("VIPCLOUD_SERVER_COLOUR", "red", "server.colour is not a setting"),
        ("VIPCLOUD_TIMEOUTS_IDLE_S", "0", "VIPCLOUD_TIMEOUTS_IDLE_S"),
        ("VIPCLOUD_STORE_URL", "mysql://x", "store.url"),
        ("VIPCLOUD_STORE_URL", "sqlite://", "store.url must name a file"),
        ("VIPCLOUD_GATEWAY_CATALOG", "absent.toml", "gateway.catalog"),
    ],
)
def test_a_wrong_setting_is_named(vipcloud, monkeypatch: pytest.MonkeyPatch, name: str, text: str, said: str) -> None:
    monkeypatch.setenv(name, text)
    command = ["models", "list"] if "CATALOG" in name else ["accounts", "list"]
    result = vipcloud(*command, status=1)
    assert said in result.stderr, result.stderr


def test_a_store_that_is_no_database_is_told(vipcloud, data: Path) -> None:
    data.mkdir()
    (data / "vipcloud.db").write_bytes(b"this is not a database" * 100)
    result = vipcloud("accounts", "list", status=1)
    assert "the store cannot be used: file is not a database" in result.stderr


def test_a_data_folder_that_cannot_be_made_is_told(vipcloud, data: Path) -> None:
    data.write_text("a file")
    result = vipcloud("accounts", "list", status=1)
    assert result.stderr.startswith("Error: ")
    assert str(data) in result.stderr


def test_options_may_stand_before_the_command(data: Path) -> None:
    elsewhere = str(data.with_name("elsewhere"))
    for arguments, status in (
        (["--data", elsewhere, "accounts", "create", "ada@example.com"], 0),
        (["accounts", "show", "ada@example.com", "--data", elsewhere], 0),
        (["accounts", "show", "ada@example.com"], 1),  # not remembered: `./data`
    ):
        assert CliRunner().invoke(commands.app, arguments).exit_code == status, arguments


def test_text_in_brackets_is_shown_as_it_is(vipcloud) -> None:
    vipcloud("accounts", "create", "ada@example.com")
    vipcloud("keys", "create", "--account", "ada@example.com", "--name", "[bold]x[/bold]")
    assert "[bold]x[/bold]" in vipcloud("keys", "list").stdout
    assert len(vipcloud("keys", "list").stdout.splitlines()) == 2
    assert "[/red]" in vipcloud("accounts", "create", "[/red]", status=1).stderr
