"""The network is held, cut, and half cut, on either side of us: nothing is lost, nothing doubled."""

from __future__ import annotations

import asyncio
import random
from typing import Any
from urllib.parse import urlsplit

import pytest

from caudal.core.postgres import EmbeddedPostgres

from .conftest import rounds
from .load import Load, prove
from .proxy import StallingProxy
from .test_kills import at_random, seed_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

FAULTS = ("stall", "cut", "halve", "stall and halve")


async def disturb(proxy: StallingProxy, what: str, load: Load, chance: random.Random) -> None:
    """One fault, and its end."""
    if "stall" in what:
        proxy.stall()
        # Held for as long as it takes that what is under way stands still.
        before = -1
        while load.totals.acked != before:
            before = load.totals.acked
            await asyncio.sleep(chance.uniform(0.1, 0.3))
    if "cut" in what:
        proxy.cut()
    if "halve" in what:
        proxy.halve()
    proxy.flow()


async def test_between_devices_and_us(
    postgres: EmbeddedPostgres, make_ingest: Any, make_proxy: Any, chance: random.Random
) -> None:
    ingest = await make_ingest(postgres.url)
    proxy = await make_proxy(ingest.port)
    load = Load(proxy.port, seed_of(chance))
    await load.start()
    for _ in rounds(1):
        for what in FAULTS:
            await at_random(load, chance)
            await disturb(proxy, what, load, chance)
    await at_random(load, chance)
    await load.finish()
    assert load.totals.unacked == 0
    assert load.totals.reconnects > 0
    print(await prove(postgres.url, [load], f"seed {seed_of(chance)}"))


async def test_between_us_and_the_database(
    postgres: EmbeddedPostgres, make_ingest: Any, make_proxy: Any, chance: random.Random
) -> None:
    proxy = await make_proxy(postgres.port)
    address = urlsplit(postgres.url)
    far = address._replace(netloc=f"{address.username}:{address.password}@127.0.0.1:{proxy.port}").geturl()
    ingest = await make_ingest(far)
    load = Load(ingest.port, seed_of(chance))
    await load.start()
    for _ in rounds(1):
        for what in FAULTS:
            await at_random(load, chance)
            await disturb(proxy, what, load, chance)
    await at_random(load, chance)
    await load.finish()
    assert load.totals.unacked == 0
    # Devices noticed nothing but slower answers.
    assert load.totals.reconnects == 0
    print(await prove(postgres.url, [load], f"seed {seed_of(chance)}"))
