"""What the API shows of conversations and deliveries, and what its clients read."""

from __future__ import annotations

import msgspec


class Conversation(msgspec.Struct, frozen=True):
    """A conversation in a person's list; `last_message_at` in Unix milliseconds."""

    conversation_id: str
    name: str
    message_count: int
    last_message_at: int | None


class Message(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A message as history shows it; times in Unix milliseconds."""

    message_id: str
    conversation_id: str
    sender_id: str
    recipient_id: str | None = None
    content: str
    status: str
    # Without a default they are written always.
    timestamp: int
    reason: str | None = None
    delivered_at: int | None = None
    read_at: int | None = None
    file_id: str | None = None
    file_metadata: dict[str, object] | None = None
    file_download_url: str | None = None


class DeliveryView(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One delivery of a message; times in Unix milliseconds."""

    delivery_id: int
    message_id: str
    channel: str
    address: str
    state: str
    attempt: int
    reason_code: str | None = None
    reason: str | None = None
    sent_at: int | None = None
    delivered_at: int | None = None
    read_at: int | None = None
    failed_at: int | None = None
    next_attempt_at: int | None = None
