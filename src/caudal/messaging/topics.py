"""Topics of the log, their groups, and what their records hold. Values are JSON, as the contract says.

Members beyond the contract's: `tenant`, on every record; on outbound records which delivery it is; on a
status of ours the delivery that it has been applied to already.
"""

from __future__ import annotations

import asyncpg
import msgspec

from caudal.core.eventlog.port import Topic

MESSAGES = "messages"
WHATSAPP_OUTBOUND = "whatsapp-outbound"
INSTAGRAM_OUTBOUND = "instagram-outbound"
APPRISE_OUTBOUND = "apprise-outbound"
STATUS_UPDATES = "status-updates"
WHATSAPP_WEBHOOKS = "whatsapp-webhooks"
INSTAGRAM_WEBHOOKS = "instagram-webhooks"

ROUTER_GROUP = "router-worker-group"
WHATSAPP_GROUP = "whatsapp-connector-group"
INSTAGRAM_GROUP = "instagram-connector-group"
APPRISE_GROUP = "apprise-connector-group"
STATUS_GROUP = "status-consumer-group"

NAMES = (
    MESSAGES, WHATSAPP_OUTBOUND, INSTAGRAM_OUTBOUND, APPRISE_OUTBOUND, STATUS_UPDATES, WHATSAPP_WEBHOOKS,
    INSTAGRAM_WEBHOOKS,
)  # fmt: skip

# The person's inbox in Caudal itself: history and sockets. No connector serves it.
APP = "app"

MESSAGE_SENT = "MESSAGE_SENT"
PARTICIPANT_JOINED = "PARTICIPANT_JOINED"


def topics(partitions: int) -> list[Topic]:
    """Every topic of messaging, for `EventLog.ensure`."""
    return [Topic(name, partitions) for name in NAMES]


def outbound(channel: str) -> str | None:
    """The topic from which the connector of `channel` takes deliveries; None for the inbox."""
    if channel == APP:
        return None
    return {"whatsapp": WHATSAPP_OUTBOUND, "instagram": INSTAGRAM_OUTBOUND}.get(channel, APPRISE_OUTBOUND)


class Event(msgspec.Struct):
    """What tells the records on `messages` apart; one without a type is a message."""

    event_type: str = MESSAGE_SENT


class JoinRecord(msgspec.Struct, kw_only=True):
    """On `messages`, keyed by conversation_id: somebody joined, and what waits there can go out."""

    conversation_id: str
    tenant: str
    event_type: str


class MessageRecord(msgspec.Struct, omit_defaults=True, kw_only=True):
    """On `messages`, keyed by conversation_id; `timestamp` in Unix milliseconds."""

    message_id: str
    conversation_id: str
    sender_id: str
    recipient_id: str | None = None
    content: str
    timestamp: int
    # No default: a member that is always there must always be written.
    event_type: str
    file_id: str | None = None
    file_metadata: dict[str, object] | None = None
    tenant: str | None = None


class OutboundRecord(MessageRecord, omit_defaults=True, kw_only=True):
    """On `…-outbound`, keyed by conversation_id: one delivery to one address."""

    delivery_id: int
    channel: str
    # As the provider knows the person: +55…, @someone, or what Apprise takes.
    address: str


class StatusRecord(msgspec.Struct, omit_defaults=True, kw_only=True):
    """On `status-updates`, keyed by message_id. `status` is SENT, DELIVERED, READ or FAILED."""

    message_id: str
    status: str
    timestamp: int
    # The channel: whatsapp, instagram, …
    connector: str
    reason: str | None = None
    tenant: str | None = None
    # Ours, and applied already; a status from elsewhere has none.
    delivery_id: int | None = None


def file_metadata(row: asyncpg.Record) -> dict[str, object] | None:
    """What a message says about its file, from a row with the file's columns."""
    if row["filename"] is None:
        return None
    return {
        "filename": row["filename"],
        "size_bytes": row["size_bytes"],
        "checksum": row["checksum"],
        "content_type": row["content_type"],
    }
