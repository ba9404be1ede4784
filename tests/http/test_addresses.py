from ipaddress import ip_address, ip_network

import pytest

from vipcloud.http.addresses import FORWARDED_MAX, bucket, client_address, names_loopback

TRUSTED = (ip_network("10.0.0.0/24"), ip_network("2001:db8::2/128"))


@pytest.mark.parametrize(
    ("peer", "claimed", "forwarded", "address"),
    [
        ("10.0.0.1", None, None, "10.0.0.1"),
        ("10.0.0.1", "1.2.3.4", None, "1.2.3.4"),
        ("10.0.0.1", " 1.2.3.4 ", "9.9.9.9", "1.2.3.4"),
        ("10.0.0.1", "2001:db8:1:2:3:4:5:6", None, "2001:db8:1:2:3:4:5:6"),
        ("10.0.0.1", "::ffff:1.2.3.4", None, "1.2.3.4"),
        ("10.0.0.1", "nonsense", "1.2.3.4", "10.0.0.1"),
        ("10.0.0.1", "1.2.3.4, 5.6.7.8", None, "10.0.0.1"),
        ("10.0.0.1", None, "1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", None, "6.6.6.6, 1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", None, "6.6.6.6, 1.2.3.4, 10.0.0.7", "1.2.3.4"),
        ("10.0.0.1", None, "10.0.0.9, 10.0.0.7", "10.0.0.9"),
        ("10.0.0.1", None, "1.2.3.4, nonsense, 10.0.0.7", "10.0.0.7"),
        ("10.0.0.1", None, "", "10.0.0.1"),
        ("10.0.1.2", "1.2.3.4", "1.2.3.4", "10.0.1.2"),
        ("::ffff:10.0.1.2", None, None, "10.0.1.2"),
        ("::ffff:10.0.0.2", "1.2.3.4", None, "1.2.3.4"),
        ("2001:db8::1", "1.2.3.4", None, "2001:db8::1"),
        ("2001:db8::2", "1.2.3.4", None, "1.2.3.4"),
        ("fe80::1%eth0", None, None, "fe80::1"),
        ("", "1.2.3.4", "1.2.3.4", None),
    ],
)
def test_what_a_client_says_counts_from_a_trusted_peer_only(
    peer: str, claimed: str | None, forwarded: str | None, address: str | None
) -> None:
    headers = {b"cf-connecting-ip": claimed, b"x-forwarded-for": forwarded}
    given = {name: value.encode() for name, value in headers.items() if value is not None}
    found = client_address(peer, given, TRUSTED)
    assert found == (None if address is None else ip_address(address))


def test_a_long_list_of_proxies_is_not_read_to_its_end() -> None:
    forwarded = b"6.6.6.6, " + b", ".join([b"10.0.0.7"] * FORWARDED_MAX)
    assert str(client_address("10.0.0.1", {b"x-forwarded-for": forwarded}, TRUSTED)) == "10.0.0.7"


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        (None, "unknown"),
    ],
)
def test_a_line_of_ipv6_is_one_client(address: str | None, name: str) -> None:
    assert bucket(None if address is None else ip_address(address)) == name


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.9.9.9:80", "[::1]:80", "[::1%lo]", "[::ffff:127.0.0.1]"]
)
def test_a_host_that_is_this_machines_own_name(host: str) -> None:
    assert names_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ":80",
        "example.com",
        "localhost.example.com",
        "127.0.0.1.example.com",
        "10.0.0.1",
        "[fe80::1%lo]",
        "[",
        "[x]",
    ],
)
def test_a_host_that_is_not(host: str) -> None:
    assert not names_loopback(host)
