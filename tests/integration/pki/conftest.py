"""A gateway that makes its own key, an API to register with, TLS material on disk."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from caudal.registry.access import Access, AccessSettings
from caudal.registry.permissions import Role
from caudal.registry.pki import authority as ca
from caudal.registry.pki import revocation
from caudal.registry.pki.settings import PkiSettings

MAC = "aa:bb:cc:dd:ee:01"
OTHER = "aa:bb:cc:dd:ee:02"


class Gateway:
    """A box in the field: its key never leaves it."""

    def __init__(self, mac: str, folder: Path) -> None:
        self.mac = mac
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.folder = folder / mac.replace(":", "")
        self.folder.mkdir()
        self.certificate = ""

    def csr(self, common_name: str = "administrator") -> str:
        """A request that would like to be somebody else."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(self.key, hashes.SHA256())
        return request.public_bytes(serialization.Encoding.PEM).decode()

    def registration(self, fingerprint: str) -> dict[str, str]:
        """The body of its registration."""
        return {
            "mac": self.mac.upper(), "serial": "S1", "modelo": "GW-100", "fw_version": "1.2",
            "bootstrap_fingerprint": fingerprint, "csr_pem": self.csr(),
        }  # fmt: skip

    def context(self, authority: Path, version: ssl.TLSVersion) -> ssl.SSLContext:
        """TLS with its certificate, of this version alone."""
        cert, key = self.folder / "cert.pem", self.folder / "key.pem"
        cert.write_text(self.certificate)
        key.write_text(ca.key_pem(self.key))
        context = ssl.create_default_context(cafile=str(authority))
        context.minimum_version = context.maximum_version = version
        context.load_cert_chain(cert, key)
        return context


class Client:
    """paho over MQTT 5, with what happened as events."""

    def __init__(self, client_id: str, tls: ssl.SSLContext | None, user: str | None = None,
                 password: str | None = None) -> None:  # fmt: skip
        self._paho = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5, reconnect_on_failure=False
        )
        if tls is not None:
            self._paho.tls_set_context(tls)
        if user is not None:
            self._paho.username_pw_set(user, password)
        self._answered = threading.Event()
        self.lost = threading.Event()
        self.accepted = False
        self.messages: list[tuple[str, bytes]] = []
        self._paho.on_connect = self._connected
        self._paho.on_disconnect = lambda *_: (self.lost.set(), self._answered.set())
        self._paho.on_message = lambda _client, _data, message: self.messages.append(
            (message.topic, message.payload)
        )

    def _connected(self, _client: Any, _data: Any, _flags: Any, reason: Any, _props: Any) -> None:
        self.accepted = not reason.is_failure
        self._answered.set()

    def _connect(self, port: int) -> bool:
        try:
            self._paho.connect("127.0.0.1", port, keepalive=30)
        except (OSError, ssl.SSLError):
            return False
        self._paho.loop_start()
        self._answered.wait(10)
        return self.accepted

    async def connect(self, port: int) -> bool:
        """Whether we are let in."""
        return await asyncio.to_thread(self._connect, port)

    async def publish(self, topic: str, payload: bytes = b"{}") -> bool:
        """Whether the broker takes it."""
        done = threading.Event()
        refused = []

        def published(_client: Any, _data: Any, _mid: int, reason: Any, _props: Any) -> None:
            refused.append(reason.is_failure)
            done.set()

        self._paho.on_publish = published
        self._paho.publish(topic, payload, qos=1)
        await asyncio.to_thread(done.wait, 5)
        return refused == [False]

    async def subscribe(self, pattern: str) -> bool:
        """Whether the broker grants it."""
        done = threading.Event()
        answers: list[Any] = []

        def subscribed(_client: Any, _data: Any, _mid: int, reasons: Any, _props: Any) -> None:
            answers.extend(reasons)
            done.set()

        self._paho.on_subscribe = subscribed
        self._paho.subscribe(pattern, qos=1)
        await asyncio.to_thread(done.wait, 5)
        return bool(answers) and not answers[0].is_failure

    async def until_lost(self, seconds: float) -> bool:
        """Whether the connection ends within so many seconds."""
        return await asyncio.to_thread(self.lost.wait, seconds)

    async def close(self) -> None:
        self._paho.disconnect()
        await asyncio.to_thread(self._paho.loop_stop)


class Field:
    """The API with an authority, a person who decides, and gateways to register."""

    def __init__(self, api: Any, headers: dict[str, str], folder: Path) -> None:
        self.api = api
        self.headers = headers
        self.folder = folder
        self.fingerprint = ""
        self.clients: list[Client] = []

    async def call(self, method: str, path: str, status: int = 200, **kwargs: Any) -> Any:
        answer = await self.api.client.request(method, path, headers=self.headers, **kwargs)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def prepare(self) -> None:
        """An authority, a bootstrap certificate, and files for a TLS listener."""
        async with self.api.admin.acquire() as c, c.transaction():
            authority = await ca.create(c, self.api.parts.sealer, days=7300)
            await revocation.write(c, authority, 24)
        server = ca.make_server(authority, ["127.0.0.1", "localhost"], 30)
        for name, text in {
            "authority.pem": authority.pem, "server.pem": server.made.pem, "server.key": server.key_pem,
        }.items():  # fmt: skip
            (self.folder / name).write_text(text)
        made = await self.call("POST", "/api/bootstrap-certificates", 201, json={"label": "batch 1"})
        self.fingerprint = made["bootstrap"]["fingerprint"]

    async def certified(self, mac: str, code: str) -> tuple[Gateway, int]:
        """A gateway that registered, was approved and has fetched its certificate; the certificate's id."""
        gateway = Gateway(mac, self.folder)
        path = "/tds_new/api/provision/register/"
        answer = await self.api.client.post(path, json=gateway.registration(self.fingerprint))
        assert answer.json()["code"] == "registered", answer.text
        number = answer.json()["registro_id"]
        made = await self.call("POST", f"/api/registrations/{number}/approve", json={"code": code})
        ask = {"mac": mac, "bootstrap_fingerprint": self.fingerprint}
        fetched = (await self.api.client.post("/api/provision/certificate", json=ask)).json()
        assert fetched["code"] == "issued"
        gateway.certificate = fetched["certificate_pem"]
        return gateway, made["certificate"]["id"]

    def client(self, *args: Any, **kwargs: Any) -> Client:
        made = Client(*args, **kwargs)
        self.clients.append(made)
        return made


@pytest.fixture
async def field(unstarted_api: Any, tmp_path: Path) -> AsyncIterator[Field]:
    parts = unstarted_api.parts
    api = await unstarted_api.start(
        pool=parts.pool, sealer=parts.sealer, pki_settings=PkiSettings(), rules=Access(),
        access_settings=AccessSettings(), release=None,
    )  # fmt: skip
    made = Field(api, await api.headers("acme", Role.ADMIN), tmp_path)
    await made.prepare()
    yield made
    for client in made.clients:
        await client.close()
