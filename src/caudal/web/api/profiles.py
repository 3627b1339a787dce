"""Profiles of the caller's devices, in versions."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import delete, get, post, put
from litestar.params import JSONBody, QueryParameter

from caudal.registry import audit, profiles
from caudal.registry.profiles import Profile, ProfileIn, Version
from caudal.web import pages
from caudal.web.api._registry import READ, WRITE, Id, Search, shown
from caudal.web.inject import Caller, Database
from caudal.web.pages import Cursor, Limit, Page


class VersionList(msgspec.Struct):
    """All versions of a profile, newest first."""

    items: list[Version]


@get("/api/profiles", guards=READ)
async def list_profiles(
    door: Database, search: Search = None, limit: Limit = 50, cursor: Cursor = None
) -> Page[Profile]:
    """The tenant's device profiles."""
    async with door.read() as connection:
        after = pages.decode(cursor, int)
        return shown(await profiles.find(connection, search=search, after=after, limit=limit))


@post("/api/profiles", guards=WRITE, status_code=201)
async def create_profile(data: JSONBody[ProfileIn], door: Database, principal: Caller) -> Profile:
    """Make a profile."""
    async with door.write() as connection:
        made = await profiles.create(connection, data, principal.actor)
        await audit.record(connection, principal, "profile.created", f"profile:{made.id}", name=made.name)
    return made


@get("/api/profiles/{profile_id:int}", guards=READ)
async def get_profile(profile_id: Id, door: Database) -> Profile:
    """A profile in its newest version."""
    async with door.read() as connection:
        return await profiles.get(connection, profile_id)


@get("/api/profiles/{profile_id:int}/versions", guards=READ)
async def list_versions(profile_id: Id, door: Database) -> VersionList:
    """All versions of a profile."""
    async with door.read() as connection:
        return VersionList(await profiles.versions(connection, profile_id))


@put("/api/profiles/{profile_id:int}", guards=WRITE)
async def replace_profile(
    profile_id: Id,
    data: JSONBody[ProfileIn],
    door: Database,
    principal: Caller,
    expected: Annotated[
        int | None, QueryParameter(ge=1, le=2**31 - 1, description="The version known")
    ] = None,
) -> Profile:
    """Put the next version of a profile in force."""
    async with door.write() as connection:
        made = await profiles.replace(connection, profile_id, data, principal.actor, expected=expected)
        await audit.record(
            connection, principal, "profile.changed", f"profile:{profile_id}", version=made.version
        )
    return made


@delete("/api/profiles/{profile_id:int}", guards=WRITE, status_code=204)
async def delete_profile(profile_id: Id, door: Database, principal: Caller) -> None:
    """Delete a profile that no device uses."""
    async with door.write() as connection:
        await profiles.delete(connection, profile_id)
        await audit.record(connection, principal, "profile.deleted", f"profile:{profile_id}")


ROUTES = [list_profiles, create_profile, get_profile, list_versions, replace_profile, delete_profile]
