"""A batch: what one transaction will store, and what each of its messages came to."""

from __future__ import annotations

import msgspec

from caudal.mqtt.ports import Inbound
from caudal.telemetry.model import Ack, Event


class Tally(msgspec.Struct, gc=False):
    """What a tenant's messages came to. received = stored + duplicates + dead + held + empty."""

    messages: int = 0
    received: int = 0
    stored: int = 0
    duplicates: int = 0
    dead: int = 0
    held: int = 0
    empty: int = 0

    def add(self, other: Tally) -> None:
        """Add what `other` counted."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def agrees(self) -> bool:
        """Whether everything received is accounted for."""
        return self.received == self.stored + self.duplicates + self.dead + self.held + self.empty


class Dead(msgspec.Struct, frozen=True, gc=False):
    """A message, or a part of one, on its way to the dead letters."""

    reason: str
    sentence: str
    pointer: str = ""
    format: str | None = None
    items: int = 1
    """How many of the message's parts it stands for."""


class Entry(msgspec.Struct, gc=False):
    """One message of a batch. `rows` are its samples as COPY wants them, `count` of them.

    `items` is what the ledger counts for the message; `tenant_id` is 0 where nobody knows the tenant.
    """

    message: Inbound
    tenant_id: int
    items: int
    rows: bytes = b""
    count: int = 0
    format: str = ""
    dead: list[Dead] | None = None
    ack: tuple[int, Ack] | None = None
    event: tuple[int, Event] | None = None
    held_for: dict[str, int] | None = None
    """Devices in quarantine that it has samples of, and how many."""
    simple: bool = False
    """Samples alone, of the usual kind: nothing about it needs a second look."""
    lane: int = 0
    """The tenant it was counted for while in flight; a refusal may take `tenant_id` away."""
    cost: int = 0
    """What it counts for in the bound of bytes, its payload included."""
    tenant_name: str | None = None
    device_name: str | None = None
    metadata: list[tuple[int, bytes]] | None = None
    oldest: int = 0
    """The earliest and latest instant of its samples, microseconds since 1970; 0 where it has none."""
    latest: int = 0
    outcome: Tally | None = None
    letters: list[Dead] | None = None
    """Its dead letters in the end, with those that only the database could find."""
    whole: bool = True
    """False for the parts, but the first, of a message that had to be taken apart."""
    refusals: int = 0
    """How often the database refused it standing alone."""

    @property
    def held_items(self) -> int:
        """How much of it is held."""
        return sum(self.held_for.values()) if self.held_for else 0

    def all_stored(self) -> Tally:
        """The outcome of a message that was samples alone, all of them new."""
        return Tally(messages=1, received=self.count, stored=self.count)

    @property
    def plain(self) -> bool:
        """Whether it is samples and nothing else."""
        return self.dead is None and self.ack is None and self.event is None and self.held_for is None


class Told:
    """Base of an origin that wants to know what its message came to before it is settled.

    A class and not a protocol: it is asked for each message, and a protocol's check costs fifty times that.
    """

    def tell(self, message: Inbound, outcome: Tally, dead: list[Dead]) -> None:
        """Called after the commit."""
        raise NotImplementedError


class Batch:
    """Messages that go into one transaction. Made by the pipeline, consumed by a writer."""

    __slots__ = ("days", "entries", "gateways", "heard", "heavy_since", "size", "told")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.size = 0
        """Bytes of rows."""
        self.told = False
        """Whether an origin wants to know what became of its message."""
        self.heavy_since = 0.0
        """Since when it is written, if it is of a flood; by the loop's clock."""
        self.days: set[int] = set()
        """Days (since 1970) that the rows fall on."""
        self.heard: dict[int, int] = {}
        self.gateways: dict[int, int] = {}
        """When each device and gateway in it was last heard, by receipt: id to microseconds since 1970."""

    def absorb(self, other: Batch) -> None:
        """Take over everything of `other`, which came later."""
        self.entries += other.entries
        self.size += other.size
        self.told = self.told or other.told
        self.days |= other.days
        self.heard.update(other.heard)
        self.gateways.update(other.gateways)

    def cut(self, messages: int, size: int) -> Batch | None:
        """Keep at most so many messages and bytes of rows, but one message in any case; the rest is returned.

        None when there is no rest. What was heard goes with the rest: it is told once, when all is stored.
        """
        entries = self.entries
        if len(entries) <= messages and self.size <= size:
            return None
        kept = bytes_ = 0
        for entry in entries[:messages]:
            if kept and bytes_ + len(entry.rows) > size:
                break
            bytes_ += len(entry.rows)
            kept += 1
        if kept == len(entries):
            return None
        rest = Batch()
        rest.entries, self.entries = entries[kept:], entries[:kept]
        rest.size, self.size = self.size - bytes_, bytes_
        rest.told, rest.days = self.told, set(self.days)
        rest.heard, self.heard = self.heard, {}
        rest.gateways, self.gateways = self.gateways, {}
        return rest
