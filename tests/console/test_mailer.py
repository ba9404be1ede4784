"""Mails go out over SMTP once, are tried again when the server refuses, and leave no text behind."""

import socket
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message

import msgspec
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from vipcloud.accounts import mails
from vipcloud.console.mailer import Mailer
from vipcloud.console.parts import Parts
from vipcloud.settings import MailSettings
from vipcloud.storage import engine as storage


class Inbox:
    """Keeps what arrives; refuses while `refuses` says so."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.refuses = False

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        if self.refuses:
            return "451 try again later"
        assert isinstance(envelope.content, bytes)
        self.messages.append(message_from_bytes(envelope.content))
        return "250 taken"


@pytest.fixture
def inbox() -> Iterator[tuple[Inbox, int]]:
    box = Inbox()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    yield box, port
    controller.stop()


def with_server(parts: Parts, port: int) -> Parts:
    mail = MailSettings(host="127.0.0.1", port=port, security="none", sender="vipcloud <hello@gateway.example>")
    parts.settings = msgspec.structs.replace(parts.settings, mail=mail)
    return parts


def write(parts: Parts, body: str = "Your code: 1234 5678\n") -> None:
    with storage.writing(parts.engine) as connection:
        mails.queue(connection, "ann@example.com", "A subject, ünïcode", body, parts.clock.wall_s())


def left(parts: Parts) -> list[mails.Mail]:
    with storage.reading(parts.engine) as connection:
        return mails.unsent(connection)


async def test_a_mail_goes_once_and_its_text_goes_with_it(parts: Parts, inbox: tuple[Inbox, int]) -> None:
    box, port = inbox
    mailer = Mailer(with_server(parts, port))
    write(parts)
    await mailer.deliver()
    await mailer.deliver()
    [message] = box.messages
    assert message["To"] == "ann@example.com"
    assert message["From"] == "vipcloud <hello@gateway.example>"
    assert message["Message-ID"].endswith("@gateway.example>")
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content_type() == "multipart/alternative"
    text, html = (part.get_payload(decode=True).decode() for part in message.get_payload())
    assert text.strip() == "Your code: 1234 5678"
    assert ">1234 5678</span>" in html
    assert left(parts) == []


async def test_a_refused_mail_is_kept_for_later(parts: Parts, inbox: tuple[Inbox, int]) -> None:
    box, port = inbox
    mailer = Mailer(with_server(parts, port))
    write(parts)
    box.refuses = True
    await mailer.deliver()
    [mail] = left(parts)
    assert mail.tries == 1
    box.refuses = False
    await mailer.deliver()
    assert box.messages == [], "not due yet"
    with storage.reading(parts.engine) as connection:
        assert mails.due(connection, parts.clock.wall_s() + mails.RETRY_FIRST_S + 1) == [mail]


async def test_after_the_last_try_the_text_is_erased(parts: Parts) -> None:
    write(parts)
    [mail] = left(parts)
    with storage.writing(parts.engine) as connection:
        mails.note_failed(connection, mail, 1.0, tries_max=1)
    assert left(parts) == []


async def test_without_a_server_it_stays_and_is_told(parts: Parts, capsys: pytest.CaptureFixture[str]) -> None:
    write(parts)
    mailer = Mailer(parts)
    await mailer.deliver()
    await mailer.deliver()
    assert capsys.readouterr().out.count("1234 5678") == 1
    assert len(left(parts)) == 1
