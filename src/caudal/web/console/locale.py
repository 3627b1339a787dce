"""How a person reads: language, numbers, dates. Two languages: two tables, and no library of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec

from caudal.web.console import reasons, sentences
from caudal.web.console.words import WORDS

Language = Literal["en", "pt"]
LANGUAGES: tuple[Language, ...] = ("en", "pt")
MONTHS: Mapping[Language, tuple[str, ...]] = {
    "en": ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
    "pt": ("jan.", "fev.", "mar.", "abr.", "mai.", "jun.", "jul.", "ago.", "set.", "out.", "nov.", "dez."),
}
# Swaps 1,234.5 into 1.234,5.
_PORTUGUESE = str.maketrans(",.", ".,")


def chosen(cookie: str | None, accept: str) -> Language:
    """The language of a request: what was chosen here, else what the browser prefers, else English."""
    for language in LANGUAGES:
        if cookie == language:
            return language
    ranked: list[tuple[float, int, Language]] = []
    for place, part in enumerate(accept[:500].split(",")):
        name, _, quality = part.strip().partition(";q=")
        try:
            weight = float(quality) if quality else 1.0
        except ValueError:
            continue
        for language in LANGUAGES:
            if name.lower().split("-")[0] == language and weight > 0:
                ranked.append((-weight, place, language))
    return min(ranked)[2] if ranked else "en"


class Locale(msgspec.Struct, frozen=True):
    """A language and the account's time zone."""

    language: Language
    zone: ZoneInfo

    @property
    def tag(self) -> str:
        """As HTML's `lang` wants it."""
        return "pt-BR" if self.language == "pt" else "en"

    def t(self, key: str, **values: object) -> str:
        """The words of a key, with `{name}` replaced. KeyError for a key that the catalogue lacks."""
        text = WORDS[key][LANGUAGES.index(self.language)]
        return text.format(**values) if values else text

    def known(self, family: str, name: str) -> str:
        """The words for a name that others choose (a reason, say), or the name itself where it has none."""
        key = f"{family}.{name}"
        return self.t(key) if key in WORDS else name

    def told(self, sentence: str) -> tuple[str, bool]:
        """A sentence of ours as this person reads it, and whether that is English all the same."""
        if self.language == "en":
            return sentence, False
        own = reasons.portuguese(sentence) or sentences.portuguese(sentence)
        return own or sentence, own is None

    def number(self, value: Any, digits: int | None = None) -> str:
        """A number as people write it; without `digits`, five or six that matter and no trailing zeros."""
        if value is None:
            return "–"
        if digits is not None:
            text = f"{value:,.{digits}f}"
        elif isinstance(value, int):
            text = f"{value:,}"
        else:
            text = _short(float(value))
        return text.translate(_PORTUGUESE) if self.language == "pt" else text

    def percent(self, share: float | None, digits: int = 0) -> str:
        """0.983 as 98%."""
        return "–" if share is None else f"{self.number(share * 100, digits)}%"

    def value(self, value: object) -> str:
        """A reading: number, yes or no, or the device's own word."""
        if isinstance(value, bool):
            return self.t("value.true" if value else "value.false")
        if isinstance(value, (int, float)):
            return self.number(float(value))
        return "–" if value is None else str(value)

    def day(self, when: date | datetime) -> str:
        """20 Nov 2026"""
        if isinstance(when, datetime):
            when = when.astimezone(self.zone).date()
        return f"{when.day} {MONTHS[self.language][when.month - 1]} {when.year}"

    def month(self, when: date | datetime) -> str:
        """Nov 2026"""
        if isinstance(when, datetime):
            when = when.astimezone(self.zone).date()
        return f"{MONTHS[self.language][when.month - 1]} {when.year}"

    def time(self, when: datetime | None) -> str:
        """20 Nov 2026, 08:45:12 in the account's zone."""
        if when is None:
            return "–"
        return f"{self.day(when)}, {when.astimezone(self.zone):%H:%M:%S}"

    def moment(self, iso: str | datetime) -> datetime:
        """An instant as the registry writes it."""
        return iso if isinstance(iso, datetime) else datetime.fromisoformat(iso)

    def since_epoch(self, milliseconds: int) -> datetime:
        """An instant as messages carry it."""
        return datetime.fromtimestamp(milliseconds / 1000, UTC)

    def ago(self, when: datetime | None, now: datetime | None = None) -> str:
        """5 min ago; a clock ahead of ours is said to be."""
        if when is None:
            return self.t("ago.never")
        seconds = ((now or datetime.now(UTC)) - when).total_seconds()
        if seconds < -5:
            return self.t("ago.ahead", span=self.span(-seconds))
        if seconds < 5:
            return self.t("ago.now")
        return self.t("ago.ago", span=self.span(seconds))

    def ago_words(self) -> dict[str, str]:
        """What the script needs to say the same."""
        words = {name: self.t(f"ago.{name}", span="{span}") for name in ("ago", "ahead")}
        sizes = {name: self.t(f"span.{name}", n="{n}") for name in ("days", "hours", "minutes", "seconds")}
        return {"now": self.t("ago.now"), **words, **sizes}

    def span(self, seconds: float | timedelta) -> str:
        """90 as 1 min; the largest unit alone."""
        if isinstance(seconds, timedelta):
            seconds = seconds.total_seconds()
        for size, key in ((86400, "span.days"), (3600, "span.hours"), (60, "span.minutes")):
            if seconds >= size:
                return self.t(key, n=self.number(int(seconds // size)))
        return self.t("span.seconds", n=int(seconds))

    def size(self, count: float) -> str:
        """Bytes: 1.5 MB."""
        for unit in ("B", "kB", "MB", "GB"):
            if count < 1000:
                return f"{self.number(count, 0 if unit == 'B' else 1)} {unit}"
            count /= 1000
        return f"{self.number(count, 1)} TB"


def _short(value: float) -> str:
    if value != value or value in (float("inf"), float("-inf")):
        return str(value)
    size = abs(value)
    if size and (size >= 1e12 or size < 1e-4):
        return f"{value:.4g}"
    digits = 0 if size >= 100_000 else 1 if size >= 1000 else 2 if size >= 10 else 4
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
