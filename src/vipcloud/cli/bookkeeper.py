"""`vipcloud bookkeeper`: turns the journal into the books. `serve` starts it; it ends with its parent."""

import signal
import threading

from vipcloud.cli import children, context
from vipcloud.ledger import bookkeeper as ledger_bookkeeper
from vipcloud.ledger.bookkeeper import Bookkeeper
from vipcloud.telemetry import logs


@context.renders_errors
def bookkeeper(data: context.Data = None, config: context.Config = None) -> None:
    """Post the journal to the books until standard input ends."""
    logs.configure()
    children.give_way()
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
