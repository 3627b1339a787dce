"""A client id that two workers never share, and that a worker keeps from one run to the next."""

from __future__ import annotations

import fcntl
import re
import secrets
import socket
from pathlib import Path
from typing import IO

MAX_WORKERS = 256


class WorkerIdentity:
    """The first free number among the workers that use `directory`, held by a lock for as long as we live.

    The name has the host, the number and a random token kept in the locked file: workers of one machine
    differ by number, machines by host, and machines that call themselves alike by token. A worker that starts
    again gets a name that was used before, and with it the session the broker has kept.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._file, self.number = _claim(directory)
        self._file.seek(0)
        token = self._file.read().strip()
        if not re.fullmatch(r"[0-9a-f]{8}", token):
            token = secrets.token_hex(4)
            self._file.seek(0)
            self._file.truncate()
            self._file.write(token)
            self._file.flush()
        host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40]
        self.client_id = f"caudal-{host}-{self.number}-{token}"

    def release(self) -> None:
        """Lets another worker have the name."""
        self._file.close()


def _claim(directory: Path) -> tuple[IO[str], int]:
    for number in range(MAX_WORKERS):
        file = (directory / f"worker-{number}").open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        return file, number
    raise RuntimeError(f"{MAX_WORKERS} workers hold names in {directory} already")
