"""What the walkers of routes share: a case for each route, two tenants, the whole API.

A module in `cases/` has

- `CASES`: "METHOD /path/{parameter}", as OpenAPI writes it, to the fields of a `Case`;
- `async def plant(world, tenant) -> dict[str, Any]`: makes what its routes speak of in `tenant`, and gives
  the values of path parameters and of names that bodies use. Every text it writes holds the tenant's name:
  that word must never reach the other tenant.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from caudal.app import api as composition
from caudal.registry.permissions import NOT_FOR_KEYS, Action, Role
from caudal.registry.quotas import Limiter
from caudal.web.guards import Machinery, Public, rule_of

OURS, THEIRS = "ours", "zebra"


class Case(NamedTuple):
    """How to call a route: `body` and `query` may hold "{name}" of what was planted.

    A body is JSON unless it is {"$form": fields}, {"$content": text} or {"$multipart": httpx arguments}.
    `own` is what its own tenant is answered, where that is no plain success. `empty`: it answers an empty
    list, rather than a refusal, to who names what is another tenant's. `stream`: its answer has no end.
    """

    body: Any = None
    query: dict[str, str] = {}  # noqa: RUF012
    own: tuple[int, ...] = (200, 201, 202, 204)
    empty: bool = False
    stream: bool = False


class Operation(NamedTuple):
    """One route under one method."""

    method: str
    path: str
    public: bool

    @property
    def key(self) -> str:
        return f"{self.method} {self.path}"


class World:
    """The API with everything in it, two tenants, and what was planted in each."""

    def __init__(self, api: Any) -> None:
        self.api = api
        self.headers: dict[str, dict[str, str]] = {}
        self.member_headers: dict[str, dict[str, str]] = {}
        self.keys: dict[str, dict[str, str]] = {}
        self.people: dict[str, Any] = {}
        self.planted: dict[str, dict[str, Any]] = {}
        self.cases: dict[str, Case] = {}

    @property
    def operations(self) -> list[Operation]:
        """Every route but health, metrics and the description of the API."""
        found = []
        for route in self.api.app.routes:
            for handler in getattr(route, "route_handlers", ()):
                rule = rule_of(handler)
                if (
                    isinstance(rule, Machinery)
                    or route.path_format.startswith("/schema")
                    or "{rest}" in route.path_format
                ):
                    continue
                found += [
                    Operation(method, route.path_format, isinstance(rule, Public))
                    for method in sorted(handler.http_methods - {"OPTIONS", "HEAD"})
                ]
        return sorted(found)


def case_modules() -> list[ModuleType]:
    """The modules in `cases/`; people first, whom the others speak of."""
    modules = []
    for path in sorted(
        (Path(__file__).parent / "cases").glob("*.py"), key=lambda path: (path.stem != "people", path)
    ):
        spec = importlib.util.spec_from_file_location(f"isolation_case_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        modules.append(module)
    return modules


@pytest.fixture
async def world(unstarted_api: Any) -> World:
    """Both tenants planted, the API started with every domain that the composition root knows."""
    for domain in composition.DOMAINS:
        await domain(unstarted_api.life, unstarted_api.parts)
    api = await unstarted_api.start()
    made = World(api)
    for tenant in (OURS, THEIRS):
        made.people[tenant], made.headers[tenant] = await api.person(
            tenant, Role.OWNER, username=f"owner_{tenant}", email=f"owner@{tenant}.example"
        )
        scopes = [str(action) for action in Action if action not in NOT_FOR_KEYS]
        body = {"name": f"{tenant} key", "scopes": scopes}
        answer = await api.client.post("/api/keys", json=body, headers=made.headers[tenant])
        made.keys[tenant] = {"X-API-Key": answer.json()["key"]}
        made.planted[tenant] = {}
    for module in case_modules():
        made.cases.update({key: Case(**case) for key, case in module.CASES.items()})
        for tenant in (OURS, THEIRS):
            made.planted[tenant].update(await module.plant(made, tenant))
    # Guesses by the thousand are the point here.
    api.app.state.gate._addresses = Limiter(0)
    return made
