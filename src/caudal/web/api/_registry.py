"""What the routes of the registry share: who may, how ids and searches are given, how pages are shown."""

from __future__ import annotations

from typing import Annotated, TypeAlias, TypeVar

from litestar.params import PathParameter, QueryParameter

from caudal.registry import paging
from caudal.registry.permissions import Action
from caudal.web import pages
from caudal.web.guards import requires
from caudal.web.pages import Page

READ = [requires(Action.REGISTRY_READ)]
WRITE = [requires(Action.REGISTRY_WRITE)]

T = TypeVar("T")
Id: TypeAlias = Annotated[int, PathParameter(ge=1, le=2**63 - 1)]
Ref: TypeAlias = Annotated[int | None, QueryParameter(ge=1, le=2**63 - 1)]
Search: TypeAlias = Annotated[str | None, QueryParameter(max_length=200, description="Text to look for")]


def shown(found: paging.Page[T]) -> Page[T]:
    """A page of the registry as the API shows it."""
    return Page(found.items, None if found.after is None else pages.encode(found.after))
