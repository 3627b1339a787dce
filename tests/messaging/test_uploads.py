"""Resumable uploads: the protocol, every way of breaking off, and two at once."""

from __future__ import annotations

import asyncio
import hashlib
import os
from base64 import b64encode
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from caudal.messaging import files, uploads
from caudal.registry.permissions import Role

TUS = {"Tus-Resumable": "1.0.0"}
OCTETS = {**TUS, "Content-Type": "application/offset+octet-stream"}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a mebibyte, so that a test has several."""
    monkeypatch.setattr(uploads, "PART", 1024 * 1024)


def about(**values: str) -> str:
    return ",".join(f"{name} {b64encode(value.encode()).decode()}" for name, value in values.items())


async def begin(platform: Any, headers: Any, size: int, conversation: str = "c") -> str:
    named = about(conversation_id=conversation, filename="größe.bin", filetype="application/x-test")
    answer = await platform.client.post(
        "/v1/uploads", headers={**headers, **TUS, "Upload-Length": str(size), "Upload-Metadata": named}
    )
    assert answer.status_code == 201, answer.text
    assert answer.headers["tus-resumable"] == "1.0.0"
    location: str = answer.headers["location"]
    return location


async def offset(platform: Any, headers: Any, location: str) -> int:
    answer = await platform.client.head(location, headers={**headers, **TUS})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    return int(answer.headers["upload-offset"])


async def add(platform: Any, headers: Any, location: str, at: int, data: bytes, **more: str) -> Any:
    return await platform.client.patch(
        location, headers={**headers, **OCTETS, "Upload-Offset": str(at), **more}, content=data
    )


async def fetched(platform: Any, headers: Any, location: str) -> bytes:
    file_id = location.rsplit("/", 1)[1]
    found = await platform.client.get(f"/v1/files/{file_id}/download", headers=headers)
    assert found.status_code == 200, found.text
    answer = await platform.client.get(f"/v1/files/{file_id}/content", headers=headers)
    assert f"sha256:{hashlib.sha256(answer.content).hexdigest()}" == found.json()["checksum"]
    content: bytes = answer.content
    return content


def objects(folder: Path) -> list[Path]:
    return [path for path in (folder / "files").rglob("*") if path.is_file()]


async def test_what_we_can_do_is_said(platform: Any) -> None:
    answer = await platform.client.options("/v1/uploads")
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert set(answer.headers["tus-extension"].split(",")) >= {"creation", "checksum", "termination"}
    assert int(answer.headers["tus-max-size"]) == platform.api.parts.services["files"].settings.file_max_bytes


async def test_an_upload_in_pieces_becomes_a_file_and_leaves_nothing_else(platform: Any) -> None:
    _, ha = await platform.api.person("default", Role.MEMBER)
    content = os.urandom(5_000_000)
    location = await begin(platform, ha, len(content))
    assert await offset(platform, ha, location) == 0
    at = 0
    for size in (1, 700_000, 1_048_576, 2_500_000, len(content)):
        answer = await add(platform, ha, location, at, content[at : at + size])
        assert answer.status_code == 204, answer.text
        at = int(answer.headers["upload-offset"])
        assert await offset(platform, ha, location) == at
    assert at == len(content)
    assert await fetched(platform, ha, location) == content
    assert len(objects(platform.folder)) == 1
    assert await platform.admin.fetchval("select count(*) from caudal.object_intent") == 0
    assert await platform.admin.fetchval("select count(*) from caudal.upload_part") == 0
    # In one piece it is never copied; and nothing at all is a file too.
    for whole in (b"short", b""):
        location = await begin(platform, ha, len(whole))
        if whole:
            assert (await add(platform, ha, location, 0, whole)).status_code == 204
        assert await fetched(platform, ha, location) == whole


async def test_a_broken_connection_keeps_what_came(platform: Any) -> None:
    _, ha = await platform.api.person("default", Role.MEMBER)
    content = os.urandom(4_000_000)
    location = await begin(platform, ha, len(content))
    address = urlsplit(platform.api.url)
    for upto in (1_500_000, 2_700_000):
        at = await offset(platform, ha, location)
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(
            f"PATCH {location} HTTP/1.1\r\nHost: x\r\nAuthorization: {ha['Authorization']}\r\n"
            f"Tus-Resumable: 1.0.0\r\nContent-Type: application/offset+octet-stream\r\n"
            f"Upload-Offset: {at}\r\nContent-Length: {len(content) - at}\r\n\r\n".encode()
            + content[at:upto]
        )
        await writer.drain()
        # All of it arrives before the end does.
        writer.write_eof()

        async def came(upto: int = upto) -> bool:
            return await offset(platform, ha, location) == upto

        await platform.until(came)
        writer.close()
    at = await offset(platform, ha, location)
    assert (await add(platform, ha, location, at, content[at:])).status_code == 204
    assert await fetched(platform, ha, location) == content


async def test_of_two_that_bring_the_same_one_counts(platform: Any) -> None:
    _, ha = await platform.api.person("default", Role.MEMBER)
    content = os.urandom(3_000_000)
    location = await begin(platform, ha, len(content))
    answers = await asyncio.gather(*(add(platform, ha, location, 0, content) for _ in range(4)))
    codes = sorted(answer.status_code for answer in answers)
    assert codes[0] == 204
    assert set(codes[1:]) == {409}
    assert await fetched(platform, ha, location) == content
    assert len(objects(platform.folder)) == 1


async def test_checksums(platform: Any) -> None:
    _, ha = await platform.api.person("default", Role.MEMBER)
    content = os.urandom(2_500_000)
    location = await begin(platform, ha, len(content))
    for algorithm in ("sha256", "sha1", "md5"):
        wrong = b64encode(hashlib.new(algorithm, b"other").digest()).decode()
        answer = await add(platform, ha, location, 0, content, **{"Upload-Checksum": f"{algorithm} {wrong}"})
        assert answer.status_code == 460, answer.text
        assert await offset(platform, ha, location) == 0
    assert objects(platform.folder) == []
    for bad in ("crc32 AAAA", "sha256 !", "sha256"):
        answer = await add(platform, ha, location, 0, content, **{"Upload-Checksum": bad})
        assert answer.status_code in (400, 460), bad
    right = b64encode(hashlib.sha256(content).digest()).decode()
    answer = await add(platform, ha, location, 0, content, **{"Upload-Checksum": f"sha256 {right}"})
    assert answer.status_code == 204
    assert await fetched(platform, ha, location) == content


async def test_what_is_wrong_is_refused(platform: Any) -> None:
    _, ha = await platform.api.person("default", Role.MEMBER)
    _, hb = await platform.api.person("default", Role.MEMBER)
    _, stranger = await platform.api.person("elsewhere", Role.OWNER)
    location = await begin(platform, ha, 10)
    assert (await add(platform, ha, location, 5, b"xxxxx")).status_code == 409
    assert (await add(platform, ha, location, 0, b"x" * 11)).status_code == 413
    assert (await add(platform, ha, location, 0, b"x", **{"Content-Type": "text/plain"})).status_code == 415
    assert (await add(platform, ha, location, 0, b"x", **{"Tus-Resumable": "0.2"})).status_code == 412
    assert (await add(platform, ha, location, 0, b"x", **{"Upload-Offset": "-1"})).status_code == 400
    for other in (hb, stranger):
        assert (await add(platform, other, location, 0, b"x")).status_code == 404
        assert (await platform.client.head(location, headers={**other, **TUS})).status_code == 404
        assert (await platform.client.delete(location, headers={**other, **TUS})).status_code == 404
    assert await offset(platform, ha, location) == 0
    good = about(conversation_id="c", filename="x")
    for length, metadata, status in (
        ("99999999999", good, 413), ("x", good, 400), ("5", "filename eA==", 400), ("5", "a !", 400),
        ("5", about(conversation_id="a/b", filename="x"), 400),
    ):  # fmt: skip
        answer = await platform.client.post(
            "/v1/uploads", headers={**ha, **TUS, "Upload-Length": length, "Upload-Metadata": metadata}
        )
        assert answer.status_code == status, (metadata, answer.text)
    # Who is not in the conversation does not begin one in it; who was put out does not finish one.
    await platform.send(ha, "c", "mine")
    begun = await platform.client.post(
        "/v1/uploads", headers={**hb, **TUS, "Upload-Length": "5", "Upload-Metadata": good}
    )
    assert begun.status_code == 403
    await platform.admin.execute("delete from caudal.participant")
    assert (await add(platform, ha, location, 0, b"x" * 10)).status_code == 403
    assert objects(platform.folder) == []


async def test_given_up_or_forgotten_uploads_are_removed(platform: Any) -> None:
    _, ha = await platform.api.person("default", Role.MEMBER)
    service = platform.api.parts.services["files"]
    first = await begin(platform, ha, 2_000_000)
    second = await begin(platform, ha, 2_000_000)
    for location in (first, second):
        assert (await add(platform, ha, location, 0, b"x" * 1_500_000)).status_code == 204
    assert len(objects(platform.folder)) == 4
    assert (await platform.client.delete(first, headers={**ha, **TUS})).status_code == 204
    assert (await platform.client.head(first, headers={**ha, **TUS})).status_code == 404
    assert len(objects(platform.folder)) == 2
    await platform.admin.execute("update caudal.upload set expires_at = now() - interval '1 second'")
    assert (await platform.client.head(second, headers={**ha, **TUS})).status_code == 404
    await files.sweep(platform.admin, service.objects, 24)
    assert objects(platform.folder) == []
    assert await platform.admin.fetchval("select count(*) from caudal.object_intent") == 0
