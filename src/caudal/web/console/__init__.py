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
    devices,
    entrance,
    errors,
    gateways,
    history,
    issue,
    overview,
    points,
    quarantine,
    static,
)
from caudal.web.console.view import present

MODULES: tuple[ModuleType, ...] = (
    entrance,
    overview,
    devices,
    gateways,
    points,
    history,
    issue,
    quarantine,
)


def pages(services: Set[str]) -> list[Any]:
    """The console's routes, as far as `services` meets their needs."""
    if "accounts" not in services:
        return []
    routes: list[Any] = []
    for module in MODULES:
        if getattr(module, "NEEDS", frozenset()) <= services:
            routes.extend(module.ROUTES)
    console = Router(
        "/console",
        route_handlers=[*routes, *static.ROUTES, errors.nothing_here],
        dependencies={"view": Provide(present)},
        exception_handlers=errors.HANDLERS,
        include_in_schema=False,
    )
    return [entrance.root, console]


__all__ = ["pages"]
