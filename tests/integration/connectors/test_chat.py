"""`caudal chat` to a sandbox phone, the phone's reply back, both receipts, files both ways; on every log."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from caudal.app import files, router
from caudal.core.eventlog.settings import LogSettings
from caudal.core.metrics import Metrics
from caudal.messaging.file_settings import FileSettings
from caudal.messaging.realtime_settings import RealtimeSettings
from caudal.messaging.settings import MessagingSettings
from caudal.registry.permissions import Role
from caudal.sandbox.demo import WHATSAPP_ID
from tests.messaging.connectors.conftest import LOG, PHONE, TENANT, Platform, provided_whatsapp

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 200


@pytest.fixture(params=["postgres", "kafka"])
async def stack(
    request: Any, pool: asyncpg.Pool[Any], database_url: str, unstarted_api: Any, tmp_path: Path
) -> AsyncIterator[Platform]:
    """Everything that `caudal up --demo` has between a terminal and a phone, on one of the logs."""
    settings = LOG
    if request.param == "kafka":
        broker = request.getfixturevalue("kafka_broker")
        settings = LogSettings(
            log="kafka", kafka_bootstrap_servers=broker.servers, log_partitions=2, log_lease_seconds=6
        )
    made = Platform(pool, database_url, unstarted_api, settings)
    parts = unstarted_api.parts
    await files.add(made.life, parts, FileSettings(files_url=str(tmp_path / "files")))
    await files.add_sockets(made.life, parts, RealtimeSettings())
    await made.start()
    await made.account(provided_whatsapp())
    await router.parts(made.life, database_url, settings, MessagingSettings(), Metrics())
    environ = {"FILES_URL": str(tmp_path / "files"), "PUBLIC_URL": made.api.url}
    media = files.media(made.working, environ, parts.sealer, Metrics())
    await made.worker("whatsapp", files=media)
    yield made
    await made.life.stop()
    assert made.life.failure is None


class Chat:
    """The command line of one person."""

    def __init__(self, url: str, folder: Path, user: str, password: str) -> None:
        self._given = (
            sys.executable, "-m", "caudal", "chat", "--url", url, "--session", str(folder / f"{user}.json"),
            "--user", user, "--password", password,
        )  # fmt: skip

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._given, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )

    async def __call__(self, *words: str) -> str:
        process = await self.start(*words)
        out, problem = await process.communicate()
        assert process.returncode == 0, problem.decode()
        return out.decode().strip()


async def until(tail: asyncio.subprocess.Process, **wanted: str) -> dict[str, Any]:
    """The first frame that has these members."""
    assert tail.stdout is not None
    async with asyncio.timeout(30):
        while line := await tail.stdout.readline():
            frame: dict[str, Any] = json.loads(line)
            if wanted.items() <= frame.items():
                return frame
    raise AssertionError(f"the tail ended without {wanted}")


@pytest.mark.timeout(180)
async def test_there_and_back_with_receipts_and_files(stack: Platform, tmp_path: Path) -> None:
    await stack.api.person(TENANT, Role.MEMBER, username="ana", password="pass_ana")
    chat = Chat(stack.api.url, tmp_path, "ana", "pass_ana")
    await chat("login")
    tail = await chat.start("tail", "--json")
    try:
        await until(tail, type="connected")
        picture = tmp_path / "picture.png"
        picture.write_bytes(PICTURE)
        to = ("--to", f"whatsapp:{PHONE}")
        sent = await chat("send", "orders", "look", *to, "--file", str(picture))
        await until(tail, type="status_update", message_id=sent, status="DELIVERED")
        (entry,) = (
            await stack.control.get(f"/control/phones/{PHONE}/messages", params={"count": 1, "wait": 20})
        ).json()
        assert entry["text"] == "look"
        assert stack.sandbox.world.media[entry["media_id"]].data == PICTURE
        await stack.control.post(f"/control/phones/{PHONE}/read", json={})
        await until(tail, type="status_update", message_id=sent, status="READ")

        reply = {
            "account": WHATSAPP_ID, "text": "nice", "media_base64": base64.b64encode(PICTURE).decode(),
            "mime_type": "image/png", "filename": "back.png",
        }  # fmt: skip
        await stack.control.post(f"/control/phones/{PHONE}/messages", json=reply)
        heard = await until(tail, type="new_message", conversation_id="orders")
        assert heard["content"] == "nice"
        back = await chat("download", heard["file_id"], "--to", str(tmp_path / "kept.png"))
        assert Path(back).read_bytes() == PICTURE
        told = json.loads(await chat("history", "orders", "--json"))
        assert [row["content"] for row in told] == ["look", "nice"]
        # Shown on the socket a moment ago.
        assert (told[0]["status"], told[1]["status"] in ("SENT", "DELIVERED")) == ("READ", True)
        assert [row["conversation_id"] for row in json.loads(await chat("list", "--json"))] == ["orders"]
    finally:
        tail.kill()
        await tail.wait()
