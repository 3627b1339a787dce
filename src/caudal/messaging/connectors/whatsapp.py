"""WhatsApp, by Meta's Cloud API.

Figures and shapes: developers.facebook.com, "Cloud API": messages, media, webhooks, error codes, throughput.
"""

from __future__ import annotations

from typing import Any

import msgspec

from caudal.messaging.connectors._graph import Graph
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
    Receipt,
    Strange,
    Template,
    Verdict,
    items,
    pieces,
    whole,
    words,
)

MEANINGS = {
    **dict.fromkeys((1, 2, 131000, 131016, 131057, 133004), Verdict.RETRY),
    **dict.fromkeys((4, 80007, 130429, 131048), Verdict.SLOW_DOWN),
    131056: Verdict.PAIR,
    131047: Verdict.WRITE_FIRST,
    **dict.fromkeys(
        (0, 3, 10, 33, 190, 368, 130497, 131005, 131031, 131042, 131045, 133010), Verdict.OPERATOR
    ),
    **dict.fromkeys((100, 130472, 131008, 131009, 131021, 131026, 131030, 131049), Verdict.REFUSED),
    **dict.fromkeys((131051, 131052, 131053, 132000, 132001, 132005, 132007, 132012), Verdict.REFUSED),
    **dict.fromkeys((132015, 132016), Verdict.OPERATOR),
}
STATES = frozenset({"sent", "delivered", "read", "failed"})
# What the API shows as such; everything else goes as a document.
IMAGES = frozenset({"image/jpeg", "image/png"})
AUDIO = frozenset({"audio/aac", "audio/amr", "audio/mpeg", "audio/mp4", "audio/ogg"})
VIDEO = frozenset({"video/mp4", "video/3gpp"})
LONGEST_TEXT = 4096
CAPTION = 1024
LARGEST = {"image": 5 << 20, "audio": 16 << 20, "video": 16 << 20, "document": 100 << 20}


class WhatsApp:
    """Sends through a tenant's own business number."""

    channel = "whatsapp"

    def __init__(self, settings: ConnectorSettings, files: Files | None) -> None:
        self._graph = Graph(settings, MEANINGS)
        self._files = files

    async def close(self) -> None:
        """Close every connection."""
        await self._graph.close()

    async def send(self, account: Account, message: Message) -> Accepted:
        """One message: a template, a file with its caption, or text."""
        body: dict[str, Any] = {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": message.contact or message.address.lstrip("+"),
            # Comes back in every receipt: a send that was not answered is settled by it.
            "biz_opaque_callback_data": message.reference,
        }
        if message.template is not None:
            body |= _template(message.template)
        elif message.attachment is not None:
            body |= await self._media(account, message)
        else:
            if len(message.text) > LONGEST_TEXT:
                raise ProviderError(
                    Verdict.REFUSED, "length", f"WhatsApp takes {LONGEST_TEXT} characters. Send it in parts."
                )
            body |= {"type": "text", "text": {"body": message.text, "preview_url": False}}
        answer = await self._graph.post(account, f"{account.provider_account}/messages", body)
        provider_id = pieces(answer, "messages", 0, "id")
        if not isinstance(provider_id, str):
            raise ProviderError(Verdict.UNKNOWN, "200", "The answer has no message id.")
        contact = pieces(answer, "contacts", 0, "wa_id")
        return Accepted(provider_id=provider_id, contact=contact if isinstance(contact, str) else None)

    async def _media(self, account: Account, message: Message) -> dict[str, Any]:
        attachment = message.attachment
        if self._files is None or attachment is None:
            raise ProviderError(Verdict.REFUSED, "files", "This connector has no file store. Set one up.")
        content_type = attachment.content_type.split(";")[0].strip().lower()
        kind = "document"
        for name, types in (("image", IMAGES), ("audio", AUDIO), ("video", VIDEO)):
            if content_type in types and attachment.size <= LARGEST[name]:
                kind = name
        if kind == "audio" and message.text:
            # Audio has no caption; a document has.
            kind = "document"
        if len(message.text) > CAPTION:
            raise ProviderError(
                Verdict.REFUSED,
                "length",
                f"WhatsApp takes {CAPTION} characters with a file. Send it in parts.",
            )
        if attachment.size > LARGEST[kind]:
            raise ProviderError(
                Verdict.REFUSED, "size", "WhatsApp takes files of at most 100 MB. Send a link."
            )
        fields = {"messaging_product": "whatsapp", "type": content_type}
        file = (attachment.filename, content_type, self._files.read(attachment))
        uploaded = await self._graph.upload(account, f"{account.provider_account}/media", fields, file)
        part: dict[str, Any] = {"id": str(pieces(uploaded, "id"))}
        if message.text:
            part["caption"] = message.text
        if kind == "document":
            part["filename"] = attachment.filename
        return {"type": kind, kind: part}

    def read_webhook(self, body: bytes) -> list[Event]:
        """Statuses and messages of every entry; what else Meta tells us is not ours to act on."""
        decoded = msgspec.json.decode(body)
        if pieces(decoded, "object") != "whatsapp_business_account":
            raise ValueError("not a WhatsApp webhook")
        events: list[Event] = []
        for entry in items(decoded, "entry"):
            for change in items(entry, "changes"):
                value = pieces(change, "value")
                account = pieces(value, "metadata", "phone_number_id")
                if not isinstance(account, str):
                    continue
                names = {
                    words(contact, "wa_id"): words(contact, "profile", "name")
                    for contact in items(value, "contacts")
                }
                events += [_receipt(account, status) for status in items(value, "statuses")]
                events += [_inbound(account, message, names) for message in items(value, "messages")]
        return events

    async def address(self, account: Account, contact: str) -> str:
        """A wa_id is the number itself."""
        return f"+{contact}"

    async def download(self, account: Account, event: Inbound) -> Download:
        """Ask for the address, which lives five minutes, and fetch from it with the token."""
        about = await self._graph.get(account, str(event.media_id))
        link = pieces(about, "url")
        if not isinstance(link, str):
            raise ProviderError(Verdict.REFUSED, "media", "The medium has no address.")
        return await self._graph.download(account, link, event.content_type)


def _template(template: Template) -> dict[str, Any]:
    part: dict[str, Any] = {"name": template.name, "language": {"code": template.language}}
    if template.words:
        # A template's blanks take no line breaks, tabs or runs of spaces.
        words = [{"type": "text", "text": " ".join(word.split())[:1024]} for word in template.words]
        part["components"] = [{"type": "body", "parameters": words}]
    return {"type": "template", "template": part}


def _strange(account: str, event: Any) -> Strange:
    return Strange(account=account, raw=msgspec.json.encode(event).decode())


def _receipt(account: str, status: Any) -> Receipt | Strange:
    provider_id, state = words(status, "id"), words(status, "status")
    if provider_id is None or state not in STATES:
        return _strange(account, status)
    made = Receipt(
        account=account,
        contact=words(status, "recipient_id") or "",
        provider_id=provider_id,
        state=state,
        at=1000 * (whole(status, "timestamp") or 0),
        reference=words(status, "biz_opaque_callback_data"),
    )
    if state == "failed":
        code = whole(status, "errors", 0, "code")
        details = words(status, "errors", 0, "error_data", "details") or words(status, "errors", 0, "title")
        made.reason_code = str(code) if code is not None else None
        made.reason = details[:300] if details else None
        if code is not None and MEANINGS.get(code) is Verdict.WRITE_FIRST:
            made.reason_code, made.reason = "write_first", "The person must write first."
    return made


def _inbound(account: str, message: Any, names: dict[str | None, str | None]) -> Inbound | Strange:
    contact, provider_id = words(message, "from"), words(message, "id")
    kind = words(message, "type")
    if contact is None or provider_id is None or kind is None:
        return _strange(account, message)
    made = Inbound(
        account=account,
        contact=contact,
        provider_id=provider_id,
        at=1000 * (whole(message, "timestamp") or 0),
        name=names.get(contact),
    )
    part = pieces(message, kind)
    if kind == "text":
        made.text = words(part, "body") or ""
    elif (media := words(part, "id")) is not None:
        made.media_id = media
        made.content_type = words(part, "mime_type")
        made.filename = words(part, "filename")
        made.text = words(part, "caption") or ""
    else:
        made.text = _in_words(kind, part)
    return made


def _in_words(kind: str, part: Any) -> str:
    """What is neither text nor a file, so that people at least see that it came."""
    if kind == "location":
        return f"[location] {pieces(part, 'latitude')}, {pieces(part, 'longitude')}"
    if kind == "reaction":
        return f"[reaction] {pieces(part, 'emoji') or ''}".strip()
    text = words(part, "text") or words(part, "button_reply", "title") or words(part, "list_reply", "title")
    return str(text) if text else f"[{kind}]"


def make(settings: ConnectorSettings, files: Files | None) -> WhatsApp:
    """The connector's maker, found by name."""
    return WhatsApp(settings, files)
