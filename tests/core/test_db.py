"""What may be a connection string, and what people are told when the database cannot be used."""

from __future__ import annotations

import asyncpg
import pytest

from caudal.core import db
from caudal.core.errors import SettingsError


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@127.0.0.1:5432/x", "postgres://h/x", "postgresql:///x?host=/run/postgresql",
        "postgresql://[::1]:5433/x", "postgresql://u@a:5432,b:5433/x?target_session_attrs=read-write",
    ],
)  # fmt: skip
def test_connection_strings(url: str) -> None:
    assert db.check(url) == url


@pytest.mark.parametrize(
    "url", ["", "x", "mysql://h/x", "postgresql://h:99999/x", "postgresql://h:p/x", "postgresql://[::1/x",
            "postgresql://a:1,b:99999/x"],
)  # fmt: skip
def test_what_is_none(url: str) -> None:
    with pytest.raises(SettingsError):
        db.check(url)


def test_what_people_are_told_names_no_password() -> None:
    url = "postgresql://me:secret@db.example:5432/x"
    for error, told in [
        (ConnectionRefusedError(111, "refused"), "does not answer"), (TimeoutError(), "no answer in time"),
        (asyncpg.InvalidPasswordError("no"), "Correct the user"),
        (asyncpg.TooManyConnectionsError("many"), "refuses"),
        (asyncpg.InvalidCatalogNameError("no x"), "Make it"), (asyncpg.UndefinedTableError("t"), "migrate"),
    ]:  # fmt: skip
        sentence = db.explain(error, url)
        assert sentence is not None
        assert told in sentence
        assert "secret" not in sentence
    assert db.explain(RuntimeError("a defect"), url) is None
