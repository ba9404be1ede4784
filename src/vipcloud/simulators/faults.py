"""Failures on demand. PURE: a fault bends the steps of an answer, whoever plays them.

Four ways to ask for one, which may be combined:

    in the last user message   [[fault=status:429]]        [[fault=cut:5,drip:3:1]]
    in a header                x-sim-fault: stall:3:20
    for coming requests        POST /_sim/faults  {"faults": ["status:500", "none", "cut:2"]}, each used once
    for all of them            POST /_sim/faults  {"always": "status:500"}, until it is "none"

`CATALOGUE` lists them with their arguments' defaults. Counts of events count text, reasoning and tool call deltas.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from vipcloud.simulators.script import End, Fault, Head, Step, Wait, Whole, Write

FOREVER_S = "3600"


@dataclass(frozen=True, slots=True)
class Spec:
    """A fault's arguments (numbers unless `words`), their defaults (None: must be given) and what it does."""

    help: str
    defaults: tuple[str | None, ...] = ()
    words: bool = False


CATALOGUE: Mapping[str, Spec] = {
    "none": Spec("nothing: a healthy answer; fills a place in the queue"),
    "first": Spec("with other faults in a message: only the first N requests with this message fail", ("1",)),
    # The provider's own words: rendered by its module.
    "status": Spec("answer with HTTP status N and the provider's body for it", (None,)),
    "code": Spec(
        "answer with the provider's error CODE (Zhipu: 1113; DeepSeek: risk; DashScope: Arrearage; …)",
        (None,),
        words=True,
    ),
    "html": Spec("answer with HTTP status N and an HTML page, as a proxy in between does", ("502",)),
    "finish": Spec("end with finish_reason REASON", (None,), words=True),
    "usage": Spec(
        "KIND of wrong usage: missing, zero, negative, absurd, trailing (own chunk)", ("missing",), words=True
    ),
    "retry-after": Spec("add a Retry-After header of N seconds", ("1",)),
    # Silence.
    "reset": Spec("cut the connection before the head"),
    "hang": Spec("wait S seconds before the head", (FOREVER_S,)),
    "hang-body": Spec("wait S seconds between the head and the first byte of the body", (FOREVER_S,)),
    "stall": Spec("after N events wait S seconds", ("3", FOREVER_S)),
    "keep-alive": Spec("for S seconds send keep-alives, one every MS milliseconds, before the answer", ("1", "100")),
    "mute": Spec("send the head and what comes before the first token, then wait S seconds", (FOREVER_S,)),
    # Broken endings.
    "cut": Spec("after N events (half of an unstreamed body) cut the connection", ("3",)),
    "eof": Spec("after N events (half of an unstreamed body) end the answer properly", ("3",)),
    "empty": Spec("end the answer properly after its head"),
    "endless": Spec("say each delta N times more, MS milliseconds apart", ("1000", "1")),
    "no-done": Spec("leave out `data: [DONE]`"),
    "close": Spec("close the connection after the answer"),
    # Broken content.
    "malformed": Spec("after N events send one that is not JSON", ("2",)),
    "error": Spec("after N events send the provider's error event and end", ("2",)),
    "giant": Spec("after the first event send one of N bytes", ("1048576",)),
    "comments": Spec("after each event send N comment lines", ("1",)),
    "blank": Spec("N empty lines before an unstreamed body", ("3",)),
    # Awkward bytes.
    "drip": Spec("send N bytes at a time, MS milliseconds apart", ("1", "1")),
    "utf8": Spec("split writes inside each character of several bytes"),
    "batch": Spec("send N events in one write", ("1000000",)),
    "crlf": Spec("end lines with CRLF"),
}

USAGES = ("missing", "zero", "negative", "absurd", "trailing")
SPLIT_PAUSE_S = 0.001  # lets the kernel send one piece before the next is written


class UnknownFault(ValueError):
    """The text names no fault, or gives it wrong arguments. The message says what would be right."""


def parse(text: str) -> tuple[Fault, ...]:
    """`"cut:5, drip"` → its faults with all arguments filled in. Raises UnknownFault."""
    return tuple(_parse_one(part.strip()) for part in text.replace(";", ",").split(",") if part.strip())


def _parse_one(text: str) -> Fault:
    name, *given = text.split(":")
    spec = CATALOGUE.get(name)
    if spec is None:
        raise UnknownFault(f"There is no fault {name!r}; there are: {', '.join(CATALOGUE)}.")
    if len(given) > len(spec.defaults):
        raise UnknownFault(f"{name} takes {len(spec.defaults)} arguments: {spec.help}.")
    args = [*given, *spec.defaults[len(given) :]]
    if any(arg is None or not arg for arg in args):
        raise UnknownFault(f"{name} lacks an argument: {spec.help}.")
    if not spec.words and not all(_is_amount(arg) for arg in args):
        raise UnknownFault(f"{name} takes numbers of at least 0: {spec.help}.")
    if name == "usage" and args[0] not in USAGES:
        raise UnknownFault(f"usage takes one of {', '.join(USAGES)}.")
    return Fault(name, tuple(str(arg) for arg in args))


def _is_amount(text: str | None) -> bool:
    try:
        return text is not None and 0 <= float(text) < 1e12
    except ValueError:
        return False


def wrong_usage(fault: Fault | None, usage: dict[str, Any]) -> dict[str, Any] | None:
    """`usage` as the fault wants it; None where it is to be missing."""
    kind = fault.args[0] if fault is not None else ""
    if kind == "missing":
        return None
    changes = {"zero": 0, "negative": -7, "absurd": 10**12}
    if kind not in changes:
        return usage
    counts = ("prompt_tokens", "completion_tokens", "total_tokens")
    return {**usage, **dict.fromkeys(counts, changes[kind])}


# --- bending -----------------------------------------------------------------------------------------------------

Steps = Iterator[Step]
KEEP_ALIVE = b": keep-alive\n\n"


def apply(faults: tuple[Fault, ...], steps: Steps, error_event: bytes) -> Steps:
    """The steps with every fault of `faults` applied, in the order of `BENDERS`: content first, bytes last."""
    asked = {fault.name: fault for fault in faults}
    if not asked:
        return steps
    if not asked.keys().isdisjoint(NEEDS_PIECES):
        steps = in_pieces(steps)
    if fault := asked.get("error"):
        steps = _ended(steps, int(fault.number(0)), (Write(error_event, "error"), End.FINISH))
    for name, bend in BENDERS.items():
        if fault := asked.get(name):
            steps = bend(steps, *map(float, fault.args))
    return steps


def in_pieces(steps: Steps) -> Steps:
    """An unstreamed answer as head, body and end, so that things can happen between them."""
    for step in steps:
        if isinstance(step, Whole):
            yield Head(step.status, step.headers)
            yield Write(step.body, "body")
            yield End.FINISH
        else:
            yield step


def reset(steps: Steps) -> Steps:
    yield from (End.ABORT for _ in (next(steps, None),))  # the answer is made, and thrown away


def empty(steps: Steps) -> Steps:
    for step in steps:
        if isinstance(step, Head):
            headers = tuple(header for header in step.headers if header[0] != "content-length")
            yield Head(step.status, headers)
    yield End.FINISH


def mute(steps: Steps, seconds: float) -> Steps:
    """What stands before the first token of a stream goes out: comments, a role."""
    for step in steps:
        if isinstance(step, Write) and step.kind not in ("comment", "open"):
            yield Wait(seconds)
        yield step


def endless(steps: Steps, times: float, every_ms: float) -> Steps:
    for step in steps:
        yield step
        if isinstance(step, Write) and step.kind == "delta":
            for _ in range(int(times)):
                yield Write(step.data, "delta", every_ms / 1000)


def hang(steps: Steps, seconds: float) -> Steps:
    yield Wait(seconds)
    yield from steps


def hang_body(steps: Steps, seconds: float) -> Steps:
    for step in steps:
        yield step
        if isinstance(step, Head):
            yield Wait(seconds)


def keep_alive(steps: Steps, seconds: float, every_ms: float) -> Steps:
    """Comments before the first event of a stream, empty lines before a body."""
    every_s = max(0.001, every_ms / 1000)
    rounds = max(1, int(seconds / every_s))
    for step in steps:
        yield step
        if isinstance(step, Head):
            line = KEEP_ALIVE if streams(step) else b"\n"
            for _ in range(rounds):
                yield Write(line, "comment", every_s)


def streams(head: Head) -> bool:
    return any(name == "content-type" and value.startswith("text/event-stream") for name, value in head.headers)


def blank(steps: Steps, lines: float) -> Steps:
    for step in steps:
        if isinstance(step, Write) and step.kind == "body":
            yield Write(b"\n" * int(lines) + step.data, "body", step.after_s)
        else:
            yield step


def cut(steps: Steps, events: float) -> Steps:
    return _ended(steps, int(events), (End.ABORT,))


def eof(steps: Steps, events: float) -> Steps:
    return _ended(steps, int(events), (End.FINISH,))


def _ended(steps: Steps, events: int, ending: tuple[Step, ...]) -> Steps:
    """`events` deltas, then `ending`; never the finish chunk. Half of an unstreamed body counts for the deltas."""
    for step in steps:
        if isinstance(step, Write) and step.kind != "comment":
            if step.kind == "body":
                yield Write(step.data[: len(step.data) // 2], "body", step.after_s)
                break
            if events <= 0 or step.kind != "delta":
                if step.kind == "open" and events > 0:
                    yield step
                    continue
                break
            events -= 1
        if isinstance(step, End):
            break
        yield step
    yield from ending


def stall(steps: Steps, events: float, seconds: float) -> Steps:
    return _inserted(steps, int(events), Wait(seconds))


def malformed(steps: Steps, events: float) -> Steps:
    return _inserted(steps, int(events), Write(b'data: {"id":"x","choices":[{"delta":{"con\n\n', "noise"))


def giant(steps: Steps, size: float) -> Steps:
    padding = b'data: {"padding":"' + b"x" * int(size) + b'"}\n\n'
    return _inserted(steps, 1, Write(padding, "noise"))


def _inserted(steps: Steps, events: int, extra: Step) -> Steps:
    """`extra` after so many deltas, or before the finish chunk if there are fewer."""
    waiting = True
    for step in steps:
        if waiting and isinstance(step, Write) and (events <= 0 or step.kind in ("finish", "body")):
            waiting = False
            yield extra
        elif isinstance(step, Write) and step.kind == "delta":
            events -= 1
        yield step


def no_done(steps: Steps) -> Steps:
    return (step for step in steps if not (isinstance(step, Write) and step.kind == "done"))


def comments(steps: Steps, lines: float) -> Steps:
    noise = Write(KEEP_ALIVE * int(lines), "comment")
    for step in steps:
        yield step
        if isinstance(step, Write) and step.kind == "delta":
            yield noise


def crlf(steps: Steps) -> Steps:
    for step in steps:
        if isinstance(step, Write) and step.kind != "body":
            yield Write(step.data.replace(b"\n", b"\r\n"), step.kind, step.after_s)
        else:
            yield step


def batch(steps: Steps, events: float) -> Steps:
    """Events in one write. What stands between them (a pause, the end) sends what has gathered."""
    size = max(1, int(events))
    gathered: list[Write] = []
    for step in chain(steps, (None,)):
        if isinstance(step, Write):
            gathered.append(step)
            if len(gathered) < size:
                continue
        if gathered:
            yield Write(b"".join(write.data for write in gathered), "delta", sum(write.after_s for write in gathered))
            gathered = []
        if step is not None and not isinstance(step, Write):
            yield step


def drip(steps: Steps, size: float, pause_ms: float) -> Steps:
    length = max(1, int(size))
    pause_s = pause_ms / 1000
    for step in steps:
        if not isinstance(step, Write):
            yield step
            continue
        for place in range(0, len(step.data), length):
            after_s = pause_s if place else max(step.after_s, pause_s)
            yield Write(step.data[place : place + length], step.kind, after_s)


def utf8(steps: Steps) -> Steps:
    for step in steps:
        if not isinstance(step, Write):
            yield step
            continue
        start = 0
        for place in range(1, len(step.data)):
            if step.data[place] & 0xC0 == 0x80 and step.data[place - 1] >= 0xC0:
                yield Write(step.data[start:place], step.kind, SPLIT_PAUSE_S if start else step.after_s)
                start = place
        yield Write(step.data[start:], step.kind, SPLIT_PAUSE_S if start else step.after_s)


def retry_after(steps: Steps, seconds: float) -> Steps:
    line = ("retry-after", f"{seconds:.0f}")
    for step in steps:
        if isinstance(step, Head):
            yield Head(step.status, (*step.headers, line))
        elif isinstance(step, Whole):
            yield Whole(step.status, (*step.headers, line), step.body)
        else:
            yield step


# Each takes the steps and the fault's arguments as numbers.
BENDERS: Mapping[str, Callable[..., Steps]] = {
    "no-done": no_done,
    "cut": cut,
    "eof": eof,
    "empty": empty,
    "mute": mute,
    "endless": endless,
    "malformed": malformed,
    "giant": giant,
    "comments": comments,
    "stall": stall,
    "blank": blank,
    "keep-alive": keep_alive,
    "hang-body": hang_body,
    "hang": hang,
    "crlf": crlf,
    "batch": batch,
    "drip": drip,
    "utf8": utf8,
    "retry-after": retry_after,
    "reset": reset,
}
NEEDS_PIECES = frozenset(
    ("empty", "mute", "cut", "eof", "error", "stall", "blank", "keep-alive", "hang-body", "batch", "drip", "utf8")
)
