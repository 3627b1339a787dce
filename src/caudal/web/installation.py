"""Routes for the people who run the installation: those of its default tenant (docs/adr/0053, 0080)."""

from __future__ import annotations

from caudal.core.errors import NotFound
from caudal.registry.principal import Principal
from caudal.registry.settings import PeopleSettings


def runs_installation(principal: Principal, settings: PeopleSettings) -> None:
    """Refuse who works in another tenant, in the words of an address that is not there."""
    if principal.tenant != settings.default_tenant:
        raise NotFound("There is no page at this address.")
