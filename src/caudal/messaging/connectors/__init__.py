"""Connectors, found by name: one module each, with a `make`. A new one is a new file and its tests."""

from __future__ import annotations

import importlib
import pkgutil

from caudal.core.errors import NotFound
from caudal.messaging.provider import Connector, ConnectorSettings, Files, Make


def names() -> list[str]:
    """Every connector there is."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def make(name: str, settings: ConnectorSettings, files: Files | None = None) -> Connector:
    """The connector called `name`. Raises NotFound."""
    if name not in names():
        raise NotFound(f"There is no connector {name}. There are: {', '.join(names())}.")
    maker: Make = importlib.import_module(f"{__name__}.{name}").make
    return maker(settings, files)
