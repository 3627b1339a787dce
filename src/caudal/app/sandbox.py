"""Composition root of `caudal sandbox`."""

from __future__ import annotations

import os

from caudal.core import logs
from caudal.core.lifecycle import Lifecycle, run
from caudal.core.settings import load
from caudal.sandbox import demo
from caudal.sandbox.server import Sandbox
from caudal.sandbox.settings import SandboxSettings

log = logs.get("sandbox")


async def serve(
    *, port: int | None = None, whatsapp_webhook: str | None = None, instagram_webhook: str | None = None
) -> int:
    """Run the sandbox with the demonstration's accounts until told to stop; returns the exit status."""
    overrides = {} if port is None else {"sandbox_port": port}
    settings = load(SandboxSettings, os.environ, **overrides)
    logs.configure()

    async def start(life: Lifecycle) -> None:
        sandbox = Sandbox(
            settings.sandbox_host,
            settings.sandbox_port,
            seed=settings.sandbox_seed,
            first_pause=settings.sandbox_retry_first,
        )
        await sandbox.start(life)
        demo.populate(sandbox.world, whatsapp_webhook=whatsapp_webhook, instagram_webhook=instagram_webhook)
        log.info("the sandbox answers", url=sandbox.url, control=f"{sandbox.url}/control")

    return await run(start)
