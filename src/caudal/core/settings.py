"""How settings are declared and read.

Each domain declares a frozen msgspec struct in its own `settings.py`; a field's environment variable is its
name in capitals, unless `setting()` says otherwise. Only composition roots call `load`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar, get_type_hints

import msgspec

from caudal.core.errors import SettingsError

T = TypeVar("T", bound=msgspec.Struct)


class SettingDoc(NamedTuple):
    """One row of the settings table: variable, default as text, sentence."""

    variable: str
    default: str
    sentence: str


def setting(sentence: str, *, env: str | None = None, **constraints: Any) -> msgspec.Meta:
    """Metadata for `Annotated[...]`: what the setting means, its variable, and msgspec constraints."""
    return msgspec.Meta(description=sentence, extra={"env": env}, **constraints)


def _meta(hint: Any) -> tuple[str | None, str]:
    for item in getattr(hint, "__metadata__", ()):
        if isinstance(item, msgspec.Meta):
            return (item.extra or {}).get("env"), item.description or ""
    return None, ""


def _variables(kind: type[msgspec.Struct]) -> dict[str, tuple[str, str]]:
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for field in msgspec.structs.fields(kind):
        env, sentence = _meta(hints[field.name])
        found[field.name] = (env or field.name.upper(), sentence)
    return found


def load(kind: type[T], environ: Mapping[str, str], **overrides: Any) -> T:
    """Read `kind` from the environment. An empty variable counts as unset; `overrides` win.

    Raises SettingsError naming the variable and what is wrong with it.
    """
    raw: dict[str, Any] = {}
    for name, (variable, _) in _variables(kind).items():
        value = environ.get(variable, "")
        if name in overrides:
            raw[name] = overrides[name]
        elif value != "":
            raw[name] = value
    try:
        return msgspec.convert(raw, kind, strict=False)
    except msgspec.ValidationError as error:
        text = str(error)
        for name, (variable, _) in _variables(kind).items():
            if f"$.{name}" in text or f"`{name}`" in text:
                raise SettingsError(f"{variable}: {text}. Correct it in the environment.") from error
        raise SettingsError(text) from error


def describe(kind: type[msgspec.Struct]) -> list[SettingDoc]:
    """The rows of the settings table for one struct, in order of declaration."""
    variables = _variables(kind)
    rows = []
    for field in msgspec.structs.fields(kind):
        variable, sentence = variables[field.name]
        if field.default is not msgspec.NODEFAULT:
            value = field.default
        elif field.default_factory is not msgspec.NODEFAULT:
            value = field.default_factory()
        else:
            value = None
        default = "" if value is None else ",".join(value) if isinstance(value, tuple) else str(value)
        rows.append(SettingDoc(variable, default, sentence))
    return rows
