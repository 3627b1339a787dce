"""Accepting, by several processes at once and of whatever anybody sends."""

from __future__ import annotations

import asyncio
import random
from typing import Any
from uuid import UUID

import msgspec
import pytest

from caudal.core import db
from caudal.core.errors import InvalidInput
from caudal.core.eventlog.postgres import PostgresLog
from caudal.core.metrics import Metrics
from caudal.messaging.accept import Acceptor, Submission
from caudal.messaging.metrics import AcceptMetrics
from caudal.messaging.settings import MessagingSettings
from caudal.registry.permissions import Role
from tests.commits import commits_held
from tests.messaging.conftest import LOG


async def acceptor(platform: Any, life: list[Any]) -> Acceptor:
    """One more, as another API process has it: nothing shared but the database."""
    pool = await db.open_pool(platform.url, minimum=1, maximum=4, role="caudal_app")
    log = PostgresLog(pool, platform.url, LOG, listen=False)
    made = Acceptor(pool, log, MessagingSettings(accept_batch=7), AcceptMetrics(Metrics()))
    life += [pool.close, log.stop, made.stop]
    return made


async def test_two_processes_make_one_order_and_one_message_of_a_key(platform: Any) -> None:
    life: list[Any] = []
    ana, bea = [str((await platform.api.person("default", Role.MEMBER))[0]) for _ in range(2)]
    both = [await acceptor(platform, life) for _ in range(2)]
    chance = random.Random(3)
    # Each key comes to both processes, several times, in three conversations that nobody has begun yet.
    jobs = [(number, door) for number in range(120) for door in (0, 1, chance.randrange(2))]
    chance.shuffle(jobs)

    async def one(number: int, door: int) -> tuple[int, UUID]:
        submission = Submission(
            conversation_id=f"c{number % 3}", sender=ana, content=f"m{number}", recipient=bea,
            idempotency_key=f"k{number}",
        )  # fmt: skip
        return number, await both[door].accept("default", submission)

    try:
        answers = await asyncio.gather(*(one(number, door) for number, door in jobs))
        ids: dict[int, set[UUID]] = {}
        for number, message_id in answers:
            ids.setdefault(number, set()).add(message_id)
        assert all(len(found) == 1 for found in ids.values())
        rows = await platform.admin.fetch(
            "select c.name, m.id, m.place from caudal.message m"
            " join caudal.conversation c on c.id = m.conversation_id order by c.name, m.place"
        )
        assert {row["id"] for row in rows} == {next(iter(found)) for found in ids.values()}
        for name in ("c0", "c1", "c2"):
            mine = [row for row in rows if row["name"] == name]
            assert [row["place"] for row in mine] == list(range(1, 41))
            # The log has the same messages in the same order.
            values = await platform.admin.fetch(
                'select value from caudal.log_record where key = $1 order by "offset"', name
            )
            logged = [msgspec.json.decode(row["value"])["message_id"] for row in values]
            assert logged == [str(row["id"]) for row in mine]
    finally:
        for close in reversed(life):
            await close()


async def test_a_202_waits_for_the_commit(platform: Any) -> None:
    """Not for the statement: a transaction that has done everything but end promises nothing."""
    _, headers = await platform.api.person("default", Role.MEMBER)
    async with commits_held(platform.admin, "caudal.message") as reached:
        asked = asyncio.create_task(platform.send(headers, "c", "hello"), name="asked")
        await reached()
        done, _ = await asyncio.wait([asked], timeout=0.3)
        assert not done
    assert str(await platform.admin.fetchval("select id from caudal.message")) == await asked


@pytest.mark.parametrize("change", ["content", "conversation_id", "recipient", "file_id"])
async def test_a_key_used_for_another_message_is_refused(platform: Any, change: str) -> None:
    _, ha = await platform.api.person("default", Role.MEMBER)
    bea, _ = await platform.api.person("default", Role.MEMBER)
    cid, _ = await platform.api.person("default", Role.MEMBER)
    first = await platform.send(ha, "c", "hello", recipient_id=str(bea), key="k")
    await platform.send(ha, "d", "hello", recipient_id=str(bea))
    upload = await platform.client.post(
        "/v1/files", data={"conversation_id": "c"}, files={"file": ("f", b"x")}, headers=ha
    )
    body = {"conversation_id": "c", "content": "hello", "recipient_id": str(bea)} | {
        "content": {"content": "other"},
        "conversation_id": {"conversation_id": "d"},
        "recipient": {"recipient_id": str(cid)},
        "file_id": {"file_id": upload.json()["file_id"]},
    }[change]
    answer = await platform.client.post("/v1/messages", json=body, headers={**ha, "Idempotency-Key": "k"})
    assert answer.status_code == 400, answer.text
    assert "Idempotency-Key" in answer.json()["error"]
    assert await platform.send(ha, "c", "hello", recipient_id=str(bea), key="k") == first


ABSURD: list[bytes] = [
    b"", b"{", b"[]", b"null", b"\xff\xfe", b'"x"', b"[" * 100_000, b'{"a":' * 50_000,
    b'{"conversation_id": "c", "content": NaN}', b'{"conversation_id": "c", "content": "\\ud800"}',
    b'{"conversation_id": 7, "content": "x"}', b'{"conversation_id": "c", "content": ["x"]}',
    b'{"conversation_id": "c", "content": "x", "file_id": 1e999}',
    b'{"conversation_id": "c", "content": "x", "recipient_id": {"a": 1}}',
    b'{"conversation_id": "c", "content": "' + b"\\u0000" * 10 + b'"}',
    b'{"conversation_id": "\\u0000", "content": "x"}',
    b'{"conversation_id": "c", "content": "' + b"x" * 5_000_000 + b'"}',
    b'{"conversation_id": "' + b"c" * 5_000_000 + b'", "content": "x"}',
]  # fmt: skip


@pytest.mark.parametrize("body", ABSURD, ids=lambda body: f"{len(body)} {body[:24]!r}")
async def test_absurd_bodies_are_refused(platform: Any, body: bytes) -> None:
    _, ha = await platform.api.person("default", Role.MEMBER)
    headers = {**ha, "Content-Type": "application/json"}
    answer = await platform.client.post("/v1/messages", content=body, headers=headers)
    assert answer.status_code in (400, 413), answer.text
    assert answer.json()["error"]
    assert await platform.admin.fetchval("select count(*) from caudal.log_record") == 0


@pytest.mark.parametrize("key", ["", "x" * 256, "k\u00e9"])
async def test_keys_that_cannot_be(platform: Any, key: str) -> None:
    _, ha = await platform.api.person("default", Role.MEMBER)
    answer = await platform.client.post(
        "/v1/messages", json={"conversation_id": "c", "content": "x"},
        headers={**ha, "Idempotency-Key": key.encode("latin-1")},
    )  # fmt: skip
    # What a header may hold, a key may hold.
    assert answer.status_code == (202 if key == "k\u00e9" else 400), answer.text


async def test_a_repeated_member_counts_once_and_unknown_ones_are_passed_over(platform: Any) -> None:
    _, ha = await platform.api.person("default", Role.MEMBER)
    body = b'{"conversation_id": "a", "conversation_id": "b", "content": "x", "colour": {"deep": [1]}}'
    headers = {**ha, "Content-Type": "application/json"}
    answer = await platform.client.post("/v1/messages", content=body, headers=headers)
    assert (answer.status_code, answer.json()["conversation_id"]) == (202, "b")


async def test_when_too_many_wait_it_says_so_at_once(platform: Any) -> None:
    life: list[Any] = []
    pool = await db.open_pool(platform.url, minimum=1, maximum=1, role="caudal_app")
    log = PostgresLog(pool, platform.url, LOG, listen=False)
    made = Acceptor(pool, log, MessagingSettings(accept_queue=3), AcceptMetrics(Metrics()))
    life += [pool.close, log.stop, made.stop]
    ana = str((await platform.api.person("default", Role.MEMBER))[0])
    try:
        async with pool.acquire():
            # Nobody gets a connection: what comes waits, up to the bound.
            asked = [
                asyncio.create_task(
                    made.accept("default", Submission(conversation_id="c", sender=ana, content=str(n)))
                )
                for n in range(5)
            ]
            done, waiting = await asyncio.wait(asked, timeout=0.2)
            assert len(waiting) == 3
            for task in done:
                assert getattr(task.exception(), "status", None) == 503
        assert len({await task for task in waiting}) == 3
        with pytest.raises(InvalidInput):
            await made.accept("default", Submission(conversation_id="c", sender=ana, content=" "))
    finally:
        for close in reversed(life):
            await close()
