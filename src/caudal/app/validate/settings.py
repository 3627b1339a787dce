"""Where and how much to validate."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit, urlunsplit

import msgspec

from caudal.core.settings import setting
from caudal.telemetry.topics import Scheme


class ValidateSettings(msgspec.Struct, frozen=True):
    """What `caudal validate` takes from the environment."""

    validate_tenant: Annotated[
        str, setting("Tenant that `caudal validate` makes, works under and removes", min_length=1)
    ] = "caudal-validate"


class Target(msgspec.Struct, frozen=True):
    """Addresses of a running system. `database` is an administrator's; `mqtt` carries credentials that may
    publish for any tenant; each process of ingest has metrics of its own."""

    database: str
    mqtt: str
    http: str
    metrics: tuple[str, ...]
    scheme: Scheme = msgspec.field(default_factory=Scheme)
    """The topics that the system uses."""

    def shown(self) -> dict[str, str]:
        """The same without what is secret."""
        return {
            "database": _bare(self.database),
            "mqtt": _bare(self.mqtt),
            "http": _bare(self.http),
            "metrics": ", ".join(_bare(url) for url in self.metrics),
        }


class Load(msgspec.Struct, frozen=True):
    """How much is sent, and what is good enough."""

    rate: float = 200.0
    """Messages a second of telemetry; messaging is asked for a tenth of it."""
    seconds: float = 10.0
    """How long a rate is measured."""
    latency_ms: float = 1000.0
    """Publish to acknowledgement, 95 of 100, at most."""
    broker: bool = False
    """A broker acknowledges before Caudal has the message: read a little later what was acknowledged."""


def _bare(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
