"""Links to files that open without signing in, for an hour: for stores that cannot presign their own."""

from __future__ import annotations

import hmac
import time
from datetime import datetime
from urllib.parse import urlencode
from uuid import UUID

from caudal.core.errors import Forbidden
from caudal.core.seal import Sealer

PURPOSE = "file link"


class Links:
    """Makes and checks links, signed with the installation's secret."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def _sign(self, tenant: str, file_id: UUID, expires: str) -> str:
        # A tenant's name holds no line end; two different triples never read the same.
        return self._sealer.mac(f"{tenant}\n{file_id}\n{expires}", PURPOSE)

    def make(self, base: str, tenant: str, file_id: UUID, until: datetime) -> str:
        """The link below `base`, good until `until`."""
        expires = str(int(until.timestamp()))
        query = {"tenant": tenant, "expires": expires, "signature": self._sign(tenant, file_id, expires)}
        return f"{base.rstrip('/')}/v1/files/{file_id}/content?{urlencode(query)}"

    def check(self, tenant: str, file_id: UUID, expires: str, signature: str) -> None:
        """Raises Forbidden for a link that is not ours, is another file's, or has run out."""
        good = hmac.compare_digest(self._sign(tenant, file_id, expires).encode(), signature.encode())
        # Only what we signed is a number.
        if not good or int(expires) < time.time():
            raise Forbidden("This link is wrong or has run out. Ask for another.")
