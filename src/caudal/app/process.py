"""What every process of ours does around its own parts: logs, uvloop, signals, an exit status."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Awaitable, Callable

import uvloop

from caudal.core import logs, tracing
from caudal.core.lifecycle import Lifecycle, run
from caudal.core.settings import load


def run_process(
    start: Callable[[Lifecycle], Awaitable[object]], *, grace: float = 8.0, level: str = "info"
) -> int:
    """Run a process whose parts `start` starts, until it is told to stop; returns the exit status."""
    _raise_file_limit()
    logs.configure(level=os.environ.get("LOG_LEVEL", level))
    name = start.__module__.rpartition(".")[2]
    end_traces = tracing.configure(load(tracing.TracingSettings, os.environ), f"caudal-{name}")
    try:
        return uvloop.run(run(start, grace=grace))
    finally:
        end_traces()


def _raise_file_limit() -> None:
    """Take as many open files as the system grants: 1,024, the usual default, is a thousand devices."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
