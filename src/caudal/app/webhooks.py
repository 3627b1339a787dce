"""What the API needs for providers: their webhooks in, tenants' accounts at them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from caudal.core.eventlog.port import EventLog
from caudal.core.lifecycle import Lifecycle
from caudal.core.settings import load
from caudal.messaging import connectors
from caudal.messaging.accounts import ChannelAccounts
from caudal.messaging.connector_settings import SendingSettings
from caudal.messaging.webhooks import CHANNELS, Webhooks

if TYPE_CHECKING:
    from caudal.app.api import ApiParts


async def bring(life: Lifecycle, made: ApiParts) -> None:
    """Give an API process the services of webhooks and connectors; after messaging's, which has the log."""
    settings = load(SendingSettings, made.environ)
    readers = {}
    for name in CHANNELS:
        readers[name] = connectors.make(name, settings.connector(name))
        life.on_stop(f"{name} reader", readers[name].close)
    accounts = ChannelAccounts(made.sealer)
    event_log = cast(EventLog, made.services["event_log"])
    made.services["channel_accounts"] = accounts
    made.services["webhooks"] = Webhooks(made.pool, event_log, accounts, readers)
