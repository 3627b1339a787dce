"""How people are named: by an id, a username, a group, or an address on a channel, each in one spelling."""

from __future__ import annotations

import re

from caudal.core.errors import InvalidInput
from caudal.messaging import topics

UUID_TEXT = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
GROUP = re.compile(r"group_[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
PHONE = re.compile(r"\+[1-9][0-9]{6,14}")
HANDLE = re.compile(r"@[A-Za-z0-9._]{1,30}")
# What other connectors take is theirs to judge; this keeps it printable and bounded.
ADDRESS = re.compile(r"(?!key:|group_)[a-z][a-z0-9]{1,19}:[\x21-\x7e]{1,200}")
USERNAME = re.compile(r"[A-Za-z0-9_]{3,50}")
SHAPES = {"whatsapp": PHONE, "instagram": HANDLE}


def spelled(channel: str, address: str) -> str:
    """An address in the one spelling that we keep: Instagram's names are the same in any case."""
    return address.lower() if channel == "instagram" else address


def address_of(recipient: str) -> str:
    """A recipient as we keep it: a user's id or an Instagram name in lower case, a group, another address.

    A username stays as it is. Raises InvalidInput for what is none of them.
    """
    if UUID_TEXT.fullmatch(recipient):
        return recipient.lower()
    if recipient.startswith("group_"):
        if GROUP.fullmatch(recipient):
            return recipient
    elif ":" in recipient:
        channel, _, address = recipient.partition(":")
        shape = SHAPES.get(channel)
        if (shape.fullmatch(address) if shape else ADDRESS.fullmatch(recipient)) and channel != topics.APP:
            return f"{channel}:{spelled(channel, address)}"
    elif USERNAME.fullmatch(recipient):
        return recipient
    raise InvalidInput(
        "recipient_id must be a user's id, a group_… id, or an address such as whatsapp:+5511999998888."
    )
