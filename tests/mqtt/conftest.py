"""A sink and hooks that remember, an endpoint on a free port, and a client that speaks packets, no more."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import uvloop

from caudal.mqtt import packets as pk
from caudal.mqtt.codec import decode, encode
from caudal.mqtt.codes import Reason
from caudal.mqtt.endpoint import Endpoint
from caudal.mqtt.ports import ConnectInfo, Inbound, Principal, settle
from caudal.mqtt.settings import EndpointSettings
from caudal.mqtt.topics import matches
from tests.ports import free_port

collect_ignore = [] if os.environ.get("CAUDAL_TEST_PAHO_SUITE") else ["test_interop.py"]


class RecordingSink:
    """Settles at once, or when told to; may be closed like one whose budget is used up."""

    def __init__(self) -> None:
        self.messages: list[Inbound] = []
        self.unsettled: list[Inbound] = []
        self.batches: list[int] = []
        self.automatic = True
        self.reason = 0
        self.watching: Endpoint | None = None
        self._accepting = True
        self._callbacks: list[Callable[[], None]] = []
        self._arrived = asyncio.Event()

    @property
    def accepting(self) -> bool:
        return self._accepting

    def on_resume(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def submit(self, batch: list[Inbound]) -> None:
        assert self._accepting, "submitted to a sink that does not accept"
        self.messages += batch
        self.batches.append(len(batch))
        self._arrived.set()
        if self.watching is not None:
            self.watching.fan_out(batch)
        if self.automatic:
            settle(batch, self.reason)
        else:
            self.unsettled += batch

    def settle_all(self, reason: int = 0) -> None:
        messages, self.unsettled = self.unsettled, []
        settle(messages, reason)

    def close(self) -> None:
        self._accepting = False

    def open(self) -> None:
        self._accepting = True
        for callback in self._callbacks:
            callback()

    async def wait(self, count: int, timeout: float = 30.0) -> list[Inbound]:
        async with asyncio.timeout(timeout):
            while len(self.messages) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return self.messages


class OpenHooks:
    """Lets everyone in but `nobody`; `secret/#` is closed to all."""

    def __init__(self) -> None:
        self.infos: list[ConnectInfo] = []
        self.log: list[tuple[str, str, int]] = []
        self.asked = 0
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None

    async def authenticate(self, info: ConnectInfo) -> Principal | int:
        self.infos.append(info)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        if info.username == "nobody":
            return Reason.BAD_USER_NAME_OR_PASSWORD
        return Principal(info.username or "")

    def may_publish(self, principal: Principal, topic: str) -> bool:
        self.asked += 1
        return not matches("secret/#", topic)

    def may_subscribe(self, principal: Principal, pattern: str) -> bool:
        return not pattern.startswith("secret/")

    def connected(self, principal: Principal, client_id: str, when: int) -> None:
        self.log.append(("connected", client_id, 0))

    def disconnected(self, principal: Principal, client_id: str, when: int, reason: int) -> None:
        self.log.append(("disconnected", client_id, reason))


class RawClient:
    """Sends packets as they are and reads what comes back, packet by packet."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, version: int) -> None:
        self.reader = reader
        self.writer = writer
        self.version = version

    def send(self, *packets: pk.Packet | bytes) -> None:
        data = [p if isinstance(p, bytes) else encode(p, self.version) for p in packets]
        self.writer.write(b"".join(data))

    async def receive(self, timeout: float = 30.0) -> pk.Packet:
        async with asyncio.timeout(timeout):
            head = (await self.reader.readexactly(1))[0]
            size = shift = 0
            while True:
                byte = (await self.reader.readexactly(1))[0]
                size |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            return decode(head, await self.reader.readexactly(size), self.version)

    async def ask(self, packet: pk.Packet | bytes) -> pk.Packet:
        self.send(packet)
        return await self.receive()

    async def ended(self, timeout: float = 30.0) -> bytes:
        """What was left to read when the other side hung up."""
        async with asyncio.timeout(timeout):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    def close(self) -> None:
        self.writer.transport.abort()


Connect = Callable[..., Awaitable[RawClient]]
MakeEndpoint = Callable[..., Awaitable[Endpoint]]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """The loop that production runs on: its transports pause, flush and close in ways of their own."""
    return {"uvloop": uvloop.new_event_loop}


class Mosquitto:
    """A broker in a folder of its own."""

    def __init__(self, program: str, folder: Path, port: int, lines: str = "") -> None:
        self.program = program
        self.port = port
        self.config = folder / "mosquitto.conf"
        # As root it would become a user who cannot reach the folder.
        self.config.write_text(
            f"user root\nlistener {port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {folder}/\nmax_queued_messages 100000\n{lines}\n"
        )
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            self.program, "-c", str(self.config), stdout=asyncio.subprocess.DEVNULL, stderr=None
        )
        async with asyncio.timeout(30):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    return

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()


@pytest.fixture
async def broker(require: Any, tmp_path: Path) -> AsyncIterator[Mosquitto]:
    started = Mosquitto(require("mosquitto"), tmp_path, free_port())
    await started.start()
    yield started
    await started.stop()


@pytest.fixture
def sink() -> RecordingSink:
    return RecordingSink()


@pytest.fixture
def hooks() -> OpenHooks:
    return OpenHooks()


@pytest.fixture
async def make_endpoint(sink: RecordingSink, hooks: OpenHooks) -> AsyncIterator[MakeEndpoint]:
    made: list[Endpoint] = []

    async def make(*, tls: object = None, **settings: object) -> Endpoint:
        chosen = EndpointSettings(port=0, **settings)
        endpoint = Endpoint(chosen, sink, hooks, tls=tls)
        await endpoint.start()
        made.append(endpoint)
        return endpoint

    yield make
    for endpoint in made:
        await endpoint.close(0.2)


@pytest.fixture
async def endpoint(make_endpoint: MakeEndpoint) -> Endpoint:
    return await make_endpoint()


@pytest.fixture
async def open_client() -> AsyncIterator[Connect]:
    """`await open_client(endpoint, version=5)`: a socket on which nothing has been sent."""
    made: list[RawClient] = []

    async def connect(endpoint: Endpoint, version: int = 5) -> RawClient:
        reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
        made.append(RawClient(reader, writer, version))
        return made[-1]

    yield connect
    for client in made:
        client.close()


@pytest.fixture
def client(open_client: Connect) -> Connect:
    """`await client(endpoint, version, client_id="c", …)`: connected; the CONNACK is `client.connack`."""

    async def connect(endpoint: Endpoint, version: int = 5, **fields: object) -> RawClient:
        raw = await open_client(endpoint, version)
        packet = pk.Connect(**{"client_id": "c", "version": version, "keep_alive": 60, **fields})
        answer = await raw.ask(packet)
        assert isinstance(answer, pk.Connack), answer
        assert answer.reason == 0, answer
        raw.connack = answer
        return raw

    return connect


def payloads(messages: Sequence[Inbound]) -> list[bytes]:
    return [message.payload for message in messages]
