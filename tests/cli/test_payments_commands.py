"""`vipcloud payments`: what is unused goes back, and the books are compared with Stripe's."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from till import KEY, Till
from vipcloud.billing import withdrawals
from vipcloud.cli import payments
from vipcloud.money import NANO
from vipcloud.storage import engine as storage
from vipcloud.storage import migrate


@pytest.fixture
def till(vipcloud, stripe_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Till]:
    monkeypatch.setenv("VIPCLOUD_PAYMENTS_STRIPE_KEY", KEY)
    monkeypatch.setenv("VIPCLOUD_PAYMENTS_API_URL", stripe_url)
    engine = storage.open_engine(f"sqlite:///{vipcloud.data / 'vipcloud.db'}")
    migrate.upgrade(engine)
    yield Till(engine, stripe_url)
    engine.dispose()


@contextmanager
def gateway(till: Till) -> Iterator[None]:
    """One that looks for withdrawals."""
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.02):
            till.take()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_all_that_is_unused_goes_back_newest_payment_first(vipcloud, till: Till) -> None:
    till.pay(2000)
    till.pay(5000)
    with gateway(till):
        said = vipcloud("payments", "refund", "ann@example.com").stdout
    first, second = [line for line in said.splitlines() if line.startswith("Refunded")]
    assert "Refunded $50.00 of VC-" in first
    assert "-000002 to the card that paid" in first
    assert "Refunded $20.00 of VC-" in second
    assert till.credit == 5 * NANO  # what was given stays
    assert "nothing is left of it" in vipcloud("payments", "refund", "ann@example.com", status=1).stderr


def test_a_part_of_one_payment_goes_back_and_the_list_and_stripe_say_so(vipcloud, till: Till) -> None:
    till.pay(5000)
    [listed] = vipcloud.json("payments", "list", "ann@example.com", "--days", "4000")
    with gateway(till):
        vipcloud("payments", "refund", listed["receipt"].lower(), "--amount", "12.34")
        refused = vipcloud("payments", "refund", listed["receipt"], "--amount", "37.67", status=1)
    assert "at most $37.66 of it is unused" in refused.stderr
    [listed] = vipcloud.json("payments", "list", "--days", "4000")
    assert (listed["state"], listed["amount_usd"], listed["refunded_usd"]) == ("added", "50.00", "12.34")
    assert "$12.34" not in vipcloud("payments", "list", "nobody@example.com", status=1).stderr
    assert "12.34" in vipcloud("payments", "list", "--days", "4000").stdout


def test_without_a_gateway_nothing_goes_back(vipcloud, till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payments, "GATEWAY_WAIT_S", 0.2)
    till.pay(5000)
    assert "is one running on this store?" in vipcloud("payments", "refund", "ann@example.com", status=1).stderr
    till.take()
    assert till.credit == 55 * NANO
    with gateway(till):
        vipcloud("payments", "refund", "ann@example.com")
    assert till.credit == 5 * NANO


def test_a_refund_that_was_begun_is_finished_before_another_is_made(vipcloud, till: Till) -> None:
    topup = till.pay(5000)
    with storage.writing(till.engine) as connection:
        withdrawals.ask(connection, withdrawals.new("wd_1", topup, "refund", 1000, till.clock.wall_s()))
    with gateway(till):
        told = vipcloud("payments", "refund", "ann@example.com")
    assert "Refunded $10.00" in told.stdout
    assert "finished first" in told.stderr
    assert till.credit == 45 * NANO


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("VC-2026-000099",), "no receipt has this number"),
        (("nonsense",), "no receipt has this number"),
        (("bob@example.com",), "bob@example.com has no account"),
        (("ann@example.com", "--amount", "0"), "above 0, in whole cents"),
        (("ann@example.com", "--amount", "1.001"), "above 0, in whole cents"),
        (("ann@example.com",), "has paid nothing"),
    ],
)
def test_what_cannot_be_refunded_is_said(vipcloud, till: Till, arguments: tuple[str, ...], said: str) -> None:
    assert said in vipcloud("payments", "refund", *arguments, status=1).stderr


def test_reconcile_sees_refunds_made_here_and_at_stripe(vipcloud, till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payments, "DAY_S", 10.0**9)
    topup = till.pay(5000)
    with gateway(till):
        vipcloud("payments", "refund", "ann@example.com", "--amount", "5")
    assert "0 differences" in vipcloud("payments", "reconcile").stdout
    made = till.refund_at_stripe(topup, 700)
    told = vipcloud("payments", "reconcile", status=1).stdout
    assert f"{made['id']}: refunded at Stripe, and not here" in told
    assert "1 differences" in told


def test_an_account_is_closed_and_opened_by_hand(vipcloud, till: Till) -> None:
    topup = till.pay(5000)
    vipcloud("accounts", "suspend", "ann@example.com")
    assert till.closed
    vipcloud("accounts", "reopen", "ann@example.com")
    assert not till.closed
    till.tell("charge.dispute.created", {"id": "dp_9", "payment_intent": topup.payment_id, "status": "needs_response"})
    assert vipcloud.json("accounts", "show", "ann@example.com")["contested"] is True
    vipcloud("accounts", "reopen", "ann@example.com")
    assert not till.closed


def test_only_who_asks_stripe_loads_its_library() -> None:
    found = "import sys, vipcloud.cli.commands; sys.exit('stripe' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", found], check=False).returncode == 0
