"""A provider that fails opens a real connector's breaker: Operations shows it, and that it closed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from caudal.app import router
from caudal.app.connector import ConnectorParts, run_connector
from caudal.core import db
from caudal.core.eventlog.settings import LogSettings
from caudal.core.lifecycle import Lifecycle
from caudal.core.metrics import Metrics
from caudal.messaging.accounts import ChannelAccounts, NewAccount
from caudal.messaging.connector_settings import SendingSettings
from caudal.messaging.deliveries import Deliveries
from caudal.messaging.notify import Notifier
from caudal.messaging.settings import MessagingSettings
from caudal.sandbox import demo

from .axe import findings
from .conftest import Site, Window

PHONE = "+5511977770009"
FAILING = {"fault": "error", "code": 131016}


class Works:
    """A router and a WhatsApp connector of their own, against the sandbox."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.life = Lifecycle()
        self.account = 0

    async def start(self) -> None:
        provided = demo.whatsapp_account()
        accounts = ChannelAccounts(self.site.made.sealer)
        async with db.tenant_transaction(self.site.made.pool, "acme") as connection:
            made = await accounts.add(
                connection,
                NewAccount(
                    channel="whatsapp", provider_account=provided.id, token=provided.token,
                    app_secret=provided.app_secret, verify_token=provided.verify_token,
                ),
            )  # fmt: skip
        self.account = made.id
        settings = MessagingSettings(delivery_max_attempts=50)
        pool, event_log = await router.parts(
            self.life, self.site.database, LogSettings(log_lease_seconds=1), settings, Metrics()
        )
        notifier = Notifier(pool)
        self.life.on_stop("notifier", notifier.stop)
        sending = SendingSettings(
            whatsapp_api_base=self.site.sandbox_url, connector_retry_first=0.05, connector_retry_most=0.1,
            breaker_failures=2, breaker_seconds=2,
        )  # fmt: skip
        deliveries = Deliveries(pool, event_log, notifier, settings)
        parts = ConnectorParts(pool, event_log, accounts, deliveries, Metrics(), sending)
        await run_connector(self.life, "whatsapp", parts)

    async def stop(self) -> None:
        await self.life.stop()
        await self.site.admin.execute("delete from caudal.channel_account where id = $1", self.account)

    async def behave(self, behaviour: dict[str, Any]) -> None:
        """Tell the sandbox how the provider is to behave."""
        async with httpx.AsyncClient(base_url=self.site.sandbox_url, trust_env=False) as client:
            answer = await client.put(f"/control/accounts/{demo.WHATSAPP_ID}/behaviour", json=behaviour)
            assert answer.status_code == 200, answer.text

    async def received(self, count: int) -> list[str]:
        """What the phone shows, once it is so much."""
        async with httpx.AsyncClient(base_url=self.site.sandbox_url, trust_env=False, timeout=40) as client:
            path = f"/control/phones/{PHONE}/messages"
            answer = await client.get(path, params={"count": count, "wait": 30})
            return [one["text"] for one in answer.json()]


@pytest.fixture
def works(site: Site) -> Iterator[Works]:
    made = Works(site)
    site.run(made.start())
    yield made
    site.run(made.behave({"fault": "none"}))
    site.run(made.stop())
    assert made.life.failure is None


def test_a_failing_provider_is_seen_in_operations(
    window: Callable[..., Window], site: Site, works: Works
) -> None:
    ana = window("ana")
    channels = ana.go("/console/operations").locator(
        "section", has=ana.page.get_by_role("heading", name="Channels")
    )
    assert "nothing sent since" in channels.inner_text()
    site.run(works.behave(FAILING))
    talk = window("ana").go("/console/conversations")
    talk.fill("[name=name]", "disjuntor")
    talk.fill("[name=recipient]", f"whatsapp:{PHONE}")
    talk.fill("[name=content]", "Chegou?")
    talk.click("main button.primary")
    talk.wait_for_url("**/thread?name=disjuntor")
    # The page asks by itself; nobody reloads it.
    channels.locator(".badge", has_text="open: not sending").wait_for()
    assert findings(ana.page) == []
    site.run(works.behave({"fault": "none"}))
    assert site.run(works.received(1)) == ["Chegou?"]
    channels.locator(".badge.good", has_text="closed: sending").wait_for()
    talk.locator(".badge", has_text="whatsapp: sent").wait_for()
