"""Settings of people, tokens and quotas."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from caudal.core.errors import SettingsError
from caudal.core.seal import Sealer, secret_from
from caudal.core.settings import setting


class PeopleSettings(msgspec.Struct, frozen=True):
    """How people register and sign in."""

    secret_key: Annotated[
        str | None,
        setting(
            "Seals signing keys and providers' tokens: 32 characters or more; or name SECRET_FILE",
            env="CAUDAL_MASTER_KEY",
        ),
    ] = None
    secret_file: Annotated[str | None, setting("File with the secret key, made at first when missing")] = None
    default_tenant: Annotated[str, setting("Tenant of the first start, and of who registers alone")] = (
        "default"
    )
    registration: Annotated[bool, setting("Whether anybody may register, as member of DEFAULT_TENANT")] = True
    token_seconds: Annotated[int, setting("Life of an access token", ge=60, le=86_400)] = 3600
    signing_key_days: Annotated[int, setting("Days after which tokens are signed with a new key", ge=1)] = 30
    session_hours: Annotated[int, setting("Hours a browser stays signed in unused", ge=1)] = 12
    principal_seconds: Annotated[
        int, setting("Seconds after which a change of role, or a withdrawn key, is in force", ge=0)
    ] = 5
    rate_limit_tenant: Annotated[
        int,
        setting(
            "Requests a second of a tenant in each process, unless its quota says otherwise; 0: no limit",
            ge=0,
        ),
    ] = 20_000
    rate_limit_address: Annotated[
        int, setting("Requests a second of an address that has not signed in; 0: no limit", ge=0)
    ] = 100
    public_url: Annotated[str, setting("Where people reach the console and the API; links in mail")] = (
        "http://127.0.0.1:8080"
    )
    mail_url: Annotated[
        str | None, setting("Apprise URL that mail is sent through; mail is logged without it")
    ] = None
    mail_log_secrets: Annotated[bool, setting("Log links of mail in full: for development alone")] = False


def sealer_of(people: PeopleSettings) -> Sealer:
    """The sealer that the settings name. Raises SettingsError."""
    if people.secret_key:
        return Sealer(people.secret_key)
    if people.secret_file:
        return Sealer(secret_from(Path(people.secret_file)))
    raise SettingsError("Set CAUDAL_MASTER_KEY (32 characters or more), or SECRET_FILE.")
