"""Who was signed in last, where, and what they have seen: kept in a file that only its owner reads."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec


class Session(msgspec.Struct, kw_only=True):
    """`last_id` is the number of the last notification shown."""

    url: str
    token: str = ""
    user_id: str = ""
    username: str = ""
    last_id: int | None = None


def load(path: Path) -> Session | None:
    """The session kept in `path`, None when there is none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Session)
    except (OSError, msgspec.DecodeError):
        return None


def save(path: Path, session: Session) -> None:
    """Keep `session` in `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    number = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(number, "wb") as out:
        out.write(msgspec.json.encode(session))
    fresh.replace(path)
