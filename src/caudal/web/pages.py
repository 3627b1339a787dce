"""Cursors: where a page ended, by the values that the rows are sorted by.

A page begins after those values, whatever was inserted or deleted meanwhile: nothing is skipped or shown
twice. The sort must end in a unique column. A cursor is opaque to clients and checked when it comes back.

    after = pages.decode(cursor, tuple[str, int])
    rows = await connection.fetch("... where ($1::text is null or (name, id) > ($1, $2))
                                   order by name, id limit $3", *(after or (None, None)), limit + 1)
    return pages.page(rows, limit, of=Device.from_row, key=lambda row: (row["name"], row["id"]))
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from litestar.params import QueryParameter

from caudal.core.errors import InvalidInput

T = TypeVar("T")
LIMIT_MAX = 200

# For signatures of handlers: `limit: Limit = 50, cursor: Cursor = None`.
Limit = Annotated[int, QueryParameter(ge=1, le=LIMIT_MAX, description="How many at most")]
Cursor = Annotated[
    str | None,
    QueryParameter(max_length=1000, description="`next_cursor` of the page before; left out: the first"),
]


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Some of many: `items`, and the cursor of the next page unless this is the last."""

    items: list[T]
    next_cursor: str | None = None


def encode(key: Any) -> str:
    """A cursor from the values of the last row's sort columns."""
    return urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def decode(cursor: str | None, kind: Any) -> Any:
    """The values in a cursor; None without one. Raises InvalidInput for what we did not make."""
    if not cursor:
        return None
    try:
        raw = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        return msgspec.json.decode(raw, type=kind)
    except (ValueError, msgspec.DecodeError) as error:
        raise InvalidInput("The cursor is not one of ours. Begin with the first page.") from error


def page(rows: Sequence[Any], limit: int, *, of: Callable[[Any], T], key: Callable[[Any], Any]) -> Page[T]:
    """A page from `limit + 1` fetched rows: the extra one tells that there is more."""
    more = len(rows) > limit
    shown = rows[:limit]
    return Page([of(row) for row in shown], encode(key(shown[-1])) if more else None)
