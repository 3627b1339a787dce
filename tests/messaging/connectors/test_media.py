"""Files that go with messages, both ways, with a file store in memory."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from caudal.core.lifecycle import Lifecycle
from caudal.messaging import connectors
from caudal.messaging.provider import Attachment, Message, ProviderError, Secrets, Verdict
from caudal.sandbox import demo
from caudal.sandbox.model import Behaviour
from caudal.sandbox.server import Sandbox
from tests.messaging.connectors.conftest import PHONE, Platform, provided_whatsapp
from tests.messaging.connectors.test_behaviour import account, settings


class Shelf:
    """A file store: what is to go out, and what came in."""

    def __init__(self, **files: bytes) -> None:
        self.files = files
        self.stored: dict[UUID, tuple[str, str, str, bytes]] = {}

    async def read(self, attachment: Attachment) -> AsyncIterator[bytes]:
        data = self.files[attachment.file_id]
        # In pieces, as a store streams.
        for start in range(0, len(data), 3):
            yield data[start : start + 3]

    async def link(self, attachment: Attachment) -> str:
        return f"https://files.example.com/{attachment.file_id}"

    async def store(
        self, tenant: str, party: str, filename: str, content_type: str, data: AsyncIterator[bytes]
    ) -> UUID:
        number = uuid4()
        self.stored[number] = (party, filename, content_type, b"".join([piece async for piece in data]))
        return number


class Stage:
    """A connector with a shelf, before a sandbox."""

    def __init__(self, sandbox: Sandbox, connector: Any, provided: Any, phone: Any) -> None:
        self.world = sandbox.world
        self.connector = connector
        self.provided = provided
        self.phone = phone
        self.account = account(provided.channel, Secrets(token=provided.token), provided.id)

    async def send(self, text: str, content_type: str, filename: str = "cat", size: int = 7) -> Any:
        attachment = Attachment(
            tenant="acme", file_id="f", filename=filename, content_type=content_type, size=size
        )
        message = Message(
            reference="1.1", address=self.phone.address, contact=self.phone.provider_id, text=text,
            attachment=attachment,
        )  # fmt: skip
        return await self.connector.send(self.account, message)

    def shown(self) -> list[tuple[str, str | None, str | None]]:
        return [(entry.type, entry.text, entry.media_id) for entry in self.phone.messages]


async def staged(life: Lifecycle, channel: str) -> Stage:
    sandbox = Sandbox()
    await sandbox.start(life)
    demo.populate(sandbox.world)
    provided = next(a for a in sandbox.world.accounts.values() if a.channel == channel)
    connector = connectors.make(channel, settings(sandbox.url), Shelf(f=b"a cat \xff"))
    life.on_stop("connector", connector.close)
    phone = sandbox.world.phone(provided.channel, PHONE if channel == "whatsapp" else "@someone")
    return Stage(sandbox, connector, provided, phone)


@pytest.fixture
async def life() -> AsyncIterator[Lifecycle]:
    made = Lifecycle()
    yield made
    await made.stop()


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [("image/jpeg", "image"), ("video/mp4", "video"), ("application/pdf", "document"),
     ("audio/ogg; codecs=opus", "document"), ("image/webp", "document")],
)  # fmt: skip
async def test_whatsapp_uploads_and_sends(life: Lifecycle, content_type: str, kind: str) -> None:
    stage = await staged(life, "whatsapp")
    assert (await stage.send("my cat", content_type)).provider_id.startswith("wamid.")
    ((shown, text, media_id),) = stage.shown()
    assert (shown, text) == (kind, "my cat")
    kept = stage.world.media[media_id or ""]
    assert kept.data == b"a cat \xff"
    assert kept.mime_type == content_type.split(";")[0]


async def test_whatsapp_refuses_what_cannot_go_before_it_uploads(life: Lifecycle) -> None:
    stage = await staged(life, "whatsapp")
    for text, size in (("x" * 1025, 7), ("my cat", 101 << 20)):
        with pytest.raises(ProviderError) as caught:
            await stage.send(text, "application/pdf", size=size)
        assert caught.value.verdict is Verdict.REFUSED
    assert stage.world.media == {}


async def test_instagram_sends_text_and_file_one_after_the_other(life: Lifecycle) -> None:
    stage = await staged(life, "instagram")
    link = "https://files.example.com/f"
    await stage.send("my cat", "image/jpeg")
    await stage.send("cat", "image/jpeg", filename="cat")
    assert stage.shown() == [("text", "my cat", None), ("image", None, link), ("image", None, link)]


async def test_instagram_never_repeats_the_text_for_a_file_that_failed(life: Lifecycle) -> None:
    stage = await staged(life, "instagram")
    stage.provided.limits.media_per_second = 0.001
    await stage.send("cat", "image/jpeg", filename="cat")
    with pytest.raises(ProviderError) as caught:
        await stage.send("my cat", "image/jpeg")
    assert (caught.value.verdict, caught.value.provider_code) == (Verdict.REFUSED, "partly")


async def test_a_picture_from_a_phone_is_stored(platform: Platform) -> None:
    provided = provided_whatsapp()
    await platform.account(provided)
    shelf = Shelf()
    await platform.worker("whatsapp", files=shelf)
    body = {"account": provided.id, "text": "look", "media_base64": base64.b64encode(b"png \xff").decode(),
            "mime_type": "image/png"}  # fmt: skip
    await platform.control.post(f"/control/phones/{PHONE}/messages", json=body)
    await platform.query("select count(*) from caudal.message")
    row = await platform.pool.fetchrow("select content, file_id from caudal.message")
    party, _, content_type, data = shelf.stored[row["file_id"]]
    assert (row["content"], party, content_type, data) == (
        "look",
        f"whatsapp:{PHONE}",
        "image/png",
        b"png \xff",
    )


async def test_a_picture_that_is_gone_is_noted(platform: Platform) -> None:
    provided = provided_whatsapp()
    await platform.account(provided)
    provided.behaviour = Behaviour(receipt_delay_ms=300)
    await platform.worker("whatsapp", files=Shelf())
    body = {"account": provided.id, "media_base64": "AAAA", "mime_type": "image/png"}
    await platform.control.post(f"/control/phones/{PHONE}/messages", json=body)
    platform.sandbox.world.media.clear()
    content = await platform.query("select content from caudal.message")
    assert content == "[image/png]"
