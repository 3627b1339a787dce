"""Files up and down, as the contract says; what is wrong leaves nothing behind."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from uuid import uuid4

import pytest

from caudal.messaging import files
from caudal.messaging.files import clean_name, clean_type, disposition, size_bucket
from caudal.registry.permissions import Role

LARGEST = 12 * 1024 * 1024


async def people(platform: Any, tenant: str = "default") -> tuple[Any, Any]:
    return (
        await platform.api.person(tenant, Role.MEMBER),
        await platform.api.person(tenant, Role.MEMBER),
    )


async def put(platform: Any, headers: Any, conversation: str, content: bytes, name: str = "a.bin",
              kind: str = "application/octet-stream") -> dict[str, Any]:  # fmt: skip
    answer = await platform.client.post(
        "/v1/files", data={"conversation_id": conversation}, files={"file": (name, content, kind)},
        headers=headers,
    )  # fmt: skip
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def objects(folder: Path) -> list[Path]:
    return [path for path in (folder / "files").rglob("*") if path.is_file()]


async def test_a_file_goes_up_with_a_message_and_comes_down(platform: Any, tmp_path: Path) -> None:
    (_, ha), (b, hb) = await people(platform)
    content = os.urandom(7_000_000)
    made = await put(platform, ha, "c", content, "relatório.pdf", "application/pdf")
    assert made.keys() == {"file_id", "filename", "size_bytes", "checksum", "storage_path", "uploaded_at"}
    assert made["size_bytes"] == len(content)
    assert made["checksum"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert (tmp_path / "files" / made["storage_path"]).read_bytes() == content

    # Nobody else is in the conversation that the file began.
    refused = await platform.client.get(f"/v1/files/{made['file_id']}/download", headers=hb)
    assert refused.status_code == 403
    await platform.send(ha, "c", "see this", recipient_id=str(b), file_id=made["file_id"])
    page = await platform.client.get("/v1/conversations/c/messages", headers=hb)
    message = page.json()["messages"][0]
    assert message["file_id"] == made["file_id"]
    assert message["file_metadata"]["filename"] == "relatório.pdf"
    record = await platform.admin.fetchval("select value from caudal.log_record")
    assert json.loads(record)["file_metadata"] == message["file_metadata"]

    found = (await platform.client.get(message["file_download_url"], headers=hb)).json()
    assert found["content_type"] == "application/pdf"
    assert found["checksum"] == made["checksum"]
    link = urlsplit(found["download_url"])
    by_link = await platform.client.get(f"{link.path}?{link.query}")
    assert by_link.status_code == 200
    assert by_link.content == content
    own = await platform.client.get(f"/v1/files/{made['file_id']}/content", headers=hb)
    assert own.content == content
    assert own.headers["content-disposition"].endswith("filename*=UTF-8''relat%C3%B3rio.pdf")
    assert own.headers["x-content-type-options"] == "nosniff"
    assert own.headers["content-type"] == "application/pdf"
    metrics = (await platform.client.get("/actuator/prometheus")).text
    assert 'files_uploaded_total{size_bucket="1-10MB"} 1.0' in metrics
    health = (await platform.client.get("/health")).json()
    assert health["components"]["object store"]["status"] == "UP"


async def test_the_file_may_come_before_its_conversation(platform: Any) -> None:
    (_, ha), (_, hb) = await people(platform)
    both = [("file", ("x", b"123", "text/plain")), ("conversation_id", (None, "c"))]
    answer = await platform.client.post("/v1/files", files=both, headers=ha)
    assert answer.status_code == 201, answer.text
    answer = await platform.client.post("/v1/files", files=both, headers=hb)
    assert answer.status_code == 403
    assert len(objects(platform.folder)) == 1


RANGES = [
        ("bytes=0-0", 206, (0, 1)), ("bytes=5-", 206, (5, 1000)), ("bytes=-7", 206, (993, 1000)),
        ("bytes=-5000", 206, (0, 1000)), ("bytes=990-5000", 206, (990, 1000)), ("bytes=1000-", 416, (0, 0)),
        ("bytes=-0", 416, (0, 0)), ("bytes=9-3", 200, (0, 1000)), ("bytes=0-1,3-4", 200, (0, 1000)),
        ("lines=1-2", 200, (0, 1000)), ("bytes=-", 200, (0, 1000)), ("bytes=a-b", 200, (0, 1000)),
]  # fmt: skip


async def test_ranges(platform: Any) -> None:
    (_, ha), _ = await people(platform)
    content = os.urandom(1000)
    made = await put(platform, ha, "c", content)
    path = f"/v1/files/{made['file_id']}/content"
    for header, status, (start, end) in RANGES:
        answer = await platform.client.get(path, headers={**ha, "Range": header})
        assert answer.status_code == status, header
        if status == 416:
            assert answer.headers["content-range"] == "bytes */1000"
            continue
        assert answer.content == content[start:end]
        if status == 206:
            assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/1000"
        other = await platform.client.get(path, headers={**ha, "Range": header, "If-Range": '"x"'})
        assert (other.status_code, other.content) == (200, content)
        ask = {**ha, "Range": header, "If-Range": answer.headers["etag"]}
        same = await platform.client.get(path, headers=ask)
        assert (same.status_code, same.content) == (status, content[start:end])


async def test_what_one_has_is_not_sent_again(platform: Any) -> None:
    (_, ha), _ = await people(platform)
    made = await put(platform, ha, "c", b"hello")
    path = f"/v1/files/{made['file_id']}/content"
    first = await platform.client.head(path, headers=ha)
    assert (first.status_code, first.headers["content-length"], first.content) == (200, "5", b"")
    again = await platform.client.get(
        path, headers={**ha, "If-None-Match": f'"y", W/{first.headers["etag"]}'}
    )
    assert (again.status_code, again.content) == (304, b"")


NAMES = [
'a"b.txt', "a\\b", "../../etc/passwd", "évidence ☃.pdf", "a;b=c.txt", "x" * 400 + ".pdf", "%41.txt",
     "a'b", "\u202egpj.exe", " "]  # fmt: skip


async def test_odd_names_stay_harmless(platform: Any) -> None:
    (_, ha), _ = await people(platform)
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    for name in NAMES:
        body = (
            b'--b\r\nContent-Disposition: form-data; name="conversation_id"\r\n\r\nc\r\n'
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="'
            + name.replace("\\", "\\\\").replace('"', '\\"').encode()
            + b'"\r\n\r\nhi\r\n--b--\r\n'
        )
        answer = await platform.client.post("/v1/files", content=body, headers={**ha, **kind})
        assert answer.status_code == 201, (name, answer.text)
        made = answer.json()
        assert len(made["filename"]) <= 255
        assert not {"/", "\\", "\u202e", "\n"} & set(made["filename"])
        assert made["filename"].strip()
        got = await platform.client.get(f"/v1/files/{made['file_id']}/content", headers=ha)
        value = got.headers["content-disposition"]
        assert value.isascii()
        assert unquote(value.rsplit("''", 1)[1]) == made["filename"]


def test_names_types_and_buckets() -> None:
    assert clean_name("C:\\x\\y.txt") == "y.txt"
    assert clean_name("a\r\nSet-Cookie: x") == "aSet-Cookie: x"
    assert clean_name("..") == "file"
    assert clean_name("x" * 300 + ".pdf").endswith("x.pdf")
    assert clean_type("text/html; charset=utf-8") == "text/html"
    assert clean_type("text/html\r\nx: y") == "application/octet-stream"
    assert disposition('a"\\b') == "attachment; filename=\"a__b\"; filename*=UTF-8''a%22%5Cb"
    sizes = (0, 1 << 20, 10 << 20, 100 << 20, 1 << 30)
    assert [size_bucket(size) for size in sizes] == ["0-1MB", "1-10MB", "10-100MB", "100MB-1GB", "1GB+"]


PART = b'--b\r\nContent-Disposition: form-data; name="'
GOOD = PART + b'conversation_id"\r\n\r\nc\r\n' + PART + b'file"; filename="x"\r\n\r\nhi\r\n--b--\r\n'
BROKEN = [
    b"", b"--b--\r\n", GOOD[:-5], GOOD[:60], GOOD.replace(b'name="file"', b'name="other"'),
    GOOD.replace(b'; filename="x"', b""), GOOD.replace(b'filename="x"', b'filename=""'),
    GOOD.replace(b"\r\n\r\nc\r\n", b"\r\n\r\na/b\r\n"), GOOD.replace(b"\r\n\r\nc\r\n", b"\r\n\r\n\xff\r\n"),
    GOOD.replace(b'name="conversation_id"', b'name="x"'), b"x" * 100_000, GOOD.replace(b"b\r\n", b"b\n"),
    PART + b'a"\r\n\r\n\r\n' + (PART + b'a"\r\n\r\n\r\n') * 40 + GOOD,
]  # fmt: skip


async def test_a_broken_form_is_refused_and_leaves_nothing(platform: Any) -> None:
    (_, ha), _ = await people(platform)
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    for body in BROKEN:
        answer = await platform.client.post("/v1/files", content=body, headers={**ha, **kind})
        assert answer.status_code in (400, 413), (body, answer.text)
        assert answer.json()["error"]
    assert await platform.admin.fetchval("select count(*) from caudal.file") == 0
    assert objects(platform.folder) == []


async def test_other_bodies_are_refused(platform: Any) -> None:
    (_, ha), _ = await people(platform)
    for kind in ("application/json", "multipart/form-data", "", "multipart/form-data; boundary="):
        answer = await platform.client.post("/v1/files", content=GOOD, headers={**ha, "Content-Type": kind})
        assert answer.status_code == 400, kind


async def test_too_large_is_refused_before_the_bytes_come(platform: Any) -> None:
    (_, ha), _ = await people(platform)
    address = urlsplit(platform.api.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(
        f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: {ha['Authorization']}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n"
        "Content-Length: 99999999999\r\n\r\n".encode()
    )
    async with asyncio.timeout(30):
        assert b" 413 " in await reader.readline()
    writer.close()


async def test_too_large_is_refused_while_it_comes(platform: Any) -> None:
    (_, ha), _ = await people(platform)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield GOOD.split(b"hi")[0]
        while sent < 40 * LARGEST:
            sent += 65536
            yield b"x" * 65536

    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = await platform.client.post("/v1/files", content=endless(), headers={**ha, **kind})
    assert answer.status_code == 413
    assert objects(platform.folder) == []
    assert await platform.admin.fetchval("select count(*) from caudal.file") == 0


async def test_a_client_that_goes_away_leaves_nothing(platform: Any) -> None:
    (_, ha), _ = await people(platform)
    address = urlsplit(platform.api.url)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    head = GOOD.split(b"hi")[0]
    writer.write(
        f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: {ha['Authorization']}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {11_000_000}\r\n\r\n".encode()
        + head + b"x" * 9_000_000
    )  # fmt: skip
    await writer.drain()
    intents = "select count(*) from caudal.object_intent"
    await platform.until(lambda: platform.admin.fetchval(intents))
    writer.close()
    service = platform.api.parts.services["files"]
    await platform.until(_done(service))
    assert objects(platform.folder) == []
    # What a kill would have left is found by its intent.
    await platform.admin.execute("update caudal.object_intent set since = '-infinity'")
    assert await files.sweep(platform.admin, service.objects, 24) == 1
    assert await platform.admin.fetchval(intents) == 0


def _done(service: Any) -> Any:
    async def ask() -> bool:
        return service._under_way == 0

    return ask


async def test_the_sweep_removes_orphans_and_nothing_else(platform: Any) -> None:
    (_, ha), _ = await people(platform)
    made = await put(platform, ha, "c", b"kept")
    service = platform.api.parts.services["files"]

    async def data() -> AsyncIterator[bytes]:
        yield b"orphan"

    stored = await service.take("default", "x", None, data())
    left = platform.folder / "files" / f"{stored.path}#1"
    left.write_bytes(b"half")
    assert await files.sweep(platform.admin, service.objects, 24) == 0
    await platform.admin.execute("update caudal.object_intent set since = '-infinity'")
    assert await files.sweep(platform.admin, service.objects, 24) == 1
    assert [path.name for path in objects(platform.folder)] == [Path(made["storage_path"]).name]
    # An upload whose bytes were swept meanwhile does not become a file without bytes.
    answer = await platform.client.get(f"/v1/files/{made['file_id']}/content", headers=ha)
    assert answer.content == b"kept"
    with pytest.raises(files.Unavailable):
        await service.keep(files.Party("default", "x"), "other", stored)


async def test_who_takes_no_part_gets_nothing(platform: Any) -> None:
    (_, ha), (_, hb) = await people(platform)
    _, stranger = await platform.api.person("elsewhere", Role.OWNER)
    made = await put(platform, ha, "c", b"secret")
    for path in ("download", "content"):
        for headers, status in ((hb, 403), (stranger, 404), ({}, 401)):
            answer = await platform.client.get(f"/v1/files/{made['file_id']}/{path}", headers=headers)
            assert answer.status_code == status, (path, answer.text)
            assert b"secret" not in answer.content
        answer = await platform.client.get(f"/v1/files/{uuid4()}/{path}", headers=ha)
        assert answer.status_code == 404
    refused = await platform.client.post(
        "/v1/files", data={"conversation_id": "c"}, files={"file": ("x", b"x")}, headers=hb
    )
    assert refused.status_code == 403
    # The same name in another tenant is another conversation.
    await put(platform, stranger, "c", b"other")
    answer = await platform.client.post(
        "/v1/messages", json={"conversation_id": "c", "content": "x", "file_id": made["file_id"]},
        headers=stranger,
    )  # fmt: skip
    assert answer.status_code == 400


async def test_a_link_opens_one_file_for_a_time(platform: Any) -> None:
    (_, ha), _ = await people(platform)
    made = await put(platform, ha, "c", b"one")
    other = await put(platform, ha, "c", b"two")
    found = (await platform.client.get(f"/v1/files/{made['file_id']}/download", headers=ha)).json()
    link = urlsplit(found["download_url"])
    query = {name: values[0] for name, values in parse_qs(link.query).items()}
    assert (await platform.client.get(link.path, params=query)).content == b"one"
    assert (await platform.client.get(link.path.replace(made["file_id"], other["file_id"]),
                                      params=query)).status_code == 403  # fmt: skip
    for name, value in (("expires", str(int(query["expires"]) + 1)), ("tenant", "elsewhere"),
                        ("signature", "0" * 64), ("signature", ""), ("signature", "é"),
                        ("expires", "x")):  # fmt: skip
        wrong = await platform.client.get(link.path, params={**query, name: value})
        assert wrong.status_code == 403, name
    await platform.api.admin.execute("update caudal.tenant set status = 'suspended' where name = 'default'")
    assert (await platform.client.get(link.path, params=query)).status_code == 404
    await platform.api.admin.execute("update caudal.tenant set status = 'active' where name = 'default'")
    assert (await platform.client.get(link.path, params=query)).content == b"one"
    links = platform.api.parts.services["files"].links
    signed = links._sign("default", made["file_id"], "1000")
    old = f"{link.path}?tenant=default&expires=1000&signature={quote(signed)}"
    assert (await platform.client.get(old)).status_code == 403
