"""One suite for every object store: a directory, and a real S3 server (Versity's gateway, made with Go)."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest

from caudal.app import files as composition
from caudal.core.errors import InvalidInput, NotFound, SettingsError, Unavailable
from caudal.core.lifecycle import Lifecycle
from caudal.messaging.file_settings import FileSettings
from caudal.messaging.objects import Objects, open_objects
from caudal.registry.permissions import Role
from tests.conftest import missing
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
GATEWAY = ROOT / ".cache" / "s3" / "versitygw"
KEY, SECRET = "caudal-test", "caudal-test-secret"


@pytest.fixture(scope="module")
def s3_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real S3 server with a bucket `files`; `make s3` makes it."""
    if not GATEWAY.exists():
        missing("versitygw: make s3, with Go 1.21 or later")
    folder = tmp_path_factory.mktemp("s3")
    for name in ("data/files", "meta"):
        (folder / name).mkdir(parents=True)
    port = free_port()
    process = subprocess.Popen(
        [str(GATEWAY), "--port", f"127.0.0.1:{port}", "--access", KEY, "--secret", SECRET,
         "--region", "us-east-1", "posix", "--sidecar", str(folder / "meta"), str(folder / "data")],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 20
        while True:
            try:
                httpx.get(url, timeout=2)
                break
            except httpx.TransportError:
                assert process.poll() is None, process.stderr and process.stderr.read().decode()
                assert time.monotonic() < until
                time.sleep(0.05)
        yield url
    finally:
        process.kill()
        process.wait()


def s3_settings(url: str, **more: Any) -> FileSettings:
    return FileSettings(
        files_url="s3://files/some/prefix", files_s3_endpoint=url, files_s3_access_key=KEY,
        files_s3_secret_key=SECRET, **more,
    )  # fmt: skip


@pytest.fixture(params=["directory", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "s3":
        return open_objects(s3_settings(request.getfixturevalue("s3_url")))
    return open_objects(FileSettings(files_url=f"file://{tmp_path}/with%20space"))


async def data(content: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 65_536):
        yield content[start : start + 65_536]
    if error is not None:
        raise error


async def whole(objects: Objects, path: str, start: int, end: int) -> bytes:
    return b"".join([piece async for piece in objects.read(path, start, end)])


@pytest.mark.parametrize("size", [0, 1, 5 * 1024 * 1024, 5 * 1024 * 1024 + 1, 12_345_678])
async def test_what_is_put_is_read(objects: Objects, size: int) -> None:
    content = os.urandom(size)
    await objects.put("t/2026/x", data(content), content_type="text/plain", disposition="attachment")
    assert await whole(objects, "t/2026/x", 0, size) == content
    if size > 10:
        assert await whole(objects, "t/2026/x", size - 7, size) == content[-7:]
        assert await whole(objects, "t/2026/x", 3, 9) == content[3:9]
    await objects.delete("t/2026/x")
    await objects.delete("t/2026/x")
    if size:
        with pytest.raises(NotFound):
            await whole(objects, "t/2026/x", 0, size)
    await objects.ping()


@pytest.mark.parametrize("size", [10, 13_000_000])
async def test_what_breaks_off_is_not_there(objects: Objects, size: int) -> None:
    with pytest.raises(InvalidInput, match="broke"):
        await objects.put("t/broken", data(os.urandom(size), InvalidInput("It broke.")))
    with pytest.raises(NotFound):
        await whole(objects, "t/broken", 0, 1)


async def test_a_presigned_link_opens_what_it_names_for_as_long_as_it_says(s3_url: str) -> None:
    # Clients reach the store by another name than we do.
    public = s3_url.replace("127.0.0.1", "localhost")
    objects = open_objects(s3_settings(s3_url, files_public_url=public))
    for path in ("a", "b"):
        await objects.put(path, data(b"content"), disposition="attachment; filename=x")
    link = await objects.link("a", 60)
    assert link is not None
    assert link.startswith(public)
    async with httpx.AsyncClient() as client:
        answer = await client.get(link)
        assert (answer.status_code, answer.content) == (200, b"content")
        assert answer.headers["content-disposition"] == "attachment; filename=x"
        parts = urlsplit(link)
        query = dict(parse_qsl(parts.query))
        for change in ({"X-Amz-Signature": "0" * 64}, {"X-Amz-Expires": "6000"}):
            other = parts._replace(query=urlencode({**query, **change})).geturl()
            assert (await client.get(other)).status_code == 403
        assert (await client.get(parts._replace(path=parts.path[:-1] + "b").geturl())).status_code == 403
        assert (await client.get(parts._replace(query="").geturl())).status_code == 403
        short = await objects.link("a", 1)
        assert short is not None
        until = time.monotonic() + 10
        while (await client.get(short)).status_code == 200:
            assert time.monotonic() < until
            time.sleep(0.2)


async def test_a_file_by_the_api_on_s3(unstarted_api: Any, s3_url: str) -> None:
    life = Lifecycle()
    try:
        await composition.add(life, unstarted_api.parts, s3_settings(s3_url))
        api = await unstarted_api.start()
        headers = await api.headers("default", Role.MEMBER)
        content = os.urandom(11_000_000)
        answer = await api.client.post(
            "/v1/files", data={"conversation_id": "c"}, files={"file": ("ü.bin", content)}, headers=headers
        )
        assert answer.status_code == 201, answer.text
        path = f"/v1/files/{answer.json()['file_id']}"
        found = (await api.client.get(f"{path}/download", headers=headers)).json()
        async with httpx.AsyncClient() as stranger:
            got = await stranger.get(found["download_url"])
        assert got.content == content
        assert "UTF-8''%C3%BC.bin" in got.headers["content-disposition"]
        ranged = await api.client.get(f"{path}/content", headers={**headers, "Range": "bytes=-5"})
        assert (ranged.status_code, ranged.content) == (206, content[-5:])
        assert (await api.client.get("/health")).json()["components"]["object store"]["status"] == "UP"
    finally:
        await life.stop()


async def test_a_store_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    away = open_objects(s3_settings(f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(Unavailable):
        await whole(away, "x", 0, 1)


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="FILES_URL"):
        open_objects(FileSettings(files_url="ftp://x/y"))
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="FILES_URL"):
        open_objects(FileSettings(files_url=str(tmp_path / "file" / "below")))
