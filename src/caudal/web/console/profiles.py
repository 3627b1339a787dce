"""Device profiles: the points and commands that all devices of one make have, in versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from litestar import Request, Response, get, post
from litestar.params import FromPath

from caudal.core.errors import InvalidInput
from caudal.registry import audit, profiles
from caudal.registry.profiles import CommandSpec, Param, PointSpec, ProfileIn
from caudal.telemetry.decode import FORMATS
from caudal.web.console import forms
from caudal.web.console.devices import PAGE, READ, WRITE
from caudal.web.console.filters import number
from caudal.web.console.points import KINDS
from caudal.web.console.view import View
from caudal.web.inject import Caller, Database, Given

TYPES: tuple[str, ...] = get_args(get_type_hints(Param)["type"])
# Empty rows at the end of each list, so that a form grows without a script; a row without a name is no row.
SPARE_POINTS, SPARE_COMMANDS, SPARE_PARAMS = 3, 1, 2


@get("/profiles", guards=READ)
async def profile_list(request: Request[Any, Any, Any], view: Given[View], door: Database) -> Response[str]:
    """Profiles by search."""
    given = request.query_params
    async with door.read() as connection:
        found = await profiles.find(
            connection, search=given.get("search"), after=number(given, "after"), limit=PAGE
        )
    return view.page(
        "profiles.html", section="profiles", found=found, search=given.get("search", ""), **_choices()
    )


@get("/profiles/{profile_id:int}", guards=READ)
async def profile_page(profile_id: FromPath[int], view: Given[View], door: Database) -> Response[str]:
    """One profile in its newest version, and the versions before."""
    async with door.read() as connection:
        profile = await profiles.get(connection, profile_id)
        versions = await profiles.versions(connection, profile_id)
    return view.page("profile.html", section="profiles", profile=profile, versions=versions, **_choices())


def _choices() -> dict[str, Any]:
    return {
        "kinds": KINDS, "types": TYPES, "formats": sorted(FORMATS),
        "spare": {"points": SPARE_POINTS, "commands": SPARE_COMMANDS, "params": SPARE_PARAMS},
    }  # fmt: skip


@post("/profiles", guards=WRITE, status_code=200)
async def make_profile(
    request: Request[Any, Any, Any], view: Given[View], door: Database, principal: Caller
) -> Response[str]:
    """A new profile, by its name; its points and commands are filled in on its page."""
    given = read(forms.texts(await request.form()))
    async with door.write() as connection:
        made = await profiles.create(connection, given, principal.actor)
        await audit.record(connection, principal, "profile.created", f"profile:{made.id}", name=made.name)
    return view.go(f"/console/profiles/{made.id}", done="saved")


@post("/profiles/{profile_id:int}", guards=WRITE, status_code=200)
async def change_profile(
    request: Request[Any, Any, Any],
    profile_id: FromPath[int],
    view: Given[View],
    door: Database,
    principal: Caller,
) -> Response[str]:
    """The next version. Conflict when somebody else made one since this form was opened."""
    form = forms.texts(await request.form())
    given = read(form)
    async with door.write() as connection:
        made = await profiles.replace(
            connection, profile_id, given, principal.actor, expected=number(form, "version")
        )
        await audit.record(
            connection, principal, "profile.changed", f"profile:{profile_id}", version=made.version
        )
    return view.go(f"/console/profiles/{profile_id}", done="saved")


@post("/profiles/{profile_id:int}/delete", guards=WRITE, status_code=200)
async def delete_profile(
    profile_id: FromPath[int], view: Given[View], door: Database, principal: Caller
) -> Response[str]:
    """Take away a profile that no device uses."""
    async with door.write() as connection:
        await profiles.delete(connection, profile_id)
        await audit.record(connection, principal, "profile.deleted", f"profile:{profile_id}")
    return view.go("/console/profiles", done="deleted")


def read(form: Mapping[str, str]) -> ProfileIn:
    """A profile from its form: fields `p{n}.…`, `c{n}.…`, `c{n}.p{m}.…`. Raises InvalidInput."""
    points = [
        PointSpec(
            row["name"], _one_of(row.get("kind") or "gauge", KINDS, "points.kind"),
            row.get("unit") or None, forms.decimal(row, "low"), forms.decimal(row, "high"),
        )
        for row in rows(form, "p")
    ]  # fmt: skip
    commands = [
        CommandSpec(
            row["name"],
            [
                Param(
                    param["name"], _one_of(param.get("type") or "number", TYPES, "params.type"),
                    "required" in param, forms.decimal(param, "minimum"), forms.decimal(param, "maximum"),
                    _choice_list(param),
                )
                for param in rows(row, "p")
            ],
            forms.whole(row, "ack_seconds") or 30,
        )
        for row in rows(form, "c")
    ]  # fmt: skip
    return ProfileIn(
        form.get("name", ""), form.get("format") or None, forms.whole(form, "heartbeat_seconds") or 300,
        points, commands,
    )  # fmt: skip


def rows(form: Mapping[str, str], letter: str) -> list[dict[str, str]]:
    """The rows of a list in a form, in order: `p3.name` is `name` of row 3. Unnamed ones are no rows."""
    found: dict[int, dict[str, str]] = {}
    for key, value in form.items():
        head, dot, rest = key.partition(".")
        if dot and head[:1] == letter and head[1:].isdecimal() and len(head) < 6:
            found.setdefault(int(head[1:]), {})[rest] = value.strip()
    return [found[place] for place in sorted(found) if found[place].get("name")]


def _one_of(value: str, allowed: tuple[str, ...], field: str) -> Any:
    if value not in allowed:
        raise InvalidInput(f"{field}: one of {', '.join(allowed)}.")
    return value


def _choice_list(param: Mapping[str, str]) -> list[str | float] | None:
    words = [word for part in param.get("choices", "").split(";") if (word := part.strip())]
    if not words:
        return None
    if param.get("type") in ("number", "integer"):
        return [value for word in words if (value := forms.decimal({"choices": word}, "choices")) is not None]
    return list(words)


ROUTES = [profile_list, profile_page, make_profile, change_profile, delete_profile]
