"""Passwords: Argon2id, off the event loop, with a bounded wait.

Parameters are OWASP's minimum (19 MiB, two passes, one lane): about 20 ms of one core. Two threads hash at a
time; who would have to wait behind 200 others is told to come back instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from caudal.core.errors import Unavailable

T = TypeVar("T")

WAITING_MAX = 200


class Cost(NamedTuple):
    """What a hash costs: passes over so many KiB of memory, in lanes."""

    passes: int
    kib: int
    lanes: int


COST = Cost(2, 19 * 1024, 1)


class Passwords:
    """Hashes and verifies passwords on threads of its own."""

    def __init__(self, *, threads: int = 2) -> None:
        self._hasher = PasswordHasher(time_cost=COST.passes, memory_cost=COST.kib, parallelism=COST.lanes)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._waiting = 0
        # Verified against when there is no such person, so that both answers take as long.
        self._nobody = self._hasher.hash("nobody")

    async def hash(self, password: str) -> str:
        """The Argon2id hash, in PHC form. Raises Unavailable when too many wait."""
        return await self._run(lambda: self._hasher.hash(password))

    async def verify(self, hashed: str | None, password: str) -> bool:
        """Whether `password` is the one hashed; without a hash it takes as long and is False."""

        def check() -> bool:
            try:
                return self._hasher.verify(hashed or self._nobody, password) and hashed is not None
            except (VerificationError, InvalidHashError):
                return False

        return await self._run(check)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= WAITING_MAX:
            raise Unavailable("Too many people sign in at once. Try again in a few seconds.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)
