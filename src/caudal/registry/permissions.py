"""The one permission table: which role may do what.

An action is also the scope that an API key carries. Every route declares its action (`web.guards.requires`);
a test walks the routes and fails on one without. docs/people.md shows this table, and a test compares them.
"""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What a person is in a tenant, from most to least. `member` may message and sees no telemetry."""

    OWNER = "owner"
    ADMIN = "admin"
    OPERATOR = "operator"
    TECHNICIAN = "technician"
    VIEWER = "viewer"
    MEMBER = "member"


class Action(StrEnum):
    """What can be done. Named `things:verb`; the value is what API keys carry as a scope."""

    SELF_READ = "self:read"
    SELF_WRITE = "self:write"

    TENANT_READ = "tenant:read"
    TENANT_WRITE = "tenant:write"
    PEOPLE_READ = "people:read"
    PEOPLE_WRITE = "people:write"
    OWNERS_WRITE = "owners:write"
    TENANTS_SUSPEND = "tenants:suspend"
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    AUDIT_READ = "audit:read"

    REGISTRY_READ = "registry:read"
    REGISTRY_WRITE = "registry:write"
    DEVICES_CLAIM = "devices:claim"
    CREDENTIALS_WRITE = "credentials:write"
    CERTIFICATES_READ = "certificates:read"
    CERTIFICATES_WRITE = "certificates:write"
    COMMANDS_READ = "commands:read"
    COMMANDS_SEND = "commands:send"

    TELEMETRY_READ = "telemetry:read"
    TELEMETRY_WRITE = "telemetry:write"
    TELEMETRY_TEST = "telemetry:test"
    DEAD_LETTERS_READ = "dead_letters:read"
    DEAD_LETTERS_WRITE = "dead_letters:write"
    ALARMS_READ = "alarms:read"
    ALARMS_WRITE = "alarms:write"
    OPERATIONS_READ = "operations:read"

    MESSAGES_READ = "messages:read"
    MESSAGES_SEND = "messages:send"
    CONVERSATIONS_JOIN = "conversations:join"
    FILES_READ = "files:read"
    FILES_WRITE = "files:write"
    GROUPS_READ = "groups:read"
    GROUPS_WRITE = "groups:write"
    IDENTITIES_READ = "identities:read"
    IDENTITIES_WRITE = "identities:write"
    DELIVERIES_READ = "deliveries:read"
    DELIVERIES_WRITE = "deliveries:write"
    CONNECTORS_READ = "connectors:read"
    CONNECTORS_WRITE = "connectors:write"


_ = Action  # shorter rows below

# Who messages at all. Whose messages they are is a matter of participation, not of role.
_MEMBER = {
    _.SELF_READ, _.SELF_WRITE, _.MESSAGES_READ, _.MESSAGES_SEND, _.FILES_READ, _.FILES_WRITE,
    _.GROUPS_READ, _.GROUPS_WRITE, _.IDENTITIES_READ, _.IDENTITIES_WRITE,
}  # fmt: skip
_VIEWER = _MEMBER | {
    _.TENANT_READ, _.REGISTRY_READ, _.TELEMETRY_READ, _.COMMANDS_READ, _.CERTIFICATES_READ, _.ALARMS_READ,
}  # fmt: skip
_TECHNICIAN = _VIEWER | {
    _.REGISTRY_WRITE, _.DEVICES_CLAIM, _.COMMANDS_SEND, _.CREDENTIALS_WRITE, _.TELEMETRY_TEST,
    _.DEAD_LETTERS_READ, _.ALARMS_WRITE,
}  # fmt: skip
_OPERATOR = _TECHNICIAN | {
    _.TELEMETRY_WRITE, _.DEAD_LETTERS_WRITE, _.OPERATIONS_READ, _.CERTIFICATES_WRITE, _.PEOPLE_READ,
    _.DELIVERIES_READ, _.DELIVERIES_WRITE, _.CONNECTORS_READ, _.CONVERSATIONS_JOIN,
}  # fmt: skip
_ADMIN = _OPERATOR | {
    _.TENANT_WRITE, _.TENANTS_SUSPEND, _.PEOPLE_WRITE, _.KEYS_READ, _.KEYS_WRITE, _.AUDIT_READ,
    _.CONNECTORS_WRITE,
}  # fmt: skip

PERMISSIONS: dict[Role, frozenset[Action]] = {
    Role.OWNER: frozenset(_ADMIN | {_.OWNERS_WRITE}),
    Role.ADMIN: frozenset(_ADMIN),
    Role.OPERATOR: frozenset(_OPERATOR),
    Role.TECHNICIAN: frozenset(_TECHNICIAN),
    Role.VIEWER: frozenset(_VIEWER),
    Role.MEMBER: frozenset(_MEMBER),
}

# A machine speaks for no person: these stay with people, whatever a key's scopes say.
NOT_FOR_KEYS = frozenset({_.SELF_WRITE, _.OWNERS_WRITE, _.KEYS_WRITE, _.PEOPLE_WRITE})

# What a device may do over HTTP with its own credentials.
DEVICE_ACTIONS = frozenset({_.TELEMETRY_WRITE})


def table() -> str:
    """The permission table as Markdown, one row an action."""
    lines = [
        "| action | " + " | ".join(Role) + " | API key |",
        "|---" * (len(Role) + 2) + "|",
    ]
    for action in Action:
        cells = ["yes" if action in PERMISSIONS[role] else "" for role in Role]
        cells.append("" if action in NOT_FOR_KEYS else "yes")
        lines.append(f"| `{action}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)
