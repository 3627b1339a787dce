"""What `caudal connector accounts` does: a tenant's accounts at providers, by the platform's operator."""

from __future__ import annotations

import os
from collections.abc import Mapping

from caudal.core import db
from caudal.core.settings import load
from caudal.messaging.accounts import AccountView, ChannelAccounts, NewAccount
from caudal.registry.settings import PeopleSettings, sealer_of


async def add_account(tenant: str, new: NewAccount, environ: Mapping[str, str] = os.environ) -> AccountView:
    """Set up an account of `tenant`. Raises InvalidInput, Conflict."""
    accounts = ChannelAccounts(sealer_of(load(PeopleSettings, environ)))
    pool = await db.open_pool(db.url_of(environ), minimum=1, maximum=1, role=db.APP_ROLE, name="caudal cli")
    try:
        async with db.tenant_transaction(pool, tenant) as connection:
            return await accounts.add(connection, new)
    finally:
        await pool.close()


async def list_accounts(tenant: str, environ: Mapping[str, str] = os.environ) -> list[AccountView]:
    """The accounts of `tenant`."""
    accounts = ChannelAccounts(sealer_of(load(PeopleSettings, environ)))
    pool = await db.open_pool(db.url_of(environ), minimum=1, maximum=1, role=db.APP_ROLE, name="caudal cli")
    try:
        async with db.tenant_transaction(pool, tenant, readonly=True) as connection:
            return await accounts.list(connection)
    finally:
        await pool.close()
