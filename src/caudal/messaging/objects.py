"""The object store: bytes by path, in a directory or in anything that speaks S3.

What is written is whole or not there. In a directory it is also on the disk when `put` returns; S3 promises
the same with its answer.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, S3Store

from caudal.core.errors import NotFound, SettingsError, Unavailable
from caudal.messaging.file_settings import FileSettings

# S3's smallest part; with two on their way and one being filled, 15 MiB for each upload, whatever its size.
PART = 5 * 1024 * 1024
IN_FLIGHT = 2
# Crossing into the library costs the same for a byte and for a mebibyte.
PIECE = 1024 * 1024
# Who reads may be slow; then a piece lies in memory, and another in the server's buffer.
READ = 256 * 1024
GONE = "The object store does not answer. Try again in a few seconds."


class Objects:
    """A store. `directory` is set for one that is a directory, `signer` for one that can presign links."""

    def __init__(self, store: Any, *, directory: Path | None = None, signer: Any = None) -> None:
        self._store = store
        self._directory = directory
        self._signer = signer

    async def put(
        self, path: str, data: AsyncIterator[bytes], *, content_type: str = "", disposition: str = ""
    ) -> None:
        """Store all of `data` at `path`. What `data` raises is raised here, and nothing is left behind.

        Raises Unavailable when the store does not answer.
        """
        failure: BaseException | None = None

        async def watched() -> AsyncIterator[bytes]:
            nonlocal failure
            try:
                async for piece in pieces:
                    yield piece
            except BaseException as error:
                # The library may wrap what passes through it.
                failure = error
                raise

        attributes = {"Content-Type": content_type, "Content-Disposition": disposition}
        options: dict[str, Any] = {}
        if self._directory is None:
            options["attributes"] = {name: value for name, value in attributes.items() if value}
        pieces = _gathered(data)
        first = await _first_part(pieces)
        try:
            if isinstance(first, bytes):
                await obstore.put_async(self._store, path, first, use_multipart=False, **options)
            else:
                more = _chained(first, watched())
                await obstore.put_async(
                    self._store, path, more, chunk_size=PART, max_concurrency=IN_FLIGHT, **options
                )
        except (BaseError, OSError) as error:
            raise failure or Unavailable(GONE) from error
        except BaseException as error:
            if failure is not None and failure is not error:
                raise failure from error
            raise
        if self._directory is not None:
            await asyncio.to_thread(_sync, self._directory / path)

    async def read(self, path: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `start` up to, not including, `end`. Raises NotFound, Unavailable."""
        if start >= end:
            return
        try:
            found = await obstore.get_async(self._store, path, options={"range": (start, end)})
            async for piece in found.stream(min_chunk_size=READ):
                yield bytes(piece)
        except (NotFoundError, FileNotFoundError) as error:
            raise NotFound("The file's bytes are gone from the object store.") from error
        except BaseError as error:
            raise Unavailable(GONE) from error

    async def delete(self, path: str) -> None:
        """Remove what is there, and what a killed upload left of it. Raises Unavailable."""
        try:
            await obstore.delete_async(self._store, path)
        except (NotFoundError, FileNotFoundError):
            pass
        except BaseError as error:
            raise Unavailable(GONE) from error
        if self._directory is not None:
            # Where the library gathers a file's parts before it has its name.
            await asyncio.to_thread(_clear, self._directory / path)

    async def link(self, path: str, seconds: int) -> str | None:
        """A link that opens to anybody for so long; None when the store has no such thing."""
        if self._signer is None:
            return None
        signed: str = await obstore.sign_async(self._signer, "GET", path, timedelta(seconds=seconds))
        return signed

    async def ping(self) -> None:
        """Write, read and remove a few bytes. Raises what goes wrong."""
        path = f"health/{uuid4()}"
        await obstore.put_async(self._store, path, b"ok", use_multipart=False)
        try:
            found = await obstore.get_async(self._store, path)
            await found.bytes_async()
        finally:
            await obstore.delete_async(self._store, path)


def open_objects(settings: FileSettings) -> Objects:
    """The store that FILES_URL names. Raises SettingsError."""
    url = settings.files_url
    scheme = urlsplit(url).scheme
    if scheme in ("", "file"):
        directory = Path(unquote(urlsplit(url).path) if scheme else url).absolute()
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise SettingsError(f"FILES_URL: {directory} cannot be made: {error.strerror}.") from error
        return Objects(LocalStore(str(directory)), directory=directory)
    if scheme == "s3":
        endpoint = settings.files_s3_endpoint
        return Objects(
            _s3(url, settings, endpoint), signer=_s3(url, settings, settings.files_public_url or endpoint)
        )
    raise SettingsError(
        f"FILES_URL: {scheme!r} is no store we know. Name a directory, or s3://bucket/prefix."
    )


def _s3(url: str, settings: FileSettings, endpoint: str) -> S3Store:
    parts = urlsplit(url)
    options: dict[str, Any] = {"region": settings.files_s3_region}
    if endpoint:
        options["endpoint"] = endpoint.rstrip("/")
        options["client_options"] = {"allow_http": endpoint.startswith("http://")}
    if settings.files_s3_access_key:
        options["access_key_id"] = settings.files_s3_access_key
        options["secret_access_key"] = settings.files_s3_secret_key
    return S3Store(parts.netloc, prefix=parts.path.strip("/") or None, **options)


async def _gathered(data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces of about a mebibyte."""
    waiting: list[bytes] = []
    size = 0
    async for chunk in data:
        waiting.append(chunk)
        size += len(chunk)
        if size >= PIECE:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


async def _first_part(pieces: AsyncIterator[bytes]) -> bytes | list[bytes]:
    """Everything, when it fits into one part; else the pieces of the first, the rest still to come."""
    first: list[bytes] = []
    size = 0
    async for piece in pieces:
        first.append(piece)
        size += len(piece)
        if size > PART:
            return first
    return b"".join(first)


async def _chained(first: list[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    while first:
        yield first.pop(0)
    async for piece in rest:
        yield piece


def _sync(path: Path) -> None:
    """Bring a file and its name to the disk."""
    for place in (path, path.parent):
        number = os.open(place, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _clear(path: Path) -> None:
    for left in path.parent.glob(f"{path.name}#*"):
        left.unlink(missing_ok=True)
