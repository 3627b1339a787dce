"""The control API: what a test, a demonstration or the console does. No real provider has this."""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Any

import msgspec
from litestar import Router, delete, get, post, put
from litestar.di import NamedDependency
from litestar.exceptions import ClientException, NotFoundException
from litestar.params import FromPath, FromQuery, JSONBody

from caudal.sandbox.engine import Engine, address_channel
from caudal.sandbox.model import Account, Behaviour, Call, Channel, Entry, Phone

Sandboxed = NamedDependency[Engine]


class PhoneView(msgspec.Struct):
    """A phone as the control API shows it."""

    channel: Channel
    address: str
    provider_id: str
    name: str
    reachable: bool
    reads: bool
    replies: str | None
    behaviour: Behaviour | None
    messages: int


class PhoneSet(msgspec.Struct, forbid_unknown_fields=True):
    """What may be set of a phone; what is left out stays as it was."""

    name: str | None = None
    reachable: bool | None = None
    reads: bool | None = None
    replies: str | msgspec.UnsetType | None = msgspec.UNSET
    behaviour: Behaviour | msgspec.UnsetType | None = msgspec.UNSET


class Writing(msgspec.Struct, forbid_unknown_fields=True):
    """What a person writes to `account`; media as base64 with its type."""

    account: str
    text: str | None = None
    media_base64: str | None = None
    mime_type: str = ""
    filename: str | None = None


class Reading(msgspec.Struct, forbid_unknown_fields=True):
    """How far the person reads; everything when left out."""

    up_to: str | None = None


class Passing(msgspec.Struct, forbid_unknown_fields=True):
    """How many seconds to let pass at once."""

    seconds: float


def view(phone: Phone) -> PhoneView:
    """A phone without its messages."""
    return PhoneView(
        phone.channel,
        phone.address,
        phone.provider_id,
        phone.name,
        phone.reachable,
        phone.reads,
        phone.replies,
        phone.behaviour,
        len(phone.messages),
    )


def _account(engine: Engine, account_id: str) -> Account:
    found = engine.world.accounts.get(account_id)
    if found is None:
        raise NotFoundException(f"no account {account_id}")
    return found


def _phone(engine: Engine, address: str) -> Phone:
    found = engine.world.phones.get(f"{address_channel(address)}:{address}")
    if found is None:
        raise NotFoundException(f"no phone {address}")
    return found


@get("/accounts")
async def accounts(engine: Sandboxed) -> list[Account]:
    """Every business account, with its secrets: they are the sandbox's own."""
    return list(engine.world.accounts.values())


@put("/accounts")
async def put_account(engine: Sandboxed, data: JSONBody[Account]) -> Account:
    """Make or replace an account."""
    engine.world.accounts[data.id] = data
    return data


@put("/accounts/{account_id:str}/behaviour")
async def put_behaviour(engine: Sandboxed, account_id: FromPath[str], data: JSONBody[Behaviour]) -> Behaviour:
    """Have an account behave or misbehave."""
    _account(engine, account_id).behaviour = data
    return data


@post("/accounts/{account_id:str}/verify", status_code=200)
async def verify(engine: Sandboxed, account_id: FromPath[str]) -> dict[str, bool]:
    """Do the webhook handshake with the account's address."""
    return {"verified": await engine.hooks.verify(_account(engine, account_id))}


@get("/phones")
async def phones(engine: Sandboxed) -> list[PhoneView]:
    """Every phone."""
    return [view(phone) for phone in engine.world.phones.values()]


@put("/phones/{address:str}")
async def put_phone(engine: Sandboxed, address: FromPath[str], data: JSONBody[PhoneSet]) -> PhoneView:
    """Make a phone, or change it."""
    phone = engine.world.phone(address_channel(address), address, data.name)
    if data.reads is not None:
        phone.reads = data.reads
    if not isinstance(data.replies, msgspec.UnsetType):
        phone.replies = data.replies
    if not isinstance(data.behaviour, msgspec.UnsetType):
        phone.behaviour = data.behaviour
    if data.reachable is True and not phone.reachable:
        engine.come_back(phone)
    elif data.reachable is not None:
        phone.reachable = data.reachable
    return view(phone)


@get("/phones/{address:str}/messages")
async def messages(
    engine: Sandboxed,
    address: FromPath[str],
    after: FromQuery[int] = 0,
    count: FromQuery[int] = 0,
    wait: FromQuery[float] = 0,
) -> list[Entry]:
    """What the phone shows after sequence number `after`; waits up to `wait` seconds for `count` of them."""
    wait = min(wait, 60)
    phone = engine.world.phone(address_channel(address), address)
    try:
        async with asyncio.timeout(wait):
            while len(found := [entry for entry in phone.messages if entry.seq > after]) < count:
                await engine.world.change()
    except TimeoutError:
        pass
    return found


@post("/phones/{address:str}/messages")
async def write(engine: Sandboxed, address: FromPath[str], data: JSONBody[Writing]) -> Entry:
    """The person writes to a business."""
    account = _account(engine, data.account)
    phone = engine.world.phone(address_channel(address), address)
    media = None
    if data.media_base64 is not None:
        try:
            raw = base64.b64decode(data.media_base64, validate=True)
        except binascii.Error as error:
            raise ClientException(f"media_base64: {error}") from error
        media = engine.upload(account, raw, data.mime_type, data.filename)
    if media is None and not data.text:
        raise ClientException("Give text, media_base64, or both.")
    return engine.write(phone, account, text=data.text, media=media)


@post("/phones/{address:str}/read", status_code=200)
async def read(engine: Sandboxed, address: FromPath[str], data: JSONBody[Reading]) -> dict[str, int]:
    """The person reads."""
    return {"receipts": engine.read(_phone(engine, address), data.up_to)}


@get("/calls")
async def calls(
    engine: Sandboxed,
    after: FromQuery[int] = 0,
    count: FromQuery[int] = 0,
    wait: FromQuery[float] = 0,
) -> list[Call]:
    """The sends that reached us after sequence number `after`; waits as for messages."""
    try:
        async with asyncio.timeout(min(wait, 60)):
            while len(found := [call for call in engine.world.calls if call.seq > after]) < count:
                await engine.world.change()
    except TimeoutError:
        pass
    return found


@get("/state")
async def state(engine: Sandboxed) -> dict[str, Any]:
    """Counts: sends by outcome, webhooks by fate, webhooks waiting."""
    return {
        "now": engine.world.clock.now(),
        "calls": engine.world.outcomes,
        "webhooks": {**engine.hooks.counts, "waiting": engine.hooks.waiting},
    }


@post("/clock", status_code=200)
async def advance(engine: Sandboxed, data: JSONBody[Passing]) -> dict[str, float]:
    """Let time pass at once: windows close, limits are repaid."""
    engine.world.clock.advance(data.seconds)
    return {"now": engine.world.clock.now()}


@delete("/")
async def reset(engine: Sandboxed) -> None:
    """Forget messages and misbehaviour; accounts and phones stay."""
    engine.world.reset()


def router() -> Router:
    """Everything under /control."""
    handlers = [accounts, put_account, put_behaviour, verify, phones, put_phone, messages, write, read, calls]
    return Router("/control", route_handlers=[*handlers, state, advance, reset])
