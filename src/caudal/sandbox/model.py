"""What the sandbox remembers: business accounts, people's phones, messages, media. All of it bounded."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import random
import secrets
from collections import OrderedDict, deque
from typing import Annotated, Any, Literal

import msgspec

from caudal.sandbox.errors import GraphError
from caudal.sandbox.limits import Bucket, Clock

Channel = Literal["whatsapp", "instagram"]
MESSAGES_A_PHONE = 1000
PHONES = 20_000
CALLS = 20_000
MEDIA_BYTES = 128 * 1024 * 1024
ONE_MEDIA_BYTES = 100 * 1024 * 1024


class Behaviour(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How an account or a phone misbehaves; the default behaves.

    `fault`: `error` answers Graph error `code`; `status` answers HTTP `status` and a body that is not
    Graph's; `silence` accepts the message and never answers; `deaf` neither accepts nor answers;
    `hangup` accepts and closes the connection. It strikes the share `rate` of sends, `times` times at most
    (None: for ever).
    `duplicates` is how many extra copies of each webhook go out, `lose` how many attempts at each are lost,
    `receipt_code` an error with which every message fails after it was accepted.
    """

    latency_ms: float = 0
    fault: Literal["none", "error", "status", "silence", "deaf", "hangup"] = "none"
    code: int = 131000
    status: int = 503
    rate: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    times: int | None = None
    duplicates: Annotated[int, msgspec.Meta(ge=0, le=10)] = 0
    shuffle: bool = False
    lose: Annotated[int, msgspec.Meta(ge=0, le=20)] = 0
    receipt_delay_ms: float = 0
    receipt_code: int | None = None

    def strikes(self, dice: random.Random) -> bool:
        """Whether the fault hits this send; counts it when it does."""
        if self.fault == "none" or (self.times is not None and self.times <= 0):
            return False
        if self.rate < 1 and dice.random() >= self.rate:
            return False
        if self.times is not None:
            self.times -= 1
        return True


class Limits(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What an account may send. WhatsApp's figures; Instagram accounts are made with theirs.

    `strangers`: whether somebody who never wrote counts as having written just now. Providers say no; a
    demonstration may say yes.
    """

    per_second: float = 80
    media_per_second: float = 80
    pair_interval_s: float = 6
    pair_burst: int = 45
    window_s: float = 24 * 3600
    strangers: Literal["closed", "open"] = "closed"


class Account(msgspec.Struct, kw_only=True):
    """A business's number or Instagram account."""

    channel: Channel
    id: str
    address: str
    token: str
    app_secret: str
    verify_token: str
    webhook_url: str | None = None
    business_id: str = "102290129340398"
    templates: list[str] = []
    limits: Limits = msgspec.field(default_factory=Limits)
    behaviour: Behaviour = msgspec.field(default_factory=Behaviour)


class Entry(msgspec.Struct, kw_only=True):
    """One message as a phone shows it. `direction` is from the phone's view: `in` was sent to it."""

    seq: int
    id: str
    account: str
    direction: Literal["in", "out"]
    type: str
    text: str | None
    media_id: str | None
    timestamp: int
    status: str
    opaque: str | None = None


class Phone(msgspec.Struct, kw_only=True):
    """A person. `reachable` False keeps deliveries waiting until they are back; `replies` is sent back."""

    channel: Channel
    address: str
    provider_id: str
    name: str
    reachable: bool = True
    reads: bool = False
    replies: str | None = None
    behaviour: Behaviour | None = None
    messages: deque[Entry] = msgspec.field(default_factory=lambda: deque(maxlen=MESSAGES_A_PHONE))
    wrote_at: dict[str, float] = {}


class Media(msgspec.Struct, kw_only=True):
    """Bytes with a type; `key` is what the short-lived download address carries."""

    id: str
    channel: Channel
    account: str
    mime_type: str
    data: bytes
    key: str
    filename: str | None = None

    @property
    def sha256(self) -> str:
        """Hex digest of the bytes."""
        return hashlib.sha256(self.data).hexdigest()


class Call(msgspec.Struct, kw_only=True):
    """One send that reached us: when, from which account, to whom, and what became of it."""

    seq: int
    at: float
    account: str
    to: str
    outcome: str
    id: str | None
    opaque: str | None
    text: str | None


def whatsapp_id(digits: str) -> str:
    """A message id as the Cloud API makes them: a base64 envelope around the number and a random part."""
    mark = secrets.token_hex(9).upper()
    raw = b"\x1c\x18" + bytes([len(digits)]) + digits.encode() + b"\x15\x02\x00\x11\x18\x12" + mark.encode()
    return "wamid." + base64.b64encode(raw + b"\x00").decode()


def instagram_id() -> str:
    """A message id as Instagram makes them."""
    return "aWdfZAG1faXRlbToxOklHTWVzc2FnZAUlEOj" + secrets.token_hex(32)


class World:
    """Everything the sandbox knows. One event loop, no locks; waiting is by `changed`."""

    def __init__(self, seed: int = 1) -> None:
        self.clock = Clock()
        self.dice = random.Random(seed)  # noqa: S311  # chance here is for misbehaviour, not for secrets
        self.accounts: dict[str, Account] = {}
        self.phones: OrderedDict[str, Phone] = OrderedDict()
        self.media: OrderedDict[str, Media] = OrderedDict()
        self.calls: deque[Call] = deque(maxlen=CALLS)
        self.outcomes: dict[str, int] = {}
        self._media_bytes = 0
        self._buckets: OrderedDict[tuple[str, ...], Bucket] = OrderedDict()
        self._numbers = itertools.count(1)
        self._changed = asyncio.Event()

    def reset(self) -> None:
        """Forget messages, media, limits and calls; accounts and phones stay and behave again."""
        self.media.clear()
        self.calls.clear()
        self.outcomes.clear()
        self._buckets.clear()
        self._media_bytes = 0
        for account in self.accounts.values():
            account.behaviour = Behaviour()
        for phone in self.phones.values():
            phone.behaviour = None
            phone.messages.clear()
            phone.wrote_at.clear()
        self.touch()

    def touch(self) -> None:
        """Wake whoever waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self) -> None:
        """Return at the next change."""
        await self._changed.wait()

    def number(self) -> int:
        """The next sequence number."""
        return next(self._numbers)

    def phone(self, channel: Channel, address: str, name: str | None = None) -> Phone:
        """The phone at `address`, made when there is none; past PHONES the oldest is forgotten."""
        key = f"{channel}:{address}"
        found = self.phones.get(key)
        if found is None:
            digest = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
            provider_id = address.lstrip("+") if channel == "whatsapp" else str(10**15 + digest % 10**15)
            found = Phone(
                channel=channel, address=address, provider_id=provider_id, name=name or address.lstrip("@+")
            )
            self.phones[key] = found
            if len(self.phones) > PHONES:
                self.phones.popitem(last=False)
        if name:
            found.name = name
        return found

    def by_provider_id(self, channel: Channel, provider_id: str) -> Phone | None:
        """The phone that the provider calls `provider_id`."""
        if channel == "whatsapp":
            return self.phones.get(f"whatsapp:+{provider_id}")
        return next((p for p in self.phones.values() if p.provider_id == provider_id), None)

    def behaviour(self, account: Account, phone: Phone) -> Behaviour:
        """The phone's own misbehaviour, else its account's."""
        return phone.behaviour or account.behaviour

    def within(self, rate: float, *key: str) -> bool:
        """Whether one more of `key` is within `rate` a second."""
        return self._bucket(key, 1 / rate, max(int(rate), 1)).take(self.clock.now())

    def within_pair(self, account: Account, phone: Phone) -> bool:
        """Whether `account` may write to `phone` once more just now."""
        limits = account.limits
        bucket = self._bucket(("pair", account.id, phone.address), limits.pair_interval_s, limits.pair_burst)
        return bucket.take(self.clock.now())

    def _bucket(self, key: tuple[str, ...], interval: float, burst: int) -> Bucket:
        bucket = self._buckets.get(key)
        if bucket is None or (bucket.interval, bucket.burst) != (interval, burst):
            bucket = self._buckets[key] = Bucket(interval, burst)
            if len(self._buckets) > 2 * PHONES:
                self._buckets.popitem(last=False)
        return bucket

    def window_open(self, account: Account, phone: Phone) -> bool:
        """Whether the person wrote to the account within its window."""
        wrote = phone.wrote_at.get(account.id)
        if wrote is None:
            return account.limits.strangers == "open"
        return self.clock.now() - wrote < account.limits.window_s

    def record(self, account: Account, to: str, outcome: str, **more: Any) -> None:
        """Note a send and what became of it, for proofs."""
        fields = {"id": None, "opaque": None, "text": None, **more}
        self.calls.append(
            Call(seq=self.number(), at=self.clock.now(), account=account.id, to=to, outcome=outcome, **fields)
        )
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        self.touch()

    def keep(self, account: Account, data: bytes, mime_type: str, filename: str | None = None) -> Media:
        """Keep media, forgetting the oldest when there is no room. Raises GraphError when it is too large."""
        if len(data) > ONE_MEDIA_BYTES:
            raise GraphError(account.channel, 131053 if account.channel == "whatsapp" else 100)
        made = Media(
            id=str(secrets.randbelow(9 * 10**14) + 10**14),
            channel=account.channel,
            account=account.id,
            mime_type=mime_type,
            data=data,
            key=secrets.token_urlsafe(16),
            filename=filename,
        )
        self.media[made.id] = made
        self._media_bytes += len(data)
        while self._media_bytes > MEDIA_BYTES and len(self.media) > 1:
            _, gone = self.media.popitem(last=False)
            self._media_bytes -= len(gone.data)
        return made
