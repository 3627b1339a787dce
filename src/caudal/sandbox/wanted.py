"""What both channels make of a request to send."""

from __future__ import annotations

import msgspec


class Wanted(msgspec.Struct, kw_only=True):
    """A send, read and checked. `to` is a number with `+`, or Instagram's id of a person."""

    to: str
    type: str
    text: str | None = None
    media_id: str | None = None
    link: str | None = None
    opaque: str | None = None
