"""The limiter: fair between keys, bounded, exact about time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from caudal.registry.quotas import Limiter


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 30)), max_size=200))
def test_no_more_passes_than_the_rate_allows(steps: list[tuple[float, int]]) -> None:
    clock = Clock()
    limiter = Limiter(10, burst=10, clock=clock)
    passed = 0.0
    for pause, amount in steps:
        clock.now += pause
        if limiter.take("a", amount) == 0.0:
            passed += amount
            # What exceeds the burst leaves a debt: at most one such amount is ahead of time.
            assert passed <= 10 + 10 * clock.now + 20 + 1e-6


def test_one_key_does_not_use_up_anothers() -> None:
    clock = Clock()
    limiter = Limiter(5, clock=clock)
    while limiter.take("flood") == 0.0:
        pass
    assert limiter.take("calm") == 0.0
    assert 0 < limiter.take("flood") <= 0.2
    clock.now += 0.2
    assert limiter.take("flood") == 0.0


def test_a_rate_of_the_keys_own_and_none_at_all() -> None:
    limiter = Limiter(0, clock=Clock())
    assert all(limiter.take("a") == 0.0 for _ in range(1000))
    assert [limiter.take("b", rate=2) == 0.0 for _ in range(3)] == [True, True, False]


def test_keys_are_bounded_and_the_longest_unused_goes() -> None:
    limiter = Limiter(1, keys_max=3, clock=Clock())
    for key in "abcad":
        limiter.take(key)
    assert len(limiter) == 3
    assert limiter.take("a") > 0
    assert limiter.take("b") == 0.0
