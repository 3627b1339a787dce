"""Registrations, certificates, and telemetry over HTTP."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from caudal.registry.pki import authority, revocation

_TELEM = '{"schema": "v1", "ts": "2026-01-01T00:00:00Z", "points": [{"name": "p", "t": "number", "v": 1}]}'
# Whoever has a bootstrap certificate may register with its tenant: it is the credential. So always with ours.
_REGISTER = {
    "mac": "02:00:00:00:03:99", "serial": "s", "modelo": "m", "fw_version": "1",
    "bootstrap_fingerprint": "{our_fingerprint}", "csr_pem": "{csr}",
}  # fmt: skip
_ASK = {"mac": "{registered_mac}", "bootstrap_fingerprint": "{fingerprint}"}
_RENEW = {"mac": "{registered_mac}", "csr_pem": "{csr}", "signature": "AAAA"}
_MESSAGE = {"topic": "traksense/{tenant}/-/http/telem", "payload": _TELEM}

CASES: dict[str, dict[str, Any]] = {
    # Ten an hour from an address: long used up when its own turn comes.
    "POST /api/provision/register": {"body": _REGISTER, "own": (200, 429)},
    "POST /tds_new/api/provision/register": {"body": _REGISTER, "own": (200, 429)},
    "POST /api/provision/certificate": {"body": _ASK, "own": (200, 429)},
    "POST /tds_new/api/provision/certificate": {"body": _ASK, "own": (200, 429)},
    # Without a certificate there is nothing to renew.
    "POST /api/provision/renew": {"body": _RENEW, "own": (400, 401, 403, 404, 409, 429)},
    "POST /tds_new/api/provision/renew": {"body": _RENEW, "own": (400, 401, 403, 404, 409, 429)},
    "GET /api/registrations": {"query": {"q": "x", "status": "pending"}},
    "GET /api/registrations/{registration_id}": {},
    "POST /api/registrations/{registration_id}/approve": {"body": {"code": "APPROVED", "name": "n"}},
    "POST /api/registrations/{registration_id}/reject": {"body": {"reason": "why"}, "own": (200, 409)},
    "DELETE /api/registrations/{registration_id}": {"own": (204, 409)},
    "GET /api/certificates": {"query": {"q": "x"}},
    "GET /api/certificates/{certificate_id}": {},
    "POST /api/certificates/{certificate_id}/revoke": {"body": {"reason": "superseded"}, "own": (200, 409)},
    "POST /api/gateways/{gateway_id}/certificate": {"own": (201, 409)},
    "GET /api/bootstrap-certificates": {},
    "POST /api/bootstrap-certificates": {"body": {"label": "batch"}},
    "POST /api/bootstrap-certificates/{bootstrap_id}/revoke": {"body": {"reason": "superseded"}},
    "GET /api/pki/authority": {},
    "GET /api/pki/crl": {},
    "POST /api/ingest": {"body": _MESSAGE},
    "POST /api/ingest/test": {"body": _MESSAGE},
    "POST /api/ingest/devices/{device}": {"body": {"$content": _TELEM}},
    "POST /api/ingest/gateways/{mac}": {"body": {"$content": "{}"}},
    # For a device with its own password.
    "POST /api/device/credentials": {"own": (401,)},
}


async def plant(world: Any, tenant: str) -> dict[str, Any]:
    """A bootstrap certificate, a registration made with it, a gateway's certificate."""

    async def make(path: str, body: Any = None) -> Any:
        answer = await world.api.client.post(path, json=body, headers=world.headers[tenant])
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    if tenant == "ours":
        async with world.api.admin.acquire() as connection, connection.transaction():
            await authority.create(connection, world.api.parts.sealer, days=365)
        await revocation.refresh(world.api.admin, world.api.parts.sealer, 24)
    last = "01" if tenant == "ours" else "02"
    mac = f"02:00:00:00:03:{last}"
    boot = (await make("/api/bootstrap-certificates", {"label": f"{tenant} batch"}))["bootstrap"]
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    pem = csr.public_bytes(serialization.Encoding.PEM).decode()
    registered = await make(
        "/api/provision/register",
        {"mac": mac, "serial": f"{tenant}-serial", "modelo": "m", "fw_version": "1",
         "bootstrap_fingerprint": boot["fingerprint"], "csr_pem": pem},
    )  # fmt: skip
    gateway = world.planted[tenant]["gateway_id"]
    certificate = (await make(f"/api/gateways/{gateway}/certificate"))["certificate"]
    return {
        "bootstrap_id": boot["id"], "fingerprint": boot["fingerprint"], "csr": pem, "registered_mac": mac,
        "our_fingerprint": world.planted["ours"].get("fingerprint", boot["fingerprint"]),
        "registration_id": registered["registro_id"], "certificate_id": certificate["id"],
        # A device's name is its tenant's own affair: the same in both, and no two alike behind it.
        "device": "http", "mac": f"02:00:00:00:00:{last}",
    }  # fmt: skip
