"""PURE: whose address a request comes from. What a client says of itself counts only where a trusted proxy says it."""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

FORWARDED_MAX = 32  # addresses that are looked at
# What a tunnel or a proxy adds to what it hands on: a request with one of them does not come from where its peer is.
HANDED_ON = ("forwarded", "x-forwarded-for", "x-real-ip", "via", "cdn-loop", "cf-connecting-ip", "cf-ray")


def client_address(peer: str, headers: Mapping[bytes, bytes], trusted: Sequence[Network]) -> Address | None:
    """The client's address; None where the socket has none.

    It is the socket's peer, unless that is `trusted`: then CF-Connecting-IP (the server lets one pass at most), or else
    the right-most of X-Forwarded-For that is not trusted itself. Who cannot be told this way is the peer.
    """
    found = _parsed(peer)
    if found is None or not _within(found, trusted):
        return found
    claimed = headers.get(b"cf-connecting-ip")
    if claimed is not None:
        return _parsed(claimed.decode("latin-1")) or found
    for text in reversed(headers.get(b"x-forwarded-for", b"").decode("latin-1").split(",")[-FORWARDED_MAX:]):
        address = _parsed(text)
        if address is None:
            break
        found = address
        if not _within(address, trusted):
            break
    return found


def bucket(address: Address | None) -> str:
    """What is counted as one client: an IPv4 address, or the /64 that one line of IPv6 gets."""
    if address is None:
        return "unknown"
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((int(address) >> 64 << 64, 64)))


def is_loopback(address: str) -> bool:
    """Whether `address`, as text, is this machine's own; one that cannot be read is not."""
    found = _parsed(address)
    return found is not None and found.is_loopback


def names_loopback(host: str) -> bool:
    """Whether the header `host` has this machine's name for itself: `localhost:8080`, `127.0.0.1`, `[::1]:80`."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name == "localhost" or is_loopback(name)


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _parsed(text: str) -> Address | None:
    try:
        address = ip_address(text.strip().partition("%")[0])
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
