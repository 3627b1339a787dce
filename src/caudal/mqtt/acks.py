"""Every plain PUBACK there is, so that an acknowledgement costs a list look-up (five megabytes, once)."""

from __future__ import annotations

from .codec import encode_ack
from .codes import PacketType

PUBACKS = tuple(encode_ack(PacketType.PUBACK, number) for number in range(65_536))
