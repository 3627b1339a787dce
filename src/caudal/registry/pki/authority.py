"""The authority itself: making it, signing with it. Its key lies in the database, sealed.

EC P-256 keys and SHA-256: what every TLS 1.2 client of the last ten years can do.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from caudal.core.errors import CaudalError, Conflict, InvalidInput
from caudal.core.seal import Sealer

PURPOSE = "certificate authority"
ORGANISATION = "Caudal"
CSR_BYTES_MAX = 16_384
# Clocks of gateways that just woke up lag behind ours.
BACKDATED = timedelta(minutes=5)

PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


class NoAuthority(CaudalError):
    """There is no authority yet, so nothing can be signed."""

    code, status = "no_authority", 503


class Made(msgspec.Struct, frozen=True):
    """A certificate: serial and fingerprint (SHA-256 of its DER) in lower-case hex."""

    pem: str
    serial: str
    fingerprint: str
    not_before: datetime
    not_after: datetime


class Pair(msgspec.Struct, frozen=True):
    """A certificate with a key made for it. The key exists here and nowhere else."""

    made: Made
    key_pem: str


class Authority(NamedTuple):
    """The authority in force, opened."""

    number: int
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        """Its certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()


def described(certificate: x509.Certificate) -> Made:
    """What we keep of a certificate."""
    return Made(
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        f"{certificate.serial_number:x}",
        certificate.fingerprint(hashes.SHA256()).hex(),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )


def key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """A private key in PKCS 8, not encrypted: for whoever asked for it, once."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


async def create(
    connection: Any, sealer: Sealer, *, days: int, name: str = "Caudal device authority"
) -> Authority:
    """Make the authority. Raises Conflict when there is one."""
    await connection.execute("select pg_advisory_xact_lock(hashtext('caudal.authority'))")
    if await connection.fetchval("select 1 from caudal.authority"):
        raise Conflict("There is an authority already; every gateway trusts it. It is not replaced.")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    now = datetime.now(UTC) - BACKDATED
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    number = await connection.fetchval(
        "insert into caudal.authority(certificate_pem, key_sealed) values ($1, $2) returning id",
        described(certificate).pem,
        sealer.seal(key_pem(key).encode(), PURPOSE),
    )
    return Authority(number, certificate, key)


async def load(connection: Any, sealer: Sealer) -> Authority:
    """The authority. Raises NoAuthority, or SealError when the secret is another."""
    row = await connection.fetchrow("select * from caudal.authority order by id desc limit 1")
    if row is None:
        raise NoAuthority("There is no certificate authority yet. Make one: caudal pki init.")
    key = serialization.load_pem_private_key(sealer.open(row["key_sealed"], PURPOSE), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return Authority(row["id"], x509.load_pem_x509_certificate(row["certificate_pem"].encode()), key)


async def certificate_pem(connection: Any) -> str:
    """The authority's certificate, which is no secret."""
    found = await connection.fetchval("select certificate_pem from caudal.authority order by id desc limit 1")
    if found is None:
        raise NoAuthority("There is no certificate authority yet. Make one: caudal pki init.")
    return str(found)


def read_request(pem: str) -> x509.CertificateSigningRequest:
    """A signing request that is one, signed by its own key, of a kind of key we take. Else InvalidInput."""
    if len(pem) > CSR_BYTES_MAX:
        raise InvalidInput("csr_pem: that is too long for a signing request.")
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        key = request.public_key()
        valid = request.is_signature_valid
    except (ValueError, UnicodeEncodeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise InvalidInput("csr_pem: that is no signing request in PEM.") from error
    if not valid:
        raise InvalidInput("csr_pem: the request is not signed by its own key.")
    if isinstance(key, rsa.RSAPublicKey):
        if not 2048 <= key.key_size <= 8192:
            raise InvalidInput("csr_pem: an RSA key has 2048 to 8192 bits.")
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
            raise InvalidInput("csr_pem: use the curve P-256 or P-384.")
    elif not isinstance(key, ed25519.Ed25519PublicKey):
        raise InvalidInput("csr_pem: use an EC (P-256, P-384), Ed25519 or RSA key.")
    return request


def public_der(request: x509.CertificateSigningRequest) -> bytes:
    """The request's public key, as bytes to compare."""
    return request.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _leaf(authority: Authority, public: Any, subject: x509.Name, days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC).replace(microsecond=0) - BACKDATED
    issuer = authority.certificate
    # Nothing outlives the authority that vouches for it.
    end = min(now + timedelta(days=days), issuer.not_valid_after_utc)
    rsa_key = isinstance(public, rsa.RSAPublicKey)
    usage = x509.KeyUsage(
        digital_signature=True, key_encipherment=rsa_key, key_cert_sign=False, crl_sign=False,
        content_commitment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
        )
    )


def _client(
    builder: x509.CertificateBuilder, authority: Authority, names: Sequence[x509.GeneralName]
) -> Made:
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = builder.add_extension(usage, critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return described(builder.sign(authority.key, hashes.SHA256()))


def sign_gateway(authority: Authority, public: Any, mac: str, days: int) -> Made:
    """A gateway's certificate: its subject is ours (common name: the MAC), whatever the request said."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, mac),
        ]
    )
    names = [x509.UniformResourceIdentifier(f"urn:caudal:gateway:{mac}")]
    return _client(_leaf(authority, public, subject, days), authority, names)


def sign_bootstrap(authority: Authority, public: Any, label: str, days: int) -> Made:
    """A bootstrap certificate: no gateway's, so that no broker takes it for one."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "bootstrap"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"bootstrap {label}"[:64]),
        ]
    )
    names = [x509.UniformResourceIdentifier("urn:caudal:bootstrap")]
    return _client(_leaf(authority, public, subject, days), authority, names)


def make_server(authority: Authority, hosts: Sequence[str], days: int) -> Pair:
    """A key and certificate for a TLS listener of ours, for these host names and addresses."""
    if not hosts:
        raise InvalidInput("hosts: name at least one.")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    builder = _leaf(authority, key.public_key(), subject, days)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Pair(described(builder.sign(authority.key, hashes.SHA256())), key_pem(key))
