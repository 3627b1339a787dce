"""The API killed amid a resumable upload: it goes on from what was kept, and the file is right."""

from __future__ import annotations

import asyncio
import hashlib
import os
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from caudal.messaging.uploads import PART
from tests.integration.messaging.stack import Stack, sign_in, stack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MIB = 1024 * 1024
SIZE = 2 * PART + 20 * MIB
TUS = {"Tus-Resumable": "1.0.0"}
# The file itself is being put together from its parts.
JOINING = "select exists (select from caudal.object_intent where path not like '%/uploads/%')"


class Source:
    """What is uploaded, the same bytes each time: a mebibyte that is never twice the same."""

    def __init__(self) -> None:
        self._seed = os.urandom(MIB)

    def piece(self, number: int) -> bytes:
        return number.to_bytes(8, "big") + self._seed[8:]

    def read(self, at: int, end: int = SIZE) -> bytes:
        """The bytes [at, end) of one piece at most."""
        number, inside = divmod(at, MIB)
        return self.piece(number)[inside : min(MIB, inside + end - at)]

    def digest(self) -> str:
        whole = hashlib.sha256()
        for number in range(SIZE // MIB):
            whole.update(self.piece(number))
        return whole.hexdigest()


async def offset(client: httpx.AsyncClient, location: str) -> int:
    """How much is kept; asked until somebody answers."""
    while True:
        try:
            answer = await client.head(location, headers=TUS)
        except httpx.TransportError:
            await asyncio.sleep(0.05)
            continue
        if answer.status_code == 503:
            await asyncio.sleep(0.05)
            continue
        assert answer.status_code == 200, answer.status_code
        return int(answer.headers["upload-offset"])


async def until(made: Stack, query: str, *values: object) -> None:
    while not await made.pool.fetchval(query, *values):
        await asyncio.sleep(0.01)  # no event of the database says so


async def send(
    client: httpx.AsyncClient, location: str, source: Source, at: int, pause: int = SIZE,
    then: Callable[[], Awaitable[None]] | None = None,
) -> bool:  # fmt: skip
    """All from `at` on in one request, with `then` before the byte `pause`; whether it was answered."""

    async def body() -> AsyncIterator[bytes]:
        nonlocal then
        here = at
        while here < SIZE:
            if then is not None and here >= pause:
                await then()
                then = None
            data = source.read(here)
            here += len(data)
            yield data

    headers = {**TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": str(at),
               "Content-Length": str(SIZE - at)}  # fmt: skip
    try:
        answer = await client.patch(location, headers=headers, content=body())
    except httpx.TransportError:
        return False
    assert answer.status_code == 204, answer.text
    return True


async def test_an_upload_outlives_the_death_of_its_server() -> None:
    source = Source()
    async with stack(None, "api") as made:
        headers = await sign_in(made.url)
        async with httpx.AsyncClient(base_url=made.url, timeout=60, headers=headers) as client:
            about = {"conversation_id": "c", "filename": "big.bin"}
            named = ",".join(f"{name} {b64encode(value.encode()).decode()}" for name, value in about.items())
            begun = await client.post(
                "/v1/uploads", headers={**TUS, "Upload-Length": str(SIZE), "Upload-Metadata": named}
            )
            location = begun.headers["location"]
            received = "select received >= $1 from caudal.upload"

            async def kill() -> None:
                await made.kill("api")

            # In its first part, of which nothing is kept yet.
            assert not await send(client, location, source, 0, 20 * MIB, kill)
            assert await offset(client, location) == 0

            # In its second part: the first one is kept.
            async def kill_after_one() -> None:
                await until(made, received, PART)
                await made.kill("api")

            assert not await send(client, location, source, 0, PART + 10 * MIB, kill_after_one)
            assert await offset(client, location) == PART

            # When all is there, and the file is being made of the parts: the last one was not counted.
            async def kill_while_joining() -> None:
                await until(made, JOINING)
                await made.kill("api")

            killing = asyncio.create_task(kill_while_joining(), name="killing")
            answered = await send(client, location, source, PART)
            await killing
            at = await offset(client, location)
            # All or nothing: a machine so fast that it had answered when the signal came has the whole file.
            assert at == (SIZE if answered else 2 * PART)

            if at < SIZE:
                assert await send(client, location, source, at)
            assert await offset(client, location) == SIZE
            file_id = location.rsplit("/", 1)[1]
            about_it = (await client.get(f"/v1/files/{file_id}/download")).json()
            assert (about_it["size_bytes"], about_it["checksum"]) == (SIZE, f"sha256:{source.digest()}")
            came = hashlib.sha256()
            async with client.stream("GET", f"/v1/files/{file_id}/content") as answer:
                async for piece in answer.aiter_bytes():
                    came.update(piece)
            assert came.hexdigest() == source.digest()
        # What the killed ones left is known, so that the sweep removes it; nothing else is there.
        kept = {row["storage_path"] for row in await made.pool.fetch("select storage_path from caudal.file")}
        known = {row["path"] for row in await made.pool.fetch("select path from caudal.object_intent")}
        folder = made.folder / "files"
        there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        strays = {
            path for path in there if path not in kept and not any(path.startswith(one) for one in known)
        }
        assert kept <= there
        assert strays == set()
    assert made.kills == ["api"] * 3
