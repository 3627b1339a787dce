"""What the console needs beyond the API's services: the sandbox's phones, where a sandbox runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from caudal.core.lifecycle import Lifecycle

if TYPE_CHECKING:
    from caudal.app.api import ApiParts

SECONDS = 5.0


async def bring(life: Lifecycle, made: ApiParts) -> None:
    """Give an API process the console's services."""
    if made.web.sandbox_url:
        # Not through a proxy of the environment: the sandbox is on this machine.
        client = httpx.AsyncClient(base_url=made.web.sandbox_url, timeout=SECONDS, trust_env=False)
        life.on_stop("client of the sandbox", client.aclose)
        made.services["sandbox"] = client
