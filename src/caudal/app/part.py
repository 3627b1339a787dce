"""A process of the platform, as `caudal up` starts it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import msgspec

from caudal.core.lifecycle import Lifecycle

Starter: TypeAlias = Callable[[Lifecycle], Awaitable[dict[str, str]]]
"""Starts a process of the platform; returns its endpoints by name, as `endpoints.json` has them."""


class Part(msgspec.Struct, frozen=True):
    """A process of the platform: its name, its command line, its ports by variable and usual number."""

    name: str
    arguments: tuple[str, ...]
    ports: Mapping[str, int] = msgspec.field(default_factory=dict)
    environ: Mapping[str, str] = msgspec.field(default_factory=dict)
