"""Delivers the mails that wait in the store, over SMTP; without a server they stay there and are told in the log."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid, parseaddr

import aiosmtplib
import structlog
from litestar import Litestar
from sqlalchemy.exc import SQLAlchemyError

from vipcloud.accounts import letters, mails
from vipcloud.accounts.mails import Mail
from vipcloud.console.parts import Parts, beside
from vipcloud.settings import MailSettings
from vipcloud.storage import engine as storage

POLL_S = 0.5

log = structlog.get_logger(__name__)


class Mailer:
    """One loop that looks for mails and sends them one after the other."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._settings = parts.settings.mail
        self._told: int = 0  # the last mail that the log has told of, where there is no server

    @asynccontextmanager
    async def lifespan(self, _app: Litestar) -> AsyncIterator[None]:
        async with beside(self._run()):
            yield

    async def _run(self) -> None:
        while True:
            try:
                await self.deliver()
            except SQLAlchemyError:
                log.exception("mails cannot be read from the store")
            await asyncio.sleep(POLL_S)

    async def deliver(self) -> None:
        """Send what is due."""
        for mail in await asyncio.to_thread(self._due):
            if not self._settings.host:
                self._tell(mail)
                continue
            try:
                await send(message(mail, self._settings), self._settings)
            except (aiosmtplib.SMTPException, OSError) as error:
                log.error("a mail was not delivered", mail=mail.id, tries=mail.tries + 1, error=str(error))
                await asyncio.to_thread(self._note_failed, mail)
            else:
                await asyncio.to_thread(self._note_sent, mail)

    def _due(self) -> list[Mail]:
        with storage.reading(self._parts.engine) as connection:
            return mails.due(connection, self._parts.clock.wall_s())

    def _tell(self, mail: Mail) -> None:
        """On a machine without a mail server the operator reads the mail here, or at `/outbox`."""
        if mail.id > self._told:
            self._told = mail.id
            log.warning("no mail server is set (mail.host): read it here", to=mail.recipient, text=mail.body)

    def _note_sent(self, mail: Mail) -> None:
        with storage.writing(self._parts.engine) as connection:
            mails.note_sent(connection, mail.id, self._parts.clock.wall_s())

    def _note_failed(self, mail: Mail) -> None:
        with storage.writing(self._parts.engine) as connection:
            mails.note_failed(connection, mail, self._parts.clock.wall_s(), self._settings.tries_max)


def message(mail: Mail, settings: MailSettings) -> EmailMessage:
    made = EmailMessage()
    made["From"] = settings.sender
    made["To"] = mail.recipient
    made["Subject"] = mail.subject
    made["Date"] = format_datetime(datetime.fromtimestamp(mail.created_at, UTC))
    made["Message-ID"] = make_msgid(domain=parseaddr(settings.sender)[1].rpartition("@")[2] or None)
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(mail.body)
    made.add_alternative(letters.html(mail.subject, mail.body), subtype="html")
    return made


async def send(made: EmailMessage, settings: MailSettings) -> None:
    """Raises SMTPException and OSError."""
    await aiosmtplib.send(
        made,
        hostname=settings.host,
        port=settings.port,
        username=settings.username or None,
        password=settings.password.reveal() or None,
        use_tls=settings.security == "tls",
        start_tls=settings.security == "starttls",
        timeout=settings.timeout_s,
    )
