"""Composition root of `caudal sandbox`."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping

from caudal.core import logs
from caudal.core.lifecycle import Lifecycle
from caudal.core.readiness import announce
from caudal.core.settings import load
from caudal.sandbox import demo
from caudal.sandbox.server import Sandbox
from caudal.sandbox.settings import SandboxSettings

log = logs.get("sandbox")


def starter(
    *,
    port: int | None = None,
    whatsapp_webhook: str | None = None,
    instagram_webhook: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Callable[[Lifecycle], Awaitable[None]]:
    """The sandbox with the demonstration's accounts and phones."""
    overrides = {} if port is None else {"sandbox_port": port}

    async def start(life: Lifecycle) -> None:
        settings = load(SandboxSettings, environ, **overrides)
        sandbox = Sandbox(
            settings.sandbox_host,
            settings.sandbox_port,
            seed=settings.sandbox_seed,
            first_pause=settings.sandbox_retry_first,
        )
        await sandbox.start(life)
        demo.populate(sandbox.world, whatsapp_webhook=whatsapp_webhook, instagram_webhook=instagram_webhook)
        await announce(life, environ, {"sandbox_url": sandbox.url})
        log.info("the sandbox answers", url=sandbox.url, control=f"{sandbox.url}/control")

    return start
