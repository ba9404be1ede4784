"""`vipcloud bookkeeper`: turns the journal into the books. `serve` starts it; it ends with its parent."""

import contextlib
import os
import signal
import threading
from pathlib import Path

from vipcloud.cli import children, context
from vipcloud.ledger import bookkeeper as ledger_bookkeeper
from vipcloud.ledger.bookkeeper import Bookkeeper
from vipcloud.telemetry import logs

NICENESS = 10  # where both want the same core, the gateway gets about nine tenths of it
_SESSION_NICENESS = Path("/proc/self/autogroup")


@context.told
def bookkeeper(data: context.Data = None, config: context.Config = None) -> None:
    """Post the journal to the books until standard input ends."""
    logs.configure()
    _give_way()
    settings = context.load(data, config)
    engine = context.open_store(settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    children.when_parent_ends(stop.set)
    keeper = Bookkeeper(
        engine,
        settings.journal_path,
        context.clock,
        check_interval_s=settings.journal.check_interval_s,
        key_retention_s=settings.idempotency.retention_s,
    )
    ledger_bookkeeper.run(keeper, stop, settings.journal.book_interval_s)


def _give_way() -> None:
    """Let requests go first: the books may lag, answers may not.

    Where Linux groups processes by session (sched(7), autogroup), niceness counts only within a session. This process
    has one of its own, whose niceness is another setting.
    """
    os.nice(NICENESS)
    if os.getsid(0) == os.getpid():
        # Other systems, and kernels built without it, have no such file; and it may be read-only in a container.
        with contextlib.suppress(OSError):
            _SESSION_NICENESS.write_text(str(NICENESS))
