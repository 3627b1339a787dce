"""The catalogue: whole, in both languages, and without words for nobody."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter
from typing import get_args, get_type_hints

import pytest

import caudal.web.console
from caudal.messaging import lattice
from caudal.registry import commands, credentials
from caudal.registry.permissions import Role
from caudal.telemetry import model
from caudal.web.console import (
    alarms,
    certificates,
    dead_letters,
    devices,
    gateways,
    history,
    people,
    points,
    profiles,
    tenants,
    view,
)
from caudal.web.console.filters import SPANS
from caudal.web.console.locale import LANGUAGES
from caudal.web.console.words import WORDS

FOLDER = Path(caudal.web.console.__file__).parent
CODE = [path for path in FOLDER.rglob("*") if path.suffix in {".html", ".py"} and path.parent.name != "words"]

# Keys made of a beginning and one of a set of names: `t('role.' ~ role)`.
FAMILIES = {
    "role.": {*Role, "key"},
    "menu.": {entry.section for entry in view.MENU} | {"tenants", "open"},
    "language.": set(LANGUAGES),
    "theme.": set(view.THEMES),
    "span.": {*SPANS, *history.SPANS, "days", "hours", "minutes", "seconds"},
    "presence.": set(gateways.STATES),
    "device_status.": set(devices.STATUSES),
    "device_kind.": set(devices.KINDS),
    "device_mode.": set(devices.MODES),
    "point_kind.": set(points.KINDS),
    "quality.": {"1", "2"},
    "alarm.": set(get_args(alarms.Kind)),
    "command.": set(get_args(commands.State)),
    "letter.": {*dead_letters.STATUSES, "all"},
    "ledger.": {"messages", "received", "stored", "duplicates", "dead", "held", "empty"},
    "delivery.": set(lattice.State),
    "message.": {"sent", "failed", "delivered", "read"},
    "policy.": set(people.POLICIES),
    "role_text.": set(Role),
    # By `locale.known`.
    "reason.": set(get_args(model.Reason))
    | {
        "unreadable",
        "not_a_message",
        "not_a_status",
        "no_tenant",
        "unknown_message",
        "unknown_account",
        "handler_failed",
    },
    "param_type.": set(profiles.TYPES),
    "revocation.": set(certificates.REASONS),
    "certificate.": set(certificates.STATES),
    "credential.": set(get_args(get_type_hints(credentials.Credential)["state"])),
}


def used() -> dict[str, set[str]]:
    """Key or beginning of one -> the files that use it."""
    found: dict[str, set[str]] = {}
    for path in CODE:
        text = path.read_text()
        for key in re.findall(r"""\bt\(\s*['"]([\w.]+)['"]""", text):
            found.setdefault(key, set()).add(path.name)
        # Keys that stand by themselves in code: tables of titles, conditional keys.
        for key in re.findall(r"""['"]([a-z_]+(?:\.[a-z0-9_]+)+)['"]""", text):
            if key in WORDS:
                found.setdefault(key, set()).add(path.name)
    return found


def done_keys() -> set[str]:
    said = {name for path in CODE for name in re.findall(r"""\bdone=["'](\w+)["']""", path.read_text())}
    return said | {done for _, done in tenants.DEEDS.values()}


def test_every_key_that_is_used_exists() -> None:
    missing = {}
    for key, files in used().items():
        if key.endswith("."):
            continue
        if key not in WORDS and not any(key == family.rstrip(".") for family in FAMILIES):
            missing[key] = files
    for family, names in {**FAMILIES, "done.": done_keys()}.items():
        missing.update({family + name: {family} for name in names if family + name not in WORDS})
    assert missing == {}


def test_every_family_is_listed() -> None:
    families = {key for key in used() if key.endswith(".")}
    assert families - FAMILIES.keys() - {"done."} == set()


def test_no_words_are_for_nobody() -> None:
    known = {key for key in used() if not key.endswith(".")}
    known |= {family + name for family, names in {**FAMILIES, "done.": done_keys()}.items() for name in names}
    known |= {f"{kind}.{part}" for kind in ("reset", "invitation") for part in ("title", "choose", "submit")}
    assert sorted(WORDS.keys() - known) == []


@pytest.mark.parametrize("key", sorted(WORDS))
def test_both_languages_say_the_same(key: str) -> None:
    texts = WORDS[key]
    assert len(texts) == len(LANGUAGES)
    assert all(text.strip() for text in texts)
    places = [sorted(name for _, name, _, _ in Formatter().parse(text) if name) for text in texts]
    assert places[0] == places[1], texts
