"""The endpoint with clients that other people wrote: paho, gmqtt, mosquitto_pub, mosquitto_sub; and TLS."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gmqtt
import paho.mqtt.client as paho
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paho.mqtt.enums import CallbackAPIVersion

from caudal.mqtt.codes import Reason
from caudal.mqtt.settings import server_tls

VERSIONS = pytest.mark.parametrize("version", [4, 5])
QOS = pytest.mark.parametrize("qos", [0, 1, 2])
TOPIC = "traksense/t/s/d/telem"


@dataclass
class Authority:
    """A certificate authority in a folder, with a server's and a client's certificate."""

    folder: Path
    client: x509.Certificate

    def path(self, name: str) -> str:
        return str(self.folder / name)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("tls")
    now = datetime.datetime.now(datetime.UTC)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])

    def issue(name: str, key: ec.EllipticCurvePrivateKey, *, ca: bool = False) -> x509.Certificate:
        subject = ca_name if ca else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
            )
        )
        if ca:
            usage = dict.fromkeys(
                ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
            )
            builder = builder.add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    key_cert_sign=True,
                    crl_sign=True,
                    encipher_only=False,
                    decipher_only=False,
                    **usage,
                ),
                critical=True,
            )
        certificate = builder.sign(ca_key, hashes.SHA256())
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return certificate

    issue("ca", ca_key, ca=True)
    issue("server", ec.generate_private_key(ec.SECP256R1()))
    return Authority(folder, issue("pump-1", ec.generate_private_key(ec.SECP256R1())))


class PahoClient:
    """paho with its own thread; waits are events."""

    def __init__(self, version: int, client_id: str = "paho", **options: Any) -> None:
        if version < 5:
            options.setdefault("clean_session", True)
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTProtocolVersion(version), **options
        )
        self.connected = threading.Event()
        self.code: Any = None
        self.messages: list[paho.MQTTMessage] = []
        self.arrived = threading.Event()
        self.granted: list[Any] = []
        self.subscribed = threading.Event()
        self.client.on_connect = self._on_connect
        self.client.on_message = self._on_message
        self.client.on_subscribe = self._on_subscribe

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, code: Any, _props: Any) -> None:
        self.code = code
        self.connected.set()

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        self.messages.append(message)
        self.arrived.set()

    def _on_subscribe(self, _client: Any, _data: Any, _mid: int, codes: list[Any], _props: Any) -> None:
        self.granted = [code.value for code in codes]
        self.subscribed.set()

    async def open(self, port: int, host: str = "127.0.0.1", keepalive: int = 60) -> None:
        await asyncio.to_thread(self.client.connect, host, port, keepalive)
        self.client.loop_start()
        assert await asyncio.to_thread(self.connected.wait, 5)

    async def close(self) -> None:
        self.client.disconnect()
        await asyncio.to_thread(self.client.loop_stop)


@VERSIONS
@QOS
async def test_paho_publishes(endpoint: Any, sink: Any, version: int, qos: int) -> None:
    c = PahoClient(version)
    await c.open(endpoint.port)
    infos = [c.client.publish(TOPIC, b"%d" % n, qos) for n in range(100)]
    for info in infos:
        await asyncio.to_thread(info.wait_for_publish, 5)
        assert info.is_published()
    await sink.wait(100)
    await c.close()
    assert [m.payload for m in sink.messages] == [b"%d" % n for n in range(100)]
    assert {m.qos for m in sink.messages} == {qos}


@VERSIONS
async def test_paho_gets_commands(endpoint: Any, version: int) -> None:
    c = PahoClient(version)
    await c.open(endpoint.port)
    c.client.subscribe([("traksense/t/s/d/cmd", 2), ("secret/x", 1)])
    assert await asyncio.to_thread(c.subscribed.wait, 5)
    assert c.granted == [1, Reason.NOT_AUTHORIZED if version == 5 else 0x80]
    assert await endpoint.publish("traksense/t/s/d/cmd", b"on") == [0]
    assert await asyncio.to_thread(c.arrived.wait, 5)
    assert c.messages[0].payload == b"on"
    await c.close()


@VERSIONS
async def test_paho_is_refused(endpoint: Any, version: int) -> None:
    c = PahoClient(version)
    c.client.username_pw_set("nobody", "x")
    await c.open(endpoint.port)
    assert c.code.value in (Reason.BAD_USER_NAME_OR_PASSWORD, 4)
    await c.close()


async def test_nobody_leaves_while_the_sink_is_full(endpoint: Any, sink: Any, require: Any) -> None:
    """Real time, for more than two of the shortest keep-alives: clients give up on a silent server."""
    left: list[str] = []
    pahos = [PahoClient(version, f"paho{version}") for version in (4, 5)]
    for c in pahos:
        c.client.on_disconnect = lambda *_args: left.append("paho")
        await c.open(endpoint.port, keepalive=2)
    other = gmqtt.Client("gmqtt")
    other.on_disconnect = lambda *_args: left.append("gmqtt")
    await other.connect("127.0.0.1", endpoint.port, keepalive=2)
    sink.close()
    for c in pahos:
        c.client.publish(TOPIC, b"1", 1)
    other.publish(TOPIC, b"1", qos=1)
    arguments = ["-p", str(endpoint.port), "-q", "1", "-t", TOPIC, "-m", "1", "-k", "5", "-i", "m"]
    mosquitto = asyncio.create_task(run(require("mosquitto_pub"), *arguments))
    await asyncio.sleep(12)
    assert left == []
    assert not mosquitto.done()
    assert endpoint.counters.paused == endpoint.counters.connections == 4
    sink.open()
    assert await mosquitto == (0, "")
    await sink.wait(4)
    assert len(sink.messages) == 4
    assert left == []
    for c in pahos:
        c.client.on_disconnect = None
        await c.close()
    await other.disconnect()


@VERSIONS
@QOS
async def test_gmqtt_publishes_and_listens(endpoint: Any, sink: Any, version: int, qos: int) -> None:
    c = gmqtt.Client("gmqtt")
    got: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
    ready = asyncio.Event()

    async def on_message(_client: Any, topic: str, payload: bytes, *_rest: Any) -> int:
        got.put_nowait((topic, payload))
        return 0

    c.on_message = on_message
    c.on_subscribe = lambda *_args: ready.set()
    await c.connect("127.0.0.1", endpoint.port, version=version, keepalive=60)
    c.subscribe("traksense/t/s/d/cmd", qos=1)
    await asyncio.wait_for(ready.wait(), 30)
    for number in range(50):
        c.publish(TOPIC, b"%d" % number, qos=qos)
    await sink.wait(50)
    assert sorted(int(m.payload) for m in sink.messages) == list(range(50))
    assert await endpoint.publish("traksense/t/s/d/cmd", b"on") == [0]
    assert await asyncio.wait_for(got.get(), 30) == ("traksense/t/s/d/cmd", b"on")
    await c.disconnect()


async def run(*command: str, stdin: bytes | None = None) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(20):
            out, _ = await process.communicate(stdin)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return process.returncode, out.decode()


@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
@pytest.mark.parametrize("qos", ["0", "1", "2"])
async def test_mosquitto_pub(endpoint: Any, sink: Any, require: Any, version: str, qos: str) -> None:
    program = require("mosquitto_pub")
    lines = b"".join(b"%d\n" % n for n in range(100))
    port = str(endpoint.port)
    code, out = await run(
        program, "-V", version, "-p", port, "-q", qos, "-t", TOPIC, "-i", "m", "-l", stdin=lines
    )
    assert code == 0, out
    await sink.wait(100)
    assert [m.payload for m in sink.messages] == [b"%d" % n for n in range(100)]


async def test_mosquitto_pub_is_told_why(endpoint: Any, require: Any) -> None:
    program = require("mosquitto_pub")
    port = str(endpoint.port)
    code, out = await run(program, "-V", "5", "-p", port, "-u", "nobody", "-P", "x", "-t", TOPIC, "-m", "1")
    assert code != 0
    assert "Bad User" in out or "Not authorized" in out, out


@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
async def test_mosquitto_sub(endpoint: Any, hooks: Any, require: Any, version: str) -> None:
    program = require("mosquitto_sub")
    watching = asyncio.create_task(
        run(program, "-V", version, "-p", str(endpoint.port), "-q", "1", "-t", "traksense/#", "-C", "2", "-v")
    )
    async with asyncio.timeout(30):
        while not endpoint.send("traksense/t/s/d/cmd", b"one"):
            await asyncio.sleep(0.02)
    assert await endpoint.publish("traksense/t/s/d/cmd", b"two") == [0]
    code, out = await watching
    assert code == 0, out
    assert out.split("\n")[:2] == ["traksense/t/s/d/cmd one", "traksense/t/s/d/cmd two"]


# TLS.


@pytest.fixture
def tls(authority: Authority) -> ssl.SSLContext:
    return server_tls(
        authority.path("server.pem"),
        authority.path("server.key"),
        client_ca=authority.path("ca.pem"),
        required=False,
    )


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@VERSIONS
async def test_tls_with_a_client_certificate(
    make_endpoint: Any, sink: Any, hooks: Any, tls: Any, authority: Authority, version: int, newest: Any
) -> None:
    endpoint = await make_endpoint(tls=tls, tls_port=0)
    context = ssl.create_default_context(cafile=authority.path("ca.pem"))
    context.maximum_version = newest
    context.load_cert_chain(authority.path("pump-1.pem"), authority.path("pump-1.key"))
    c = PahoClient(version)
    c.client.tls_set_context(context)
    await c.open(endpoint.tls_port, "localhost")
    info = c.client.publish(TOPIC, b"x" * 100_000, 1)
    await asyncio.to_thread(info.wait_for_publish, 5)
    await c.close()
    (shown,) = hooks.infos
    assert shown.tls
    assert shown.certificate.common_name == "pump-1"
    assert shown.certificate.subject == "CN=pump-1"
    assert shown.certificate.serial == format(authority.client.serial_number, "x")
    assert shown.certificate.fingerprint == authority.client.fingerprint(hashes.SHA256()).hex()
    assert len(sink.messages[0].payload) == 100_000


async def test_tls_without_a_certificate_is_for_the_hook_to_judge(
    make_endpoint: Any, hooks: Any, tls: Any, authority: Authority
) -> None:
    endpoint = await make_endpoint(tls=tls, tls_port=0)
    c = PahoClient(5)
    c.client.tls_set_context(ssl.create_default_context(cafile=authority.path("ca.pem")))
    await c.open(endpoint.tls_port, "localhost")
    await c.close()
    assert hooks.infos[0].tls
    assert hooks.infos[0].certificate is None


async def test_tls_refuses_strangers(make_endpoint: Any, hooks: Any, authority: Authority) -> None:
    required = server_tls(
        authority.path("server.pem"),
        authority.path("server.key"),
        client_ca=authority.path("ca.pem"),
        required=True,
    )
    endpoint = await make_endpoint(tls=required, tls_port=0)
    context = ssl.create_default_context(cafile=authority.path("ca.pem"))
    with pytest.raises((ssl.SSLError, ConnectionError)):  # noqa: PT012 - in TLS 1.3 it shows on reading
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", endpoint.tls_port, ssl=context, server_hostname="localhost"
        )
        await reader.read(1)
        writer.close()
        raise ConnectionError("closed without a word")
    assert hooks.infos == []


async def test_nothing_below_tls_1_2(tls: Any) -> None:
    assert tls.minimum_version == ssl.TLSVersion.TLSv1_2


async def test_a_renewed_certificate_is_taken_up(make_endpoint: Any, tls: Any, authority: Authority) -> None:
    endpoint = await make_endpoint(tls=tls, tls_port=0)
    port = endpoint.tls_port
    trusting = ssl.create_default_context(cafile=authority.path("ca.pem"))

    async def shown() -> str:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=trusting, server_hostname="localhost"
        )
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        name = x509.load_der_x509_certificate(der).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(name[0].value)

    assert await shown() == "server"
    renewed = server_tls(
        authority.path("pump-1.pem"), authority.path("pump-1.key"), client_ca=None, required=False
    )
    await endpoint.renew_tls(renewed)
    assert endpoint.tls_port == port
    assert await shown() == "pump-1"
