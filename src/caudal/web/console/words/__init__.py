"""Everything the console says, in English and Portuguese: key -> (English, Portuguese).

One module for each section. A test proves that every key that a template or a module uses is here, in both
languages, with the same `{places}`; and that none is here for nobody.
"""

from __future__ import annotations

from collections.abc import Mapping

from caudal.web.console.words import (
    common,
    conversations,
    dead_letters,
    devices,
    entrance,
    operations,
    overview,
    people,
    registry,
)

Catalogue = Mapping[str, tuple[str, str]]


def _merged(*parts: Catalogue) -> dict[str, tuple[str, str]]:
    whole: dict[str, tuple[str, str]] = {}
    for part in parts:
        if twice := whole.keys() & part.keys():
            raise ValueError(f"said twice: {sorted(twice)}")
        whole.update(part)
    return whole


WORDS = _merged(
    common.WORDS, entrance.WORDS, overview.WORDS, devices.WORDS, dead_letters.WORDS, conversations.WORDS,
    operations.WORDS, people.WORDS, registry.WORDS,
)  # fmt: skip
