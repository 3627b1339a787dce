"""Pages of a registry listing: ordered by number, so that rows added or removed meanwhile move nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from caudal.core.errors import InvalidInput

T = TypeVar("T")
PAGE_MAX = 200


class Page(msgspec.Struct, Generic[T]):
    """Some rows, and the number after which the next page begins; None on the last."""

    items: list[T]
    after: int | None = None


class Where:
    """Conditions of a query with their arguments, numbered as they come."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self.arguments: list[Any] = []

    def add(self, condition: str, value: object) -> None:
        """`condition` with `{}` where the argument goes; left out when `value` is None."""
        if value is None:
            return
        self.arguments.append(value)
        self._parts.append(condition.replace("{}", f"${len(self.arguments)}"))

    def fixed(self, condition: str) -> None:
        """A condition without an argument."""
        self._parts.append(condition)

    def search(self, columns: Sequence[str], words: str | None) -> None:
        """Text anywhere in one of the columns, without regard to case."""
        if words:
            if "\0" in words:
                raise InvalidInput("search: NUL characters are not allowed.")
            escaped = words[:200].replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
            either = " or ".join(f"{column} ilike {{}}" for column in columns)
            self.add(f"({either})", f"%{escaped}%")

    def __str__(self) -> str:
        return " where " + " and ".join(self._parts) if self._parts else ""


async def page(
    connection: Any,
    select: str,
    where: Where,
    key: str,
    make: Callable[[Any], T],
    after: int | None,
    limit: int,
) -> Page[T]:
    """Run `select` with `where`, ordered by `key`, from behind `after`; `limit` at most PAGE_MAX rows."""
    where.add(f"{key} > {{}}::bigint", after)
    limit = max(1, min(limit, PAGE_MAX))
    rows = await connection.fetch(f"{select}{where} order by {key} limit {limit + 1}", *where.arguments)
    items = [make(row) for row in rows[:limit]]
    return Page(items, rows[limit - 1]["id"] if len(rows) > limit else None)


async def update(connection: Any, table: str, number: int, changes: dict[str, Any]) -> bool:
    """Set columns of one row; False when there is no such row. Column names are ours, never a caller's."""
    if not changes:
        return bool(
            await connection.fetchval(f"select true from caudal.{table} where id = $1::bigint", number)
        )
    sets = ", ".join(f"{column} = ${index}" for index, column in enumerate(changes, 2))
    return bool(
        await connection.fetchval(
            f"update caudal.{table} set {sets} where id = $1::bigint returning true",
            number,
            *changes.values(),
        )
    )
