"""Registration, approval, issue, renewal, revocation, over HTTP."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from caudal.core.errors import Conflict, InvalidInput
from caudal.core.seal import Sealer, SealError
from caudal.registry.permissions import Role
from caudal.registry.pki import authority as ca
from caudal.registry.pki import registrations, renewal, revocation
from caudal.registry.pki.renewal import sign_request
from caudal.registry.pki.settings import PkiSettings
from caudal.web.settings import WebSettings

from .conftest import MAC, OTHER, Field, Gateway

REGISTER = "/tds_new/api/provision/register/"


async def test_the_certificate_is_ours_to_word(field: Field) -> None:
    gateway, number = await field.certified(MAC, "gw1")
    found = x509.load_pem_x509_certificate(gateway.certificate.encode())
    assert found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == MAC
    assert found.public_key() == gateway.key.public_key()
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"urn:caudal:gateway:{MAC}"]
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert (found.not_valid_after_utc - found.not_valid_before_utc).days == 3650
    authority = x509.load_pem_x509_certificate((field.folder / "authority.pem").read_bytes())
    found.verify_directly_issued_by(authority)
    shown = await field.call("GET", f"/api/certificates/{number}")
    assert (shown["mac"], shown["kind"], shown["revoked_at"]) == (MAC, "registered", None)
    listed = await field.call("GET", "/api/gateways")
    assert [(g["code"], g["mac"], g["model"]) for g in listed["items"]] == [("GW1", MAC, "GW-100")]


async def test_register_as_the_contract_says(field: Field) -> None:
    gateway = Gateway(MAC, field.folder)
    body = gateway.registration(field.fingerprint)
    first = await field.api.client.post(REGISTER, json=body)
    assert first.status_code == 200
    assert first.json() | {"registro_id": 0} == {
        "status": "ok", "code": "registered", "registro_id": 0, "error": None,
    }  # fmt: skip
    # By MAC, also in other letters and with another key: nothing changes.
    other = Gateway(OTHER, field.folder)
    again = await field.api.client.post(
        "/api/provision/register", json={**other.registration(field.fingerprint), "mac": MAC}
    )
    assert again.json()["code"] == "already_registered"
    assert again.json()["registro_id"] == first.json()["registro_id"]
    kept = await field.api.admin.fetch("select csr_pem from caudal.registration")
    assert [row["csr_pem"] for row in kept] == [body["csr_pem"]]


@pytest.mark.parametrize(
    "change",
    [{"mac": "nonsense"}, {"csr_pem": "x"}, {"bootstrap_fingerprint": "00" * 32},
     {"bootstrap_fingerprint": "x"}, {"serial": ""}, {"serial": "\0"}, {"mac": 5}, {"csr_pem": None},
     {"modelo": "x" * 101}],
)  # fmt: skip
async def test_invalid_requests(field: Field, change: dict[str, Any]) -> None:
    body = {**Gateway(MAC, field.folder).registration(field.fingerprint), **change}
    answer = await field.api.client.post(REGISTER, json=body)
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_request"
    assert answer.json()["error"]


async def test_ten_an_hour_from_an_address(field: Field) -> None:
    body = Gateway(MAC, field.folder).registration(field.fingerprint)
    answers = await asyncio.gather(*(field.api.client.post(REGISTER, json=body) for _ in range(14)))
    codes = sorted(answer.json()["code"] for answer in answers)
    assert codes == ["already_registered"] * 9 + ["rate_limited"] * 4 + ["registered"]
    assert {answer.status_code for answer in answers} == {200, 429}
    # Nobody has named a proxy that may be trusted: a header moves nobody.
    spoofed = await field.api.client.post(REGISTER, json=body, headers={"x-forwarded-for": "198.51.100.7"})
    assert spoofed.status_code == 429
    await field.api.admin.execute("update caudal.provision_attempt set at = at - interval '61 min'")
    assert (await field.api.client.post(REGISTER, json=body)).status_code == 200


async def test_behind_a_proxy_that_is_trusted_each_address_has_its_own_ten(
    unstarted_api: Any, tmp_path: Path
) -> None:
    """End to end: the limit counts whom the proxy names, and nobody else can name anybody."""
    unstarted_api.parts.web = WebSettings(trusted_proxies="127.0.0.1")
    parts = unstarted_api.parts
    api = await unstarted_api.start(pool=parts.pool, sealer=parts.sealer, pki_settings=PkiSettings())
    made = Field(api, await api.headers("acme", Role.ADMIN), tmp_path)
    await made.prepare()
    body = Gateway(MAC, made.folder).registration(made.fingerprint)

    async def ask(address: str) -> list[int]:
        said = {"x-forwarded-for": f"203.0.113.9, {address}"}
        return [(await api.client.post(REGISTER, json=body, headers=said)).status_code for _ in range(11)]

    assert await ask("198.51.100.7") == [200] * 10 + [429]
    assert await ask("198.51.100.8") == [200] * 10 + [429]


def test_addresses_that_count_as_one() -> None:
    assert registrations.limited_by("2001:db8::1") == registrations.limited_by("2001:db8::ffff")
    assert registrations.limited_by("2001:db8:0:1::1") != registrations.limited_by("2001:db8::1")
    assert registrations.limited_by("::ffff:192.0.2.1") == "192.0.2.1"


async def test_people_decide_within_their_tenant(field: Field) -> None:
    gateway = Gateway(MAC, field.folder)
    number = (await field.api.client.post(REGISTER, json=gateway.registration(field.fingerprint))).json()[
        "registro_id"
    ]
    ask = {"mac": MAC, "bootstrap_fingerprint": field.fingerprint}
    rival = await field.api.headers("rival", Role.OWNER)
    for method, path in (
        ("GET", f"/api/registrations/{number}"), ("POST", f"/api/registrations/{number}/approve"),
        ("POST", f"/api/registrations/{number}/reject"), ("DELETE", f"/api/registrations/{number}"),
    ):  # fmt: skip
        json = {"code": "x"} if path.endswith("approve") else {} if method == "POST" else None
        answer = await field.api.client.request(method, path, headers=rival, json=json)
        assert answer.status_code == 404, (method, path)
    viewer = await field.api.headers("acme", Role.VIEWER)
    refused = await field.api.client.post(
        f"/api/registrations/{number}/approve", headers=viewer, json={"code": "x"}
    )
    assert refused.status_code == 403
    await field.call("POST", f"/api/registrations/{number}/reject", json={"reason": "not ours"})
    state = (await field.api.client.post("/api/provision/certificate", json=ask)).json()
    assert (state["code"], state["reason"], state["certificate_pem"]) == ("rejected", "not ours", None)
    await field.call("POST", f"/api/registrations/{number}/approve", 409, json={"code": "x"})
    await field.call("DELETE", f"/api/registrations/{number}", 204)
    state = (await field.api.client.post("/api/provision/certificate", json=ask)).json()
    assert state["code"] == "unknown"
    stranger = await field.api.client.post(
        "/api/provision/certificate", json={"mac": MAC, "bootstrap_fingerprint": "00" * 32}
    )
    assert stranger.json()["code"] == "unknown"


async def test_a_mac_of_another_account_is_not_taken_over(field: Field) -> None:
    rival = await field.api.headers("rival", Role.OWNER)
    made = await field.api.client.post("/api/gateways", headers=rival, json={"code": "theirs", "mac": MAC})
    assert made.status_code == 201
    body = Gateway(MAC, field.folder).registration(field.fingerprint)
    number = (await field.api.client.post(REGISTER, json=body)).json()["registro_id"]
    await field.call("POST", f"/api/registrations/{number}/approve", 409, json={"code": "mine"})
    assert (await field.call("GET", f"/api/registrations/{number}"))["status"] == "pending"


async def crl(field: Field) -> x509.CertificateRevocationList:
    answer = await field.api.client.get("/api/pki/crl")
    assert answer.headers["content-type"] == "application/pkix-crl"
    found = x509.load_der_x509_crl(answer.content)
    authority = x509.load_pem_x509_certificate((field.folder / "authority.pem").read_bytes())
    assert found.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    return found


async def test_revoked_is_listed_at_once_and_may_ask_anew(field: Field) -> None:
    gateway, number = await field.certified(MAC, "gw1")
    before = await crl(field)
    assert len(before) == 0
    await field.call("POST", f"/api/certificates/{number}/revoke", 400, json={"reason": "because"})
    done = await field.call("POST", f"/api/certificates/{number}/revoke", json={"reason": "key_compromise"})
    assert done["reason"] == "key_compromise"
    again = await field.call("POST", f"/api/certificates/{number}/revoke", json={"reason": "superseded"})
    assert again == done
    after = await crl(field)
    serial = x509.load_pem_x509_certificate(gateway.certificate.encode()).serial_number
    entry = after.get_revoked_certificate_by_serial_number(serial)
    assert entry is not None
    reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    assert reason == x509.ReasonFlags.key_compromise
    numbers = [x.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for x in (before, after)]
    assert numbers[0] < numbers[1]
    # With a new key it registers, is approved under its old code, and has one certificate in force again.
    gateway.key = ec.generate_private_key(ec.SECP256R1())
    answer = await field.api.client.post(REGISTER, json=gateway.registration(field.fingerprint))
    assert answer.json()["code"] == "registered"
    path = f"/api/registrations/{answer.json()['registro_id']}/approve"
    await field.call("POST", path, 409, json={"code": "another"})
    await field.call("POST", path, json={"code": "gw1"})
    listed = await field.call("GET", "/api/certificates", params={"revoked": False})
    assert len(listed["items"]) == 1


async def test_one_certificate_for_each_mac(field: Field) -> None:
    _, number = await field.certified(MAC, "gw1")
    gateway = (await field.call("GET", "/api/gateways"))["items"][0]["id"]
    await field.call("POST", f"/api/gateways/{gateway}/certificate", 409)
    await field.call("POST", f"/api/certificates/{number}/revoke", json={"reason": "superseded"})
    made = await field.call("POST", f"/api/gateways/{gateway}/certificate", 201)
    key = serialization.load_pem_private_key(made["key_pem"].encode(), None)
    certificate = x509.load_pem_x509_certificate(made["certificate_pem"].encode())
    assert certificate.public_key() == key.public_key()
    stored = await field.api.admin.fetch("select * from caudal.certificate")
    assert "PRIVATE" not in str([dict(row) for row in stored])
    await field.call("DELETE", f"/api/gateways/{gateway}", 409)


async def test_a_revoked_bootstrap_opens_nothing(field: Field) -> None:
    number = (await field.call("GET", "/api/bootstrap-certificates"))["items"][0]["id"]
    await field.call("POST", f"/api/bootstrap-certificates/{number}/revoke", json={})
    body = Gateway(MAC, field.folder).registration(field.fingerprint)
    answer = await field.api.client.post(REGISTER, json=body)
    assert answer.json()["code"] == "invalid_request"
    assert len(await crl(field)) == 1


def test_keys_we_take() -> None:
    def request(key: Any) -> str:
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    for key in (ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)):
        ca.read_request(request(key))
    for key in (ec.generate_private_key(ec.SECP521R1()), rsa.generate_private_key(65537, 1024)):
        with pytest.raises(InvalidInput):
            ca.read_request(request(key))
    broken = request(ec.generate_private_key(ec.SECP256R1())).splitlines()
    der = bytearray(
        x509.load_pem_x509_csr("\n".join(broken).encode()).public_bytes(serialization.Encoding.DER)
    )
    der[-3] ^= 1
    forged = ssl_pem(bytes(der))
    for text in ("", "x" * 20_000, forged, "-----BEGIN CERTIFICATE REQUEST-----\n"):
        with pytest.raises(InvalidInput):
            ca.read_request(text)


def ssl_pem(der: bytes) -> str:
    import base64

    body = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"


async def test_the_authority_is_sealed_and_made_once(field: Field) -> None:
    async with field.api.admin.acquire() as c, c.transaction():
        with pytest.raises(Conflict):
            await ca.create(c, field.api.parts.sealer, days=1)
        with pytest.raises(SealError):
            await ca.load(c, Sealer("y" * 40))
    row = await field.api.admin.fetchrow("select * from caudal.authority")
    assert b"PRIVATE KEY" not in row["key_sealed"]


async def test_the_list_is_renewed_before_it_expires(field: Field) -> None:
    admin, sealer = field.api.admin, field.api.parts.sealer
    assert not await revocation.refresh(admin, sealer, 24)
    await admin.execute("update caudal.revocation_list set next_update = now() + interval '11 h'")
    assert await revocation.refresh(admin, sealer, 24)
    assert (await crl(field)).next_update_utc > datetime.now(UTC) + timedelta(hours=23)  # type: ignore[operator]
    for _ in range(12):
        async with admin.acquire() as c, c.transaction():
            await revocation.write(c, await ca.load(c, sealer), 24)
    assert await admin.fetchval("select count(*) from caudal.revocation_list") == 10


# -- renewal


async def ask(field: Field, gateway: Gateway, signer: Any, csr: str | None = None) -> Any:
    csr = csr or gateway.csr()
    body = {"mac": gateway.mac, "csr_pem": csr, "signature": sign_request(signer, csr)}
    return await field.api.client.post("/api/provision/renew", json=body)


async def test_renewal(field: Field) -> None:
    gateway, number = await field.certified(MAC, "gw1")
    old = gateway.key
    gateway.key = ec.generate_private_key(ec.SECP256R1())
    csr = gateway.csr()
    early = await ask(field, gateway, old, csr)
    assert (early.status_code, "from" in early.json()["error"]) == (409, True)
    await field.api.admin.execute("update caudal.certificate set not_after = now() + interval '700 days'")
    for signer in (gateway.key, ec.generate_private_key(ec.SECP256R1())):
        assert (await ask(field, gateway, signer, csr)).status_code == 403
    renewed = await ask(field, gateway, old, csr)
    assert renewed.status_code == 200, renewed.text
    found = x509.load_pem_x509_certificate(renewed.json()["certificate_pem"].encode())
    assert found.public_key() == gateway.key.public_key()
    # The answer was lost: the same request, the same answer.
    again = await ask(field, gateway, old, csr)
    assert again.json()["code"] == "already_renewed"
    assert again.json()["certificate_pem"] == renewed.json()["certificate_pem"]
    # The old key is good for nothing new.
    assert (await ask(field, gateway, old, gateway.csr("x"))).json()["code"] == "already_renewed"
    stranger = Gateway(OTHER, field.folder)
    stranger.mac = MAC
    assert (await ask(field, stranger, old)).status_code == 403
    shown = await field.call("GET", f"/api/certificates/{number}")
    assert shown["reason"] == "superseded"
    assert len(await crl(field)) == 1


async def test_ten_renewals_a_day(field: Field) -> None:
    await field.api.admin.execute("truncate caudal.provision_attempt")
    gateways = []
    for n in range(12):
        await field.api.admin.execute("truncate caudal.provision_attempt")
        gateways.append((await field.certified(f"aa:bb:cc:dd:00:{n:02x}", f"g{n}"))[0])
    admin = field.api.admin
    async with admin.acquire() as c:
        assert await renewal.invite(c, PkiSettings()) == 0
        await admin.execute("update caudal.certificate set not_after = now() + interval '100 days'")
        assert await renewal.invite(c, PkiSettings()) == 10
        assert await renewal.invite(c, PkiSettings()) == 0

    async def renew(gateway: Gateway) -> int:
        old, gateway.key = gateway.key, ec.generate_private_key(ec.SECP256R1())
        return (await ask(field, gateway, old)).status_code

    statuses = await asyncio.gather(*(renew(gateway) for gateway in gateways))
    assert sorted(statuses) == [200] * 10 + [429] * 2


def test_server_certificates(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=10))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    authority = ca.Authority(1, certificate, key)
    made = ca.make_server(authority, ["localhost", "127.0.0.1"], 400)
    found = x509.load_pem_x509_certificate(made.made.pem.encode())
    assert found.not_valid_after_utc == certificate.not_valid_after_utc  # never longer than the authority
    with pytest.raises(InvalidInput):
        ca.make_server(authority, [], 1)
