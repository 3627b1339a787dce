"""Files as connectors need them: read what goes out with a message, keep what people send."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from caudal.core import db
from caudal.core.errors import NotFound, TooLarge
from caudal.messaging import inbound
from caudal.messaging.files import NO_FILE, FileService, name_in
from caudal.messaging.provider import Attachment, ProviderError, Verdict

LOCATE = """
select f.storage_path, f.size_bytes from caudal.file f join caudal.tenant t on t.id = f.tenant_id
where t.name = $1 and f.id = $2
"""


class MediaFiles:
    """`provider.Files` on the file store. `pool` runs as `caudal_messaging`; `public_url` is the API's."""

    def __init__(self, pool: asyncpg.Pool[Any], service: FileService, public_url: str) -> None:
        self._pool = pool
        self._service = service
        self._public_url = public_url

    async def _locate(self, attachment: Attachment) -> tuple[str, int]:
        row = await self._pool.fetchrow(LOCATE, attachment.tenant, UUID(attachment.file_id))
        if row is None:
            raise NotFound(NO_FILE)
        return row["storage_path"], row["size_bytes"]

    async def read(self, attachment: Attachment) -> AsyncIterator[bytes]:
        """The bytes of a file, in pieces. Raises NotFound, Unavailable."""
        path, size = await self._locate(attachment)
        async for piece in self._service.objects.read(path, 0, size):
            yield piece

    async def link(self, attachment: Attachment) -> str:
        """An address from which the provider can fetch the file for the next hour."""
        path, _ = await self._locate(attachment)
        seconds = self._service.settings.files_link_seconds
        signed = await self._service.objects.link(path, seconds)
        if signed is not None:
            return signed
        base = self._service.settings.files_public_url or self._public_url
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        return self._service.links.make(base, attachment.tenant, UUID(attachment.file_id), until)

    async def store(
        self, tenant: str, party: str, filename: str, content_type: str, data: AsyncIterator[bytes]
    ) -> UUID:
        """Keep a file that `party` (`whatsapp:+55…`) sent, in their conversation; returns its id.

        Raises ProviderError when it is larger than we keep, and what `data` raises.
        """
        try:
            stored = await self._service.take(tenant, filename, content_type, data)
        except TooLarge as error:
            raise ProviderError(Verdict.REFUSED, "size", error.sentence) from error
        channel, _, address = party.partition(":")
        try:
            async with db.tenant_transaction(self._pool, tenant) as connection:
                number = await connection.fetchval("select id from caudal.tenant where name = $1", tenant)
                conversation = await inbound.conversation_of(connection, number, channel, address)
                sender = await inbound.sender_of(connection, number, channel, address)
                await name_in(connection, conversation, sender, stored)
        except BaseException:
            await self._service.discard(stored)
            raise
        self._service.count(stored)
        return stored.file_id
