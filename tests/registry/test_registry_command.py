"""`caudal registry`, as somebody of a tenant runs it: through the API, with an API key."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
from click.testing import CliRunner

from caudal.cli.registry import command
from caudal.client import Refused
from caudal.core.errors import CaudalError


async def test_a_file_goes_in_and_comes_out(running_api: Any, tmp_path: Path) -> None:
    headers = await running_api.headers("acme")
    body = {"name": "tools", "scopes": ["registry:read", "registry:write"]}
    key = (await running_api.client.post("/api/keys", json=body, headers=headers)).json()["key"]
    environ = {"API_URL": running_api.url, "CAUDAL_API_KEY": key, "COLUMNS": "200"}

    async def run(*arguments: str, status: int = 0, **more: str | None) -> str:
        came = await asyncio.to_thread(CliRunner(env={**environ, **more}).invoke, command, arguments)
        if isinstance(came.exception, CaudalError):
            assert status == 2, came.exception
            return came.exception.sentence
        assert came.exit_code == status, (came.output, came.exception)
        return came.output

    file = tmp_path / "gateways.csv"
    file.write_text("code;mac;name\ngw1;aa:bb:cc:dd:ee:01;Usina\ngw2;nonsense;x\n")
    said = await run("import", "gateways", str(file), "--store", status=1)
    assert "aa:bb:cc:dd:ee:ff" in said
    assert "1 good, 1 bad; nothing was stored" in said
    file.write_text("code;mac;name\ngw1;aa:bb:cc:dd:ee:01;Usina\n")
    assert "1 good, 0 bad; nothing was stored" in await run("import", "gateways", str(file))
    assert "1 good, 0 bad; stored" in await run("import", "gateways", str(file), "--store")
    assert "Usina" in await run("list", "gateways")
    assert msgspec.json.decode(await run("list", "devices", "--json")) == []
    text = await run("export", "gateways")
    assert text.splitlines()[1].startswith("GW1,aa:bb:cc:dd:ee:01,Usina,")
    assert "CAUDAL_API_KEY" in await run("list", "gateways", status=2, CAUDAL_API_KEY=None)
    assert "unknown" in await run("list", "gateways", "--key", "caudal_x_y", status=2)
    assert "does not answer" in await run("list", "gateways", "--url", "http://127.0.0.1:1", status=2)
    assert issubclass(Refused, CaudalError)
