"""Every route, attacked from the tenant next door: swapped ids, swapped credentials, SQL in every string.

Two things are watched. The other tenant's name, which is in every text that was planted there, must not be in
any answer. And after everything that was tried, every row of the other tenant is as it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from caudal.web.api import modules

OURS, THEIRS = "ours", "zebra"
SQL = (
    "' or '1'='1", "'; drop table caudal.tenant; --", "') or true --", "1; select pg_sleep(5)", "\\'; --",
    "' union select name, name, name from caudal.tenant --", "%", "_", "*", "$1", "{}", "a\x00b", "\ud7ff",
    "(select name from caudal.tenant limit 1)", "tenant_id desc", "id; --", "-1", "9" * 30, "1e400", "NaN",
)  # fmt: skip
ORDER = {"GET": 0, "POST": 1, "PUT": 2, "PATCH": 3, "DELETE": 4}

ENDS = ("remove", "revoke", "withdraw", "reject", "discard")


# What other things stand in: ended after all of them, in this order.
WHOLES = ("/api/devices/", "/api/gateways/", "/api/sites/")


def late(operation: Any) -> tuple[int, int, int]:
    """When an operation's own tenant tries it: what ends a thing comes last, parts before wholes.

    The console ends the same things as the API; it comes after it, and its cases allow for what is gone.
    """
    path: str = operation.path
    if not path.endswith(ENDS) and operation.method != "DELETE":
        return ORDER[operation.method], 0, 0
    if operation.method == "DELETE" and path.count("/") == 3 and path.startswith(WHOLES):
        return ORDER["DELETE"], 2, next(at for at, whole in enumerate(WHOLES) if path.startswith(whole))
    return ORDER["DELETE"], int(path.startswith("/console")), -path.count("/")


def fill(value: Any, names: dict[str, Any]) -> Any:
    """`value` with "{name}" replaced by what was planted under that name."""
    if isinstance(value, str):
        if number := re.fullmatch(r"\{(\w+):int\}", value):
            return names[number[1]]
        return re.sub(r"\{(\w+)\}", lambda found: str(names.get(found[1], found[0])), value)
    if isinstance(value, dict):
        return {key: fill(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, names) for item in value]
    return value


def poisoned(value: Any, poison: str) -> list[Any]:
    """`value` with one of its strings replaced by `poison`, for each string in turn."""
    if isinstance(value, str):
        return [poison]
    if isinstance(value, dict):
        return [{**value, key: bad} for key, item in value.items() for bad in poisoned(item, poison)]
    if isinstance(value, list):
        return [
            [*value[:index], bad, *value[index + 1 :]]
            for index, item in enumerate(value)
            for bad in poisoned(item, poison)
        ]
    return []


class Attack:
    """Sends requests and remembers what must not have been."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.faults: list[str] = []
        self.sent = 0

    async def send(
        self, operation: Any, names: dict[str, Any], headers: dict[str, str], *, body: Any = None,
        query: dict[str, str] | None = None, path: dict[str, Any] | None = None,
    ) -> httpx.Response:  # fmt: skip
        address = operation.path
        for name, value in {**names, **(path or {})}.items():
            address = address.replace(f"{{{name}}}", quote(str(value), safe=""))
        self.sent += 1
        self.world.api.client.cookies.clear()
        sent: dict[str, Any] = {"json": body}
        if isinstance(body, dict):
            if "$form" in body:
                sent = {"data": body["$form"]}
            elif "$content" in body:
                sent = {"content": body["$content"].encode(errors="replace")}
            elif "$multipart" in body:
                sent = body["$multipart"]
        client = self.world.api.client
        if not self.world.cases[operation.key].stream:
            return await client.request(operation.method, address, headers=headers, params=query, **sent)
        # The first words, where there are any soon: its end never comes, and silence leaks nothing.
        silent = httpx.Response(200, request=client.build_request(operation.method, address, params=query))
        with contextlib.suppress(httpx.ReadTimeout):
            async with client.stream(
                operation.method, address, headers=headers, params=query, timeout=1.0
            ) as answer:
                if answer.status_code >= 400:
                    await answer.aread()
                else:
                    answer._content = await anext(answer.aiter_bytes(), b"")
                return answer
        return silent

    def watch(self, operation: Any, answer: httpx.Response, what: str) -> None:
        said = str(answer.request.url)
        try:
            said += answer.request.content.decode(errors="replace")
        except httpx.RequestNotRead:
            # A form with a file goes out as a stream.
            pass
        if answer.status_code >= 500:
            self.faults.append(f"{operation.key}: {answer.status_code} on {what}: {said[:200]}")
        if THEIRS in answer.text and THEIRS not in said:
            self.faults.append(f"{operation.key}: leaks on {what}: {answer.text[:300]}")


async def snapshot(world: Any) -> dict[str, str]:
    """Of every table with a tenant, a digest of the other tenant's rows."""
    admin = world.api.admin
    theirs = await admin.fetchval("select id from caudal.tenant where name = $1", THEIRS)
    tables = await admin.fetch(
        "select c.oid::regclass::text as name from pg_class c join pg_attribute a on a.attrelid = c.oid "
        "where c.relnamespace = 'caudal'::regnamespace and c.relkind in ('r', 'p') "
        "and a.attname = 'tenant_id'"
    )
    found = {}
    for table in tables:
        # Signing in with their own password, as a route's case does, rightly adds a session; and looking at
        # their own device's page, as its last part does, asks for that device's raw messages.
        if table["name"] in ("caudal.browser_session", "caudal.raw_watch"):
            continue
        rows = await admin.fetch(
            f"select t::text as row from {table['name']} t where tenant_id = $1 order by 1", theirs
        )
        found[table["name"]] = hashlib.sha256("\n".join(row["row"] for row in rows).encode()).hexdigest()
    found["tenant"] = await admin.fetchval("select t::text from caudal.tenant t where id = $1", theirs)
    people = await admin.fetch(
        "select p::text as row from caudal.person p join caudal.membership m on m.person_id = p.id "
        "where m.tenant_id = $1 order by 1",
        theirs,
    )
    found["person"] = "\n".join(row["row"] for row in people)
    return found


async def test_every_route_has_a_case(world: Any) -> None:
    operations = {operation.key for operation in world.operations}
    assert operations - set(world.cases) == set(), "routes that the adversarial suite does not know"
    assert set(world.cases) - operations == set(), "cases of routes that are gone"
    for operation in world.operations:
        named = set(re.findall(r"\{(\w+)\}", operation.path))
        assert named <= set(world.planted[THEIRS]), f"nothing planted for {operation.key}"


async def test_the_api_serves_every_resource(world: Any) -> None:
    services = {*world.api.parts.services, "metrics", "health", "authenticator"}
    short = [module.__name__ for module in modules() if not getattr(module, "NEEDS", set()) <= services]
    assert short == [], "no domain of the composition root (app/api.py, DOMAINS) brings what these need"


async def test_without_a_credential_every_route_is_shut(world: Any) -> None:
    attack = Attack(world)
    for operation in world.operations:
        if operation.public:
            continue
        case = world.cases[operation.key]
        for headers in ({}, {"Authorization": "Bearer x.y.z"}, {"X-Tenant": THEIRS, "X-Tenant-Id": "1"}):
            names = world.planted[THEIRS]
            answer = await attack.send(operation, names, headers, body=fill(case.body, names))
            # A page sends a person to its sign-in instead.
            shut = {401, 302, 303} if operation.path.startswith("/console") else {401}
            if answer.status_code not in shut:
                attack.faults.append(f"{operation.key}: {answer.status_code} without a credential")
    assert attack.faults == []


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_no_route_shows_or_changes_what_is_another_tenants(world: Any) -> None:
    attack = Attack(world)
    ours, theirs = world.planted[OURS], world.planted[THEIRS]
    before = await snapshot(world)
    for operation in world.operations:
        case = world.cases[operation.key]
        named = re.findall(r"\{(\w+)\}", operation.path)
        for headers in [{}] if operation.public else [world.headers[OURS], world.keys[OURS]]:
            # Theirs for ours: in the path, in the body, in the query; each alone and all together.
            trials = [({}, fill(case.body, ours), fill(case.query, ours), ours)]
            trials += [
                ({name: theirs[name]}, fill(case.body, ours), fill(case.query, ours), ours)
                for name in named
                if theirs[name] != ours[name]
            ]
            trials += [({}, fill(case.body, theirs), fill(case.query, theirs), ours)]
            trials += [({}, fill(case.body, theirs), fill(case.query, theirs), theirs)]
            for path, body, query, names in trials:
                if operation.method == "DELETE" and not path and names is ours:
                    continue
                answer = await attack.send(operation, names, headers, body=body, query=query, path=path)
                attack.watch(operation, answer, f"ids of the other tenant {path or 'in body and query'}")
                if path and answer.status_code < 400 and not case.empty:
                    attack.faults.append(f"{operation.key}: {answer.status_code} for another tenant's {path}")
            if (operation.method == "DELETE" and not named) or headers == world.keys[OURS]:
                continue
            for poison in SQL:
                for body in poisoned(fill(case.body, ours), poison):
                    answer = await attack.send(
                        operation, ours, headers, body=body, query=fill(case.query, ours)
                    )
                    attack.watch(operation, answer, f"body {poison!r}")
                for name in {*case.query, "cursor", "sort", "tenant"}:
                    if operation.method == "GET":
                        answer = await attack.send(operation, ours, headers, query={name: poison})
                        attack.watch(operation, answer, f"query {name}={poison!r}")
                for name in named:
                    answer = await attack.send(
                        operation, ours, headers, body=fill(case.body, ours), path={name: poison}
                    )
                    attack.watch(operation, answer, f"path {name}={poison!r}")
    # A page of theirs, continued by us.
    for operation in world.operations:
        if operation.method == "GET" and not operation.public and not world.cases[operation.key].stream:
            answer = await attack.send(operation, theirs, world.headers[THEIRS], query={"limit": "1"})
            cursor = (
                answer.json().get("next_cursor")
                if answer.headers["content-type"].startswith("application/json")
                and isinstance(answer.json(), dict)
                else None
            )
            if cursor:
                answer = await attack.send(operation, ours, world.headers[OURS], query={"cursor": cursor})
                attack.watch(operation, answer, "a cursor of the other tenant")
    after = await snapshot(world)
    changed = [name for name in before if before[name] != after.get(name)]
    assert not attack.faults, "\n".join(attack.faults[:40])
    assert changed == [], "rows of the other tenant were changed"
    assert attack.sent > 500
    # What was refused above works for whom it belongs to: otherwise nothing was proved.
    # The attacks have locked these people's sign-in, as they should.
    await world.api.admin.execute("delete from caudal.sign_in_failure")
    refused: list[tuple[str, int, str]] = []
    for operation in sorted(world.operations, key=lambda one: (late(one), one.path)):
        case = world.cases[operation.key]
        answer = await attack.send(
            operation, theirs, {} if operation.public else world.headers[THEIRS],
            body=fill(case.body, theirs), query=fill(case.query, theirs),
        )  # fmt: skip
        if answer.status_code not in case.own:
            refused.append((operation.key, answer.status_code, answer.text[:300]))
    assert not refused, "\n".join(map(str, refused))
