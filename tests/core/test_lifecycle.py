"""A process's parts: started in order, stopped in reverse, also half way through their start."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import pytest

from caudal.core.lifecycle import Lifecycle, run

Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


class Parts:
    """Parts that note when they are stopped."""

    def __init__(self) -> None:
        self.stopped: list[str] = []

    def add(self, life: Lifecycle, name: str) -> None:
        async def stop() -> None:
            self.stopped.append(name)

        life.on_stop(name, stop)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def parts() -> Parts:
    return Parts()


async def test_stops_in_reverse(parts: Parts) -> None:
    async def start(life: Lifecycle) -> None:
        parts.add(life, "one")
        parts.add(life, "two")
        asyncio.get_running_loop().call_soon(interrupt)

    assert await run(start) == 0
    assert parts.stopped == ["two", "one"]


async def test_a_start_that_fails_unwinds(parts: Parts) -> None:
    async def start(life: Lifecycle) -> None:
        parts.add(life, "one")
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        await run(start)
    assert parts.stopped == ["one"]


async def test_ctrl_c_half_way_does_not_wait_for_the_rest(parts: Parts) -> None:
    cleared = []

    async def start(life: Lifecycle) -> None:
        parts.add(life, "one")
        asyncio.get_running_loop().call_soon(interrupt)
        try:
            await asyncio.Event().wait()  # a part that takes for ever
        finally:
            cleared.append("the part that was starting")
        parts.add(life, "two")

    assert await asyncio.wait_for(run(start), 5) == 0
    assert (parts.stopped, cleared) == (["one"], ["the part that was starting"])


async def test_a_part_that_dies_ends_the_process_with_a_failure(parts: Parts) -> None:
    async def die() -> None:
        raise RuntimeError("broken")

    async def end() -> None: ...

    works: list[Work] = [die, end]
    for work in works:

        async def start(life: Lifecycle, work: Work = work) -> None:
            life.spawn("worker", work())

        assert await asyncio.wait_for(run(start), 5) == 1


async def test_a_part_that_does_not_stop_is_left_behind(parts: Parts) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    async def start(life: Lifecycle) -> None:
        parts.add(life, "one")
        life.on_stop("hangs", hang)
        asyncio.get_running_loop().call_soon(interrupt)

    assert await asyncio.wait_for(run(start, grace=0.05), 5) == 0
    assert parts.stopped == ["one"]
