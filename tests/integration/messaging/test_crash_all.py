"""Everything killed at once under load: API, router, connectors, gateway, PostgreSQL, Kafka.

What is said to phones goes through real connectors to the sandbox and its receipts come back; what is said
to people comes by a socket that is resumed; files go up all the while. CAUDAL_CRASH_SECONDS makes it longer.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import httpx
import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from caudal.core import db
from caudal.core.lifecycle import Lifecycle
from caudal.core.seal import Sealer
from caudal.messaging.accounts import ChannelAccounts, NewAccount
from caudal.sandbox import demo
from caudal.sandbox.model import MESSAGES_A_PHONE, Limits
from caudal.sandbox.server import Sandbox
from tests.integration.messaging.stack import KEY, Stack, sign_in, stack
from tests.integration.messaging.test_crash import SECONDS, left, write

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400 + SECONDS)]

CONVERSATIONS = 4
NAMES = ("api", "router", "connector", "connector two", "gateway")


@asynccontextmanager
async def phones() -> AsyncIterator[Sandbox]:
    """A provider that stays up, with a number that has no limits of its own."""
    life = Lifecycle()
    sandbox = Sandbox(first_pause=0.05)
    await sandbox.start(life)
    account = demo.whatsapp_account()
    account.limits = Limits(per_second=10_000, pair_burst=10**6, strangers="open")
    sandbox.world.accounts[account.id] = account
    try:
        yield sandbox
    finally:
        await life.stop()


async def set_up(made: Stack, sandbox: Sandbox) -> None:
    """The tenant's number, and where its webhooks go."""
    (account,) = sandbox.world.accounts.values()
    async with db.tenant_transaction(made.pool, "default") as connection:
        added = await ChannelAccounts(Sealer(KEY)).add(
            connection,
            NewAccount(
                channel="whatsapp", provider_account=account.id, token=account.token,
                app_secret=account.app_secret, verify_token=account.verify_token, per_second=10_000,
                pair_burst=10**6,
            ),
        )  # fmt: skip
    account.webhook_url = f"{made.url}{added.webhook_path}"


async def say(base: str, headers: dict[str, str], to: str, until: asyncio.Event) -> list[str]:
    """Numbers to a person, one after the other, each until it is accepted; their ids."""
    accepted: list[str] = []
    async with httpx.AsyncClient(base_url=base, timeout=3, headers=headers) as client:
        for number in itertools.count():
            body = {"conversation_id": "talk", "content": str(number), "recipient_id": to}
            while True:
                try:
                    answer = await client.post(
                        "/v1/messages", json=body, headers={"Idempotency-Key": f"talk {number}"}
                    )
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
                    continue
                if answer.status_code == 202:
                    accepted.append(answer.json()["message_id"])
                    break
                assert answer.status_code == 503, answer.text
                await asyncio.sleep(0.1)
            if until.is_set():
                return accepted
            await asyncio.sleep(0.02)
    raise AssertionError


async def hear(url: str, headers: dict[str, str], heard: list[str]) -> None:
    """A client that comes back with the last id it saw, for ever; the messages it was shown."""
    token = quote(headers["Authorization"].removeprefix("Bearer "))
    last: int | None = 0
    while True:
        try:
            async with connect(f"{url}?token={token}&last_id={last}", proxy=None, open_timeout=3) as socket:
                async for raw in socket:
                    frame = msgspec.json.decode(raw)
                    assert frame["type"] != "gap"
                    if frame["type"] == "new_message":
                        heard.append(frame["message_id"])
                    last = frame.get("id", last)
        except ConnectionClosed as error:
            if error.rcvd is not None and error.rcvd.code == 1008:
                # Our token is good, whatever dies.
                raise
        except (OSError, InvalidHandshake, TimeoutError):
            pass
        await asyncio.sleep(0.05)


async def put(base: str, headers: dict[str, str], until: asyncio.Event) -> dict[str, str]:
    """Files, one after the other; what was promised: SHA-256 by id."""
    kept: dict[str, str] = {}
    async with httpx.AsyncClient(base_url=base, timeout=5, headers=headers) as client:
        while not until.is_set():
            data = os.urandom(400_000)
            try:
                answer = await client.post(
                    "/v1/files", data={"conversation_id": "files"}, files={"file": ("f", data)}
                )
            except httpx.TransportError:
                await asyncio.sleep(0.1)
                continue
            if answer.status_code == 201:
                kept[answer.json()["file_id"]] = hashlib.sha256(data).hexdigest()
                await asyncio.sleep(0.05)
            else:
                assert answer.status_code == 503, answer.text
                await asyncio.sleep(0.1)
    return kept


async def quiet(made: Stack, sandbox: Sandbox) -> bool:
    """Nothing is on its way any more, receipts included."""
    if sandbox.hooks.waiting or await left(made) != (0, 0):
        return False
    known = await made.pool.fetchval(
        "select not exists (select from caudal.log_group g join caudal.log_partition p"
        " using (topic_id, partition) where p.next_offset > g.committed)"
        " and not exists (select from caudal.delivery where state = 'sent' and channel = 'whatsapp')"
    )
    return bool(known)


# It has its own crowd of processes, and patience that ends.
@pytest.mark.alone
@pytest.mark.parametrize("kind", ["postgres", "kafka"])
async def test_nothing_is_lost_doubled_or_reordered(kind: str, request: pytest.FixtureRequest) -> None:
    broker = request.getfixturevalue("kafka_broker") if kind == "kafka" else None
    victims = ["connector", "gateway", "postgres", "api", "connector two", "router"]
    victims += ["kafka"] if broker else []
    chance = random.Random(11)
    heard: list[str] = []
    async with (
        phones() as sandbox,
        stack(broker, *NAMES, WHATSAPP_API_BASE=sandbox.url, BREAKER_FAILURES="100000") as made,
    ):
        await set_up(made, sandbox)
        headers, theirs = await sign_in(made.url), await sign_in(made.url, "bea")
        bea = await made.pool.fetchval("select id::text from caudal.person where username = 'bea'")
        done = asyncio.Event()
        listener = asyncio.create_task(
            hear(f"ws://127.0.0.1:{made.gateway_port}/notifications", theirs, heard), name="listener"
        )
        writers = {f"c{n}": asyncio.create_task(write(made.url, headers, f"c{n}", done), name=f"c{n}")
                   for n in range(CONVERSATIONS)}  # fmt: skip
        talk = asyncio.create_task(say(made.url, headers, bea, done), name="talk")
        files = asyncio.create_task(put(made.url, headers, done), name="files")
        watcher = asyncio.create_task(made.watch(), name="watcher")
        began = asyncio.get_running_loop().time()
        for victim in itertools.cycle(victims):
            await asyncio.sleep(chance.uniform(0.5, 1.2))
            await made.kill(victim)
            if asyncio.get_running_loop().time() - began > SECONDS and set(victims) <= set(made.kills):
                break
        done.set()
        accepted = {name: await task for name, task in writers.items()}
        said, kept = await talk, await files
        try:
            async with asyncio.timeout(150):
                while not await quiet(made, sandbox) or len(set(heard)) < len(said):
                    assert not listener.done(), listener.result()
                    await asyncio.sleep(0.2)
        except TimeoutError:
            pytest.fail(await made.standing())
        watcher.cancel()
        listener.cancel()
        rows = await made.pool.fetch(
            "select c.name, m.id::text as id, m.content, d.state, d.address, d.reason,"
            " count(*) over (partition by m.id) as n"
            " from caudal.message m join caudal.conversation c on c.id = m.conversation_id"
            " left join caudal.delivery d on d.message_id = m.id and d.channel = 'whatsapp'"
            " where c.name like 'c%' order by c.id, m.place"
        )
        async with httpx.AsyncClient(base_url=made.url, timeout=20, headers=headers) as client:
            lost_files = []
            for number, digest in kept.items():
                content = (await client.get(f"/v1/files/{number}/content")).content
                if hashlib.sha256(content).hexdigest() != digest:
                    lost_files.append(number)
        shown = {phone.address: [entry.text for entry in phone.messages if entry.direction == "in"]
                 for phone in sandbox.world.phones.values()}  # fmt: skip
    states = Counter(row["state"] for row in rows)
    report = f"{len(rows)} to phones {dict(states)}, {len(said)} to bea, {len(kept)} files, {made.kills}"
    report += "".join({f"\n{row['reason']}" for row in rows if row["state"] == "failed"})
    # What was promised is there, once, in its order, and in one terminal state.
    for name, ids in accepted.items():
        assert [row["id"] for row in rows if row["name"] == name] == ids, report
    assert all(row["n"] == 1 for row in rows), report
    assert set(states) <= {"delivered", "unknown"}, report
    for name in accepted:
        mine = [row for row in rows if row["name"] == name]
        on_phone = shown.get(mine[0]["address"], [])
        assert len(on_phone) == len(set(on_phone)), report
        assert on_phone == sorted(on_phone, key=lambda text: int(text or -1)), report
        arrived = [row["content"] for row in mine if row["state"] == "delivered"]
        # A phone keeps so many, the newest.
        assert on_phone == arrived[-MESSAGES_A_PHONE:], report
    # Bea heard everything, once, in order.
    assert heard == said, report
    assert lost_files == [], report
    assert states["unknown"] <= len(made.kills) * CONVERSATIONS, report
    print(report)
