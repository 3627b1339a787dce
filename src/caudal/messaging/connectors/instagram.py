"""Instagram, by Meta's messaging API.

Figures and shapes: developers.facebook.com, "Instagram Platform", messaging: send, webhooks, error codes. The
API knows people by an id of its own, which it tells us only when they write: nobody can be written to first.
"""

from __future__ import annotations

from typing import Any

import msgspec

from caudal.messaging.connectors._graph import Graph
from caudal.messaging.provider import (
    Accepted,
    Account,
    Attachment,
    ConnectorSettings,
    Download,
    Echo,
    Event,
    Files,
    Inbound,
    Message,
    ProviderError,
    Receipt,
    Strange,
    Verdict,
    items,
    pieces,
    whole,
    words,
)

MEANINGS = {
    **dict.fromkeys((1, 2, 1200), Verdict.RETRY),
    **dict.fromkeys((4, 17, 32, 613, 80006), Verdict.SLOW_DOWN),
    10: Verdict.WRITE_FIRST,
    **dict.fromkeys((0, 3, 102, 190, 368), Verdict.OPERATOR),
    **dict.fromkeys((100, 551), Verdict.REFUSED),
}
LONGEST_TEXT = 1000


class Instagram:
    """Sends through a tenant's own professional account."""

    channel = "instagram"

    def __init__(self, settings: ConnectorSettings, files: Files | None) -> None:
        self._graph = Graph(settings, MEANINGS)
        self._files = files

    async def close(self) -> None:
        """Close every connection."""
        await self._graph.close()

    async def send(self, account: Account, message: Message) -> Accepted:
        """One message: text, or a file by its address."""
        if message.contact is None:
            raise ProviderError(
                Verdict.WRITE_FIRST,
                "no id",
                "The person must write first: Instagram has not told us their id.",
            )
        contents: list[dict[str, Any]] = []
        attachment = message.attachment
        # Instagram takes a text or a file, never both; a file's own name is no text worth a message.
        if message.text and (attachment is None or message.text != attachment.filename):
            if len(message.text.encode()) > LONGEST_TEXT:
                raise ProviderError(
                    Verdict.REFUSED, "length", f"Instagram takes {LONGEST_TEXT} bytes. Send it in parts."
                )
            contents.append({"text": message.text})
        if attachment is not None:
            contents.append(await self._attachment(attachment))
        provider_id = await self._send(account, message, message.contact, contents[0])
        if len(contents) > 1:
            try:
                provider_id = await self._send(account, message, message.contact, contents[1])
            except ProviderError as error:
                if error.verdict is Verdict.UNKNOWN:
                    raise
                # Whatever the reason: asking again would repeat the text.
                raise ProviderError(
                    Verdict.REFUSED, "partly", f"The text was sent, the file was not. {error.sentence}"
                ) from error
        return Accepted(provider_id=provider_id, contact=message.contact)

    async def _attachment(self, attachment: Attachment) -> dict[str, Any]:
        if self._files is None:
            raise ProviderError(Verdict.REFUSED, "files", "This connector has no file store. Set one up.")
        kind = attachment.content_type.split("/")[0]
        kind = kind if kind in ("image", "audio", "video") else "file"
        payload = {"url": await self._files.link(attachment)}
        return {"attachment": {"type": kind, "payload": payload}}

    async def _send(self, account: Account, message: Message, contact: str, content: dict[str, Any]) -> str:
        # Documented for Messenger's echoes; where Instagram leaves it out, the echo's text has to do.
        content = {**content, "metadata": message.reference}
        body: dict[str, Any] = {"recipient": {"id": contact}, "message": content}
        if message.human_agent:
            body |= {"messaging_type": "MESSAGE_TAG", "tag": "HUMAN_AGENT"}
        answer = await self._graph.post(account, f"{account.provider_account}/messages", body)
        provider_id = pieces(answer, "message_id")
        if not isinstance(provider_id, str):
            raise ProviderError(Verdict.UNKNOWN, "200", "The answer has no message id.")
        return provider_id

    def read_webhook(self, body: bytes) -> list[Event]:
        """What people wrote, what they read, and echoes of what we sent."""
        decoded = msgspec.json.decode(body)
        if pieces(decoded, "object") != "instagram":
            raise ValueError("not an Instagram webhook")
        events: list[Event] = []
        for entry in items(decoded, "entry"):
            account = pieces(entry, "id")
            for item in items(entry, "messaging"):
                if isinstance(account, str) and (found := _event(account, item)) is not None:
                    events.append(found)
        return events

    async def address(self, account: Account, contact: str) -> str:
        """The person's name, which webhooks leave out."""
        about = await self._graph.get(account, contact, fields="username")
        name = pieces(about, "username")
        if not isinstance(name, str) or not name:
            raise ProviderError(Verdict.REFUSED, "username", "Instagram does not say who this is.")
        return f"@{name}"

    async def download(self, account: Account, event: Inbound) -> Download:
        """The address in the webhook is enough; the token must not go there."""
        return await self._graph.download(None, str(event.media_link), event.content_type)


def _event(account: str, item: Any) -> Event | None:
    sender, recipient = words(item, "sender", "id"), words(item, "recipient", "id")
    if sender is None or recipient is None:
        return Strange(account=account, raw=msgspec.json.encode(item).decode())
    when = whole(item, "timestamp") or 0
    if (seen := words(item, "read", "mid")) is not None:
        return Receipt(
            account=account, contact=sender, provider_id=seen, state="read", at=when, everything_before=True
        )
    message = pieces(item, "message")
    provider_id = words(message, "mid")
    if provider_id is None:
        return None
    text = words(message, "text") or ""
    if pieces(message, "is_echo") is True:
        return Echo(
            account=account,
            contact=recipient,
            provider_id=provider_id,
            at=when,
            text=text,
            reference=words(message, "metadata"),
        )
    made = Inbound(account=account, contact=sender, provider_id=provider_id, at=when, text=text)
    link = words(message, "attachments", 0, "payload", "url")
    if link is not None:
        made.media_link = link
    elif not text:
        made.text = f"[{words(message, 'attachments', 0, 'type') or 'unsupported'}]"
    return made


def make(settings: ConnectorSettings, files: Files | None) -> Instagram:
    """The connector's maker, found by name."""
    return Instagram(settings, files)
