"""The routes, one module for each resource, found by name.

A module has `ROUTES` (handlers or controllers) and, where it needs more than the database, `NEEDS`: the names
of services that `create_app` is given. A new module is a new file here; one whose name begins with `_` has no
routes.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Set
from functools import cache
from types import ModuleType
from typing import Any


@cache
def modules() -> tuple[ModuleType, ...]:
    """All of them, imported when somebody asks: most processes serve one resource of these, their health."""
    return tuple(
        importlib.import_module(f"{__name__}.{module.name}")
        for module in pkgutil.iter_modules(__path__)
        if not module.name.startswith("_")
    )


def resources(services: Set[str]) -> list[Any]:
    """The routes of every module whose needs `services` meets."""
    routes: list[Any] = []
    for module in modules():
        if getattr(module, "NEEDS", frozenset()) <= services:
            routes.extend(module.ROUTES)
    return routes
