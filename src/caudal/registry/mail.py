"""Mail to people: a port, two ways through it, and a bounded queue in front.

Who asks for a reset is answered before anything is sent: the time it takes would tell who has an account.
A full queue refuses; a mail that fails three times is given up and logged. A crash loses what is queued:
both kinds of mail can simply be asked for again.
"""

from __future__ import annotations

import asyncio
from typing import Protocol
from urllib.parse import quote

import msgspec

from caudal.core import logs
from caudal.core.errors import Unavailable
from caudal.core.lifecycle import Lifecycle

log = logs.get("mail")
QUEUE_MAX = 1000
TRIES = 3


class Mail(msgspec.Struct, frozen=True):
    """One mail; `link` carries a secret and goes into no log of a production system."""

    to: str
    subject: str
    text: str
    link: str


class Mailer(Protocol):
    """Sends one mail; raises when it could not."""

    async def send(self, mail: Mail) -> None:
        """Send `mail`."""
        ...


class LogMailer:
    """Writes that there was mail; with `secrets` the link too, so that a developer can follow it."""

    def __init__(self, *, secrets: bool = False) -> None:
        self._secrets = secrets

    async def send(self, mail: Mail) -> None:
        """Log `mail`."""
        if self._secrets:
            log.warning("mail (MAIL_LOG_SECRETS is on)", to=mail.to, subject=mail.subject, link=mail.link)
        else:
            log.warning("mail was not sent: set MAIL_URL", subject=mail.subject)


class AppriseMailer:
    """Sends through an Apprise URL such as `mailtos://user:password@mail.example`."""

    def __init__(self, url: str) -> None:
        # A large library, which an API that sends no mail does not load.
        from apprise import Apprise

        self._url = url
        self._service = Apprise

    async def send(self, mail: Mail) -> None:
        """Send `mail`. Raises ConnectionError when the service did not take it."""
        mark = "&" if "?" in self._url else "?"
        service = self._service()
        if not service.add(f"{self._url}{mark}to={quote(mail.to)}"):
            raise ConnectionError("MAIL_URL is no Apprise URL for mail")
        body = f"{mail.text}\n\n{mail.link}\n"
        if not await service.async_notify(title=mail.subject, body=body):
            raise ConnectionError("the mail service refused")


class Post:
    """The queue in front of a mailer."""

    def __init__(self, mailer: Mailer, *, pause: float = 5.0) -> None:
        self._mailer = mailer
        self._pause = pause
        self._queue: asyncio.Queue[Mail] = asyncio.Queue(QUEUE_MAX)

    def start(self, life: Lifecycle) -> None:
        """Send what is queued, until `life` ends."""
        life.spawn("mail", self._work())

    def put(self, mail: Mail) -> None:
        """Queue `mail`. Raises Unavailable when the queue is full."""
        try:
            self._queue.put_nowait(mail)
        except asyncio.QueueFull as error:
            raise Unavailable("Too much mail is waiting to be sent. Try again in some minutes.") from error

    async def _work(self) -> None:
        while True:
            mail = await self._queue.get()
            for attempt in range(1, TRIES + 1):
                try:
                    async with asyncio.timeout(30):
                        await self._mailer.send(mail)
                    break
                except Exception as error:
                    # The text may hold the URL with its password: the kind is enough.
                    log.warning("mail failed", attempt=attempt, error=type(error).__name__)
                    if attempt < TRIES:
                        await asyncio.sleep(self._pause * attempt)


def mailer_of(url: str | None, *, log_secrets: bool = False) -> Mailer:
    """The mailer that the settings name."""
    return AppriseMailer(url) if url else LogMailer(secrets=log_secrets)
