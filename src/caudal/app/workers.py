"""Router, connectors and upkeep in one process, each with its own port: for one machine."""

from __future__ import annotations

import os
from collections.abc import Mapping

from caudal.app import connector, realtime, router, upkeep
from caudal.core.lifecycle import Lifecycle
from caudal.core.readiness import VARIABLE, announce
from caudal.messaging import connectors


async def start(life: Lifecycle, environ: Mapping[str, str] = os.environ) -> None:
    """Start what production runs as processes of their own; one that fails stops them all."""
    # The parts must not announce themselves: ready is when all of them are.
    inner = {key: value for key, value in environ.items() if key != VARIABLE}
    starters = (
        router.starter(inner),
        *(connector.starter(name, inner) for name in connectors.names()),
        upkeep.starter(inner),
        realtime.starter(inner),
    )
    endpoints: dict[str, str] = {}
    for starter in starters:
        # By what they listen on, not by what they were told: a port of 0 is one that the system finds.
        endpoints |= await starter(life)
    await announce(life, environ, endpoints)
