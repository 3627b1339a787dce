"""What `caudal up --demo` adds: a sandbox in the providers' place, its accounts, a simulated fleet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from caudal.app.connector import add_account, list_accounts
from caudal.app.part import Part
from caudal.core.postgres import free_port
from caudal.messaging.accounts import NewAccount
from caudal.registry.settings import PeopleSettings
from caudal.sandbox import demo

TENANT = PeopleSettings().default_tenant


def reserve(environ: dict[str, str], host: str) -> None:
    """Choose the sandbox's address before the API starts: its console shows the phones."""
    port = free_port(8090, host)
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
