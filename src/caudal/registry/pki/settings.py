"""Settings of the certificate authority and of registration."""

from __future__ import annotations

from typing import Annotated

import msgspec

from caudal.core.settings import setting


class PkiSettings(msgspec.Struct, frozen=True):
    """How long things are valid, and how often they may be asked for."""

    pki_device_days: Annotated[int, setting("Days that a gateway's certificate is valid", ge=1)] = 3650
    pki_bootstrap_days: Annotated[int, setting("Days that a bootstrap certificate is valid", ge=1)] = 730
    pki_authority_days: Annotated[int, setting("Days that a new authority is valid", ge=1)] = 7300
    pki_crl_hours: Annotated[
        int, setting("Hours that a revocation list is valid; a new one is written at half of it", ge=1)
    ] = 24
    pki_renew_days: Annotated[
        int, setting("Days before its expiry from which a certificate is renewed", ge=1)
    ] = 730
    pki_renewals_a_day: Annotated[int, setting("Gateways that are renewed in a day (UTC)", ge=1)] = 10
    pki_registrations_an_hour: Annotated[
        int, setting("Registrations that one address may try in an hour", ge=1)
    ] = 10
    pki_client_cert_header: Annotated[
        str | None,
        setting(
            "Header in which a trusted proxy gives the SHA-256 fingerprint of the client certificate it"
            " verified; registration then insists on it"
        ),
    ] = None
