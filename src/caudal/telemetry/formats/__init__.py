"""Payload formats: siblings of one shape, found by name.

A format is a module here with `NAME`, `recognises(doc) -> Match` and `decode(doc, context) -> Decoded`, where
`doc` is the parsed JSON; it raises RefusedError when the whole message is a dead letter. It may have
`fast(payload, context) -> Decoded | None`, which reads the bytes itself and gives None for whatever it is
not sure of; the slow road then finds the reason. It may have `KINDS`, a frozenset of the kinds of topic it
may come on, when these are not `telem` and `asset`. `docs/formats.md` has the ten lines. Modules whose name
starts with an underscore are no formats.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Final

import msgspec

from caudal.telemetry.fields import Context
from caudal.telemetry.model import Decoded, Match

_KINDS: Final = frozenset({"telem", "asset"})


class Format(msgspec.Struct, frozen=True):
    name: str
    recognises: Callable[[object], Match]
    decode: Callable[[object, Context], Decoded]
    fast: Callable[[bytes, Context], Decoded | None] | None = None
    kinds: frozenset[str] = _KINDS
    """The kinds of topic it may come on."""


def _load(module: ModuleType) -> Format:
    return Format(
        module.NAME,
        module.recognises,
        module.decode,
        getattr(module, "fast", None),
        getattr(module, "KINDS", _KINDS),
    )


def discover() -> Mapping[str, Format]:
    """All formats by name."""
    names = [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")]
    found = [_load(importlib.import_module(f"{__name__}.{name}")) for name in names]
    formats = {format_.name: format_ for format_ in found}
    if len(formats) != len(found):
        raise RuntimeError(f"two formats share a name: {sorted(f.name for f in found)}")
    return formats
