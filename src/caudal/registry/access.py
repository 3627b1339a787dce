"""Who may publish and subscribe to what: the one place. All doors and files are made from `Access.grants`.

| who | user name | publishes | subscribes to |
|---|---|---|---|
| device | `t:{tenant}:d:{device}` | its own state, telem, event, alarm, ack | its own cmd |
| gateway | its MAC | its own readings; telemetry of its site's assets | its own commands |
| backend | a name | commands | everything devices publish |
| dashboard | a name | nothing | everything devices publish |
| administrator | a name | everything | everything |

A gateway shows a certificate or a password. A backend or dashboard may be bound to a tenant. A grant is a
filter of topics; a device's site is data, not identity (its name is unique in the tenant), and left free.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import unquote

import asyncpg
import msgspec

from caudal.core.errors import SettingsError
from caudal.core.settings import setting
from caudal.mqtt import ports
from caudal.mqtt.topics import matches

Role: TypeAlias = Literal["device", "gateway", "backend", "dashboard", "administrator"]

TOPICS: Mapping[str, str] = {
    "state": "traksense/{tenant}/{site}/{device}/state",
    "telem": "traksense/{tenant}/{site}/{device}/telem",
    "event": "traksense/{tenant}/{site}/{device}/event",
    "alarm": "traksense/{tenant}/{site}/{device}/alarm",
    "ack": "traksense/{tenant}/{site}/{device}/ack",
    "cmd": "traksense/{tenant}/{site}/{device}/cmd",
    "meter": "tds_new/devices/{mac}/telemetry",
    "meter_cmd": "tds_new/devices/{mac}/commands",
    "asset": "tenants/{tenant}/sites/{site}/assets/{device}/telemetry",
}

DEVICE_PUBLISHES = ("state", "telem", "event", "alarm", "ack")
DEVICE_SUBSCRIBES = ("cmd",)
GATEWAY_PUBLISHES = ("meter", "asset")
GATEWAY_SUBSCRIBES = ("meter_cmd",)
TELEMETRY = ("state", "telem", "event", "alarm", "ack", "meter", "asset")
COMMANDS = ("cmd", "meter_cmd")

ADMINISTRATOR = "admin"
"""The user name that MQTT_ADMIN_PASSWORD is for."""


class AccessSettings(msgspec.Struct, frozen=True):
    """Who is let in without credentials, and what the installation's own administrator shows."""

    mqtt_auth: Annotated[
        Literal["auto", "open", "required"],
        setting(
            "Whether clients must sign in: `open` lets all in who show nothing; `auto`: open on loopback"
        ),
    ] = "auto"
    mqtt_admin_password: Annotated[str | None, setting("Password of the MQTT user `admin`")] = None
    mqtt_http_secret: Annotated[
        str | None,
        setting("What EMQX shows (`Authorization: Bearer …`) when it asks us; nobody may ask without"),
    ] = None
    credential_days: Annotated[
        int, setting("Days after which a device's password is due for rotation", ge=1)
    ] = 90
    credential_grace_days: Annotated[
        int, setting("Days that an old password stays valid beside or beyond its turn", ge=0)
    ] = 14

    def open(self, host: str) -> bool:
        """Whether a door that listens on `host` lets in who shows no credentials."""
        if self.mqtt_auth == "auto":
            return host in ("127.0.0.1", "::1", "localhost")
        return self.mqtt_auth == "open"


class Client(ports.Principal, frozen=True, kw_only=True):
    """Who has come in. `until` is when their proof expires, Unix seconds; `proof` finds it again."""

    role: Role
    tenant: str | None = None
    tenant_id: int | None = None
    device: str | None = None
    device_id: int | None = None
    mac: str | None = None
    gateway_id: int | None = None
    site: str | None = None
    until: float = float("inf")
    proof: str = ""

    @property
    def key(self) -> str:
        """As the database's notifications name what this client rests on."""
        if self.device_id is not None:
            return f"device:{self.device_id}"
        if self.gateway_id is not None:
            return f"gateway:{self.gateway_id}"
        return f"user:{self.name}"


ANONYMOUS = Client(name="anonymous", role="administrator")
"""Who shows nothing where the door is open. Such a door is for development on one machine."""


class Grants(msgspec.Struct, frozen=True):
    """Filters that a client's topics must match, and its subscriptions lie within."""

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()


def addressable(name: str) -> bool:
    """Whether a name can stand as one level of a topic, and on one line of a file."""
    return (
        bool(name)
        and name.strip() == name
        and not name.startswith("$")
        and not any(character in "/+#" or character < " " or character == "\x7f" for character in name)
    )


class Access:
    """The rules, for one scheme of topics: a template, or several, or none, for each kind.

    Topics whose template names neither tenant nor MAC are those of `topic_tenant`, and open to it alone.
    """

    def __init__(
        self, topics: Mapping[str, str | Sequence[str]] = TOPICS, *, topic_tenant: str = "default"
    ) -> None:
        self.topics: dict[str, tuple[str, ...]] = {
            kind: (given,) if isinstance(given, str) else tuple(given)
            for kind, given in {**TOPICS, **topics}.items()
        }
        self.topic_tenant = topic_tenant
        for kind, templates in self.topics.items():
            for level in (level for template in templates for level in template.split("/")):
                if "{site}" in level and level != "{site}":
                    raise SettingsError(f"Topic {kind}: {{site}} must be a whole level, not {level!r}.")

    def filters(self, kind: str, **levels: str | None) -> tuple[str, ...]:
        """The filters of a kind of topic, in order; levels not given are `+`.

        Empty when there is no template, when a name cannot be on a topic, and for topics of another tenant.
        """
        found = (self._filter(template, levels) for template in self.topics[kind])
        return tuple(dict.fromkeys(made for made in found if made is not None))

    def topic(self, kind: str, **levels: str) -> str | None:
        """The topic of a kind by the first template that takes these names; None when none does."""
        return next((made for made in self.filters(kind, **levels) if "+" not in made), None)

    def _filter(self, template: str, levels: Mapping[str, str | None]) -> str | None:
        tenant = levels.get("tenant")
        nobodys = "{tenant}" not in template and "{mac}" not in template
        if nobodys and tenant is not None and tenant != self.topic_tenant:
            return None
        made = template
        for field in ("tenant", "site", "device", "mac"):
            value = levels.get(field)
            if value is None:
                made = "/".join("+" if f"{{{field}}}" in level else level for level in made.split("/"))
            elif not addressable(value):
                return None
            else:
                made = made.replace(f"{{{field}}}", value)
        return made

    def site_in(self, kind: str, pattern: str) -> str | None:
        """The site that a topic of this kind names; None for a wildcard, or a template without a site."""
        found = pattern.split("/")
        for template in self.topics[kind]:
            levels = template.split("/")
            if "{site}" in levels and len(levels) == len(found) and covers(_open(levels), pattern):
                site = found[levels.index("{site}")]
                return site if addressable(site) and site != "-" else None
        return None

    def grants(self, client: Client) -> Grants:
        """What `client` may do."""
        if client.role == "administrator":
            return Grants(("#",), ("#", "$SYS/#"))
        levels = {"tenant": client.tenant, "device": client.device}
        if client.role == "device":
            if client.tenant is None or client.device is None:
                return Grants()
            return Grants(self._all(DEVICE_PUBLISHES, levels), self._all(DEVICE_SUBSCRIBES, levels))
        if client.role == "gateway":
            return self._gateway(client)
        return Grants(
            self._seen(client, COMMANDS) if client.role == "backend" else (), self._seen(client, TELEMETRY)
        )

    def _seen(self, client: Client, kinds: tuple[str, ...]) -> tuple[str, ...]:
        # Readings carry a MAC and no tenant: only who works for all of them sees them on the wire.
        found = (
            self._filter(template, {"tenant": client.tenant})
            for kind in kinds
            for template in self.topics[kind]
            if client.tenant is None or "{tenant}" in template
        )
        return tuple(dict.fromkeys(made for made in found if made is not None))

    def _gateway(self, client: Client) -> Grants:
        if client.mac is None:
            return Grants()
        # Boxes in the field spell it either way.
        spellings = (client.mac, client.mac.upper())
        where = {"tenant": client.tenant, "site": client.site}
        publish: list[str | None] = []
        for template in (template for kind in GATEWAY_PUBLISHES for template in self.topics[kind]):
            if "{mac}" in template:
                publish.extend(self._filter(template, {"mac": mac}) for mac in spellings)
            elif client.tenant is not None and client.site is not None:
                publish.append(self._filter(template, where))
        subscribe = [made for mac in spellings for made in self._all(GATEWAY_SUBSCRIBES, {"mac": mac})]
        return Grants(
            tuple(dict.fromkeys(made for made in publish if made is not None)),
            tuple(dict.fromkeys(subscribe)),
        )

    def _all(self, kinds: tuple[str, ...], levels: Mapping[str, str | None]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(made for kind in kinds for made in self.filters(kind, **levels)))

    def may_publish(self, client: Client, topic: str) -> bool:
        """Whether `client` may publish on `topic`."""
        return any(matches(grant, topic) for grant in self.grants(client).publish)

    def may_subscribe(self, client: Client, pattern: str) -> bool:
        """Whether everything that `pattern` takes in lies within what `client` may see."""
        return any(covers(grant, pattern) for grant in self.grants(client).subscribe)


def _open(levels: Sequence[str]) -> str:
    """A template's levels as a filter that takes in all of its topics."""
    return "/".join("+" if "{" in level else level for level in levels)


def covers(grant: str, pattern: str) -> bool:
    """Whether filter `grant` takes in every topic that filter `pattern` takes in."""
    if grant[:1] in ("#", "+") and pattern.startswith("$"):
        return False
    ours, theirs = grant.split("/"), pattern.split("/")
    for number, level in enumerate(ours):
        if level == "#":
            return True
        if number >= len(theirs):
            return False
        wanted = theirs[number]
        if wanted == "#" or (level != "+" and level != wanted):
            return False
    return len(ours) == len(theirs)


# -- user names


def device_user(tenant: str, device: str) -> str:
    """The user name of a device."""
    return f"t:{tenant}:d:{device}"


def _quoted(name: str) -> str:
    return "".join(character if character not in "%.:" else f"%{ord(character):02X}" for character in name)


def mosquitto_user(user: str) -> str:
    """The same user in a Mosquitto password file, where a name ends at its first colon.

    `t:acme:d:pump` is `t.acme.d.pump` there (dots, colons and `%` in the names themselves as `%XX`), the
    gateway `aa:bb:…` is `aa-bb-…`. Our own endpoint takes both spellings.
    """
    names = split_device(user)
    if names is not None:
        return f"t.{_quoted(names[0])}.d.{_quoted(names[1])}"
    return user.replace(":", "-")


def split_device(user: str) -> tuple[str, str] | None:
    """(tenant, device) of a device's user name in either spelling; None when it is none."""
    if user.startswith("t:"):
        tenant, mark, device = user[2:].partition(":d:")
        return (tenant, device) if mark and tenant and device else None
    if user.startswith("t."):
        parts = user.split(".")
        if len(parts) == 4 and parts[2] == "d" and parts[1] and parts[3]:
            return unquote(parts[1]), unquote(parts[3])
    return None


def split_mac(user: str) -> str | None:
    """The MAC in a gateway's user name, lower-cased, or None."""
    levels = user.lower().replace("-", ":").split(":")
    if len(levels) == 6 and all(len(x) == 2 and all(c in "0123456789abcdef" for c in x) for x in levels):
        return ":".join(levels)
    return None


def digest(password: bytes) -> bytes:
    """What is kept of a password: 256 random bits, made by us, of which no more need be hidden."""
    return hashlib.sha256(password).digest()


# -- looking up


async def find(pool: asyncpg.Pool[Any], user: str, wanted: bytes | None) -> Client | None:
    """The client with this user name, and a password of digest `wanted`; None when there is none.

    Without a digest: the client, if any credentials at all would let it in.
    """
    if "\0" in user:
        return None
    proof = wanted.hex() if wanted is not None else ""
    if (names := split_device(user)) is not None:
        tenant, device = names
        row = await pool.fetchrow("select * from caudal.access_device($1, $2, $3)", tenant, device, wanted)
        return row and Client(
            name=device_user(tenant, device), role="device", tenant=tenant, tenant_id=row["tenant_id"],
            device=device, device_id=row["device_id"], until=row["expires_at"].timestamp(), proof=proof,
        )  # fmt: skip
    if (mac := split_mac(user)) is not None:
        row = await pool.fetchrow("select * from caudal.access_gateway($1, $2)", mac, wanted)
        return row and _gateway(row, mac, proof)
    row = await pool.fetchrow("select * from caudal.access_user($1, $2)", user, wanted)
    return row and Client(
        name=user, role=row["role"], tenant=row["tenant"], tenant_id=row["tenant_id"], proof=proof
    )


async def find_certificate(
    pool: asyncpg.Pool[Any], *, fingerprint: str | None = None, mac: str | None = None
) -> Client | None:
    """The gateway of a certificate in force: by its fingerprint, or by the MAC that a broker verified."""
    row = await pool.fetchrow("select * from caudal.access_certificate($1, $2)", fingerprint, mac)
    return row and _gateway(row, row["mac"], f"certificate {fingerprint or ''}")


def _gateway(row: Any, mac: str, proof: str) -> Client:
    return Client(
        name=mac, role="gateway", tenant=row["tenant"], tenant_id=row["tenant_id"], mac=mac,
        gateway_id=row["gateway_id"], site=row["site"], until=row["expires_at"].timestamp(), proof=proof,
    )  # fmt: skip


async def still(pool: asyncpg.Pool[Any], client: Client) -> bool:
    """Whether `client` would be let in again, as the same, by what it showed."""
    if client.proof.startswith("certificate "):
        found = await find_certificate(pool, fingerprint=client.proof.removeprefix("certificate "))
    elif client.proof:
        found = await find(pool, client.name, bytes.fromhex(client.proof))
    else:
        return True  # anonymous, or the installation's administrator: neither rests on the database
    return found is not None and msgspec.structs.replace(found, until=0) == msgspec.structs.replace(
        client, until=0
    )
