"""Files of conversations: streamed into the object store, fetched by participants alone.

An object's path is written down before its bytes (`caudal.object_intent`) and crossed out by the transaction
that makes the file, so that whatever a killed process leaves behind is found and removed.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import UUID

import asyncpg
import msgspec

from caudal.core import db, logs
from caudal.core.errors import Forbidden, NotFound, TooLarge, Unavailable
from caudal.core.eventlog.port import Connection
from caudal.core.metrics import Metrics
from caudal.messaging.accept import check_name
from caudal.messaging.conversations import NO_PART
from caudal.messaging.file_settings import FileSettings
from caudal.messaging.ids import new_id
from caudal.messaging.links import Links
from caudal.messaging.objects import Objects

log = logs.get("files")

MIB = 1024 * 1024
BUCKETS = (
    (MIB, "0-1MB"), (10 * MIB, "1-10MB"), (100 * MIB, "10-100MB"), (1024 * MIB, "100MB-1GB"),
)  # fmt: skip
LARGEST_BUCKET = "1GB+"
NAME_MAX = 255
# What would end a line, hide a part of a name or turn its direction round.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")
UNKNOWN_TYPE = "application/octet-stream"
NO_FILE = "There is no such file."

MAY = """
select c.id, caudal.is_participant(c.id, $2) as mine from caudal.conversation c where c.name = $1
"""
BEGIN = """
insert into caudal.conversation(tenant_id, name) values (caudal.current_tenant(), $1)
on conflict do nothing returning id
"""
JOIN = """
insert into caudal.participant(tenant_id, conversation_id, who) values (caudal.current_tenant(), $1, $2)
on conflict do nothing
"""
INTEND = "insert into caudal.object_intent(path, tenant_id) values ($1, caudal.current_tenant())"
FULFIL = "delete from caudal.object_intent where path = $1 returning path"
KEEP = """
insert into caudal.file(id, tenant_id, conversation_id, uploader, filename, content_type, size_bytes,
                        checksum, storage_path)
values ($1, caudal.current_tenant(), $2, $3, $4, $5, $6, $7, $8) returning uploaded_at
"""
FIND = """
select f.id, f.filename, f.content_type, f.size_bytes, f.checksum, f.storage_path, f.uploaded_at, f.uploader,
       c.name as conversation, caudal.is_participant(f.conversation_id, $2) as mine
from caudal.file f join caudal.conversation c on c.id = f.conversation_id where f.id = $1
"""
LOCATE = "select storage_path from caudal.file where id = $1"


class Party(NamedTuple):
    """Who uploads or fetches: their tenant, and how conversations call them."""

    tenant: str
    who: str


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A stored file. `checksum` is `sha256:` and hexadecimal."""

    file_id: str
    filename: str
    size_bytes: int
    checksum: str
    storage_path: str
    uploaded_at: datetime


class FileDetail(File, frozen=True, kw_only=True):
    """A stored file as its participants see it."""

    conversation_id: str
    content_type: str
    uploaded_by: str


class Stored(NamedTuple):
    """Bytes in the store that no file names yet."""

    file_id: UUID
    path: str
    filename: str
    content_type: str
    size: int
    checksum: str


def clean_name(name: str) -> str:
    """The name a file is kept under: no folder, nothing that cannot be shown, at most 255 characters."""
    last = UNSAFE.sub("", name.replace("\\", "/").rsplit("/", 1)[-1]).strip()
    if last in ("", ".", ".."):
        return "file"
    if len(last) > NAME_MAX:
        stem, dot, ending = last.rpartition(".")
        keep = f".{ending}" if dot and stem and len(ending) <= 16 else ""
        last = last[: NAME_MAX - len(keep)] + keep
    return last


def clean_type(content_type: str | None) -> str:
    """A media type without parameters; octets when it is none."""
    bare = (content_type or "").split(";")[0].strip().lower()
    return bare if MEDIA_TYPE.fullmatch(bare) else UNKNOWN_TYPE


def disposition(filename: str) -> str:
    """A Content-Disposition for any name: ASCII for old clients, RFC 8187 for the rest."""
    plain = "".join(c if " " <= c <= "~" and c not in '"\\%' else "_" for c in filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def size_bucket(size: int) -> str:
    """The label under which a file of so many bytes is counted."""
    return next((name for limit, name in BUCKETS if size < limit), LARGEST_BUCKET)


class FileService:
    """Takes files in and finds them again. `pool` runs as `caudal_app`."""

    def __init__(
        self, pool: asyncpg.Pool[Any], objects: Objects, settings: FileSettings, links: Links,
        metrics: Metrics,
    ) -> None:  # fmt: skip
        self._pool = pool
        self.objects = objects
        self.settings = settings
        self.links = links
        self._uploaded = metrics.counter("files_uploaded", "Files stored", "size_bucket")
        self._under_way = 0

    def check_size(self, announced: int | None) -> None:
        """Raises TooLarge for a file of which it is known before it comes."""
        if announced is not None and announced > self.settings.file_max_bytes:
            raise TooLarge(f"A file may have {self.settings.file_max_bytes} bytes. Send a smaller one.")

    async def check(self, party: Party, conversation: str) -> None:
        """Raises InvalidInput for an impossible name, Forbidden where the party takes no part.

        A conversation that is not there yet begins with its first file.
        """
        check_name(conversation)
        async with db.tenant_transaction(self._pool, party.tenant, readonly=True) as connection:
            row = await connection.fetchrow(MAY, conversation, party.who)
        if row is not None and not row["mine"]:
            raise Forbidden(NO_PART)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A place among the uploads under way. Raises Unavailable when all are taken."""
        if self._under_way >= self.settings.files_concurrent:
            raise Unavailable("Too many uploads are under way. Try again in a few seconds.")
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    async def intend(self, tenant: str, path: str) -> None:
        """Write down that bytes may come to lie at `path`."""
        async with db.tenant_transaction(self._pool, tenant) as connection:
            await connection.execute(INTEND, path)

    async def take(
        self, tenant: str, filename: str, content_type: str | None, data: AsyncIterator[bytes],
        file_id: UUID | None = None,
    ) -> Stored:  # fmt: skip
        """Stream bytes into the store; they are no file before `keep`.

        Raises TooLarge as soon as there are too many, Unavailable, and what `data` raises.
        """
        number = file_id or new_id()
        name, kind = clean_name(filename), clean_type(content_type)
        # Nothing of the name: paths are ours alone, and no two uploads share one.
        path = f"{tenant}/{datetime.now(UTC):%Y/%m}/{number}-{new_id().hex[-8:]}"
        digest = hashlib.sha256()
        size = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal size
            async for chunk in data:
                size += len(chunk)
                self.check_size(size)
                digest.update(chunk)
                yield chunk

        await self.intend(tenant, path)
        await self.objects.put(path, counted(), content_type=kind, disposition=disposition(name))
        return Stored(number, path, name, kind, size, f"sha256:{digest.hexdigest()}")

    async def discard(self, stored: Stored | None) -> None:
        """Remove bytes that are to be no file; what fails is made good by the sweep."""
        if stored is None:
            return
        try:
            await self.objects.delete(stored.path)
        except Unavailable:
            log.warning("an object is left for the sweep", path=stored.path)

    async def keep(self, party: Party, conversation: str, stored: Stored) -> File:
        """Make the file, and its conversation where there is none. Raises as `check`."""
        check_name(conversation)
        async with db.tenant_transaction(self._pool, party.tenant) as connection:
            file = await self.keep_in(connection, party, conversation, stored)
        self.count(stored)
        return file

    def count(self, stored: Stored) -> None:
        """Count a file whose transaction has been committed."""
        self._uploaded.labels(size_bucket(stored.size)).inc()

    async def keep_in(self, connection: Connection, party: Party, conversation: str, stored: Stored) -> File:
        """`keep` within the caller's transaction; the caller counts it afterwards."""
        number = await connection.fetchval(BEGIN, conversation)
        if number is None:
            row = await connection.fetchrow(MAY, conversation, party.who)
            if row is None or not row["mine"]:
                raise Forbidden(NO_PART)
            number = row["id"]
        else:
            await connection.execute(JOIN, number, party.who)
        return await name_in(connection, number, party.who, stored)

    async def find(self, party: Party, file_id: UUID) -> FileDetail:
        """A file of a conversation that the party takes part in. Raises NotFound, Forbidden."""
        async with db.tenant_transaction(self._pool, party.tenant, readonly=True) as connection:
            row = await connection.fetchrow(FIND, file_id, party.who)
        if row is None:
            raise NotFound(NO_FILE)
        if not row["mine"]:
            raise Forbidden(NO_PART)
        return _detail(row)

    async def linked(self, tenant: str, file_id: UUID) -> FileDetail:
        """A file whose link somebody shows, the link having been checked. Raises NotFound."""
        async with db.tenant_transaction(self._pool, tenant, readonly=True) as connection:
            row = await connection.fetchrow(FIND, file_id, "")
            # A link asks nobody who they are, and of a tenant that is suspended nothing is shown.
            working = await connection.fetchval("select status = 'active' from caudal.tenant")
        if row is None or not working:
            raise NotFound(NO_FILE)
        return _detail(row)

    def read(self, file: File, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes of a file, from `start` up to, not including, `end`."""
        return self.objects.read(file.storage_path, start, file.size_bytes if end is None else end)

    async def link(self, tenant: str, file: File, base: str) -> tuple[str, datetime]:
        """Where anybody can fetch the file until when: at the store itself, or else below `base`, at us."""
        seconds = self.settings.files_link_seconds
        until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds)
        signed = await self.objects.link(file.storage_path, seconds)
        return signed or self.links.make(base, tenant, UUID(file.file_id), until), until


async def name_in(connection: Connection, conversation: int, who: str, stored: Stored) -> File:
    """Make stored bytes a file of a conversation, within the caller's transaction."""
    if await connection.fetchval(FULFIL, stored.path) is None:
        raise Unavailable("The upload took too long. Send the file again.")
    uploaded_at = await connection.fetchval(
        KEEP, stored.file_id, conversation, who, stored.filename, stored.content_type, stored.size,
        stored.checksum, stored.path,
    )  # fmt: skip
    return File(
        file_id=str(stored.file_id),
        filename=stored.filename,
        size_bytes=stored.size,
        checksum=stored.checksum,
        storage_path=stored.path,
        uploaded_at=uploaded_at,
    )


def _detail(row: asyncpg.Record) -> FileDetail:
    return FileDetail(
        file_id=str(row["id"]),
        filename=row["filename"],
        size_bytes=row["size_bytes"],
        checksum=row["checksum"],
        storage_path=row["storage_path"],
        uploaded_at=row["uploaded_at"],
        conversation_id=row["conversation"],
        content_type=row["content_type"],
        uploaded_by=row["uploader"],
    )


# What each sweep removes at most, and how often one looks, in seconds.
SWEEP, SWEEP_EVERY = 200, 300.0
ORPHANS = """
select path from caudal.object_intent where since < now() - $1::interval order by since limit $2
for update skip locked
"""
EXPIRED = """
with gone as (
  delete from caudal.upload u where u.id in (
    select id from caudal.upload where expires_at < now() order by expires_at limit $1 for update skip locked)
  returning u.id
), parts as (select p.path, p.tenant_id from caudal.upload_part p join gone on gone.id = p.upload_id)
insert into caudal.object_intent(path, tenant_id, since)
select path, tenant_id, '-infinity' from parts on conflict do nothing
"""


async def sweep(pool: asyncpg.Pool[Any], objects: Objects, hours: float) -> int:
    """Remove what killed and abandoned uploads of every tenant left behind; how many objects.

    `pool` runs as `caudal_messaging`. Several may sweep at once.
    """
    await pool.execute(EXPIRED, SWEEP)
    async with pool.acquire() as connection, connection.transaction():
        # Locked, so that an upload that ends at this moment either has its object or learns that it has not.
        paths = [row["path"] for row in await connection.fetch(ORPHANS, timedelta(hours=hours), SWEEP)]
        gone = []
        for path in paths:
            try:
                await objects.delete(path)
            except Unavailable:
                break
            gone.append(path)
        await connection.execute("delete from caudal.object_intent where path = any($1)", gone)
    return len(gone)


async def keep_swept(pool: asyncpg.Pool[Any], objects: Objects, hours: float) -> None:
    """Sweep for as long as the process lives."""
    while True:
        try:
            while await sweep(pool, objects, hours) == SWEEP:
                pass
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.warning("files could not be swept", error=repr(error))
        await asyncio.sleep(SWEEP_EVERY)
