"""People in the store: codes that open one browser, sessions that end, links that work once."""

import secrets
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine

from vipcloud.accounts import people, store
from vipcloud.accounts.store import AccountExists, AccountsError, InvalidInput
from vipcloud.storage import engine as storage

NOW_S = 1_800_000_000.0


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with storage.writing(engine) as opened:
        yield opened


@pytest.fixture
def owner(connection: Connection) -> people.Member:
    account = store.create_account(connection, "ann@example.com", NOW_S, secrets.token_bytes)
    [member] = people.list_members(connection, account.id)
    return member


def issue(connection: Connection, email: str = "ann@example.com", now_s: float = NOW_S) -> people.Issued:
    issued = people.issue_code(connection, email, now_s, secrets.token_bytes)
    assert issued is not None
    return issued


def test_an_account_is_made_with_its_owner(connection: Connection, owner: people.Member) -> None:
    assert (owner.email, owner.role) == ("ann@example.com", "owner")
    people.add_member(connection, owner.account_id, "Bob@Example.com", "member", NOW_S, secrets.token_bytes)
    with pytest.raises(AccountExists, match="member of another"):
        store.create_account(connection, "bob@example.com", NOW_S, secrets.token_bytes)


def test_the_code_lets_its_browser_in_once(connection: Connection, owner: people.Member) -> None:
    issued = issue(connection)
    assert len(issued.code) == people.CODE_DIGITS
    assert people.check_code(connection, "another browser", issued.code, NOW_S) is None
    assert people.check_code(connection, issued.browser, issued.code, NOW_S + 1) == owner
    assert people.check_code(connection, issued.browser, issued.code, NOW_S + 2) is None


def test_a_code_is_good_for_ten_minutes(connection: Connection, owner: people.Member) -> None:
    issued = issue(connection)
    assert people.check_code(connection, issued.browser, issued.code, NOW_S + people.CODE_LIFE_S + 1) is None


def test_five_wrong_tries_end_a_code(connection: Connection, owner: people.Member) -> None:
    issued = issue(connection)
    wrong = f"{(int(issued.code) + 1) % 10**8:08d}"
    for left in range(people.CODE_TRIES - 1, -1, -1):
        assert people.check_code(connection, issued.browser, wrong, NOW_S) is None
        asked = people.asked_code(connection, issued.browser)
        assert asked is not None
        assert asked.tries_left == left
    assert people.check_code(connection, issued.browser, issued.code, NOW_S) is None


def test_an_unknown_address_gets_a_code_that_opens_nothing(connection: Connection) -> None:
    issued = issue(connection, "nobody@example.com")
    assert people.check_code(connection, issued.browser, issued.code, NOW_S) is None


def test_five_codes_an_hour_for_one_address_known_or_not(connection: Connection) -> None:
    for _ in range(people.CODES_PER_HOUR):
        issue(connection, "x@example.com")
    assert people.issue_code(connection, "x@example.com", NOW_S + 1, secrets.token_bytes) is None
    issue(connection, "y@example.com")
    issue(connection, "x@example.com", NOW_S + 3601)


def test_a_session_ends_with_time_by_hand_and_with_its_member(connection: Connection, owner: people.Member) -> None:
    cookie = people.open_session(connection, owner.id, NOW_S, secrets.token_bytes)
    found = people.visitor(connection, cookie, NOW_S + 1)
    assert found is not None
    assert (found.member, found.account.email) == (owner, "ann@example.com")
    assert people.visitor(connection, cookie, NOW_S + people.SESSION_LIFE_S + 1) is None
    assert people.visitor(connection, "another", NOW_S) is None
    people.close_session(connection, found.session_hash)
    assert people.visitor(connection, cookie, NOW_S + 1) is None

    guest = people.add_member(connection, owner.account_id, "bob@example.com", "member", NOW_S, secrets.token_bytes)
    cookies = [people.open_session(connection, guest.id, NOW_S, secrets.token_bytes) for _ in range(2)]
    assert people.close_sessions(connection, guest.id) == 2
    assert [people.visitor(connection, each, NOW_S) for each in cookies] == [None, None]
    last = people.open_session(connection, guest.id, NOW_S, secrets.token_bytes)
    people.remove_member(connection, owner.account_id, guest.id)
    assert people.visitor(connection, last, NOW_S) is None


def test_an_account_keeps_an_owner(connection: Connection, owner: people.Member) -> None:
    guest = people.add_member(connection, owner.account_id, "bob@example.com", "member", NOW_S, secrets.token_bytes)
    with pytest.raises(AccountsError, match="last owner"):
        people.remove_member(connection, owner.account_id, owner.id)
    with pytest.raises(AccountsError, match="needs an owner"):
        people.set_role(connection, owner.account_id, owner.id, "member")
    people.set_role(connection, owner.account_id, guest.id, "owner")
    people.set_role(connection, owner.account_id, owner.id, "member")
    with pytest.raises(AccountsError, match="No member"):
        people.remove_member(connection, "acct_other", guest.id)


def test_the_waitlist_takes_an_address_when_its_owner_confirms_it(connection: Connection) -> None:
    token = people.join_waitlist(connection, "Eve@Example.com", NOW_S, secrets.token_bytes)
    assert token is not None
    assert people.list_waiting(connection, "waiting") == []
    with pytest.raises(people.NotWaiting, match="unconfirmed"):
        people.approve(connection, "eve@example.com", NOW_S, secrets.token_bytes, tier="payg")
    assert people.join_waitlist(connection, "eve@example.com", NOW_S + 5, secrets.token_bytes) is None, "no second mail"
    assert people.confirm_waiting(connection, "not the token", NOW_S) is None
    for _ in range(2):
        waiting = people.confirm_waiting(connection, token, NOW_S + 10)
        assert waiting is not None
        assert waiting.status == "waiting"
    account, link = people.approve(connection, "eve@example.com", NOW_S + 20, secrets.token_bytes, tier="payg")
    assert account.email == "eve@example.com"
    with pytest.raises(people.NotWaiting, match="approved"):
        people.approve(connection, "eve@example.com", NOW_S, secrets.token_bytes, tier="payg")
    member = people.use_invitation(connection, link, NOW_S + 30)
    assert member is not None
    assert member.account_id == account.id
    assert people.use_invitation(connection, link, NOW_S + 31) is None, "once"


def test_an_invitation_ends(connection: Connection, owner: people.Member) -> None:
    token = people.invite(connection, owner.id, NOW_S, secrets.token_bytes)
    assert people.invited(connection, token, NOW_S + people.WELCOME_LIFE_S + 1) is None
    assert people.invited(connection, token, NOW_S) == owner


@pytest.mark.parametrize("email", ["", "x", "a@b@c", "a b@example.com", "a@example.com\nBcc: all"])
def test_what_is_no_address_joins_nothing(connection: Connection, email: str) -> None:
    with pytest.raises(InvalidInput):
        people.join_waitlist(connection, email, NOW_S, secrets.token_bytes)
