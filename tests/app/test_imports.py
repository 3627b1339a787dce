"""A process imports what it serves, and a command line what it needs: both start the sooner for it."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "spared"),
    [
        ("caudal.app.router", "caudal.web.console"),
        ("caudal.app.connector", "caudal.web.console"),
        ("caudal.app.upkeep", "caudal.web.console"),
        ("caudal.app.up", "litestar"),
        ("caudal.app.pki", "litestar"),
    ],
)
def test_what_is_not_served_is_not_imported(module: str, spared: str) -> None:
    code = f"import sys, {module}; sys.exit({spared!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
