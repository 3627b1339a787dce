from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caudal.core.errors import InvalidInput
from caudal.insight import intervals

ZONES = [
    "UTC",
    "America/Sao_Paulo",
    "Europe/Lisbon",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Atlantic/Azores",
    "America/Havana",
    "America/Asuncion",
    "Asia/Beirut",
    "Pacific/Apia",
]
instants = st.datetimes(datetime(2010, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))


@pytest.mark.parametrize("text", ["", "0s", "7h", "-1m", "1y", "5mo", "1.5h", "100000s"])
def test_what_is_no_interval_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        intervals.parse(text)


@given(instants, st.integers(1, 40 * 86400), st.sampled_from(intervals.LADDER[9:]), st.sampled_from(ZONES))
def test_a_grid_covers_its_span_without_hole_or_overlap(
    lo: datetime, length: int, name: str, zone: str
) -> None:
    hi = lo + timedelta(seconds=length)
    interval = intervals.parse(name)
    grid = intervals.grid(lo, hi, interval, ZoneInfo(zone))
    assert grid.lo <= lo
    assert grid.hi >= hi
    if grid.edges:
        assert grid.edges == sorted(set(grid.edges))
        assert len(grid) < 3 or grid.edges[1] > lo
        for edge in grid.edges:  # nothing of a day lies before its first instant
            local, before = (
                edge.astimezone(ZoneInfo(zone)),
                (edge - timedelta(microseconds=1)).astimezone(ZoneInfo(zone)),
            )
            assert local.date() > before.date()
    else:
        assert grid.step is not None
        assert (grid.hi - grid.lo) % grid.step == timedelta()
        assert lo - grid.lo < grid.step
        assert grid.hi - hi < grid.step
        assert grid.lo + len(grid) * grid.step == grid.hi


@given(st.integers(1, 10**9), st.integers(2, 4000))
def test_the_chosen_interval_fits_and_no_finer_one_would(seconds: int, pixels: int) -> None:
    span = timedelta(seconds=seconds)
    chosen = intervals.fitting(span, pixels)
    place = intervals.LADDER.index(chosen.name)
    if chosen.name != intervals.LADDER[-1]:
        assert seconds / chosen.seconds <= pixels
    if place:
        assert seconds / intervals.parse(intervals.LADDER[place - 1]).seconds > pixels


def test_a_day_on_which_clocks_skip_midnight_begins_at_one() -> None:
    zone = ZoneInfo("America/Sao_Paulo")
    day = datetime(2018, 11, 4, 12, tzinfo=UTC)
    grid = intervals.grid(day, day, intervals.parse("1d"), zone)
    assert grid.edges == [datetime(2018, 11, 4, 3, tzinfo=UTC), datetime(2018, 11, 5, 2, tzinfo=UTC)]
