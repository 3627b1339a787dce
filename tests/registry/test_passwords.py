"""Passwords are hashed dearly, off the loop, and not for more people at once than can be served."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from caudal.core.errors import Unavailable
from caudal.registry import passwords
from tests.conftest import PASSWORD_COST


@pytest.fixture
def hasher(monkeypatch: pytest.MonkeyPatch) -> Iterator[passwords.Passwords]:
    """As in production; all other tests hash cheaply."""
    monkeypatch.setattr(passwords, "COST", PASSWORD_COST)
    made = passwords.Passwords(threads=1)
    yield made
    made.close()


async def test_the_hash_is_argon2id_of_owasps_minimum(hasher: passwords.Passwords) -> None:
    hashed = await hasher.hash("hunter2")
    assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await hasher.verify(hashed, "hunter2")
    assert not await hasher.verify(hashed, "hunter3")
    assert not await hasher.verify(None, "nobody")
    assert not await hasher.verify("no hash", "hunter2")


async def test_who_would_wait_behind_too_many_is_sent_away(
    hasher: passwords.Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "WAITING_MAX", 3)
    came = await asyncio.gather(*(hasher.hash("x") for _ in range(5)), return_exceptions=True)
    assert [type(one) for one in came] == [str, str, str, Unavailable, Unavailable]
    assert await hasher.hash("x")
