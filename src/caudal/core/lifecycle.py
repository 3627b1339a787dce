"""Starting a process's parts in order, noticing when one dies, stopping them in reverse.

Every long-running task belongs to a `Lifecycle` and has a name. A task that ends by itself, with or without
an error, asks the process to stop: a process that limps on without one of its parts is worse than one that
its supervisor restarts.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from caudal.core import logs

log = logs.get("lifecycle")
Stop = Callable[[], Awaitable[None]]


class Lifecycle:
    """Owner of a process's parts and tasks.

    `grace` is the time in seconds that each part has for its stop before it is abandoned.
    """

    def __init__(self, *, grace: float = 8.0) -> None:
        self._grace = grace
        self._stops: list[tuple[str, Stop]] = []
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._stopping = asyncio.Event()
        self.failure: BaseException | None = None

    def on_stop(self, name: str, stop: Stop) -> None:
        """Have `stop` called when the process stops; last registered, first stopped."""
        self._stops.append((name, stop))

    def spawn(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` as a task of this process; it is cancelled in its turn when the process stops."""
        task = asyncio.create_task(work, name=name)
        self._tasks[name] = task
        task.add_done_callback(self._ended)

        async def cancel() -> None:
            task.cancel()
            await asyncio.wait([task])

        self.on_stop(name, cancel)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if self._stopping.is_set() or task.cancelled():
            return
        error = task.exception()
        self.failure = error or RuntimeError(f"{task.get_name()} ended by itself")
        log.error("a part died", part=task.get_name(), error=repr(self.failure))
        self._stopping.set()

    def request_stop(self) -> None:
        """Ask the process to stop; returns at once."""
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._stopping.is_set()

    async def wait(self) -> None:
        """Return once somebody asked for the process to stop, or one of its tasks died."""
        await self._stopping.wait()

    async def stop(self) -> None:
        """Stop everything in reverse order; a part that overruns its grace is logged and left behind."""
        self._stopping.set()
        while self._stops:
            name, stop = self._stops.pop()
            try:
                await asyncio.wait_for(stop(), self._grace)
            except TimeoutError:
                log.error("a part did not stop in time", part=name, grace_seconds=self._grace)
            except Exception as error:
                log.error("a part failed to stop", part=name, error=repr(error))

    def catch_signals(self) -> None:
        """Turn SIGINT and SIGTERM into an orderly stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.request_stop)


async def run(start: Callable[[Lifecycle], Awaitable[object]], *, grace: float = 8.0) -> int:
    """Start a process's parts with `start`, wait, stop; returns the exit status (1 when a part failed).

    When `start` itself fails, what it had started is stopped again before the error goes on. Who asks for a
    stop before it is done need not wait for it: it is cancelled, and what it had started is stopped.
    """
    life = Lifecycle(grace=grace)
    life.catch_signals()
    try:
        starting = asyncio.ensure_future(start(life))
        stopping = asyncio.create_task(life.wait(), name="wait for the stop")
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
        else:
            starting.cancel()
            done, _ = await asyncio.wait([starting], timeout=grace)
            if done and not starting.cancelled() and (error := starting.exception()):
                log.error("a part failed to start while it was stopped", error=repr(error))
        await stopping
    finally:
        await life.stop()
    return 1 if life.failure else 0
