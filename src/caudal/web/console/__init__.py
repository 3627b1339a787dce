"""The console: pages for people, rendered here, one module for each section.

A section module has `ROUTES` and, where it needs more than the database, `NEEDS`, as the modules of
`web/api` have. Name a new one in `MODULES`; its entry in the menu is in `view.MENU`.
"""

from __future__ import annotations

from collections.abc import Set
from types import ModuleType
from typing import Any

from litestar import Router
from litestar.di import Provide

from caudal.web.console import (
    certificates,
    conversations,
    dead_letters,
    devices,
    entrance,
    errors,
    gateways,
    history,
    issue,
    mailed,
    news,
    operations,
    overview,
    people,
    phones,
    points,
    profiles,
    quarantine,
    replays,
    sites,
    static,
    tenants,
)
from caudal.web.console.view import present

MODULES: tuple[ModuleType, ...] = (
    entrance,
    mailed,
    overview,
    devices,
    gateways,
    points,
    sites,
    profiles,
    history,
    issue,
    certificates,
    quarantine,
    dead_letters,
    replays,
    news,
    conversations,
    phones,
    operations,
    tenants,
    people,
)


def pages(services: Set[str]) -> list[Any]:
    """The console's routes, as far as `services` meets their needs."""
    if "accounts" not in services:
        return []
    routes: list[Any] = []
    outside: list[Any] = []
    for module in MODULES:
        if getattr(module, "NEEDS", frozenset()) <= services:
            routes.extend(module.ROUTES)
            outside.extend(getattr(module, "OUTSIDE", ()))

    def router(path: str, handlers: list[Any]) -> Router:
        return Router(
            path,
            route_handlers=handlers,
            dependencies={"view": Provide(present)},
            exception_handlers=errors.HANDLERS,
            include_in_schema=False,
        )

    return [
        router("/", [entrance.root, *outside]),
        router("/console", [*routes, *static.ROUTES, errors.nothing_here]),
    ]


__all__ = ["pages"]
