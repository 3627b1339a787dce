"""What `caudal up --demo` adds: a sandbox in the providers' place, its accounts, a simulated fleet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from caudal.app.accounts import add_account, list_accounts
from caudal.app.fleet import DEMO_DEVICES, DEMO_SEED, DEMO_SITES
from caudal.app.part import Part
from caudal.core.postgres import free_port
from caudal.messaging.accounts import NewAccount
from caudal.registry.settings import PeopleSettings
from caudal.sandbox import demo
from caudal.telemetry.simulation import fleet

TENANT = PeopleSettings().default_tenant


def reserve(environ: dict[str, str], host: str) -> None:
    """Choose the sandbox's address before the API starts: its console shows the phones.

    SANDBOX_PORT, where it is set, is the port.
    """
    port = environ.get("SANDBOX_PORT") or free_port(8090, host)
    environ.update(SANDBOX_HOST=host, SANDBOX_PORT=str(port), SANDBOX_URL=f"http://{host}:{port}")


async def prepare(
    rest: Sequence[Part], environ: dict[str, str], http_url: str
) -> tuple[Part, tuple[Part, ...]]:
    """Set up the sandbox's accounts; returns the sandbox, and the rest of the parts.

    Puts into `environ` what turns the connectors to the sandbox.
    """
    paths = await _webhooks(environ)
    url = environ["SANDBOX_URL"]
    environ.update(WHATSAPP_API_BASE=url, INSTAGRAM_API_BASE=url)
    sandbox = Part(
        "sandbox",
        (
            "sandbox",
            *("--whatsapp-webhook", http_url + paths["whatsapp"]),
            *("--instagram-webhook", http_url + paths["instagram"]),
        ),
    )
    return sandbox, tuple(rest)


async def _webhooks(environ: Mapping[str, str]) -> dict[str, str]:
    """The accounts' webhook paths by channel, the accounts made where they are missing."""
    there = {account.channel: account for account in await list_accounts(TENANT, environ)}
    paths: dict[str, str] = {}
    for account in (demo.whatsapp_account(), demo.instagram_account()):
        found = there.get(account.channel) or await add_account(
            TENANT,
            NewAccount(
                channel=account.channel, provider_account=account.id, name="Sandbox", token=account.token,
                app_secret=account.app_secret, verify_token=account.verify_token,
            ),
            environ,
        )  # fmt: skip
        paths[account.channel] = found.webhook_path or ""
    return paths


_REGISTER = """
with owner as (select id from caudal.tenant where name = $1),
places as (
  insert into caudal.site(tenant_id, name, time_zone) select owner.id, n, 'America/Sao_Paulo'
  from owner, (select distinct unnest($2::text[]) as n) named on conflict do nothing returning id, name
), machines as (
  insert into caudal.device(tenant_id, site_id, name) select owner.id, places.id, m.device
  from owner, unnest($2::text[], $3::text[]) as m(site, device) join places on places.name = m.site
  on conflict do nothing returning id, tenant_id
)
insert into caudal.series(tenant_id, device_id, name, kind, unit)
select tenant_id, id, 'energy_kwh', 'counter', 'kWh' from machines on conflict do nothing
"""


async def register_fleet(pool: asyncpg.Pool[Any]) -> None:
    """The simulated fleet's devices, with what their dials are: consumption comes from that.

    What is there already is left as it is.
    """
    machines = fleet(DEMO_DEVICES, DEMO_SITES, DEMO_SEED)
    await pool.execute(
        _REGISTER, TENANT, [machine.site for machine in machines], [machine.name for machine in machines]
    )
