"""What `make bench` has measured, as the home page shows it. There is nothing to show where it has not been run."""

from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

import vipcloud

T = TypeVar("T")

RESULTS = Path(vipcloud.__file__).parents[2] / "bench" / "results"  # of a checkout; an installed package has none


class Machine(Struct, frozen=True):
    processor: str
    python: str
    nginx: str
    commit: str
    at: datetime


class Latest(Struct, frozen=True):
    """The part of `latest.json` that is shown. CPU time of one request, in microseconds."""

    nonstream_cpu_us: float
    nginx_nonstream_cpu_us: float
    nonstream_cpu_ratio_nginx: float
    machine: Machine


class Peers(Struct, frozen=True):
    """The same of `peers.json`, by contestant."""

    nonstream_cpu_us: dict[str, float]
    machine: Machine


class Cost(Struct, frozen=True):
    """What one program spends on a request."""

    name: str
    cpu_us: float
    own: bool = False


class Comparison(Struct, frozen=True):
    """`ratio`: ours to nginx's, of runs side by side."""

    costs: tuple[Cost, ...]
    ratio: float
    machine: Machine


def read(folder: Path) -> Comparison | None:
    """What one request costs, cheapest first; None where it was not measured.

    Other gateways are beside it where they were measured on the same processor.
    """
    latest = _decoded(folder / "latest.json", Latest)
    if latest is None or min(latest.nonstream_cpu_us, latest.nginx_nonstream_cpu_us) <= 0:
        return None
    costs = [
        Cost(f"nginx {latest.machine.nginx}, relay only", latest.nginx_nonstream_cpu_us),
        Cost("vipcloud, the whole of it", latest.nonstream_cpu_us, own=True),
    ]
    peers = _decoded(folder / "peers.json", Peers)
    if peers is not None and peers.machine.processor == latest.machine.processor:
        others = peers.nonstream_cpu_us.items()
        costs += [Cost(name, cpu_us) for name, cpu_us in others if name not in ("nginx", "vipcloud") and cpu_us > 0]
    ordered = tuple(sorted(costs, key=lambda cost: cost.cpu_us))
    return Comparison(ordered, latest.nonstream_cpu_ratio_nginx, latest.machine)


def _decoded(path: Path, kind: type[T]) -> T | None:
    """None where there is no such file, or it is of another version."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None
