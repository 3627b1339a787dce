"""What a check found, and what all of them come to."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeAlias

import msgspec

Status: TypeAlias = Literal["pass", "fail", "absent"]
Value: TypeAlias = float | int | str
Area: TypeAlias = Literal["telemetry", "messaging"]


class Finding:
    """What one check finds as it goes: figures, and what is not as it should be."""

    def __init__(self) -> None:
        self.measured: dict[str, Value] = {}
        self.faults: list[str] = []
        self.sentence = ""
        self.missing = ""

    def expect(self, holds: bool, otherwise: str) -> bool:
        """Note `otherwise`, a sentence, unless `holds`."""
        if not holds:
            self.faults.append(otherwise)
        return holds

    def equal(self, what: str, found: object, wanted: object) -> bool:
        """Note it unless the two are equal."""
        return self.expect(found == wanted, f"{what}: {found!r:.200}, not {wanted!r:.200}.")

    def absent(self, what: str) -> None:
        """Say that this installation does not serve what the check is about."""
        self.missing = what


class Result(msgspec.Struct):
    """What a check came to. `sentence` is for people; `faults` is empty when it passed."""

    number: int
    area: Area
    name: str
    title: str
    status: Status
    sentence: str
    faults: list[str]
    measured: dict[str, Value]
    seconds: float


class Report(msgspec.Struct):
    """A whole run. `passed` is true only when nothing failed; `left_out` names checks not asked for."""

    passed: bool
    tenant: str
    run: str
    started: datetime
    seconds: float
    target: dict[str, str]
    load: dict[str, Value]
    results: list[Result]
    left_out: list[str]
