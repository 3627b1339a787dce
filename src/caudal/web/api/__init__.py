"""The routes, one module for each resource.

A module has `ROUTES` (handlers or controllers) and, where it needs more than the database, `NEEDS`: the names
of services that `create_app` is given. Name a new module in `MODULES`; that is all.
"""

from __future__ import annotations

from collections.abc import Set
from types import ModuleType
from typing import Any

from caudal.web.api import (
    auth,
    connectors,
    device_access,
    files,
    groups,
    health,
    ingest,
    messages,
    mqtt_auth,
    notifications,
    people,
    provisioning,
    registry,
    series,
    tenant,
    uploads,
    webhooks,
)

MODULES: tuple[ModuleType, ...] = (
    auth,
    connectors,
    device_access,
    files,
    groups,
    health,
    ingest,
    messages,
    mqtt_auth,
    notifications,
    people,
    provisioning,
    registry,
    series,
    tenant,
    uploads,
    webhooks,
)


def resources(services: Set[str]) -> list[Any]:
    """The routes of every module whose needs `services` meets."""
    routes: list[Any] = []
    for module in MODULES:
        if getattr(module, "NEEDS", frozenset()) <= services:
            routes.extend(module.ROUTES)
    return routes
