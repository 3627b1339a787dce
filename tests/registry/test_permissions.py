"""The permission table, and the page that shows it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from caudal.registry.permissions import NOT_FOR_KEYS, PERMISSIONS, Action, Role, table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "people.md"


def test_the_page_shows_the_table_that_holds() -> None:
    assert table() in PAGE.read_text(encoding="utf-8"), (
        "paste registry.permissions.table() into docs/people.md"
    )


def test_each_role_may_all_that_the_next_one_may() -> None:
    roles = list(Role)
    for more, less in pairwise(roles):
        assert PERMISSIONS[less] < PERMISSIONS[more], (more, less)


def test_the_owner_may_everything_and_a_member_sees_no_telemetry() -> None:
    assert PERMISSIONS[Role.OWNER] == frozenset(Action)
    assert not {action for action in PERMISSIONS[Role.MEMBER] if action.startswith(("telemetry", "registry"))}
    assert not {action for action in PERMISSIONS[Role.VIEWER] if action.endswith(("claim", "test"))}


def test_no_key_speaks_for_a_person() -> None:
    assert {Action.SELF_WRITE, Action.OWNERS_WRITE, Action.PEOPLE_WRITE, Action.KEYS_WRITE} <= NOT_FOR_KEYS
