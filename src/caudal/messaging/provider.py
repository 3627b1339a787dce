"""The port to a provider: what a connector is given, what it answers, and what its errors mean.

A connector turns one delivery into one call, and one webhook body into events. It keeps no state of its own
and touches no database; limits, intent, retries and windows are the business of `sending`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import Enum
from typing import Any, Protocol
from uuid import UUID

import msgspec

from caudal.core.errors import CaudalError


class Verdict(Enum):
    """What an error of a provider asks of us."""

    RETRY = "retry"
    """It was not accepted and may be later."""
    SLOW_DOWN = "slow_down"
    """The number sends too much: wait, all of it."""
    PAIR = "pair"
    """Too much to this person: wait with this person alone, 4^n seconds."""
    WRITE_FIRST = "write_first"
    """The person must write first, or a template has to be used."""
    OPERATOR = "operator"
    """Somebody must act (a token, a bill, a block): everything of this number waits."""
    REFUSED = "refused"
    """This message will never be accepted."""
    UNKNOWN = "unknown"
    """Asked and not answered: it may have been accepted. Never asked again blindly."""


class ProviderError(CaudalError):
    """A provider's no. `provider_code` is its own code, the sentence ours."""

    code, status = "provider", 502

    def __init__(
        self, verdict: Verdict, provider_code: str, sentence: str, *, retry_after: float | None = None
    ) -> None:
        super().__init__(sentence)
        self.verdict = verdict
        self.provider_code = provider_code
        self.retry_after = retry_after


class Attachment(msgspec.Struct, kw_only=True):
    """A file that goes with a message."""

    tenant: str
    file_id: str
    filename: str
    content_type: str
    size: int


class Files(Protocol):
    """The part of the file store that connectors need."""

    def read(self, attachment: Attachment) -> AsyncIterator[bytes]:
        """The bytes of a file, in pieces."""
        ...

    async def link(self, attachment: Attachment) -> str:
        """An address from which the provider can fetch the file for the next hour."""
        ...

    async def store(
        self, tenant: str, party: str, filename: str, content_type: str, data: AsyncIterator[bytes]
    ) -> UUID:
        """Keep a file that `party` (`whatsapp:+55…`) sent, in their conversation; returns its id."""
        ...


class Template(msgspec.Struct, kw_only=True):
    """A message the provider has approved beforehand, with words for its blanks."""

    name: str
    language: str = "en"
    words: list[str] = []


class Secrets(msgspec.Struct, kw_only=True):
    """What an account proves itself with; lies sealed in the database. `url` is Apprise's."""

    token: str = ""
    app_secret: str = ""
    verify_token: str = ""
    url: str = ""

    def __repr__(self) -> str:
        return "Secrets(…)"


class Account(msgspec.Struct, kw_only=True):
    """A tenant's number or account at a provider, with what it may do."""

    id: int
    tenant_id: int
    tenant: str
    channel: str
    provider_account: str
    name: str
    secrets: Secrets
    per_second: float
    media_per_second: float
    pair_interval: float
    pair_burst: int
    window_seconds: float | None
    template: Template | None
    human_agent: bool
    problem: str | None
    suspended: bool = False
    """Its tenant is: nothing goes out."""


class Message(msgspec.Struct, kw_only=True):
    """One delivery, as a connector needs it. `address` is ours, `contact` the provider's id of the person.

    `reference` comes back in receipts where the provider can do that.
    """

    reference: str
    address: str
    contact: str | None
    text: str
    attachment: Attachment | None = None
    template: Template | None = None
    human_agent: bool = False


class Accepted(msgspec.Struct, kw_only=True):
    """The provider took it. `provider_id` is empty where the channel has no ids, and so no receipts."""

    provider_id: str
    contact: str | None = None


class Receipt(msgspec.Struct, kw_only=True, tag="receipt"):
    """The provider's word on a delivery; times in Unix milliseconds."""

    account: str
    contact: str
    provider_id: str
    state: str
    at: int
    reference: str | None = None
    reason_code: str | None = None
    reason: str | None = None
    everything_before: bool = False


class Inbound(msgspec.Struct, kw_only=True, tag="inbound"):
    """What a person wrote. Media stay with the provider until they are fetched by id or link."""

    account: str
    contact: str
    provider_id: str
    at: int
    name: str | None = None
    text: str = ""
    media_id: str | None = None
    media_link: str | None = None
    content_type: str | None = None
    filename: str | None = None


class Echo(msgspec.Struct, kw_only=True, tag="echo"):
    """A provider telling us of a message that our own account sent."""

    account: str
    contact: str
    provider_id: str
    at: int
    text: str = ""
    reference: str | None = None


class Strange(msgspec.Struct, kw_only=True, tag="strange"):
    """One event that nobody understands, among others that are understood. `raw` is its JSON."""

    account: str
    contact: str = ""
    raw: str


Event = Receipt | Inbound | Echo | Strange


class Download(msgspec.Struct, kw_only=True):
    """A medium on its way from the provider."""

    content_type: str
    data: AsyncIterator[bytes]


class Connector(Protocol):
    """Our code for one provider; its siblings are the modules of `connectors`."""

    channel: str

    async def send(self, account: Account, message: Message) -> Accepted:
        """Ask the provider once. Raises ProviderError."""
        ...

    def read_webhook(self, body: bytes) -> list[Event]:
        """The events in a webhook's body. Raises ValueError when it is none of this provider's."""
        ...

    async def address(self, account: Account, contact: str) -> str:
        """Our address of the person whom the provider calls `contact`. Raises ProviderError."""
        ...

    async def download(self, account: Account, event: Inbound) -> Download:
        """Fetch what came with a message. Raises ProviderError."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class ConnectorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What every connector is made with. Times in seconds."""

    api_base: str
    api_version: str
    connect_timeout: float
    answer_timeout: float
    concurrency: int


class Make(Protocol):
    """Each sibling module has a `make` of this shape."""

    def __call__(self, settings: ConnectorSettings, files: Files | None) -> Connector: ...


def retry_after(header: str | None) -> float | None:
    """Seconds in a Retry-After header; None when there is none that we understand."""
    try:
        return min(max(float(header), 0.0), 3600.0) if header else None
    except ValueError:
        return None


def pieces(value: Any, *path: str | int) -> Any:
    """What lies at `path` in decoded JSON; None when something on the way is not there."""
    for step in path:
        if (isinstance(step, str) and isinstance(value, dict)) or (
            isinstance(step, int) and isinstance(value, list) and len(value) > step
        ):
            value = value.get(step) if isinstance(value, dict) else value[step]  # type: ignore[index]
        else:
            return None
    return value


def words(value: Any, *path: str | int) -> str | None:
    """The text at `path` in decoded JSON; None when it is missing or no text."""
    found = pieces(value, *path)
    return found if isinstance(found, str) else None


def whole(value: Any, *path: str | int) -> int | None:
    """The whole number at `path` in decoded JSON, also when written as text."""
    found = pieces(value, *path)
    if isinstance(found, str) and found.isascii() and found.isdigit() and len(found) < 19:
        return int(found)
    return found if isinstance(found, int) and not isinstance(found, bool) and abs(found) < 2**63 else None


def items(value: Any, *path: str | int) -> list[Any]:
    """The list at `path` in decoded JSON; empty when there is none."""
    found = pieces(value, *path) if path else value
    return found if isinstance(found, list) else []
