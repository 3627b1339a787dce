"""The endpoint's hooks: who comes in, by certificate or password, and who is thrown out again.

What was looked up is remembered; a change in the database reaches here by notification, and whoever no longer
would be let in is disconnected, within a second or two.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

import asyncpg
import msgspec

from caudal.core import logs
from caudal.mqtt.codes import Reason
from caudal.mqtt.ports import ConnectInfo, Principal
from caudal.mqtt.topics import matches

from . import access
from .access import ANONYMOUS, Access, Client, Grants

log = logs.get("door")

REMEMBERED = 50_000
FRESH_SECONDS = 300.0
RECENT_SECONDS = 60.0
"""Longer than any CONNECT takes."""


_SITES = """
insert into caudal.site(tenant_id, name)
select distinct d.tenant_id, w.site from unnest($1::bigint[], $2::text[]) as w(id, site)
join caudal.device d on d.id = w.id and d.site_id is null
where not exists (select from caudal.site s where s.tenant_id = d.tenant_id and s.name = w.site)
on conflict do nothing"""

_PLACED = """
update caudal.device d set site_id = s.id from unnest($1::bigint[], $2::text[]) as w(id, site), caudal.site s
where d.id = w.id and d.site_id is null and s.tenant_id = d.tenant_id and s.name = w.site"""


class Connections(Protocol):
    """What of the endpoint the hooks need, to throw out who may not stay."""

    def disconnect(
        self, predicate: Callable[[Principal, str], bool], reason: Reason = ..., *, forget: bool = False
    ) -> int: ...


class DoorHooks:
    """Implements `mqtt.ports.Hooks` on the registry. Give it `watch` once the endpoint is made."""

    def __init__(
        self,
        pool: asyncpg.Pool[Any],
        rules: Access,
        *,
        open_to_all: bool = False,
        admin_password: str | None = None,
    ) -> None:
        self._pool = pool
        self._rules = rules
        self._open = open_to_all
        self._admin = admin_password.encode() if admin_password else None
        self._known: OrderedDict[tuple[str, bytes], tuple[Client, float]] = OrderedDict()
        self._known_by_key: dict[str, set[tuple[str, bytes]]] = {}
        self._inside: dict[tuple[str, str], Client] = {}
        self._by_key: dict[str, set[tuple[str, str]]] = {}
        self._grants: OrderedDict[str, tuple[Client, Grants]] = OrderedDict()
        self._sites: dict[int, str] = {}
        self._suspects: set[str] = set()
        self._all_suspect = False
        self._wake = asyncio.Event()
        self._generation = 0
        self._recent: OrderedDict[str, float] = OrderedDict()

    # -- coming in

    async def authenticate(self, info: ConnectInfo) -> Principal | int:
        """By certificate where there is one, else by user name and password; nothing is shown: if open."""
        if info.certificate is not None:
            found = await access.find_certificate(self._pool, fingerprint=info.certificate.fingerprint)
            return found or Reason.NOT_AUTHORIZED
        if info.username is None:
            return ANONYMOUS if self._open and info.password is None else Reason.NOT_AUTHORIZED
        # What is shown is always checked, also where nothing need be shown.
        return (
            await self._by_password(info.username, info.password or b"") or Reason.BAD_USER_NAME_OR_PASSWORD
        )

    async def _by_password(self, user: str, password: bytes) -> Client | None:
        if user == access.ADMINISTRATOR and self._admin is not None:
            right = hmac.compare_digest(password, self._admin)
            return Client(name=user, role="administrator") if right else None
        key = (user, access.digest(password))
        kept = self._known.get(key)
        now = time.monotonic()
        if kept is not None and kept[1] > now and kept[0].until > time.time():
            return msgspec.structs.replace(kept[0])  # each connection has its own: see `disconnected`
        before = self._generation
        found = await access.find(self._pool, user, key[1])
        # Only what is right is remembered: wrong guesses must not push out those who belong here. And nothing
        # that was revoked while we asked.
        if found is not None and before == self._generation:
            self._known[key] = (found, now + FRESH_SECONDS)
            self._known_by_key.setdefault(found.key, set()).add(key)
            while len(self._known) > REMEMBERED:
                old, (client, _) = self._known.popitem(last=False)
                if keys := self._known_by_key.get(client.key):
                    keys.discard(old)
        return found

    def connected(self, principal: Principal, client_id: str, when: int) -> None:
        """Remember who is inside."""
        if isinstance(principal, Client) and principal.proof:
            place = (principal.name, client_id)
            self._inside[place] = principal
            self._by_key.setdefault(principal.key, set()).add(place)
            # Its rights may have changed between the question and the answer.
            if self._recent.get(principal.key, 0.0) > time.monotonic() - RECENT_SECONDS:
                self._suspects.add(principal.key)
                self._wake.set()

    def disconnected(self, principal: Principal, client_id: str, when: int, reason: int) -> None:
        """Forget who has left; not who came back meanwhile under the same name."""
        place = (principal.name, client_id)
        if isinstance(principal, Client) and self._inside.get(place) is principal:
            del self._inside[place]
            key = principal.key
            places = self._by_key[key]
            places.discard(place)
            if not places:
                del self._by_key[key]

    # -- what they may do

    def _granted(self, principal: Principal) -> Grants:
        kept = self._grants.get(principal.name)
        if kept is not None and kept[0] is principal:
            return kept[1]
        if not isinstance(principal, Client):
            return Grants()
        made = self._rules.grants(principal)
        self._grants[principal.name] = (principal, made)
        while len(self._grants) > REMEMBERED:
            self._grants.popitem(last=False)
        return made

    def may_publish(self, principal: Principal, topic: str) -> bool:
        """Whether one of the client's grants takes in the topic."""
        return any(matches(grant, topic) for grant in self._granted(principal).publish)

    def may_subscribe(self, principal: Principal, pattern: str) -> bool:
        """Whether one of the client's grants takes in the whole filter."""
        allowed = any(access.covers(grant, pattern) for grant in self._granted(principal).subscribe)
        if allowed and isinstance(principal, Client) and principal.device_id is not None:
            self._note_site(principal.device_id, pattern)
        return allowed

    def _note_site(self, device: int, pattern: str) -> None:
        """Where a device listens for its commands: its site, should the registry not know it."""
        site = self._rules.site_in("cmd", pattern)
        if site is not None and len(self._sites) < REMEMBERED:
            self._sites[device] = site
            self._wake.set()

    async def _place(self) -> None:
        """Give devices without a site the one they listen at, so that commands go where they listen."""
        sites, self._sites = self._sites, {}
        await self._pool.execute(_SITES, list(sites), list(sites.values()))
        await self._pool.execute(_PLACED, list(sites), list(sites.values()))

    # -- being thrown out

    def changed(self, payload: str) -> None:
        """Act on a notification of channel `caudal_access`."""
        self._generation += 1
        if payload == "all:":
            self.changed_all()
            return
        self._recent[payload] = time.monotonic()
        self._recent.move_to_end(payload)
        while len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)
        for known in self._known_by_key.pop(payload, ()):
            self._known.pop(known, None)
        if payload in self._by_key:
            self._suspects.add(payload)
            self._wake.set()

    def changed_all(self) -> None:
        """Notifications may have been missed: ask again about everybody."""
        self._generation += 1
        self._known.clear()
        self._known_by_key.clear()
        self._all_suspect = True
        self._wake.set()

    async def watch(self, connections: Connections, *, every_seconds: float = 15.0) -> None:
        """Throw out who may not stay: at once after a notification, and whose proof has expired."""
        while True:
            try:
                await asyncio.wait_for(self._wake.wait(), every_seconds)
            except TimeoutError:
                pass
            self._wake.clear()
            keys, self._suspects = self._suspects, set()
            if self._all_suspect:
                self._all_suspect = False
                keys = set(self._by_key)
            now = time.time()
            gone = {id(client) for client in self._inside.values() if client.until < now}
            try:
                if self._sites:
                    await self._place()
                gone |= await self._revoked(keys)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("cannot ask who may stay; asking again", error=repr(error))
                self._suspects |= keys
                await asyncio.sleep(1)
                self._wake.set()
            if gone:
                thrown = connections.disconnect(
                    lambda principal, _client, gone=gone: id(principal) in gone,  # type: ignore[misc]
                    Reason.NOT_AUTHORIZED,
                    forget=True,
                )
                log.info("thrown out", connections=thrown)

    async def _revoked(self, keys: set[str]) -> set[int]:
        gone = set()
        for key in keys:
            for client in [self._inside[place] for place in self._by_key.get(key, ())]:
                if not await access.still(self._pool, client):
                    gone.add(id(client))
        return gone
