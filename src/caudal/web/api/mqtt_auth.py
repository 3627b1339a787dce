"""EMQX asks us over HTTP who may come in and what they may do (its HTTP authenticator and authorizer, 5.x).

The answer to a sign-in carries no rules (`acl`, EMQX 5.8 and later): EMQX would keep to them for as long as
the client is connected, whoever has been revoked since (docs/adr/0110). It asks `/mqtt/acl` instead, and
keeps an answer for a minute. Every answer is 200: EMQX takes another status for `ignore` and would go on to
its next authenticator. Have EMQX deny what no rule matches (`authorization.no_match`).
"""

from __future__ import annotations

import hmac
from typing import Any, Literal

import asyncpg
import msgspec
from litestar import Request, post
from litestar.params import JSONBody

from caudal.core.errors import Unauthenticated
from caudal.registry import access
from caudal.registry.access import Access, AccessSettings, Client
from caudal.web.guards import machinery
from caudal.web.inject import Given

NEEDS = frozenset({"pool", "rules", "access_settings"})
BROKER = [machinery("a broker shows its own secret, MQTT_HTTP_SECRET")]
# What EMQX puts where a placeholder has no value.
ABSENT = (None, "", "undefined")


class SignIn(msgspec.Struct):
    """What EMQX says of who connects. Set its body template to these names."""

    username: str | None = None
    password: str | None = None
    clientid: str | None = None
    cert_common_name: str | None = None


class SignInAnswer(msgspec.Struct, omit_defaults=True):
    """EMQX's authentication result. At `expire_at` (Unix seconds) it ends the connection."""

    result: Literal["allow", "deny", "ignore"]
    is_superuser: bool = False
    expire_at: int | None = None


class Wish(msgspec.Struct):
    """What EMQX says of who wants to publish or subscribe."""

    action: str
    topic: str
    username: str | None = None
    clientid: str | None = None
    cert_common_name: str | None = None


class WishAnswer(msgspec.Struct):
    """EMQX's authorisation result."""

    result: Literal["allow", "deny", "ignore"]


def from_broker(request: Request[Any, Any, Any], settings: AccessSettings) -> None:
    """That it is the broker who asks. Raises Unauthenticated, also where no secret is set.

    Not even loopback is trusted: behind a proxy on this machine everybody comes from there.
    """
    secret = settings.mqtt_http_secret
    shown = request.headers.get("authorization", "").removeprefix("Bearer ")
    if secret is None or not hmac.compare_digest(shown.encode(), secret.encode()):
        raise Unauthenticated("Set MQTT_HTTP_SECRET here, and show it in the broker's Authorization header.")


async def _client(pool: Any, settings: AccessSettings, data: SignIn) -> Client | None:
    if data.cert_common_name not in ABSENT and (mac := access.split_mac(data.cert_common_name or "")):
        # The broker has verified the certificate and looked at the revocation list.
        return await access.find_certificate(pool, mac=mac)
    if data.username in ABSENT or data.password is None:
        return None
    user = data.username or ""
    if user == access.ADMINISTRATOR and settings.mqtt_admin_password is not None:
        right = hmac.compare_digest(data.password.encode(), settings.mqtt_admin_password.encode())
        return Client(name=user, role="administrator") if right else None
    return await access.find(pool, user, access.digest(data.password.encode()))


@post("/mqtt/auth", guards=BROKER, status_code=200, opt={"problems": (401,)})
async def sign_in(
    request: Request[Any, Any, Any],
    data: JSONBody[SignIn],
    pool: Given[asyncpg.Pool],
    access_settings: Given[AccessSettings],
) -> SignInAnswer:
    """Whether a client may connect, and until when."""
    from_broker(request, access_settings)
    client = await _client(pool, access_settings, data)
    if client is None:
        return SignInAnswer("deny")
    if client.role == "administrator":
        return SignInAnswer("allow", is_superuser=True)
    until = None if client.until == float("inf") else int(client.until)
    return SignInAnswer("allow", expire_at=until)


@post("/mqtt/acl", guards=BROKER, status_code=200, opt={"problems": (401,)})
async def may(
    request: Request[Any, Any, Any],
    data: JSONBody[Wish],
    pool: Given[asyncpg.Pool],
    rules: Given[Access],
    access_settings: Given[AccessSettings],
) -> WishAnswer:
    """Whether a client that has signed in may publish or subscribe; one revoked since then may not."""
    from_broker(request, access_settings)
    client = await _signed_in(pool, data, access_settings)
    if client is None or "\0" in data.topic:
        return WishAnswer("deny")
    allowed = (
        rules.may_publish(client, data.topic)
        if data.action == "publish"
        else data.action == "subscribe" and rules.may_subscribe(client, data.topic)
    )
    return WishAnswer("allow" if allowed else "deny")


async def _signed_in(pool: Any, data: Wish, settings: AccessSettings) -> Client | None:
    if data.cert_common_name not in ABSENT and (mac := access.split_mac(data.cert_common_name or "")):
        return await access.find_certificate(pool, mac=mac)
    if data.username in ABSENT:
        return None
    user = data.username or ""
    if user == access.ADMINISTRATOR and settings.mqtt_admin_password is not None:
        return Client(name=user, role="administrator")
    return await access.find(pool, user, None)


ROUTES = [sign_in, may]
