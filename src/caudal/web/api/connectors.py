"""The tenant's accounts at providers. Their secrets go in and never come out."""

from __future__ import annotations

from litestar import delete, get, patch, post
from litestar.params import FromPath, JSONBody

from caudal.messaging.accounts import AccountChange, AccountView, ChannelAccounts, NewAccount
from caudal.registry import audit
from caudal.registry.permissions import Action
from caudal.web.guards import requires
from caudal.web.inject import Caller, Database, Given

NEEDS = frozenset({"channel_accounts"})
Accounts = Given[ChannelAccounts]


@get("/api/connectors", guards=[requires(Action.CONNECTORS_READ)])
async def list_accounts(door: Database, channel_accounts: Accounts) -> list[AccountView]:
    """Every account of the tenant, and what its problem is."""
    async with door.read() as connection:
        return await channel_accounts.list(connection)


@post("/api/connectors", guards=[requires(Action.CONNECTORS_WRITE)], status_code=201)
async def add_account(
    door: Database, principal: Caller, channel_accounts: Accounts, data: JSONBody[NewAccount]
) -> AccountView:
    """Set up an account; the answer says where the provider has to send its webhooks."""
    async with door.write() as connection:
        made = await channel_accounts.add(connection, data)
        await audit.record(
            connection, principal, "connector.added", f"connector:{made.id}", channel=made.channel
        )
        return made


@patch("/api/connectors/{account_id:int}", guards=[requires(Action.CONNECTORS_WRITE)])
async def change_account(
    door: Database,
    principal: Caller,
    channel_accounts: Accounts,
    account_id: FromPath[int],
    data: JSONBody[AccountChange],
) -> AccountView:
    """Change an account: a new token, another rate, on or off."""
    async with door.write() as connection:
        made = await channel_accounts.change(connection, account_id, data)
        await audit.record(connection, principal, "connector.changed", f"connector:{account_id}")
        return made


@delete("/api/connectors/{account_id:int}", guards=[requires(Action.CONNECTORS_WRITE)])
async def remove_account(
    door: Database, principal: Caller, channel_accounts: Accounts, account_id: FromPath[int]
) -> None:
    """Forget an account, its secrets and what was known of the people behind it."""
    async with door.write() as connection:
        await channel_accounts.remove(connection, account_id)
        await audit.record(connection, principal, "connector.removed", f"connector:{account_id}")


ROUTES = [list_accounts, add_account, change_account, remove_account]
