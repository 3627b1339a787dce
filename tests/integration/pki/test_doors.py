"""A device's whole life at a real door: registers, is approved, connects by its certificate, publishes on its
own topics alone, is revoked, is out. At our endpoint and at Mosquitto, with TLS 1.2 and 1.3."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from caudal.app.doors import open_endpoint
from caudal.app.ingest import build
from caudal.core import db
from caudal.core.lifecycle import Lifecycle
from caudal.core.metrics import Metrics
from caudal.registry import credentials, mosquitto
from caudal.registry.access import Access, AccessSettings
from caudal.registry.pki import renewal
from caudal.registry.pki.settings import PkiSettings
from caudal.telemetry.settings import DoorSettings, IngestSettings
from tests.ports import free_port

from .conftest import MAC, OTHER, Client, Field

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
READINGS = (
    b'{"gateway_mac": "aa:bb:cc:dd:ee:01", "timestamp": "2026-02-18T12:46:36Z",'
    b' "leituras": [{"dispositivo_codigo": "D01", "valor": 123.45, "unidade": "kWh"}]}'
)
OUT_WITHIN = 60.0


def topic(mac: str) -> str:
    return f"tds_new/devices/{mac}/telemetry"


async def until(condition: Any, seconds: float = 10.0) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)


@pytest.fixture
async def endpoint(field: Field, database_url: str) -> AsyncIterator[Any]:
    """Our endpoint, which lets in nobody who shows nothing, on the real pipeline."""
    life = Lifecycle()
    made = await build(life, database_url, IngestSettings(unknown_tenants="register"), Metrics(), worker="t")
    doors = DoorSettings(
        mqtt_port=0, mqtt_tls_port=0, mqtt_tls_cert=str(field.folder / "server.pem"),
        mqtt_tls_key=str(field.folder / "server.key"), mqtt_tls_client_ca=str(field.folder / "authority.pem"),
    )  # fmt: skip
    yield await open_endpoint(life, doors, made, AccessSettings(mqtt_auth="required"))
    for client in field.clients:
        await client.close()
    await life.stop()


@pytest.mark.parametrize("version", VERSIONS)
async def test_at_our_endpoint(field: Field, endpoint: Any, version: ssl.TLSVersion) -> None:
    gateway, number = await field.certified(MAC, "gw1")
    authority = field.folder / "authority.pem"
    tls = gateway.context(authority, version)
    # Without a certificate, and with one of nobody's, the door stays shut.
    plain = ssl.create_default_context(cafile=str(authority))
    assert not await field.client("x", plain).connect(endpoint.tls_port)
    assert not await field.client("x", None).connect(endpoint.port)

    client = field.client("gw", tls)
    assert await client.connect(endpoint.tls_port)
    assert await client.subscribe(f"tds_new/devices/{MAC}/commands")
    assert not await client.subscribe(f"tds_new/devices/{OTHER}/commands")
    assert not await client.subscribe("#")
    assert await client.publish(topic(MAC), READINGS)
    stored = await field.api.admin.fetch("select * from public.ts_measure")
    assert [(row["tenant_id"], row["device_id"], row["v_num"]) for row in stored] == [
        ("acme", f"{MAC}/D01", 123.45)
    ]
    assert not await client.publish(topic(OTHER), READINGS)
    assert not await client.publish("traksense/acme/s/pump/telem")
    assert await field.api.admin.fetchval("select count(*) from caudal.dead_letter") == 0

    began = time.monotonic()
    await field.call("POST", f"/api/certificates/{number}/revoke", json={"reason": "key_compromise"})
    assert await client.until_lost(OUT_WITHIN)
    print(f"out of our endpoint {time.monotonic() - began:.2f} s after its revocation")
    assert not await field.client("again", tls).connect(endpoint.tls_port)


@pytest.mark.parametrize("version", VERSIONS)
async def test_renewed_over_the_air(field: Field, endpoint: Any, version: ssl.TLSVersion) -> None:
    """It hears on its own topic that it should, makes a new key, comes back with it; the old one is out."""
    gateway, _ = await field.certified(MAC, "gw1")
    authority = field.folder / "authority.pem"
    old = gateway.context(authority, version)
    client = field.client("gw", old)
    assert await client.connect(endpoint.tls_port)
    assert await client.subscribe(f"tds_new/devices/{MAC}/commands")
    await field.api.admin.execute("update caudal.certificate set not_after = now() + interval '700 days'")
    async with field.api.admin.acquire() as c:
        assert await renewal.invite(c, PkiSettings()) == 1

    async def asked() -> bool:
        return bool(client.messages)

    await until(asked, 20)
    assert json.loads(client.messages[0][1])["type"] == "renew_certificate"
    before, gateway.key = gateway.key, ec.generate_private_key(ec.SECP256R1())
    csr = gateway.csr()
    body = {"mac": MAC, "csr_pem": csr, "signature": renewal.sign_request(before, csr)}
    answer = await field.api.client.post("/api/provision/renew", json=body)
    gateway.certificate = answer.json()["certificate_pem"]
    assert await client.until_lost(OUT_WITHIN)
    assert not await field.client("old", old).connect(endpoint.tls_port)
    fresh = field.client("new", gateway.context(authority, version))
    assert await fresh.connect(endpoint.tls_port)
    assert await fresh.publish(topic(MAC), READINGS)
    assert await field.api.admin.fetchval("select status from caudal.command") == "acknowledged"


async def test_a_stranger_with_a_certificate_of_another_authority(field: Field, endpoint: Any) -> None:
    await field.certified(MAC, "gw1")
    # Its own authority, with the very names of ours.
    key = field.folder / "fake.key"
    cert = field.folder / "fake.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-subj", f"/O=Caudal/CN={MAC}", "-keyout", str(key), "-out", str(cert), "-days", "1"],
        capture_output=True, check=True,
    )  # fmt: skip
    context = ssl.create_default_context(cafile=str(field.folder / "authority.pem"))
    context.load_cert_chain(cert, key)
    assert not await field.client("x", context).connect(endpoint.tls_port)
    # A bootstrap certificate is of our authority, and no gateway's.
    made = await field.call("POST", "/api/bootstrap-certificates", 201, json={"label": "b"})
    cert.write_text(made["certificate_pem"])
    key.write_text(made["key_pem"])
    context = ssl.create_default_context(cafile=str(field.folder / "authority.pem"))
    context.load_cert_chain(cert, key)
    assert not await field.client("y", context).connect(endpoint.tls_port)


async def test_passwords_at_our_endpoint(field: Field, endpoint: Any) -> None:
    api = field.api
    device = (await field.call("POST", "/api/devices", 201, json={"name": "pump"}))["id"]
    async with api.admin.acquire() as c, c.transaction():
        issued = await credentials.issue(c, "device", device, AccessSettings())
    client = field.client("pump", None, issued.username, issued.password)
    assert await client.connect(endpoint.port)
    assert await client.publish("traksense/acme/s/pump/telem", b'{"schema":"v1","points":[]}')
    assert not await client.publish("traksense/acme/s/other/telem")
    assert not await client.publish("traksense/rival/s/pump/telem")
    assert await client.subscribe("traksense/acme/s/pump/cmd")
    assert not await client.subscribe("traksense/acme/s/other/cmd")
    await field.call("PATCH", f"/api/devices/{device}", json={"display_name": "The pump"})
    await api.admin.execute("update caudal.credential set revoked_at = now()")
    assert await client.until_lost(OUT_WITHIN)
    assert not await field.client("pump", None, issued.username, issued.password).connect(endpoint.port)


async def test_a_command_there_and_back(field: Field, endpoint: Any) -> None:
    spec = {"name": "p", "commands": [{"name": "setpoint", "params": [{"name": "value", "type": "number"}]}]}
    profile = (await field.call("POST", "/api/profiles", 201, json=spec))["id"]
    pump = {"name": "pump", "profile_id": profile}
    device = (await field.call("POST", "/api/devices", 201, json=pump))["id"]
    issued = await field.call("POST", f"/api/devices/{device}/credentials", 201)
    path = f"/api/devices/{device}/commands"
    # Sent while nobody is there; it waits.
    early = await field.call("POST", path, 202, json={"name": "setpoint", "params": {"value": 7}})
    client = field.client("pump", None, issued["username"], issued["password"])
    assert await client.connect(endpoint.port)
    # The registry knows no site of it; it is where the device listens.
    assert await client.subscribe("traksense/acme/plant/pump/cmd")

    async def status(command: Any) -> str:
        return (await field.call("GET", f"/api/commands/{command['id']}"))["command"]["status"]

    async def sent() -> bool:
        return await status(early) == "sent"

    await until(sent, 20)
    topic, payload = client.messages[0]
    told = json.loads(payload)
    assert topic == "traksense/acme/plant/pump/cmd"
    assert [site["name"] for site in (await field.call("GET", "/api/sites"))["items"]] == ["plant"]
    assert (told["schema"], told["cmd_id"], told["params"]) == ("v1", early["cmd_id"], {"value": 7})
    for ok in (True, False):  # the second is a late contradiction
        ack = {"schema": "v1", "cmd_id": told["cmd_id"], "ok": ok}
        assert await client.publish("traksense/acme/s/pump/ack", json.dumps(ack).encode())
    # PUBACK came after the commit, and the command was settled in that same transaction.
    assert await status(early) == "acknowledged"
    found = await field.call("GET", f"/api/commands/{early['id']}")
    assert [step["status"] for step in found["history"]] == ["pending", "sent", "acknowledged"]


class Mosquitto:
    """The real broker, on the files that we write."""

    def __init__(self, program: str, folder: Path) -> None:
        self.folder = folder / "mosquitto"
        self.folder.mkdir()
        self.tls_port, self.port = free_port(), free_port()
        self.pid_file = self.folder / "pid"
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, authority: Path, server: Path, key: Path) -> None:
        rules = f"acl_file {self.folder}/acl\nallow_anonymous false\n"
        (self.folder / "conf").write_text(
            "user root\nper_listener_settings true\nlog_dest stderr\n"
            f"pid_file {self.pid_file}\n"
            f"listener {self.tls_port} 127.0.0.1\ncafile {authority}\ncertfile {server}\nkeyfile {key}\n"
            f"crlfile {self.folder}/crl.pem\nrequire_certificate true\nuse_identity_as_username true\n{rules}"
            f"listener {self.port} 127.0.0.1\npassword_file {self.folder}/passwords\n{rules}"
        )
        log = (self.folder / "log").open("wb")
        self._process = subprocess.Popen([self._program, "-c", str(self.folder / "conf")], stderr=log)

        async def listening() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, (self.folder / "log").read_text()
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                return False
            writer.close()
            return True

        await until(listening)
        # `-d` alone writes the pid file; a supervisor would.
        self.pid_file.write_text(str(self._process.pid))

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(10)


@pytest.fixture
async def broker(field: Field, database_url: str, require: Any, tmp_path: Path) -> AsyncIterator[Mosquitto]:
    made = Mosquitto(require("mosquitto"), tmp_path)
    pool = await db.open_pool(database_url, minimum=1, maximum=2, role="caudal_ingest")
    mosquitto.write(made.folder, await mosquitto.build(pool, Access(), admin_password="geheim"))
    keeper = asyncio.create_task(
        mosquitto.keep_written(
            pool, lambda: asyncpg.connect(database_url), Access(), made.folder, made.pid_file,
            admin_password="geheim", pause_seconds=0.1,
        )
    )  # fmt: skip
    await made.start(*(field.folder / name for name in ("authority.pem", "server.pem", "server.key")))
    yield made
    for client in field.clients:
        await client.close()
    keeper.cancel()
    await asyncio.wait([keeper])
    await pool.close()
    made.stop()


async def connected(field: Field, port: int, *args: Any) -> Client:
    """A client once the broker has taken up the files that know it."""
    found: list[Client] = []

    async def attempt() -> bool:
        client = field.client(*args)
        if await client.connect(port):
            found.append(client)
            return True
        return False

    await until(attempt, 15)
    return found[0]


@pytest.mark.parametrize("version", VERSIONS)
async def test_at_mosquitto(field: Field, broker: Mosquitto, version: ssl.TLSVersion) -> None:
    watcher = await connected(field, broker.port, "watch", None, "admin", "geheim")
    assert await watcher.subscribe("#")
    gateway, number = await field.certified(MAC, "gw1")
    other, _ = await field.certified(OTHER, "gw2")
    tls = gateway.context(field.folder / "authority.pem", version)
    client = await connected(field, broker.tls_port, "gw", tls)

    async def may() -> bool:
        return await client.publish(topic(MAC), READINGS)

    await until(may)
    assert not await client.publish(topic(OTHER), b"not mine")
    assert not await client.publish("traksense/acme/s/pump/telem", b"not mine")
    # Mosquitto grants any subscription and checks each message on its way out.
    for mac in (OTHER, MAC):
        await client.subscribe(f"tds_new/devices/{mac}/commands")
        assert await watcher.publish(f"tds_new/devices/{mac}/commands", mac.encode())
    bystander = await connected(
        field, broker.tls_port, "gw2", other.context(field.folder / "authority.pem", version)
    )

    async def as_itself() -> bool:
        # Its certificate lets it in before the broker has read the rules that know it.
        return await bystander.publish(topic(OTHER), b"mine")

    await until(as_itself)

    async def seen() -> bool:
        return (topic(OTHER), b"mine") in watcher.messages and bool(client.messages)

    await until(seen)
    assert client.messages == [(f"tds_new/devices/{MAC}/commands", MAC.encode())]
    assert (topic(MAC), READINGS) in watcher.messages
    assert b"not mine" not in [payload for _, payload in watcher.messages]

    began = time.monotonic()
    await field.call("POST", f"/api/certificates/{number}/revoke", json={"reason": "key_compromise"})

    async def out() -> bool:
        return client.lost.is_set() or not await client.publish(topic(MAC), b"after")

    await until(out, OUT_WITHIN)
    print(f"silenced at Mosquitto {time.monotonic() - began:.2f} s after its revocation")

    async def shut_out() -> bool:
        return not await field.client("gw", tls).connect(broker.tls_port)

    await until(shut_out, OUT_WITHIN)
    # Nobody else was touched.
    assert await bystander.publish(topic(OTHER), b"still here")


async def test_passwords_at_mosquitto(field: Field, broker: Mosquitto) -> None:
    device = (await field.call("POST", "/api/devices", 201, json={"name": "pump one"}))["id"]
    async with field.api.admin.acquire() as c, c.transaction():
        issued = await credentials.issue(c, "device", device, AccessSettings())
        backend = await credentials.add_user(c, "backend", "backend")
        dashboard = await credentials.add_user(c, "panel", "dashboard")
    reader = await connected(field, broker.port, "b", None, "backend", backend)
    panel = await connected(field, broker.port, "p", None, "panel", dashboard)
    client = await connected(field, broker.port, "d", None, issued.mosquitto_username, issued.password)
    assert not await field.client("d2", None, issued.mosquitto_username, "wrong").connect(broker.port)
    for each in (reader, panel):
        assert await each.subscribe("traksense/+/+/+/telem")
    await client.subscribe("traksense/acme/s/pump one/cmd")
    assert await client.publish("traksense/acme/s/pump one/telem", b"own")
    assert not await client.publish("traksense/acme/s/other/telem", b"foreign")
    assert not await client.publish("traksense/acme/s/pump one/cmd", b"foreign")
    assert not await panel.publish("traksense/acme/s/pump one/cmd", b"foreign")
    assert await reader.publish("traksense/acme/s/pump one/cmd", b"command")

    async def arrived() -> bool:
        return all(
            (len(x.messages), x.messages[0][1]) == (1, b"own") for x in (reader, panel) if x.messages
        ) and (bool(client.messages) and bool(reader.messages) and bool(panel.messages))

    await until(arrived)
    assert client.messages == [("traksense/acme/s/pump one/cmd", b"command")]
