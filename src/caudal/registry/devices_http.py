"""Devices and gateways that sign in over HTTP with the credentials they have for MQTT."""

from __future__ import annotations

from typing import Any

import asyncpg

from . import access
from .access import Client
from .permissions import DEVICE_ACTIONS
from .principal import Principal


class DevicePrincipal(Principal, frozen=True, kw_only=True):
    """A device or gateway as the API's caller; `client` says what it may publish on."""

    client: Client

    @property
    def actor(self) -> str:
        """How the audit log calls this caller."""
        return self.client.key


class DeviceSignIn:
    """Implements `authenticate.DeviceAuthenticator`."""

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool

    async def authenticate_device(self, username: str, password: str) -> Principal | None:
        """The device or gateway with these credentials; backends and dashboards have API keys."""
        found = await access.find(self._pool, username, access.digest(password.encode()))
        if found is None or found.tenant is None or found.tenant_id is None:
            return None
        if found.role not in ("device", "gateway"):
            return None
        return DevicePrincipal(
            tenant_id=found.tenant_id, tenant=found.tenant, allowed=DEVICE_ACTIONS,
            device_id=found.device_id, name=found.name, client=found,
        )  # fmt: skip
