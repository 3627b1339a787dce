"""Rates shared by workers, pairs that borrow and repay, and circuit breakers."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caudal.core.metrics import Metrics
from caudal.messaging.limits import Breaker, Breakers, Limits, State
from caudal.messaging.provider import Account, Secrets, Verdict


def account(number: int = 1, **change: Any) -> Account:
    fields: dict[str, Any] = {
        "id": number, "tenant_id": 1, "tenant": "acme", "channel": "whatsapp", "provider_account": "1",
        "name": "", "secrets": Secrets(), "per_second": 80, "media_per_second": 80, "pair_interval": 0,
        "pair_burst": 1, "window_seconds": None, "template": None, "human_agent": False, "problem": None,
    }  # fmt: skip
    return Account(**{**fields, **change})


def limits(pool: asyncpg.Pool[Any], patience: float = 0) -> Limits:
    return Limits(pool, patience=patience, operator_pause=60)


async def test_two_workers_share_a_numbers_rate(pool: asyncpg.Pool[Any]) -> None:
    # So slow that nothing is repaid while the test runs: a burst of two, then one in 50 seconds.
    mine = account(per_second=0.02)
    workers = [limits(pool), limits(pool)]
    turns = await asyncio.gather(*(workers[n % 2].take(mine, f"+{n}", media=False) for n in range(8)))
    assert sum(turn.taken for turn in turns) == 1
    assert all(40 < turn.wait <= 50 for turn in turns if not turn.taken)


async def test_places_are_handed_out_ahead_and_in_turn(pool: asyncpg.Pool[Any]) -> None:
    patient = limits(pool, patience=60)
    turns = [await patient.take(account(per_second=0.1), "+1", media=False) for _ in range(8)]
    waits = [round(turn.wait) for turn in turns]
    assert [turn.taken for turn in turns] == [True] * 7 + [False]
    assert waits == [0, 10, 20, 30, 40, 50, 60, 70]


async def test_numbers_are_apart(pool: asyncpg.Pool[Any]) -> None:
    one = limits(pool)
    assert (await one.take(account(1, per_second=0.01), "+1", media=False)).taken
    assert not (await one.take(account(1, per_second=0.01), "+2", media=False)).taken
    assert (await one.take(account(2, per_second=0.01), "+1", media=False)).taken
    assert (await one.take(account(1, media_per_second=0.01), "+1", media=True)).taken


async def test_a_pair_borrows_45_and_repays(pool: asyncpg.Pool[Any]) -> None:
    one = limits(pool)
    mine = account(per_second=100_000, pair_interval=6, pair_burst=45)
    taken = [(await one.take(mine, "+1", media=False)).taken for _ in range(46)]
    assert taken == [True] * 45 + [False]
    assert (await one.take(mine, "+2", media=False)).taken
    assert 5 < (await one.take(mine, "+1", media=False)).wait <= 6


async def test_what_is_given_back_is_there_again(pool: asyncpg.Pool[Any]) -> None:
    one = limits(pool)
    mine = account(per_second=0.01, pair_interval=100)
    assert (await one.take(mine, "+1", media=False)).taken
    await one.give_back(mine, "+1", media=False)
    assert (await one.take(mine, "+1", media=False)).taken


async def test_a_pairs_refusals_wait_four_times_longer_each(pool: asyncpg.Pool[Any]) -> None:
    one = limits(pool)
    mine = account(pair_interval=0.001)
    waits = []
    for _ in range(4):
        waits.append(round(await one.hold(mine, "+1", Verdict.PAIR, None)))
        await pool.execute("update caudal.channel_limit set not_before = clock_timestamp()")
    assert waits == [1, 4, 16, 64]
    assert (await one.take(mine, "+2", media=False)).taken
    await one.ease(mine, "+1")
    assert round(await one.hold(mine, "+1", Verdict.PAIR, None)) == 1


async def test_a_number_told_to_slow_down_does(pool: asyncpg.Pool[Any]) -> None:
    one = limits(pool)
    assert await one.hold(account(), "+1", Verdict.SLOW_DOWN, 30) == pytest.approx(30, abs=0.5)
    for media in (False, True):
        turn = await one.take(account(), "+2", media=media)
        assert not turn.taken
        assert turn.wait > 29


class Hands:
    """A clock that only moves when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_five_failures_open_and_one_success_closes() -> None:
    clock, seen = Hands(), []
    breaker = Breaker(5, 30, changed=lambda old, new: seen.append((old.name, new.name)), clock=clock)
    for _ in range(5):
        assert breaker.admit() == 0
        breaker.failed()
    assert breaker.admit() == 30
    clock.now = 29.5
    assert breaker.admit() == 0.5
    clock.now = 30
    assert breaker.admit() == 0
    assert breaker.admit() > 0
    breaker.failed()
    assert breaker.admit() == 30
    clock.now = 60
    assert breaker.admit() == 0
    breaker.succeeded()
    assert breaker.admit() == 0
    assert seen == [
        ("CLOSED", "OPEN"), ("OPEN", "HALF_OPEN"), ("HALF_OPEN", "OPEN"), ("OPEN", "HALF_OPEN"),
        ("HALF_OPEN", "CLOSED"),
    ]  # fmt: skip


@given(st.lists(st.sampled_from(["admit", "fail", "succeed", "unused", "wait"]), max_size=60))
def test_whatever_happens_an_open_breaker_lets_somebody_try_in_the_end(steps: list[str]) -> None:
    clock = Hands()
    breaker = Breaker(3, 10, clock=clock)
    for step in steps:
        if step == "wait":
            clock.now += 4
        elif step == "admit":
            if breaker.admit() == 0:
                breaker.unused()
        else:
            {"fail": breaker.failed, "succeed": breaker.succeeded, "unused": breaker.unused}[step]()
    breaker.unused()
    clock.now += 10
    assert breaker.admit() == 0
    breaker.succeeded()
    assert breaker.state is State.CLOSED


def test_the_metric_shows_the_worst_account() -> None:
    metrics = Metrics()
    breakers = Breakers(metrics, ["whatsapp"], failures=1, seconds=30)

    def shown(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"channel": "whatsapp", **labels})

    assert shown("circuit_breaker_state") == 0
    breakers.of("whatsapp", 1).succeeded()
    breakers.of("whatsapp", 2).failed()
    assert shown("circuit_breaker_state") == 1
    moved = {"from": "closed", "to": "open"}
    assert shown("circuit_breaker_transitions_total", **moved) == 1
