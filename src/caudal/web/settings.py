"""Settings of the HTTP side."""

from __future__ import annotations

from typing import Annotated

import msgspec

from caudal.core.settings import setting


class WebSettings(msgspec.Struct, frozen=True):
    """Where the API listens and what it takes in."""

    api_host: Annotated[str, setting("Address that the API listens on")] = "127.0.0.1"
    api_port: Annotated[int, setting("Port that the API listens on; 0: a free one", ge=0, le=65_535)] = 8080
    http_body_max: Annotated[
        int, setting("Largest request body in bytes, unless a route says otherwise", ge=1024)
    ] = 1_048_576
    trusted_proxies: Annotated[
        str, setting("Addresses or networks, by commas, whose X-Forwarded-For is believed")
    ] = ""
    sandbox_url: Annotated[
        str | None, setting("The sandbox whose phones the console shows beside conversations; development")
    ] = None
    cookie_secure: Annotated[bool, setting("Browsers send our cookies over HTTPS alone")] = False
