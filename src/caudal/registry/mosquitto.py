"""Mosquitto's files, written from the registry: passwords, access rules, and the revocation list.

Each is written whole or not at all, and Mosquitto is told (SIGHUP) once all are in place. Its limits, which
docs/devices.md repeats: one password a user (the newest: the grace period holds at our endpoint and at EMQX);
a user name ends at the first colon (see `access.mosquitto_user`); a revoked client that is connected stays
connected, but loses every topic, and cannot come back.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from caudal.core import logs
from caudal.core.notifications import listen_for_ever
from caudal.core.settings import setting

from . import access
from .access import Access, Client
from .credentials import mosquitto_hash

log = logs.get("mosquitto")


class MosquittoSettings(msgspec.Struct, frozen=True):
    """Where Mosquitto reads from."""

    mosquitto_dir: Annotated[
        str | None,
        setting("Directory for Mosquitto's files: passwords, acl, crl.pem; none are written without"),
    ] = None
    mosquitto_pid_file: Annotated[
        str | None, setting("Mosquitto's pid file; the process in it is told (SIGHUP) of new files")
    ] = None


class Files(msgspec.Struct, frozen=True):
    """The content of the files. `revoked` is the list in PEM, None before there is an authority."""

    passwords: str
    rules: str
    revoked: bytes | None


_DEVICES = """
select distinct on (d.id) t.name as tenant, d.name as device, c.mosquitto
from caudal.credential c join caudal.device d on d.id = c.device_id join caudal.tenant t on t.id = d.tenant_id
where c.revoked_at is null and c.expires_at > now() and d.status <> 'rejected' and t.status = 'active'
order by d.id, c.id desc"""

_GATEWAYS = """
select g.mac, t.name as tenant, s.name as site,
  (select c.mosquitto from caudal.credential c where c.gateway_id = g.id and c.revoked_at is null
   and c.expires_at > now() order by c.id desc limit 1) as mosquitto,
  exists (select from caudal.certificate c where c.mac = g.mac and c.gateway_id = g.id
          and c.revoked_at is null and c.not_after > now()) as certified
from caudal.gateway g join caudal.tenant t on t.id = g.tenant_id left join caudal.site s on s.id = g.site_id
where t.status = 'active' order by g.id"""


async def build(pool: asyncpg.Pool[Any], rules: Access, *, admin_password: str | None = None) -> Files:
    """The files as the registry stands. `pool` sees all tenants (ingest's role, or the owner's)."""
    passwords: list[str] = []
    lines: list[str] = []

    def let_in(user: str, kept: str | None, client: Client) -> None:
        if kept is not None:
            passwords.append(f"{user}:{kept}")
        granted = rules.grants(client)
        lines.append(f"\nuser {user}")
        lines.extend(f"topic write {topic}" for topic in granted.publish)
        lines.extend(f"topic read {topic}" for topic in granted.subscribe)

    async with (
        pool.acquire() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        for row in await connection.fetch(_DEVICES):
            tenant, device = row["tenant"], row["device"]
            # A line break in a name would be a line of its own in the rules.
            if access.addressable(tenant) and access.addressable(device):
                client = Client(name="", role="device", tenant=tenant, device=device)
                let_in(access.mosquitto_user(access.device_user(tenant, device)), row["mosquitto"], client)
        for row in await connection.fetch(_GATEWAYS):
            client = Client(
                name="", role="gateway", mac=row["mac"], tenant=row["tenant"],
                site=row["site"] if row["site"] and access.addressable(row["site"]) else None,
            )  # fmt: skip
            if row["mosquitto"] is not None:
                let_in(access.mosquitto_user(row["mac"]), row["mosquitto"], client)
            if row["certified"]:
                # By certificate its name is the certificate's common name, colons and all.
                let_in(row["mac"], None, client)
        for row in await connection.fetch(
            "select u.name, u.role, u.mosquitto, t.name as tenant from caudal.mqtt_user u"
            " left join caudal.tenant t on t.id = u.tenant_id"
            " where coalesce(t.status, 'active') = 'active' order by u.id"
        ):
            if row["tenant"] is None or access.addressable(row["tenant"]):
                client = Client(name="", role=row["role"], tenant=row["tenant"])
                let_in(row["name"], row["mosquitto"], client)
        der = await connection.fetchval("select der from caudal.revocation_list order by number desc limit 1")
    if admin_password:
        # The same salt each time, so that nothing is written when nothing has changed.
        salt = hashlib.sha256(f"salt {admin_password}".encode()).digest()[:12]
        let_in(access.ADMINISTRATOR, mosquitto_hash(admin_password, salt=salt),
               Client(name="", role="administrator"))  # fmt: skip
    revoked = der and x509.load_der_x509_crl(der).public_bytes(Encoding.PEM)
    return Files("\n".join(passwords) + "\n", "\n".join(lines) + "\n", revoked)


def write_whole(path: Path, content: bytes) -> bool:
    """Write `path` whole or not at all, readable by its owner and group; False when it held that already."""
    try:
        if path.read_bytes() == content:
            return False
        before = path.stat()
    except FileNotFoundError:
        before = None
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640), "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    if before is not None and os.geteuid() == 0:
        os.chown(fresh, before.st_uid, before.st_gid)
    fresh.replace(path)
    return True


def write(directory: Path, files: Files, pid_file: Path | None = None) -> bool:
    """Put the files in place and tell Mosquitto; False when nothing had changed.

    Should it read them in between: who is out comes before who may do what, and that before who is in.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    if files.revoked is not None:
        written.append(write_whole(directory / "crl.pem", files.revoked))
    written.append(write_whole(directory / "acl", files.rules.encode()))
    written.append(write_whole(directory / "passwords", files.passwords.encode()))
    if not any(written):
        return False
    if pid_file is not None:
        try:
            os.kill(int(pid_file.read_text()), signal.SIGHUP)
        except (OSError, ValueError) as error:
            log.warning("Mosquitto could not be told of its new files", error=repr(error))
    return True


async def keep_written(
    pool: asyncpg.Pool[Any],
    connect: Callable[[], Awaitable[asyncpg.Connection[Any]]],
    rules: Access,
    directory: Path,
    pid_file: Path | None = None,
    *,
    admin_password: str | None = None,
    pause_seconds: float = 1.0,
    every_seconds: float = 60.0,
) -> None:
    """Keep the files as the registry is: written a moment after each change, at most once in `pause_seconds`.

    Passwords also expire by themselves, so they are looked at every `every_seconds` in any case.
    """
    wake = asyncio.Event()

    def changed(_payload: str = "") -> None:
        wake.set()

    listener = asyncio.create_task(
        listen_for_ever(connect, {"caudal_access": changed, "caudal_pki": changed}, on_gap=changed),
        name="mosquitto listener",
    )
    try:
        while True:
            try:
                files = await build(pool, rules, admin_password=admin_password)
                await asyncio.to_thread(write, directory, files, pid_file)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("Mosquitto's files could not be written; trying again", error=repr(error))
                wake.set()
            await asyncio.sleep(pause_seconds)
            try:
                await asyncio.wait_for(wake.wait(), every_seconds)
            except TimeoutError:
                pass
            wake.clear()
    finally:
        listener.cancel()
        await asyncio.wait([listener])
