"""Device clocks to integers: microseconds since 1970-01-01T00:00:00Z.

Years 1 to 9999. Beyond microseconds, fractions are rounded half up, as PostgreSQL reads them. A leap second
(`:60`, only where UTC has one, at the end of a day) is the first instant of the next day: neither Unix time
nor PostgreSQL has another place for it.
"""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Final

import msgspec

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
SECOND: Final = 1_000_000
DAY: Final = 86_400 * SECOND
MIN_US: Final = (datetime(1, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
MAX_US: Final = (datetime.max.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)

# ISO 8601, extended or basic, date and time both: a day alone is no instant, and a guess would be needed.
_ISO: Final = re.compile(
    r"(?:(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,64}))?)?"
    r"|(\d{4})(\d\d)(\d\d)[Tt](\d\d)(\d\d)(?:(\d\d)(?:[.,](\d{1,64}))?)?)"
    r" ?(?:([Zz])|([+-])(\d\d)(?::?(\d\d)(?::?(\d\d))?)?)?",
    re.ASCII,
)


class TimestampError(ValueError):
    """A text or number that is no instant; the message completes "the field …"."""


def micros(moment: datetime) -> int:
    """An aware datetime as microseconds since the epoch, exactly (a float would lose digits after 2242)."""
    delta = moment - EPOCH
    return delta.days * DAY + delta.seconds * SECOND + delta.microseconds


def from_iso(text: str, zone: tzinfo | None) -> tuple[int, bool]:
    """An ISO 8601 date and time as (microseconds, whether it came without an offset).

    Without an offset the time is on the clock of `zone`, UTC when that is None. Where a clock is set back,
    the hour that comes twice is taken as its first pass; in the hour that is skipped, the clock is taken not
    to have been set forward yet. Both are suspect anyway. Raises TimestampError.
    """
    try:
        usual = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return _from_unusual_iso(text, zone)
    if usual.tzinfo is None:
        return checked(micros(usual.replace(tzinfo=zone or UTC))), True
    return checked(micros(usual)), False


def _from_unusual_iso(text: str, zone: tzinfo | None) -> tuple[int, bool]:
    """All of ISO 8601 that names an instant; some three times as slow."""
    found = _ISO.fullmatch(text)
    if found is None:
        raise TimestampError("is not an ISO 8601 date and time, such as 2025-10-07T15:30:00Z")
    groups = found.groups()
    parts = groups[:7] if groups[0] is not None else groups[7:14]
    year, month, day, hour, minute = (int(p) for p in parts[:5])
    second = int(parts[5] or 0)
    digits = parts[6] or ""
    # Half up on the seventh digit; the carry may reach the next second, and that is right.
    fraction = (int(digits[:7].ljust(7, "0")) + 5) // 10
    leap = second == 60
    midnight = hour == 24
    if midnight and (minute or second or fraction):
        raise TimestampError("is at hour 24, which only 24:00:00 may be")
    zulu, sign, oh, om, osec = groups[14:]
    naive = zulu is None and sign is None
    try:
        moment = datetime(year, month, day, 0 if midnight else hour, minute, 59 if leap else second)
    except ValueError as error:
        raise TimestampError(f"is no date and time that exists: {error}") from None
    if naive:
        us = micros(moment.replace(tzinfo=zone or UTC))
    else:
        offset = 0
        if sign is not None:
            hours, minutes, seconds = int(oh), int(om or 0), int(osec or 0)
            if hours > 23 or minutes > 59 or seconds > 59:
                raise TimestampError("has an offset from UTC of a day or more")
            offset = (hours * 3600 + minutes * 60 + seconds) * (-1 if sign == "-" else 1)
        us = micros(moment.replace(tzinfo=UTC)) - offset * SECOND
    if leap:
        us += SECOND
        if us % DAY:
            raise TimestampError("has a second 60 where no leap second can be")
    if midnight:
        us += DAY
    return checked(us + fraction), naive


def from_unix(value: float, scale: int = SECOND) -> int:
    """Unix time as microseconds; `scale` is microseconds in a unit of it (a second; 1000 for milliseconds).

    A float is taken by its shortest decimal form, so 1552594568.1 has no stray digits. Raises TimestampError.
    """
    if isinstance(value, int):
        return checked(value * scale)
    number = Decimal(repr(value))
    if not number.is_finite() or abs(number) > MAX_US:
        raise TimestampError("is outside the years 1 to 9999")
    return checked(int((number * scale).to_integral_value(rounding="ROUND_HALF_UP")))


def checked(us: int) -> int:
    """`us` itself, when in the years that Python and PostgreSQL can both show; else raises TimestampError."""
    if not MIN_US <= us <= MAX_US:
        raise TimestampError("is outside the years 1 to 9999")
    return us
