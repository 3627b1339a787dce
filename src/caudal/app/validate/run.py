"""A whole run: the ground, the checks one after the other, and what they come to."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from time import perf_counter

import asyncpg
import httpx
import msgspec

from caudal.app.validate.checks import Check, every
from caudal.app.validate.context import Context, Failed
from caudal.app.validate.ground import prepared
from caudal.app.validate.line import Refused
from caudal.app.validate.report import Finding, Report, Result, Status
from caudal.app.validate.settings import Load, Target
from caudal.core.errors import CaudalError, InvalidInput
from caudal.mqtt.codes import MqttError

LIMIT_SECONDS = 120.0
"""For one check, beside the time that its load takes."""
ERRORS = (
    Failed, Refused, CaudalError, MqttError, OSError, TimeoutError, asyncpg.PostgresError,
    asyncpg.InterfaceError, httpx.HTTPError, KeyError, ValueError,
)  # fmt: skip
"""What a broken system may do to a check. Everything else is a mistake of ours, and shows as one."""


def chosen(only: Collection[str]) -> tuple[list[Check], list[str]]:
    """The checks to run, and the names of the others. Raises InvalidInput for a name that is none."""
    known = every()
    if strange := set(only) - {check.name for check in known}:
        names = ", ".join(check.name for check in known)
        raise InvalidInput(f"There is no check {', '.join(sorted(strange))}. There are: {names}.")
    kept = [check for check in known if not only or check.name in only]
    return kept, [check.name for check in known if check not in kept]


class Interrupted(CaudalError):
    """Somebody stopped the run."""

    code = "interrupted"


async def validate(
    target: Target,
    load: Load,
    tenant: str,
    *,
    only: Collection[str] = (),
    begins: Callable[[Check], None] = lambda _: None,
    ends: Callable[[Result], None] = lambda _: None,
) -> Report:
    """Run the checks (all, or those of these names) and clean up. `begins` and `ends` hear of each.

    Raises CaudalError when nothing could be run (no database, a tenant that is somebody's), or when it was
    stopped.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is not None:
        # As Ctrl-C does: a timer or a pipeline that loses patience leaves nothing behind either.
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await _all(target, load, tenant, only, begins, ends)
    except asyncio.CancelledError:
        raise Interrupted("Stopped before the end; what it had made is removed.") from None
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def _all(
    target: Target, load: Load, tenant: str, only: Collection[str],
    begins: Callable[[Check], None], ends: Callable[[Result], None],
) -> Report:  # fmt: skip
    kept, left_out = chosen(only)
    started, began = datetime.now(UTC), perf_counter()
    async with httpx.AsyncClient(timeout=30) as http:
        results: list[Result] = []
        cleaning = perf_counter()
        name = ""
        try:
            async with prepared(target.database, tenant) as ground:
                name = ground.run
                context = Context(target, load, ground, http)
                try:
                    for check in kept:
                        begins(check)
                        results.append(await _one(check, context))
                        ends(results[-1])
                finally:
                    context.close()
                cleaning = perf_counter()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            if not name:
                raise
            results.append(_cleaning(kept, perf_counter() - cleaning, f"Left behind: {error}."))
        else:
            results.append(_cleaning(kept, perf_counter() - cleaning, "", ground.objects))
        ends(results[-1])
    return Report(
        passed=all(result.status != "fail" for result in results), tenant=tenant, run=name, started=started,
        seconds=round(perf_counter() - began, 2), target=target.shown(), load=msgspec.structs.asdict(load),
        results=results, left_out=left_out,
    )  # fmt: skip


async def _one(check: Check, context: Context) -> Result:
    finding = Finding()
    began = perf_counter()
    try:
        async with asyncio.timeout(LIMIT_SECONDS + context.load.seconds):
            await check.run(context, finding)
    except ERRORS as error:
        said = error.sentence if isinstance(error, CaudalError) else str(error)
        finding.faults.append(said if isinstance(error, Failed) else f"{type(error).__name__}: {said}")
    status: Status = "fail" if finding.faults else "absent" if finding.missing else "pass"
    return Result(
        check.number, check.area, check.name, check.title, status,
        finding.faults[0] if finding.faults else finding.missing or finding.sentence, finding.faults,
        finding.measured, round(perf_counter() - began, 2),
    )  # fmt: skip


def _cleaning(kept: Sequence[Check], seconds: float, fault: str, objects: int = 0) -> Result:
    """Cleaning up is the last check: what is left behind in production is a failure."""
    sentence = "Nothing is left of the tenant."
    if objects:
        sentence = f"Nothing is left but bytes of files, for their sweep within minutes: {objects}."
    return Result(
        kept[-1].number + 1, "telemetry", "clean-up", "Cleaning up", "fail" if fault else "pass",
        fault or sentence, [fault] if fault else [], {"objects_left_to_sweep": objects}, round(seconds, 2),
    )  # fmt: skip
