"""`vipcloud promos`: make, list and end codes."""

import pytest


def test_a_code_is_made_listed_and_ended(vipcloud) -> None:
    assert "No codes yet" in vipcloud("promos", "list").stdout
    said = vipcloud(
        "promos", "create", "welcome-5", "--amount", "5", "--max-uses", "100", "--expires", "2099-01-31"
    ).stdout
    assert "WELCOME-5 gives $5.00 to each account, 100 at most, until 2099-01-31T00:00:00Z." in said
    vipcloud("promos", "create", "HELLO", "--amount", "1.50", "--new-accounts-only")
    newest, oldest = vipcloud.json("promos", "list")
    assert (newest["code"], newest["amount_usd"], newest["new_accounts_only"], newest["active"]) == (
        "HELLO", "1.50", True, True,
    )  # fmt: skip
    assert (oldest["max_uses"], oldest["uses"], oldest["expires_at"]) == (100, 0, "2099-01-31T00:00:00Z")
    assert "0 accounts used it" in vipcloud("promos", "end", "hello").stdout
    assert [each["active"] for each in vipcloud.json("promos", "list")] == [False, True]
    assert "WELCOME-5" in vipcloud("promos", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "ab", "--amount", "5"), "4 to 32 letters"),
        (("create", "GIFT", "--amount", "0"), "--amount must be above 0"),
        (("create", "GIFT", "--amount", "-1"), "must not be below 0"),
        (("create", "GIFT", "--amount", "five"), "--amount"),
        (("create", "GIFT", "--amount", "5", "--expires", "tomorrow"), "--expires tomorrow"),
        (("create", "GIFT", "--amount", "5", "--expires", "2020-01-01"), "later than now"),
        (("end", "GIFT"), "GIFT is no code"),
    ],
)
def test_what_cannot_be_is_said(vipcloud, arguments: tuple[str, ...], said: str) -> None:
    assert said in vipcloud("promos", *arguments, status=1).stderr
