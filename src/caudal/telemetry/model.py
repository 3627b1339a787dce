"""What decoding a message gives: samples, faults, an ack or an event; or a refusal of the whole.

Pure data: nothing here knows of a database, a broker or a clock. Times are integers, microseconds since
1970-01-01T00:00:00Z, because that is what both PostgreSQL's binary COPY and comparisons want.
"""

from enum import IntEnum
from typing import Literal, TypeAlias

import msgspec

Reason: TypeAlias = Literal[
    "encoding",
    "json",
    "unknown_format",
    "schema",
    "value",
    "timestamp",
    "topic",
    "unknown_tenant",
    "unknown_device",
    "conflict",
    "too_large",
    "storage",
]

GOOD, SUSPECT, BAD = 0, 1, 2
"""Quality of a sample: good; suspect (clock ahead, or no offset from UTC); bad, the device said so."""

NAME_MAX = 256
"""Characters in a name (tenant, site, device, point, command, event): four bytes each still fit an index."""
UNIT_MAX = 64
TEXT_MAX = 8192
"""Characters in a value of kind text or enum."""

Sample: TypeAlias = tuple[str | None, str, int, float | None, bool | None, str | None, str | None, int]
"""(device, point, ts, num, flag, text, unit, qual). `device` None is the topic's device. Exactly one of
num, flag and text is not None; num is finite; no text holds a NUL. A plain tuple because ten of them are
made for each message, and a named one costs five times as much."""


class Limits(msgspec.Struct, frozen=True):
    """What one message may bring before it is `too_large`."""

    payload_bytes: int = 1 << 20
    items: int = 10_000
    meta_bytes: int = 8192


class Fault(msgspec.Struct, frozen=True):
    """A part of a message that cannot be stored, while the rest of it can."""

    reason: Reason
    sentence: str
    """For a person; names the field. Printable ASCII from us, whatever the device sent."""
    pointer: str
    """JSON pointer (RFC 6901) to the offending place."""
    part: bytes | None = None
    """The offending element as JSON, when it is small enough to show."""


class Reject(msgspec.Struct, frozen=True):
    """The whole message is a dead letter."""

    reason: Reason
    sentence: str
    pointer: str = ""
    """JSON pointer to the offending place ("" is the whole), or `byte N` where there is no JSON."""


class RefusedError(Exception):
    """Carries a Reject out of a format; `decode` catches it, so nobody outside this package sees it."""

    def __init__(self, reason: Reason, sentence: str, pointer: str = "") -> None:
        super().__init__(sentence)
        self.reject = Reject(reason, sentence, pointer)


class Ack(msgspec.Struct, frozen=True):
    """The outcome of a command, in the device's words."""

    cmd_id: str
    ok: bool
    ts_exec: int | None
    err: str | None
    payload: bytes
    """The whole message as JSON that a jsonb column accepts."""


class Event(msgspec.Struct, frozen=True):
    event_id: str | None
    event_type: str
    ts: int
    data: bytes | None
    """JSON that a jsonb column accepts."""
    qual: int = GOOD


class Decoded(msgspec.Struct):
    """One message, taken apart. `items` is what the ledger counts for it."""

    format: str
    samples: list[Sample]
    faults: tuple[Fault, ...] = ()
    meta: bytes | None = None
    """JSON of the message's own metadata, for the meta column of each of its rows; kept as bytes because
    COPY wants bytes, and most devices send the same ones for ever."""
    device_meta: dict[str | None, dict[str, object]] | None = None
    """Facts about devices, not samples, by device (None is the topic's): firmware, model, point labels."""
    ack: Ack | None = None
    event: Event | None = None

    @property
    def plain(self) -> bool:
        """Whether it is samples alone, without metadata or faults."""
        return not self.faults and self.meta is None and self.device_meta is None

    @property
    def items(self) -> int:
        """Stored, duplicate or dead: how many there are to account for; an empty message is one."""
        count = len(self.samples) + len(self.faults) + (self.ack is not None) + (self.event is not None)
        return count or 1


class Match(IntEnum):
    """How sure a format is that a message is its own. The surest wins; two equally sure is nobody's."""

    NO = 0
    MEANT = 1
    """It says it is this format, and is not complete: better a `schema` that names the field."""
    KEYS = 2
    """The keys of this format are there."""
    NAMED = 3
    """The message names this format, and its keys are there."""
