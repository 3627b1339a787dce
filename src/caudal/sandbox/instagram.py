"""Instagram messaging API: what a send looks like, what it answers, what its webhooks carry."""

from __future__ import annotations

from typing import Any

from caudal.sandbox.errors import GraphError
from caudal.sandbox.model import Account, Entry, Media, Phone
from caudal.sandbox.wanted import Wanted


def wanted(body: Any) -> Wanted:
    """Read a send. Raises GraphError 100 as Instagram would."""
    recipient = body.get("recipient") if isinstance(body, dict) else None
    message = body.get("message") if isinstance(body, dict) else None
    if not isinstance(recipient, dict) or not isinstance(recipient.get("id"), str):
        raise GraphError("instagram", 100, "Param recipient must have an id.")
    if not isinstance(message, dict):
        raise GraphError("instagram", 100, "Param message is required.")
    opaque = message.get("metadata")
    found = Wanted(to=recipient["id"], type="text", opaque=opaque if isinstance(opaque, str) else None)
    attachment = message.get("attachment")
    if isinstance(attachment, dict):
        link = (attachment.get("payload") or {}).get("url")
        if not isinstance(link, str):
            raise GraphError("instagram", 100, "The attachment needs a url.")
        found.type, found.link = str(attachment.get("type", "file")), link
        return found
    text = message.get("text")
    if not isinstance(text, str) or not 1 <= len(text.encode()) <= 1000:
        raise GraphError("instagram", 100, "The text must have 1 to 1000 bytes.")
    found.text = text
    return found


def answer(phone: Phone, message_id: str) -> dict[str, Any]:
    """The body of a 200."""
    return {"recipient_id": phone.provider_id, "message_id": message_id}


def _webhook(account: Account, now: float, event: dict[str, Any]) -> dict[str, Any]:
    entry = {"id": account.id, "time": int(now * 1000), "messaging": [event]}
    return {"object": "instagram", "entry": [entry]}


def _content(entry: Entry, url: str | None) -> dict[str, Any]:
    content: dict[str, Any] = {"mid": entry.id}
    if entry.text is not None:
        content["text"] = entry.text
    if url is not None:
        content["attachments"] = [{"type": entry.type, "payload": {"url": url}}]
    return content


def echo(account: Account, phone: Phone, entry: Entry, now: float, url: str | None) -> dict[str, Any]:
    """What Instagram says of a message that the business sent: its own words, flagged."""
    content = {**_content(entry, url), "is_echo": True}
    if entry.opaque is not None:
        content["metadata"] = entry.opaque
    event = {
        "sender": {"id": account.id},
        "recipient": {"id": phone.provider_id},
        "timestamp": entry.timestamp,
        "message": content,
    }
    return _webhook(account, now, event)


def seen(account: Account, phone: Phone, entry: Entry, now: float) -> dict[str, Any]:
    """The person read the conversation as far as this message."""
    event = {
        "sender": {"id": phone.provider_id},
        "recipient": {"id": account.id},
        "timestamp": int(now * 1000),
        "read": {"mid": entry.id},
    }
    return _webhook(account, now, event)


def inbound(
    account: Account, phone: Phone, entry: Entry, media: Media | None, url: str | None
) -> dict[str, Any]:
    """A webhook of what a person wrote."""
    event = {
        "sender": {"id": phone.provider_id},
        "recipient": {"id": account.id},
        "timestamp": entry.timestamp,
        "message": _content(entry, url if media else None),
    }
    return _webhook(account, entry.timestamp / 1000, event)
