"""Every setting that a composition root reads, by domain: for the documents, and for who looks for one."""

from __future__ import annotations

import msgspec

from caudal.app.upkeep import UpkeepSettings
from caudal.app.validate.settings import ValidateSettings
from caudal.core.db import DatabaseSettings
from caudal.core.eventlog.settings import LogSettings
from caudal.core.settings import describe
from caudal.core.tracing import TracingSettings
from caudal.messaging.connector_settings import SendingSettings
from caudal.messaging.file_settings import FileSettings
from caudal.messaging.realtime_settings import RealtimeSettings
from caudal.messaging.settings import MessagingSettings
from caudal.registry.access import AccessSettings
from caudal.registry.mosquitto import MosquittoSettings
from caudal.registry.pki.settings import PkiSettings
from caudal.registry.settings import PeopleSettings
from caudal.sandbox.settings import SandboxSettings
from caudal.telemetry.maintenance import RetentionSettings
from caudal.telemetry.settings import DoorSettings, IngestSettings
from caudal.web.settings import WebSettings

GROUPS: dict[str, type[msgspec.Struct]] = {
    "Database": DatabaseSettings,
    "Telemetry: doors": DoorSettings,
    "Telemetry: ingest": IngestSettings,
    "Telemetry: retention": RetentionSettings,
    "Upkeep": UpkeepSettings,
    "Devices' access": AccessSettings,
    "Certificates": PkiSettings,
    "Mosquitto's files": MosquittoSettings,
    "People": PeopleSettings,
    "HTTP": WebSettings,
    "Messaging": MessagingSettings,
    "Messaging: the log": LogSettings,
    "Messaging: providers": SendingSettings,
    "Messaging: files": FileSettings,
    "Messaging: realtime": RealtimeSettings,
    "Sandbox": SandboxSettings,
    "Traces": TracingSettings,
    "Validation": ValidateSettings,
}


def table(kind: type[msgspec.Struct]) -> list[str]:
    """The settings of one group as a Markdown table."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for row in describe(kind):
        default = f"`{row.default}`" if row.default else ""
        lines.append(f"| `{row.variable}` | {default} | {row.sentence.replace('|', '/')} |")
    return lines


def document() -> str:
    """`docs/settings.md`, whole."""
    lines = [
        "# Settings",
        "",
        "Read once, from the environment, when a process starts; an empty variable counts as unset.",
        "This page is made by `caudal settings`, and a test compares the two.",
    ]
    for name, kind in GROUPS.items():
        lines += ["", f"## {name}", "", *table(kind)]
    return "\n".join(lines) + "\n"
