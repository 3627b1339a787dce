"""One module a check, all of one shape, found by name.

    AREA: Area; NUMBER: int; TITLE: str
    async def run(context: Context, finding: Finding) -> None

A check measures, puts figures into `finding.measured`, what is wrong into `finding.expect`, and one sentence
for people into `finding.sentence`. It may raise `Failed`, and errors of sockets and databases: it has failed
then.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from caudal.app.validate.context import Context
from caudal.app.validate.report import Area, Finding


class Check(NamedTuple):
    """A check that was found."""

    number: int
    area: Area
    name: str
    title: str
    run: Callable[[Context, Finding], Awaitable[None]]


def every() -> list[Check]:
    """All checks, in the order in which they run."""
    found = []
    for module in pkgutil.iter_modules(__path__):
        made = importlib.import_module(f"{__name__}.{module.name}")
        found.append(Check(made.NUMBER, made.AREA, module.name.replace("_", "-"), made.TITLE, made.run))
    return sorted(found)
