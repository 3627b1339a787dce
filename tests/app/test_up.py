"""What `caudal up` finds in a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from caudal.app.up import secrets_of
from caudal.core.errors import InvalidInput


def test_secrets_that_cannot_be_read_are_not_made_anew(tmp_path: Path) -> None:
    assert secrets_of(tmp_path / "never") is None
    kept = tmp_path / "secrets.json"
    for broken in (b"{broken", b"", b"{}", b"[]", b"\xff"):
        kept.write_bytes(broken)
        with pytest.raises(InvalidInput, match="backup"):
            secrets_of(tmp_path)
        assert kept.read_bytes() == broken
    kept.write_bytes(b'{"mqtt_password": "a", "master_key": "b"}')
    found = secrets_of(tmp_path)
    assert found is not None
    assert found.master_key == "b"
