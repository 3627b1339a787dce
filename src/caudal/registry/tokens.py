"""Access tokens: JWTs signed with ES256 by keys that rotate, and their public halves as a JWKS.

A new key signs at once; an old one verifies until the last token it signed has expired. A process that meets
a key it does not know reads the keys again, at most once a second.
"""

from __future__ import annotations

import asyncio
import json
import time
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import jwt
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from caudal.core.errors import Unauthenticated
from caudal.core.seal import Sealer

ALGORITHM = "ES256"
ISSUER = "caudal"
PURPOSE = "signing key"
# Clocks of two machines.
LEEWAY = 10
# Rotation is decided under this lock, so that processes that start together make one key.
_LOCK = 0x6A777473


class Claims(msgspec.Struct, frozen=True):
    """What a token says: person, tenant, and Unix seconds of issue and expiry."""

    sub: UUID
    tenant: str
    iat: int
    exp: int


class KeyRing:
    """Signs and verifies access tokens; keys live in `caudal.signing_key`, sealed."""

    def __init__(
        self, pool: asyncpg.Pool[Any], sealer: Sealer, *, token_seconds: int = 3600, key_days: int = 30
    ) -> None:
        self._pool = pool
        self._sealer = sealer
        self.token_seconds = token_seconds
        self._key_days = key_days
        self._private: ec.EllipticCurvePrivateKey | None = None
        self._kid = ""
        self._born = 0.0
        self._public: dict[str, ec.EllipticCurvePublicKey] = {}
        self._read_at = -1e9
        self._reading = asyncio.Lock()

    async def refresh(self) -> None:
        """Read the keys, make a new one when the newest is too old, drop those no token needs."""
        self._read_at = time.monotonic()
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", _LOCK)
            newest = await connection.fetchrow(
                "select kid, created_at > now() - $1::interval as fresh from caudal.signing_key "
                "order by created_at desc, kid limit 1",
                timedelta(days=self._key_days),
            )
            if newest is None or not newest["fresh"]:
                await self._make(connection)
            # Kept for a day beyond need: a process whose clock or whose keys lag behind may still sign.
            await connection.execute(
                "delete from caudal.signing_key where created_at < now() - $1::interval",
                timedelta(days=self._key_days + 1, seconds=self.token_seconds),
            )
            rows = await connection.fetch(
                "select kid, sealed, public_pem, extract(epoch from created_at)::float8 as born "
                "from caudal.signing_key order by created_at desc, kid"
            )
        head = rows[0]
        if head["kid"] != self._kid:
            loaded = serialization.load_pem_private_key(self._sealer.open(head["sealed"], PURPOSE), None)
            assert isinstance(loaded, ec.EllipticCurvePrivateKey)
            self._private, self._kid, self._born = loaded, head["kid"], head["born"]
        self._public = {row["kid"]: _public(row["public_pem"]) for row in rows}

    async def _make(self, connection: Any) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        await connection.execute(
            "insert into caudal.signing_key(kid, sealed, public_pem) values ($1, $2, $3)",
            uuid4().hex,
            self._sealer.seal(pem, PURPOSE),
            public.decode(),
        )

    async def issue(self, user_id: UUID, tenant: str) -> str:
        """An access token of `user_id` in `tenant`, good for `token_seconds`."""
        if self._private is None or time.time() - self._born > self._key_days * 86_400:
            await self.refresh()
        assert self._private is not None
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": str(user_id), "tenant": tenant, "iat": now,
                  "exp": now + self.token_seconds, "jti": uuid4().hex}  # fmt: skip
        return jwt.encode(claims, self._private, algorithm=ALGORITHM, headers={"kid": self._kid})

    async def verify(self, token: str) -> Claims:
        """What `token` says. Raises Unauthenticated when it is expired, malformed or signed by a stranger."""
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            if kid not in self._public:
                # Who comes while another reads waits for what that finds.
                async with self._reading:
                    if kid not in self._public and time.monotonic() - self._read_at > 1:
                        await self.refresh()
            key = self._public.get(kid) if isinstance(kid, str) else None
            if key is None:
                raise Unauthenticated("The access token is not one of ours. Sign in again.")
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                leeway=LEEWAY,
                options={"require": ["exp", "iat", "sub"]},
            )
            return msgspec.convert(claims, Claims)
        except jwt.ExpiredSignatureError as error:
            raise Unauthenticated("The access token has expired. Sign in again.") from error
        except (jwt.InvalidTokenError, msgspec.ValidationError, ValueError) as error:
            raise Unauthenticated("The access token is malformed. Sign in again.") from error

    def jwks(self) -> dict[str, Any]:
        """The public keys, as RFC 7517 says."""
        keys = []
        for kid, key in self._public.items():
            jwk = ECAlgorithm.to_jwk(key, as_dict=False)
            keys.append({**json.loads(jwk), "kid": kid, "use": "sig", "alg": ALGORITHM})
        return {"keys": keys}


def _public(pem: str) -> ec.EllipticCurvePublicKey:
    loaded = serialization.load_pem_public_key(pem.encode())
    assert isinstance(loaded, ec.EllipticCurvePublicKey)
    return loaded
