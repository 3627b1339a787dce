"""Sealing what must lie in the database and not be readable there: signing keys, providers' tokens.

AES-256-GCM under a key derived (HKDF-SHA256) from the installation's one secret and a purpose, so that what
was sealed for one purpose does not open for another.
"""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from caudal.core.errors import CaudalError, SettingsError

_VERSION = b"\x01"
_NONCE = 12
MINIMUM = 32


class SealError(CaudalError):
    """What was sealed does not open: another secret, another purpose, or it was tampered with."""

    code = "seal"


class Sealer:
    """Seals and opens bytes with `secret`, at least 32 characters of it."""

    def __init__(self, secret: str) -> None:
        if len(secret) < MINIMUM:
            raise SettingsError(f"The secret key is shorter than {MINIMUM} characters. Make a longer one.")
        self._secret = secret.encode()

    def _key(self, purpose: str) -> bytes:
        return HKDF(SHA256(), 32, salt=None, info=f"caudal {purpose}".encode()).derive(self._secret)

    def _cipher(self, purpose: str) -> AESGCM:
        return AESGCM(self._key(purpose))

    def mac(self, text: str, purpose: str) -> str:
        """HMAC-SHA256 of `text` in hexadecimal, for what we hand out and want back unchanged."""
        return hmac.new(self._key(f"mac {purpose}"), text.encode(), "sha256").hexdigest()

    def seal(self, plain: bytes, purpose: str) -> bytes:
        """Version, nonce and ciphertext of `plain`."""
        nonce = os.urandom(_NONCE)
        return _VERSION + nonce + self._cipher(purpose).encrypt(nonce, plain, None)

    def open(self, sealed: bytes, purpose: str) -> bytes:
        """What was sealed for `purpose`. Raises SealError when it does not open."""
        if sealed[:1] != _VERSION:
            raise SealError("This was sealed by an unknown version of Caudal.")
        nonce, rest = sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :]
        try:
            return self._cipher(purpose).decrypt(nonce, rest, None)
        except InvalidTag as error:
            raise SealError(
                f"What was sealed for {purpose} does not open. Start with the right CAUDAL_MASTER_KEY."
            ) from error


def secret_from(path: Path) -> str:
    """The secret kept in `path`, readable by its owner alone; made at first."""
    try:
        # Made under another name and linked: two processes that start at once take the same secret.
        if not path.exists():
            fresh = path.with_name(f"{path.name}.{os.getpid()}")
            fresh.touch(mode=0o600)
            fresh.write_text(secrets.token_urlsafe(48))
            try:
                os.link(fresh, path)
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
        return path.read_text().strip()
    except OSError as error:
        raise SettingsError(f"The secret in {path} cannot be read or made: {error.strerror}.") from error
