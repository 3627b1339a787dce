"""Quarantine, passwords of devices and gateways, and commands."""

from __future__ import annotations

from typing import Literal

import msgspec
from litestar import Response, delete, get, post
from litestar.params import FromQuery, JSONBody

from caudal.core.errors import Unauthenticated
from caudal.registry import audit, commands, credentials, quarantine
from caudal.registry.access import AccessSettings
from caudal.registry.commands import Command, CommandHistory, CommandIn
from caudal.registry.credentials import Credential, Due, Issued
from caudal.registry.devices import Device
from caudal.registry.devices_http import DevicePrincipal
from caudal.registry.permissions import Action
from caudal.registry.quarantine import Claim, Held, Release
from caudal.web import pages
from caudal.web.api._registry import READ, Id, Ref, Search, shown
from caudal.web.guards import requires
from caudal.web.inject import Caller, Database, Given
from caudal.web.pages import Cursor, Limit, Page

NEEDS = frozenset({"access_settings", "release"})
CLAIM = [requires(Action.DEVICES_CLAIM)]
CREDENTIALS = [requires(Action.CREDENTIALS_WRITE)]
SEND = [requires(Action.TELEMETRY_WRITE)]


class Claimed(msgspec.Struct):
    """A claimed device, and how many of its messages were released with it."""

    device: Device
    released: int


class Rejected(msgspec.Struct):
    """How many messages became dead letters."""

    dead_letters: int


class Revoked(msgspec.Struct):
    """How many passwords ended."""

    revoked: int


class CredentialList(msgspec.Struct):
    """Passwords, newest first; what is known of them, never they themselves."""

    items: list[Credential]


class DueList(msgspec.Struct):
    """Whose password should be replaced, soonest to expire first."""

    items: list[Due]


# -- quarantine


@get("/api/quarantine", guards=READ)
async def list_quarantine(
    door: Database, search: Search = None, limit: Limit = 50, cursor: Cursor = None
) -> Page[Held]:
    """Devices that came unannounced, with what waits for their claim."""
    async with door.read() as connection:
        after = pages.decode(cursor, int)
        return shown(await quarantine.find(connection, search=search, after=after, limit=limit))


@post("/api/devices/{device_id:int}/claim", guards=CLAIM, status_code=200)
async def claim_device(
    device_id: Id, data: JSONBody[Claim], door: Database, principal: Caller, release: Given[Release]
) -> Claimed:
    """Make a device in quarantine one of ours; everything it sent is stored."""
    async with door.write() as connection:
        device = await quarantine.claim(connection, device_id, data)
        await audit.record(connection, principal, "device.claimed", f"device:{device_id}", name=device.name)
    # After the commit: ingest must find the device active. Should this be interrupted, a sweep finishes it.
    return Claimed(device, await release.release(principal.tenant, device.name))


@post("/api/devices/{device_id:int}/reject", guards=CLAIM, status_code=200)
async def reject_device(device_id: Id, door: Database, principal: Caller) -> Rejected:
    """Refuse a device in quarantine: what it sent, and will send, are dead letters."""
    async with door.write() as connection:
        moved = await quarantine.reject(connection, device_id)
        await audit.record(connection, principal, "device.rejected", f"device:{device_id}")
    return Rejected(moved)


# -- passwords


async def _issue(
    thing: credentials.Thing, number: int, door: Database, principal: Caller, settings: AccessSettings
) -> Issued:
    async with door.write() as connection:
        made = await credentials.issue(connection, thing, number, settings, by=principal.actor)
        await audit.record(connection, principal, "credential.issued", f"{thing}:{number}")
    return made


async def _revoke(thing: credentials.Thing, number: int, door: Database, principal: Caller) -> Revoked:
    async with door.write() as connection:
        count = await credentials.revoke(connection, thing, number)
        await audit.record(connection, principal, "credential.revoked", f"{thing}:{number}", count=count)
    return Revoked(count)


@get("/api/devices/{device_id:int}/credentials", guards=READ)
async def list_device_credentials(device_id: Id, door: Database) -> CredentialList:
    """A device's passwords, without the passwords."""
    async with door.read() as connection:
        return CredentialList(await credentials.find(connection, "device", device_id))


@post("/api/devices/{device_id:int}/credentials", guards=CREDENTIALS, status_code=201)
async def issue_device_credential(
    device_id: Id, door: Database, principal: Caller, access_settings: Given[AccessSettings]
) -> Issued:
    """A new password for a device, shown here and never again; the one before has its grace period."""
    return await _issue("device", device_id, door, principal, access_settings)


@delete("/api/devices/{device_id:int}/credentials", guards=CREDENTIALS, status_code=200)
async def revoke_device_credentials(device_id: Id, door: Database, principal: Caller) -> Revoked:
    """End all passwords of a device; it is thrown out within seconds."""
    return await _revoke("device", device_id, door, principal)


@get("/api/gateways/{gateway_id:int}/credentials", guards=READ)
async def list_gateway_credentials(gateway_id: Id, door: Database) -> CredentialList:
    """A gateway's passwords, without the passwords."""
    async with door.read() as connection:
        return CredentialList(await credentials.find(connection, "gateway", gateway_id))


@post("/api/gateways/{gateway_id:int}/credentials", guards=CREDENTIALS, status_code=201)
async def issue_gateway_credential(
    gateway_id: Id, door: Database, principal: Caller, access_settings: Given[AccessSettings]
) -> Issued:
    """A new password for a gateway, shown here and never again; the one before has its grace period."""
    return await _issue("gateway", gateway_id, door, principal, access_settings)


@delete("/api/gateways/{gateway_id:int}/credentials", guards=CREDENTIALS, status_code=200)
async def revoke_gateway_credentials(gateway_id: Id, door: Database, principal: Caller) -> Revoked:
    """End all passwords of a gateway; it is thrown out within seconds."""
    return await _revoke("gateway", gateway_id, door, principal)


@post("/api/device/credentials", guards=SEND, status_code=201)
async def rotate_own(door: Database, principal: Caller, access_settings: Given[AccessSettings]) -> Issued:
    """A device or gateway replaces its own password: the old one has its grace period."""
    if not isinstance(principal, DevicePrincipal):
        raise Unauthenticated("This is for a device, with its own password.")
    client = principal.client
    async with door.write() as connection:
        if client.device_id is not None:
            thing, number = "device", client.device_id
        else:
            assert client.gateway_id is not None  # a DevicePrincipal is one or the other
            thing, number = "gateway", client.gateway_id
        made = await credentials.issue(connection, thing, number, access_settings, by=principal.actor)  # type: ignore[arg-type]
        await audit.record(connection, principal, "credential.rotated", client.key)
    return made


@get("/api/credentials/due", guards=READ)
async def list_due(door: Database, limit: Limit = 50) -> DueList:
    """Devices and gateways whose password should be replaced."""
    async with door.read() as connection:
        return DueList(await credentials.due(connection, limit))


# -- commands


@post("/api/devices/{device_id:int}/commands", guards=[requires(Action.COMMANDS_SEND)], status_code=202)
async def send_command(
    device_id: Id, data: JSONBody[CommandIn], door: Database, principal: Caller
) -> Response[Command]:
    """Send a command: 202 for a new one, 200 with the first one when its idempotency key was used before."""
    async with door.write() as connection:
        made, new = await commands.create(connection, device_id, data, by=principal.actor)
        if new:
            await audit.record(
                connection,
                principal,
                "command.sent",
                f"device:{device_id}",
                name=made.name,
                cmd_id=made.cmd_id,
            )
    return Response(made, status_code=202 if new else 200)


@get("/api/commands", guards=[requires(Action.COMMANDS_READ)])
async def list_commands(
    door: Database,
    device_id: Ref = None,
    status: FromQuery[
        Literal["pending", "sent", "acknowledged", "failed", "timed_out", "expired"] | None
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Command]:
    """Commands, newest first."""
    async with door.read() as connection:
        before = pages.decode(cursor, int)
        return shown(
            await commands.find(connection, device_id=device_id, status=status, before=before, limit=limit)
        )


@get("/api/commands/{command_id:int}", guards=[requires(Action.COMMANDS_READ)])
async def get_command(command_id: Id, door: Database) -> CommandHistory:
    """A command with every step it took."""
    async with door.read() as connection:
        return await commands.get(connection, command_id)


ROUTES = [
    list_quarantine, claim_device, reject_device,
    list_device_credentials, issue_device_credential, revoke_device_credentials,
    list_gateway_credentials, issue_gateway_credential, revoke_gateway_credentials, rotate_own, list_due,
    send_command, list_commands, get_command,
]  # fmt: skip
