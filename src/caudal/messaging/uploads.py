"""Uploads in several requests, to be gone on with where they broke off (what tus asks of a server).

Every request's bytes become parts in the object store, each at most `PART` long, so that a killed process
loses no more than that. An upload is at its end exactly when its file is there: the last part is not counted
before all of them have been put together. Of two requests that bring the same bytes the first to be committed
counts; neither waits for the other, so a hanging one blocks nobody.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from caudal.core import db, logs
from caudal.core.errors import CaudalError, Conflict, NotFound, TooLarge
from caudal.messaging.files import FULFIL, FileService, Party, Stored, clean_name, clean_type, disposition
from caudal.messaging.ids import new_id

log = logs.get("uploads")

PART = 64 * 1024 * 1024
ALGORITHMS = ("sha256", "sha1", "md5")
GONE = "There is no such upload, or it has run out. Begin again."
MOVED = "The upload is elsewhere: ask where (HEAD), and go on from there."

CREATE = """
insert into caudal.upload(id, tenant_id, conversation, uploader, filename, content_type, size_bytes,
                          expires_at)
values ($1, caudal.current_tenant(), $2, $3, $4, $5, $6, now() + $7::interval) returning expires_at
"""
FIND = "select * from caudal.upload where id = $1 and uploader = $2 and expires_at > now()"
ADVANCE = """
update caudal.upload set received = received + $3 where id = $1 and received = $2 and expires_at > now()
returning received
"""
ADD = """
insert into caudal.upload_part(upload_id, tenant_id, start, size_bytes, path)
values ($1, caudal.current_tenant(), $2, $3, $4)
"""
PARTS = "select path, size_bytes from caudal.upload_part where upload_id = $1 order by start"
# What the parts were needed for is done: the sweep removes them, should we not get to it.
RETIRE = """
with gone as (delete from caudal.upload_part where upload_id = $1 returning path, tenant_id)
insert into caudal.object_intent(path, tenant_id, since)
select path, tenant_id, '-infinity' from gone on conflict do nothing
"""
RETIRED = "delete from caudal.object_intent where path = any($1)"


class ChecksumMismatch(CaudalError):
    """What came is not what was sent; nothing of it was kept."""

    code, status, retryable = "checksum", 460, True


class Upload(NamedTuple):
    """An upload: `received` of `size` bytes are kept."""

    id: UUID
    conversation: str
    filename: str
    content_type: str
    size: int
    received: int
    expires_at: datetime


class Checksum(NamedTuple):
    """What a request's bytes must come to; `algorithm` is one of `ALGORITHMS`."""

    algorithm: str
    digest: bytes


class _Part(NamedTuple):
    start: int
    size: int
    path: str
    checksum: str


class _Body:
    """A request's bytes, cut into parts. How it broke off is kept in `broken`, and what came before stays."""

    def __init__(self, data: AsyncIterator[bytes], left: int, checksum: Checksum | None) -> None:
        self._data = data
        self._left = left
        self._over = b""
        self._digest = hashlib.new(checksum.algorithm, usedforsecurity=False) if checksum else None
        self._wanted = checksum.digest if checksum else b""
        self.broken: BaseException | None = None
        self.ended = False
        self.size = 0
        self.sha256 = hashlib.sha256()

    async def part(self) -> AsyncIterator[bytes]:
        """The bytes of the next part; `size` and `sha256` are its own afterwards."""
        self.size, self.sha256 = 0, hashlib.sha256()
        while self.size < PART:
            chunk = self._over or await self._next()
            self._over = b""
            if not chunk:
                self.ended = True
                return
            room = PART - self.size
            chunk, self._over = chunk[:room], chunk[room:]
            self.size += len(chunk)
            self.sha256.update(chunk)
            yield chunk

    async def _next(self) -> bytes:
        try:
            chunk = await anext(self._data, b"")
        except CaudalError as error:
            self.broken = error
            return b""
        self._left -= len(chunk)
        if self._left < 0:
            raise TooLarge("These are more bytes than the upload has left.")
        if self._digest is not None:
            self._digest.update(chunk)
        return chunk

    def verify(self) -> None:
        """Raises ChecksumMismatch unless the bytes are what they should be."""
        if self._digest is not None and (self.broken or self._digest.digest() != self._wanted):
            raise ChecksumMismatch("The checksum does not fit what came. Send these bytes again.")


class Uploads:
    """Takes uploads in parts. `pool` runs as `caudal_app`."""

    def __init__(self, pool: asyncpg.Pool[Any], files: FileService) -> None:
        self._pool = pool
        self.files = files

    async def create(
        self, party: Party, conversation: str, filename: str, content_type: str | None, size: int
    ) -> Upload:
        """Begin an upload. Raises TooLarge, InvalidInput, Forbidden."""
        self.files.check_size(size)
        await self.files.check(party, conversation)
        number, name, kind = new_id(), clean_name(filename), clean_type(content_type)
        keep = timedelta(hours=self.files.settings.files_upload_hours)
        async with db.tenant_transaction(self._pool, party.tenant) as connection:
            expires = await connection.fetchval(
                CREATE, number, conversation, party.who, name, kind, size, keep
            )
        made = Upload(number, conversation, name, kind, size, 0, expires)
        if size == 0:
            await self._finish(party, made, None)
        return made

    async def find(self, party: Party, upload_id: UUID) -> Upload:
        """The party's own upload. Raises NotFound."""
        async with db.tenant_transaction(self._pool, party.tenant, readonly=True) as connection:
            row = await connection.fetchrow(FIND, upload_id, party.who)
        if row is None:
            raise NotFound(GONE)
        return Upload(
            row["id"], row["conversation"], row["filename"], row["content_type"], row["size_bytes"],
            row["received"], row["expires_at"],
        )  # fmt: skip

    async def append(
        self, party: Party, upload_id: UUID, offset: int, data: AsyncIterator[bytes],
        checksum: Checksum | None = None,
    ) -> int:  # fmt: skip
        """Keep what comes, from `offset` on; how many bytes are kept in all.

        When `data` breaks off, what came before is kept, and its error raised. With a checksum all is kept
        or nothing. Raises NotFound, Conflict, TooLarge, ChecksumMismatch.
        """
        upload = await self.find(party, upload_id)
        if upload.received != offset:
            raise Conflict(MOVED)
        body = _Body(data, upload.size - offset, checksum)
        waiting: list[_Part] = []
        try:
            while not body.ended:
                part = await self._take(party.tenant, upload, offset, body)
                if part is None:
                    break
                waiting.append(part)
                offset += part.size
                if checksum is None:
                    await self._commit(party, upload, waiting)
            body.verify()
            await self._commit(party, upload, waiting)
        except BaseException:
            await self._discard(party.tenant, [part.path for part in waiting])
            raise
        if body.broken is not None:
            raise body.broken
        return offset

    async def _take(self, tenant: str, upload: Upload, start: int, body: _Body) -> _Part | None:
        path = f"{tenant}/uploads/{upload.id}/{start:013}-{new_id().hex[-8:]}"
        await self.files.intend(tenant, path)
        try:
            await self.files.objects.put(
                path, body.part(), content_type=upload.content_type,
                disposition=disposition(upload.filename),
            )  # fmt: skip
        except BaseException:
            await self._discard(tenant, [path])
            raise
        if body.size == 0:
            await self._discard(tenant, [path])
            return None
        return _Part(start, body.size, path, f"sha256:{body.sha256.hexdigest()}")

    async def _commit(self, party: Party, upload: Upload, waiting: list[_Part]) -> None:
        """Count these parts, and empty the list; with the last of the upload, make the file."""
        while waiting:
            part = waiting[0]
            if part.start + part.size == upload.size:
                await self._finish(party, upload, part)
            else:
                async with db.tenant_transaction(self._pool, party.tenant) as connection:
                    if await connection.fetchval(ADVANCE, upload.id, part.start, part.size) is None:
                        raise Conflict(MOVED)
                    await connection.execute(FULFIL, part.path)
                    await connection.execute(ADD, upload.id, part.start, part.size, part.path)
            waiting.pop(0)

    async def _finish(self, party: Party, upload: Upload, last: _Part | None) -> None:
        """Put the parts together and make the file, which has the upload's id."""
        async with db.tenant_transaction(self._pool, party.tenant, readonly=True) as connection:
            rows = await connection.fetch(PARTS, upload.id)
        parts = [(row["path"], row["size_bytes"]) for row in rows]
        if last is not None and not parts:
            stored = Stored(
                upload.id, last.path, upload.filename, upload.content_type, last.size, last.checksum
            )
        else:
            parts += [(last.path, last.size)] if last is not None else []
            stored = await self.files.take(
                party.tenant, upload.filename, upload.content_type, self._joined(parts), file_id=upload.id
            )
        try:
            async with db.tenant_transaction(self._pool, party.tenant) as connection:
                start, size = (last.start, last.size) if last is not None else (0, 0)
                if stored.size != upload.size or (
                    await connection.fetchval(ADVANCE, upload.id, start, size) is None
                ):
                    raise Conflict(MOVED)
                await self.files.keep_in(connection, party, upload.conversation, stored)
                await connection.execute(RETIRE, upload.id)
        except BaseException:
            if last is None or stored.path != last.path:
                await self.files.discard(stored)
            raise
        self.files.count(stored)
        left = [path for path, _ in parts if path != stored.path]
        await self._discard(party.tenant, left)

    async def _joined(self, parts: list[tuple[str, int]]) -> AsyncIterator[bytes]:
        for path, size in parts:
            async for piece in self.files.objects.read(path, 0, size):
                yield piece

    async def _discard(self, tenant: str, paths: list[str]) -> None:
        """Remove objects; should this fail, their intents stay for the sweep."""
        gone = []
        for path in paths:
            try:
                await self.files.objects.delete(path)
            except CaudalError:
                log.warning("an object is left for the sweep", path=path)
            else:
                gone.append(path)
        if gone:
            async with db.tenant_transaction(self._pool, tenant) as connection:
                await connection.execute(RETIRED, gone)

    async def end(self, party: Party, upload_id: UUID) -> None:
        """Give an upload up; a finished one's file stays. Raises NotFound."""
        upload = await self.find(party, upload_id)
        async with db.tenant_transaction(self._pool, party.tenant) as connection:
            paths = [row["path"] for row in await connection.fetch(PARTS, upload.id)]
            await connection.execute(RETIRE, upload.id)
            await connection.execute("delete from caudal.upload where id = $1", upload.id)
        await self._discard(party.tenant, paths)
