"""Message ids: UUIDs that begin with their time, so that new rows lie side by side in the index."""

from __future__ import annotations

import os
import time
from uuid import UUID

_VERSION_AND_VARIANT = (0x7 << 76) | (0x2 << 62)
_RANDOM = ~((0xF << 76) | (0x3 << 62))


def new_id() -> UUID:
    """A UUID of version 7 (RFC 9562): 48 bits of Unix milliseconds, then 74 random ones."""
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    return UUID(int=number & _RANDOM | _VERSION_AND_VARIANT)
