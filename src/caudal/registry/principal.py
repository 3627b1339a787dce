"""Who makes a request: a person, an API key or a device, in one tenant, with what they may do there."""

from __future__ import annotations

from uuid import UUID

import msgspec

from caudal.registry.permissions import PERMISSIONS, Action, Role


class Principal(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The caller. Exactly one of `user_id`, `api_key_id` and `device_id` is set.

    `allowed` is what counts: for a person what the role allows, for an API key its scopes, for a device
    sending telemetry.
    """

    tenant_id: int
    tenant: str
    allowed: frozenset[Action]
    user_id: UUID | None = None
    username: str | None = None
    email: str | None = None
    role: Role | None = None
    api_key_id: UUID | None = None
    device_id: int | None = None
    name: str = ""
    # What a browser's form must send back in X-CSRF-Token; None for everything but a browser session.
    csrf: str | None = None

    def may(self, action: Action) -> bool:
        """Whether this caller may do `action`."""
        return action in self.allowed

    @property
    def actor(self) -> str:
        """How the audit log calls this caller."""
        if self.user_id is not None:
            return f"user:{self.user_id}"
        if self.api_key_id is not None:
            return f"key:{self.api_key_id}"
        return f"device:{self.device_id}"


def person(
    *, tenant_id: int, tenant: str, user_id: UUID, username: str | None, email: str | None, role: Role,
    csrf: str | None = None,
) -> Principal:  # fmt: skip
    """The principal of a person with `role` in `tenant`."""
    return Principal(
        tenant_id=tenant_id,
        tenant=tenant,
        allowed=PERMISSIONS[role],
        user_id=user_id,
        username=username,
        email=email,
        role=role,
        name=username or email or str(user_id),
        csrf=csrf,
    )
