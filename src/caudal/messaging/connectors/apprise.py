"""Everything that Apprise knows: e-mail, Telegram, Slack, SMS and a hundred more, by URL.

An account's sealed URL says how; `{address}` in it becomes the recipient. There are neither ids nor receipts:
`sent` is the last thing known of a delivery.
"""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import apprise
from apprise.result import AppriseResultStatus

from caudal.messaging.provider import (
    Accepted,
    Account,
    ConnectorSettings,
    Download,
    Event,
    Files,
    Inbound,
    Message,
    ProviderError,
    Verdict,
)


class Apprise:
    """Sends through whichever service the account's URL names."""

    channel = "apprise"

    def __init__(self, settings: ConnectorSettings) -> None:
        self._timeout = settings.connect_timeout + settings.answer_timeout
        # Apprise's own retries would double what timed out; its logs would say what people wrote.
        self._asset = apprise.AppriseAsset(async_mode=True, secure_logging=True)

    async def close(self) -> None:
        """Nothing is kept open."""

    async def send(self, account: Account, message: Message) -> Accepted:
        """Hand the text to the service. A service that says no is asked again later; silence is unknown."""
        if message.attachment is not None:
            raise ProviderError(Verdict.REFUSED, "files", "Files do not go by this channel yet. Send a link.")
        service = apprise.Apprise(asset=self._asset)
        url = account.secrets.url.replace("{address}", quote(message.address, safe=""))
        if not service.add(url):
            raise ProviderError(
                Verdict.OPERATOR, "url", "The account's URL is none that Apprise understands. Correct it."
            )
        try:
            async with asyncio.timeout(self._timeout):
                outcome = await service.async_notify(body=message.text)
        except TimeoutError as error:
            raise ProviderError(Verdict.UNKNOWN, "timeout", "The service did not answer in time.") from error
        if outcome.status == AppriseResultStatus.SUCCESS:
            return Accepted(provider_id="")
        if outcome.status in (AppriseResultStatus.TIMEOUT, AppriseResultStatus.PARTIAL):
            raise ProviderError(
                Verdict.UNKNOWN,
                outcome.status.name.lower(),
                "The service did not say that it took all of it.",
            )
        raise ProviderError(Verdict.RETRY, "failure", "The service did not take the message.")

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
    return Apprise(settings)
