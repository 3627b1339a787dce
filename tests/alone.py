"""Tests that measure time run while no other test does, whatever the number of processes.

Every test holds a lock with others, one that is marked `alone` holds it by itself. Who waits for that takes
its turn first, so that the others, who want the turn as well, cannot keep it waiting for ever.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(file: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock of this machine's processes, by a file that is made if need be."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


@contextmanager
def turn(folder: Path, *, alone: bool) -> Iterator[None]:
    """Hold the tests' lock with others, or alone."""
    if alone:
        with locked(folder / "turn.lock"), locked(folder / "tests.lock"):
            yield
    else:
        with locked(folder / "turn.lock"):
            pass
        with locked(folder / "tests.lock", shared=True):
            yield
