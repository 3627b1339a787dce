"""Tenants' accounts at providers: made by administrators, read by connectors, sealed in between."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, Any
from uuid import UUID

import asyncpg
import msgspec

from caudal.core.errors import Conflict, InvalidInput, NotFound
from caudal.core.eventlog.port import Connection
from caudal.core.seal import Sealer
from caudal.messaging.provider import Account, Secrets, Template

# What a provider allows by default; an account may have been granted more.
DEFAULTS: dict[str, dict[str, Any]] = {
    "whatsapp": {"per_second": 80, "media_per_second": 80, "pair_interval": 6, "pair_burst": 45,
                 "window_seconds": 86_400},
    "instagram": {"per_second": 300, "media_per_second": 10, "pair_interval": 0, "pair_burst": 1,
                  "window_seconds": 86_400},
    "apprise": {"per_second": 5, "media_per_second": 5, "pair_interval": 0, "pair_burst": 1,
                "window_seconds": None},
}  # fmt: skip
HUMAN_AGENT_SECONDS = 7 * 86_400.0
CACHE_SECONDS = 5.0

COLUMNS = """
a.id, a.tenant_id, t.name as tenant, a.channel, a.connector, a.name, a.provider_account, a.secrets, a.hook,
a.per_second, a.media_per_second, a.pair_interval, a.pair_burst, a.window_seconds, a.template, a.human_agent,
a.enabled, a.problem, a.problem_at, a.created_at
"""
# The account that the person last wrote to, else the oldest.
CHOOSE = f"""
select {COLUMNS}, t.status = 'suspended' as suspended
from caudal.channel_account a join caudal.tenant t on t.id = a.tenant_id
left join caudal.channel_contact c on c.account_id = a.id and c.address = $3
where t.name = $1 and a.channel = $2 and a.enabled
order by c.wrote_at desc nulls last, a.id limit 1
"""
BY_HOOK = f"""
select {COLUMNS} from caudal.channel_hook($1) h
cross join lateral (select (h.account).*) a cross join lateral (select h.tenant as name) t
"""
BY_PROVIDER = f"""
select {COLUMNS} from caudal.channel_account a join caudal.tenant t on t.id = a.tenant_id
where t.name = $1 and a.channel = $2 and a.provider_account = $3
"""
LIST = f"""
select {COLUMNS} from caudal.channel_account a join caudal.tenant t on t.id = a.tenant_id
where a.tenant_id = caudal.current_tenant() order by a.channel, a.id
"""
INSERT = """
insert into caudal.channel_account(tenant_id, channel, connector, name, provider_account, secrets, per_second,
  media_per_second, pair_interval, pair_burst, window_seconds, template, human_agent)
values (caudal.current_tenant(), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) returning id
"""
UPDATE = """
update caudal.channel_account set name = $2, secrets = $3, per_second = $4, media_per_second = $5,
  pair_interval = $6, pair_burst = $7, window_seconds = $8, template = $9, human_agent = $10, enabled = $11,
  problem = null, problem_at = null, updated_at = now()
where id = $1 and tenant_id = caudal.current_tenant()
"""
PROBLEM = """
update caudal.channel_account set problem = $2, problem_at = now()
where id = $1 and problem is distinct from $2
"""


class AccountView(msgspec.Struct, kw_only=True):
    """An account as people see it: everything but its secrets."""

    id: int
    channel: str
    connector: str
    name: str
    provider_account: str
    webhook_path: str | None
    per_second: float
    media_per_second: float
    pair_interval: float
    pair_burst: int
    window_seconds: float | None
    template: Template | None
    human_agent: bool
    enabled: bool
    problem: str | None


class NewAccount(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is needed to set up an account. Limits left out are the provider's usual ones."""

    channel: str
    provider_account: str
    name: str = ""
    token: str = ""
    app_secret: str = ""
    verify_token: str = ""
    url: str = ""
    per_second: Annotated[float, msgspec.Meta(gt=0)] | None = None
    media_per_second: Annotated[float, msgspec.Meta(gt=0)] | None = None
    pair_interval: Annotated[float, msgspec.Meta(ge=0)] | None = None
    pair_burst: Annotated[int, msgspec.Meta(ge=1)] | None = None
    template: Template | None = None
    human_agent: bool = False


class AccountChange(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What may change of an account; what is left out stays."""

    name: str | None = None
    token: str | None = None
    app_secret: str | None = None
    verify_token: str | None = None
    url: str | None = None
    per_second: Annotated[float, msgspec.Meta(gt=0)] | None = None
    enabled: bool | None = None
    template: Template | msgspec.UnsetType | None = msgspec.UNSET


def connector_of(channel: str) -> str:
    """The connector that serves a channel: its own where there is one, else Apprise."""
    return channel if channel in ("whatsapp", "instagram") else "apprise"


def _purpose(channel: str, provider_account: str) -> str:
    # Sealed for its account alone: copied to another row it does not open.
    return f"channel account {channel} {provider_account}"


def _view(row: asyncpg.Record) -> AccountView:
    template = row["template"]
    hooked = row["connector"] != "apprise"
    return AccountView(
        id=row["id"],
        channel=row["channel"],
        connector=row["connector"],
        name=row["name"],
        provider_account=row["provider_account"],
        webhook_path=f"/webhooks/{row['channel']}/{row['hook']}" if hooked else None,
        per_second=row["per_second"],
        media_per_second=row["media_per_second"],
        pair_interval=row["pair_interval"],
        pair_burst=row["pair_burst"],
        window_seconds=row["window_seconds"],
        template=msgspec.convert(template, Template) if template else None,
        human_agent=row["human_agent"],
        enabled=row["enabled"],
        problem=row["problem"],
    )


def _check(new: NewAccount) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]{1,19}", new.channel) or new.channel == "app":
        raise InvalidInput("The channel has 2 to 20 lower-case letters and digits, beginning with a letter.")
    if not new.provider_account.strip():
        raise InvalidInput("Give the provider's id of the account: provider_account.")
    connector = connector_of(new.channel)
    if connector == "apprise":
        if not new.url:
            raise InvalidInput("Give Apprise's url of the service, with {address} where the recipient goes.")
    elif not (new.token and new.app_secret and new.verify_token):
        raise InvalidInput("Give token, app_secret and verify_token: see docs/connectors.md.")


class ChannelAccounts:
    """The one place where accounts' secrets are opened. Read ones are remembered for CACHE_SECONDS."""

    MOST = 10_000

    def __init__(self, sealer: Sealer, clock: Callable[[], float] = time.monotonic) -> None:
        self._sealer = sealer
        self._clock = clock
        self._known: OrderedDict[tuple[Any, ...], tuple[float, Account | None]] = OrderedDict()

    # -- administrators, within a transaction of the tenant's

    async def add(self, connection: Connection, new: NewAccount) -> AccountView:
        """Set up an account. Raises InvalidInput, Conflict."""
        _check(new)
        connector = connector_of(new.channel)
        usual = DEFAULTS[connector]
        secrets = Secrets(
            token=new.token, app_secret=new.app_secret, verify_token=new.verify_token, url=new.url
        )
        window = usual["window_seconds"]
        if new.human_agent and connector == "instagram":
            window = HUMAN_AGENT_SECONDS
        try:
            account_id = await connection.fetchval(
                INSERT,
                new.channel,
                connector,
                new.name,
                new.provider_account.strip(),
                self._seal(secrets, new.channel, new.provider_account.strip()),
                float(new.per_second or usual["per_second"]),
                float(new.media_per_second or new.per_second or usual["media_per_second"]),
                float(usual["pair_interval"] if new.pair_interval is None else new.pair_interval),
                new.pair_burst or usual["pair_burst"],
                window,
                msgspec.to_builtins(new.template) if new.template else None,
                new.human_agent,
            )
        except asyncpg.UniqueViolationError as error:
            raise Conflict(f"{new.channel} {new.provider_account} is set up already.") from error
        return await self.view(connection, account_id)

    async def list(self, connection: Connection) -> list[AccountView]:
        """The tenant's accounts."""
        return [_view(row) for row in await connection.fetch(LIST)]

    async def view(self, connection: Connection, account_id: int) -> AccountView:
        """One account of the tenant. Raises NotFound."""
        return _view(await self._row(connection, account_id))

    async def change(self, connection: Connection, account_id: int, wanted: AccountChange) -> AccountView:
        """Change an account; what was its problem is taken for solved. Raises NotFound."""
        row = await self._row(connection, account_id)
        secrets = self._open(row)
        for name in ("token", "app_secret", "verify_token", "url"):
            if (value := getattr(wanted, name)) is not None:
                setattr(secrets, name, value)
        template = row["template"]
        if not isinstance(wanted.template, msgspec.UnsetType):
            template = msgspec.to_builtins(wanted.template) if wanted.template else None
        await connection.execute(
            UPDATE,
            account_id,
            row["name"] if wanted.name is None else wanted.name,
            self._seal(secrets, row["channel"], row["provider_account"]),
            wanted.per_second or row["per_second"],
            row["media_per_second"],
            row["pair_interval"],
            row["pair_burst"],
            row["window_seconds"],
            template,
            row["human_agent"],
            row["enabled"] if wanted.enabled is None else wanted.enabled,
        )
        return await self.view(connection, account_id)

    async def remove(self, connection: Connection, account_id: int) -> None:
        """Forget an account and its secrets. Raises NotFound."""
        await self._row(connection, account_id)
        await connection.execute("delete from caudal.channel_account where id = $1", account_id)

    async def _row(self, connection: Connection, account_id: int) -> asyncpg.Record:
        rows: list[asyncpg.Record] = await connection.fetch(LIST)
        found = next((row for row in rows if row["id"] == account_id), None)
        if found is None:
            raise NotFound("There is no such account.")
        return found

    # -- connectors and webhooks, for any tenant

    async def choose(
        self, source: asyncpg.Pool[Any], tenant: str, channel: str, address: str
    ) -> Account | None:
        """The account through which to reach `address`; None when the tenant has none."""
        return await self._cached(source, ("to", tenant, channel, address), CHOOSE, tenant, channel, address)

    async def by_hook(self, source: asyncpg.Pool[Any], hook: UUID) -> Account | None:
        """The account to which the provider sends webhooks at `hook`, enabled or not."""
        return await self._cached(source, ("hook", hook), BY_HOOK, hook)

    async def by_provider(
        self, source: asyncpg.Pool[Any], tenant: str, channel: str, provider_account: str
    ) -> Account | None:
        """The tenant's account that the provider calls `provider_account`, enabled or not."""
        key = ("provider", tenant, channel, provider_account)
        return await self._cached(source, key, BY_PROVIDER, tenant, channel, provider_account)

    async def _cached(
        self, source: asyncpg.Pool[Any], key: tuple[Any, ...], query: str, *arguments: Any
    ) -> Account | None:
        now = self._clock()
        kept = self._known.get(key)
        if kept is not None and kept[0] > now:
            return kept[1]
        row = await source.fetchrow(query, *arguments)
        found = self._account(row) if row is not None else None
        self._known[key] = (now + CACHE_SECONDS, found)
        self._known.move_to_end(key)
        while len(self._known) > self.MOST:
            self._known.popitem(last=False)
        return found

    def _account(self, row: asyncpg.Record) -> Account:
        template = row["template"]
        return Account(
            id=row["id"],
            tenant_id=row["tenant_id"],
            tenant=row["tenant"],
            channel=row["channel"],
            provider_account=row["provider_account"],
            name=row["name"],
            secrets=self._open(row),
            per_second=row["per_second"],
            media_per_second=row["media_per_second"],
            pair_interval=row["pair_interval"],
            pair_burst=row["pair_burst"],
            window_seconds=row["window_seconds"],
            template=msgspec.convert(template, Template) if template else None,
            human_agent=row["human_agent"],
            problem=row["problem"],
            suspended=row.get("suspended", False),
        )

    def _seal(self, secrets: Secrets, channel: str, provider_account: str) -> bytes:
        return self._sealer.seal(msgspec.json.encode(secrets), _purpose(channel, provider_account))

    def _open(self, row: asyncpg.Record) -> Secrets:
        purpose = _purpose(row["channel"], row["provider_account"])
        return msgspec.json.decode(self._sealer.open(row["secrets"], purpose), type=Secrets)

    async def note_problem(self, source: asyncpg.Pool[Any], account: Account, problem: str | None) -> None:
        """Write down what an operator must attend to, or that it is over."""
        if account.problem != problem:
            account.problem = problem
            await source.execute(PROBLEM, account.id, problem)
