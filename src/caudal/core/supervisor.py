"""Running our processes as children: started in order, restarted when they die, stopped in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from caudal.core import logs
from caudal.core.errors import CaudalError
from caudal.core.readiness import VARIABLE

log = logs.get("supervisor")


class StartError(CaudalError):
    """A part did not come up."""

    code = "start"


class Child:
    """One process of ours: a Python module and its arguments.

    `endpoints` is what it announced when it was last ready.
    """

    def __init__(self, name: str, arguments: Sequence[str], environ: Mapping[str, str], out: Path) -> None:
        self.name = name
        self._arguments = list(arguments)
        self._environ = dict(environ)
        self._out = out
        self._process: asyncio.subprocess.Process | None = None
        self._channel: asyncio.StreamWriter | None = None
        self.endpoints: dict[str, str] = {}

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process else None

    async def start(self, *, timeout: float = 60.0) -> dict[str, str]:
        """Start it and return the endpoints it announces. Raises StartError, naming its log."""
        ours, theirs = socket.socketpair()
        with self._out.open("ab") as out:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *self._arguments,
                stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out,
                env={**self._environ, VARIABLE: str(theirs.fileno())}, pass_fds=(theirs.fileno(),),
                # Ctrl-C reaches the whole terminal; children stop when, and in the order, we say.
                start_new_session=True,
            )  # fmt: skip
        theirs.close()
        reader, self._channel = await asyncio.open_connection(sock=ours)
        try:
            line = await asyncio.wait_for(reader.readline(), timeout)
        except TimeoutError:
            line = b""
        except BaseException:
            await self.stop(timeout=1)
            raise
        if not line:
            await self.stop(timeout=1)
            raise StartError(f"{self.name} did not start{self._last_words()}; its log says more: {self._out}")
        self.endpoints = msgspec.json.decode(line, type=dict[str, str])
        return self.endpoints

    def _last_words(self) -> str:
        """What it said of itself at its end, in parentheses; nothing when it said nothing for people."""
        with self._out.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - 4096))
            lines = log.read().decode(errors="replace").splitlines()
        said = next((line for line in reversed(lines) if line.strip()), "")
        return f" ({said.removeprefix('caudal: ')})" if said.startswith("caudal: ") else ""

    async def died(self) -> int:
        """Return its exit status once it has ended."""
        if self._process is None:
            return 0
        return await self._process.wait()

    async def stop(self, *, timeout: float = 6.0) -> None:
        """Ask it to stop, and after `timeout` seconds end it."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), timeout)
        except TimeoutError:
            log.error("a part did not stop in time", part=self.name)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if self._channel is not None:
            self._channel.close()


async def keep_alive(child: Child, *, first: float = 0.2, longest: float = 10.0) -> None:
    """Start `child` again each time it dies, with growing pauses. Cancel to end; stopping is the caller's."""
    pause = first
    while True:
        began = asyncio.get_running_loop().time()
        status = await child.died()
        lived = asyncio.get_running_loop().time() - began
        pause = first if lived > 60 else min(pause * 2, longest)
        log.error("a part died; starting it again", part=child.name, status=status, pause_seconds=pause)
        await asyncio.sleep(pause)
        try:
            await child.start()
        except StartError as error:
            log.error("a part did not come back", part=child.name, error=error.sentence)


def child_environ(environ: Mapping[str, str], **values: str) -> dict[str, str]:
    """The environment for a child: ours, with what we decided for it."""
    merged = {**environ, **{key: value for key, value in values.items() if value != ""}}
    merged.setdefault("PYTHONUNBUFFERED", "1")
    merged["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return merged
