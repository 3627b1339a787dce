"""Clocks: exact to the microsecond, over every year there is, and honest about what has no offset."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caudal.telemetry import timestamps
from caudal.telemetry.timestamps import EPOCH, MAX_US, MIN_US, TimestampError, from_iso, from_unix, micros

zones = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59)).map(
    lambda d: timezone(timedelta(minutes=d // timedelta(minutes=1)))
)
moments = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=zones)


def at(text: str) -> int:
    return micros(datetime.fromisoformat(text))


@given(moments)
def test_round_trip(moment: datetime) -> None:
    assert from_iso(moment.isoformat(), None) == (micros(moment), False)
    assert EPOCH + timedelta(microseconds=micros(moment)) == moment


@given(moments, st.text("0123456789", min_size=1, max_size=12))
def test_the_careful_reading_is_that_of_the_fast_road(moment: datetime, digits: str) -> None:
    text = f"{moment.replace(microsecond=0, tzinfo=None).isoformat()}.{digits}{moment:%z}"
    fast = msgspec.json.decode(msgspec.json.encode(text), type=datetime)
    assert from_iso(text, None)[0] == micros(fast)
    assert timestamps._from_unusual_iso(text, None)[0] == micros(fast)


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_an_error(text: str) -> None:
    try:
        us, _ = from_iso(text, ZoneInfo("America/Sao_Paulo"))
    except TimestampError:
        return
    assert MIN_US <= us <= MAX_US


@given(st.one_of(st.integers(), st.floats(), st.integers(10**300, 10**310)))
def test_any_number_is_a_time_or_an_error(number: float) -> None:
    try:
        us = from_unix(number)
    except TimestampError:
        return
    assert MIN_US <= us <= MAX_US
    assert abs(us - number * 1_000_000) <= max(1, abs(us) * 1e-15)


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("2025-10-07t15:30:00z", "2025-10-07T15:30:00+00:00"),
        ("2025-10-07 15:30:00 Z", "2025-10-07T15:30:00+00:00"),
        ("20251007T153000Z", "2025-10-07T15:30:00+00:00"),
        ("20251007T1530-0300", "2025-10-07T18:30:00+00:00"),
        ("2025-10-07T15:30Z", "2025-10-07T15:30:00+00:00"),
        ("2025-10-07T15:30:00+03", "2025-10-07T12:30:00+00:00"),
        ("2025-10-07T15:30:00-00:00", "2025-10-07T15:30:00+00:00"),
        ("2025-10-07T15:30:00,5Z", "2025-10-07T15:30:00.5+00:00"),
        ("2025-10-07T15:30:00.1234564999Z", "2025-10-07T15:30:00.123456+00:00"),
        ("2025-10-07T15:30:00.1234565Z", "2025-10-07T15:30:00.123457+00:00"),
        ("2025-12-31T23:59:59.9999999Z", "2026-01-01T00:00:00+00:00"),
        ("2025-10-07T24:00:00Z", "2025-10-08T00:00:00+00:00"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00+00:00"),
        ("2016-12-31T23:59:60.25Z", "2017-01-01T00:00:00.25+00:00"),
        ("2017-01-01T08:59:60+09:00", "2017-01-01T00:00:00+00:00"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00+00:00"),
    ],
)
def test_forms_of_a_time(text: str, same_as: str) -> None:
    assert from_iso(text, None) == (at(same_as), False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2025-10-07",
        "15:30:00Z",
        "2025-W41-2T15:30:00Z",
        "2025-280T15:30:00Z",
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "-0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "9999-12-31T23:59:59.9999999Z",
        "2025-02-29T00:00:00Z",
        "2025-13-01T00:00:00Z",
        "2025-10-07T25:00:00Z",
        "2025-10-07T24:00:01Z",
        "2025-10-07T15:60:00Z",
        "2025-10-07T15:30:61Z",
        "2025-10-07T15:30:60Z",
        "2025-10-07T23:59:60-03:00",
        "2025-10-07T15:30:00+24:00",
        "2025-10-07T15:30:00+03:60",
        "2025-10-07T15:30:00Z ",
        "2025-10-07T15:30:00UTC",
        "٢٠٢٥-10-07T15:30:00Z",
        "2025-10-07T15:30:00.Z",
    ],
)
def test_no_times(text: str) -> None:
    with pytest.raises(TimestampError):
        from_iso(text, UTC)


SAO_PAULO = ZoneInfo("America/Sao_Paulo")
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "zone", "same_as"),
    [
        ("2025-10-07T12:30:00", None, "2025-10-07T12:30:00+00:00"),
        ("2025-10-07T12:30:00", SAO_PAULO, "2025-10-07T12:30:00-03:00"),
        ("2025-07-01T12:00:00", BERLIN, "2025-07-01T12:00:00+02:00"),
        ("2025-01-01T12:00:00", BERLIN, "2025-01-01T12:00:00+01:00"),
        # The hour that comes twice: its first pass.
        ("2025-10-26T02:30:00", BERLIN, "2025-10-26T02:30:00+02:00"),
        ("2018-02-17T23:30:00", SAO_PAULO, "2018-02-17T23:30:00-02:00"),
        # The hour that is skipped: the clock had not been set forward yet.
        ("2025-03-30T02:30:00", BERLIN, "2025-03-30T02:30:00+01:00"),
        ("2018-11-04T00:30:00", SAO_PAULO, "2018-11-04T00:30:00-03:00"),
    ],
)
def test_without_an_offset(text: str, zone: ZoneInfo | None, same_as: str) -> None:
    assert from_iso(text, zone) == (at(same_as), True)


def test_an_offset_beats_the_zone() -> None:
    assert from_iso("2025-10-07T12:30:00Z", SAO_PAULO) == (at("2025-10-07T12:30:00+00:00"), False)


def test_unix() -> None:
    assert from_unix(1_552_594_568) == at("2019-03-14T20:16:08+00:00")
    assert from_unix(1_552_594_568.1) == at("2019-03-14T20:16:08.1+00:00")
    assert from_unix(-0.5) == at("1969-12-31T23:59:59.5+00:00")
    assert from_unix(1_552_594_568_123, 1000) == at("2019-03-14T20:16:08.123+00:00")
    for number in (1e30, -1e30, 10**40, float("nan"), float("inf")):
        with pytest.raises(TimestampError):
            from_unix(number)
