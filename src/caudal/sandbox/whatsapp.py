"""WhatsApp Cloud API: what a send looks like, what it answers, what its webhooks carry."""

from __future__ import annotations

from typing import Any

from caudal.sandbox.errors import GraphError
from caudal.sandbox.model import Account, Entry, Media, Phone
from caudal.sandbox.wanted import Wanted

MEDIA = ("image", "audio", "video", "document", "sticker")


def wanted(account: Account, body: Any) -> Wanted:
    """Read a send. Raises GraphError 100, 131009, 131051 or 132001 as the Cloud API would."""
    if not isinstance(body, dict) or body.get("messaging_product") != "whatsapp":
        raise GraphError("whatsapp", 100, "The parameter messaging_product is required.")
    to = body.get("to")
    if not isinstance(to, str) or not to.lstrip("+").isdigit():
        raise GraphError("whatsapp", 100, "The parameter to is required.")
    kind = body.get("type", "text")
    opaque = body.get("biz_opaque_callback_data")
    found = Wanted(to="+" + to.lstrip("+"), type=kind, opaque=opaque if isinstance(opaque, str) else None)
    part = body.get(kind)
    if kind not in ("text", "template", *MEDIA):
        raise GraphError("whatsapp", 131051)
    if not isinstance(part, dict):
        raise GraphError("whatsapp", 100, f"The parameter {kind} is required.")
    if kind == "text":
        text = part.get("body")
        if not isinstance(text, str) or not 1 <= len(text) <= 4096:
            raise GraphError("whatsapp", 131009, "text.body must have 1 to 4096 characters.")
        found.text = text
    elif kind == "template":
        name = part.get("name")
        if name not in account.templates:
            raise GraphError("whatsapp", 132001, f"template name ({name}) does not exist")
        words = [
            str(parameter.get("text", ""))
            for component in part.get("components", [])
            for parameter in component.get("parameters", [])
        ]
        found.text = " ".join(words) or str(name)
    else:
        found.media_id, found.link = part.get("id"), part.get("link")
        found.text = part.get("caption")
        if not found.media_id and not found.link:
            raise GraphError("whatsapp", 100, f"{kind} needs an id or a link.")
    return found


def answer(phone: Phone, asked: Wanted, message_id: str) -> dict[str, Any]:
    """The body of a 200."""
    message: dict[str, Any] = {"id": message_id}
    if asked.type == "template":
        message["message_status"] = "accepted"
    return {
        "messaging_product": "whatsapp",
        "contacts": [{"input": asked.to, "wa_id": phone.provider_id}],
        "messages": [message],
    }


def _webhook(account: Account, value: dict[str, Any]) -> dict[str, Any]:
    metadata = {"display_phone_number": account.address.lstrip("+"), "phone_number_id": account.id}
    value = {"messaging_product": "whatsapp", "metadata": metadata, **value}
    changes = [{"value": value, "field": "messages"}]
    return {"object": "whatsapp_business_account", "entry": [{"id": account.business_id, "changes": changes}]}


def receipt(
    account: Account, phone: Phone, entry: Entry, status: str, now: float, error: GraphError | None = None
) -> dict[str, Any]:
    """A status webhook: sent, delivered, read or failed."""
    report: dict[str, Any] = {
        "id": entry.id,
        "status": status,
        "timestamp": str(int(now)),
        "recipient_id": phone.provider_id,
    }
    if entry.opaque is not None:
        report["biz_opaque_callback_data"] = entry.opaque
    if error is not None:
        report["errors"] = [error.receipt()]
    elif status in ("sent", "delivered"):
        category = "utility" if entry.type == "template" else "service"
        report["pricing"] = {
            "billable": False,
            "pricing_model": "PMP",
            "type": "free_customer_service",
            "category": category,
        }
    return _webhook(account, {"statuses": [report]})


def inbound(account: Account, phone: Phone, entry: Entry, media: Media | None) -> dict[str, Any]:
    """A webhook of what a person wrote."""
    message: dict[str, Any] = {
        "from": phone.provider_id,
        "id": entry.id,
        "timestamp": str(entry.timestamp // 1000),
        "type": entry.type,
    }
    if media is None:
        message["text"] = {"body": entry.text}
    else:
        part: dict[str, Any] = {"id": media.id, "mime_type": media.mime_type, "sha256": media.sha256}
        if entry.text:
            part["caption"] = entry.text
        if entry.type == "document":
            part["filename"] = media.filename or "document"
        message[entry.type] = part
    contact = {"profile": {"name": phone.name}, "wa_id": phone.provider_id}
    return _webhook(account, {"contacts": [contact], "messages": [message]})
