"""How handlers say where an argument comes from.

    @post("/api/sites", guards=[requires(Action.REGISTRY_WRITE)])
    async def create(data: JSONBody[NewSite], door: Database, principal: Caller,
                     sites: Given[SiteService], dry: FromQuery[bool] = False) -> Site: ...

`JSONBody`, `FromQuery`, `FromPath` and `FromHeader` are Litestar's (`litestar.params`).
"""

from __future__ import annotations

from typing import Annotated, TypeAlias, TypeVar

from litestar.di import NamedDependency
from litestar.params import SkipValidation

from caudal.registry.principal import Principal
from caudal.web.door import Door

T = TypeVar("T")

# A service given to `create_app` under the argument's name; it is ours, so nothing about it is validated.
Given: TypeAlias = Annotated[NamedDependency[SkipValidation[T]], "given"]
# Who calls.
Caller: TypeAlias = Given[Principal]
# The database, for the caller's tenant.
Database: TypeAlias = Given[Door]
