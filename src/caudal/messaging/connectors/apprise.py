"""Everything that Apprise knows: e-mail, Telegram, Slack, SMS and a hundred more, by URL.

An account's sealed URL says how; `{address}` in it becomes the recipient. There are neither ids nor receipts:
`sent` is the last thing known of a delivery. Files go along where the service can take them.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apprise
from apprise.attachment.file import AttachFile
from apprise.result import AppriseResultStatus

from caudal.core.errors import NotFound, Unavailable
from caudal.messaging.provider import (
    Accepted,
    Account,
    Attachment,
    ConnectorSettings,
    Download,
    Event,
    Files,
    Inbound,
    Message,
    ProviderError,
    Verdict,
)

# What mail servers commonly take; a service encodes the whole of it in memory.
LARGEST = 20 * 1024 * 1024


class Apprise:
    """Sends through whichever service the account's URL names."""

    channel = "apprise"

    def __init__(self, settings: ConnectorSettings, files: Files | None) -> None:
        self._files = files
        self._timeout = settings.connect_timeout + settings.answer_timeout
        # Apprise's own retries would double what timed out; its logs would say what people wrote.
        self._asset = apprise.AppriseAsset(async_mode=True, secure_logging=True)

    async def close(self) -> None:
        """Nothing is kept open."""

    async def send(self, account: Account, message: Message) -> Accepted:
        """Hand the text to the service. A service that says no is asked again later; silence is unknown."""
        service = apprise.Apprise(asset=self._asset)
        url = account.secrets.url.replace("{address}", quote(message.address, safe=""))
        if not service.add(url):
            raise ProviderError(
                Verdict.OPERATOR, "url", "The account's URL is none that Apprise understands. Correct it."
            )
        with tempfile.TemporaryDirectory(prefix="caudal-apprise-") as folder:
            attach = None
            if message.attachment is not None:
                if not all(getattr(one, "attachment_support", False) for one in service):
                    raise ProviderError(
                        Verdict.REFUSED, "files", "This service takes no files. Send a link instead."
                    )
                attach = await self._fetched(message.attachment, Path(folder))
            try:
                async with asyncio.timeout(self._timeout):
                    outcome = await service.async_notify(body=message.text, attach=attach)
            except TimeoutError as error:
                raise ProviderError(
                    Verdict.UNKNOWN, "timeout", "The service did not answer in time."
                ) from error
        if outcome.status == AppriseResultStatus.SUCCESS:
            return Accepted(provider_id="")
        if outcome.status in (AppriseResultStatus.TIMEOUT, AppriseResultStatus.PARTIAL):
            raise ProviderError(
                Verdict.UNKNOWN,
                outcome.status.name.lower(),
                "The service did not say that it took all of it.",
            )
        raise ProviderError(Verdict.RETRY, "failure", "The service did not take the message.")

    async def _fetched(self, attachment: Attachment, folder: Path) -> Any:
        """The file on our disk, where Apprise reads it and gives each service its own encoding."""
        if self._files is None:
            raise ProviderError(Verdict.REFUSED, "files", "This connector has no file store. Set one up.")
        if attachment.size > LARGEST:
            raise ProviderError(
                Verdict.REFUSED,
                "size",
                f"Files have at most {LARGEST >> 20} MiB here. Send a link.",
            )
        path = folder / "file"
        try:
            with path.open("wb") as out:
                async for piece in self._files.read(attachment):
                    await asyncio.to_thread(out.write, piece)
        except NotFound as error:
            raise ProviderError(Verdict.REFUSED, "files", error.sentence) from error
        except Unavailable as error:
            # Nobody was asked yet: later is soon enough.
            raise ProviderError(Verdict.RETRY, "files", error.sentence) from error
        kind = attachment.content_type.split(";")[0]
        made: Any = AttachFile
        return made(str(path), name=attachment.filename, mimetype=kind)

    def read_webhook(self, body: bytes) -> list[Event]:
        """There are none."""
        raise ValueError("this channel has no webhooks")

    async def address(self, account: Account, contact: str) -> str:
        """Contacts are addresses."""
        return contact

    async def download(self, account: Account, event: Inbound) -> Download:
        """There is nothing to fetch."""
        raise ProviderError(Verdict.REFUSED, "media", "This channel has no media.")


def make(settings: ConnectorSettings, files: Files | None) -> Apprise:
    """The connector's maker, found by name."""
    return Apprise(settings, files)
