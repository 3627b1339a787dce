"""What happens: a business sends, a phone receives, reads, writes."""

from __future__ import annotations

import mimetypes
from typing import Any

from caudal.sandbox import instagram, whatsapp
from caudal.sandbox.errors import GraphError
from caudal.sandbox.model import (
    Account,
    Behaviour,
    Channel,
    Entry,
    Media,
    Phone,
    World,
    instagram_id,
    whatsapp_id,
)
from caudal.sandbox.wanted import Wanted
from caudal.sandbox.webhooks import Dispatcher


class BareFault(Exception):
    """Answer `status` with a body that is not Graph's: a gateway in between gave up."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class Silence(Exception):
    """Never answer; or hang up."""

    def __init__(self, hangup: bool = False) -> None:
        super().__init__()
        self.hangup = hangup


class Engine:
    """The rules, over a World. `base_url` is where media can be fetched."""

    def __init__(self, world: World, hooks: Dispatcher, base_url: str = "") -> None:
        self.world = world
        self.hooks = hooks
        self.base_url = base_url

    def account(self, name: str, authorization: str | None) -> Account:
        """The account `name` (`me`: whose token it is). Raises GraphError 190 or 100."""
        token = (authorization or "").removeprefix("Bearer ").strip()
        if name == "me":
            for account in self.world.accounts.values():
                if token and account.token == token:
                    return account
            raise GraphError("instagram", 190)
        found = self.world.accounts.get(name)
        if found is None:
            raise GraphError("whatsapp", 100, f"Object with ID '{name}' does not exist.")
        if not token or token != found.token:
            raise GraphError(found.channel, 190)
        return found

    def read_send(self, account: Account, body: Any) -> tuple[Wanted, Phone]:
        """The request and the phone it is for. Raises GraphError."""
        if account.channel == "whatsapp":
            asked = whatsapp.wanted(account, body)
            return asked, self.world.phone("whatsapp", asked.to)
        asked = instagram.wanted(body)
        phone = self.world.by_provider_id("instagram", asked.to)
        if phone is None:
            raise GraphError("instagram", 100)
        return asked, phone

    def send(self, account: Account, asked: Wanted, phone: Phone) -> dict[str, Any]:
        """Accept a message, or not; returns the answer's body. Raises GraphError, BareFault or Silence."""
        world = self.world
        behaviour = world.behaviour(account, phone)
        noted = {"opaque": asked.opaque, "text": asked.text}
        fault = behaviour.fault if behaviour.strikes(world.dice) else "none"
        try:
            if fault == "error":
                raise GraphError(account.channel, behaviour.code)
            self._check_limits(account, asked, phone)
        except GraphError as error:
            world.record(account, phone.address, f"error {error.code}", **noted)
            raise
        if fault == "status":
            world.record(account, phone.address, f"status {behaviour.status}", **noted)
            raise BareFault(behaviour.status)
        if fault == "deaf":
            world.record(account, phone.address, "deaf", **noted)
            raise Silence
        entry = self._accept(account, asked, phone, behaviour)
        outcome = {"silence": "accepted, silent", "hangup": "accepted, hung up"}.get(fault, "accepted")
        world.record(account, phone.address, outcome, id=entry.id, **noted)
        if fault in ("silence", "hangup"):
            raise Silence(hangup=fault == "hangup")
        if account.channel == "whatsapp":
            return whatsapp.answer(phone, asked, entry.id)
        return instagram.answer(phone, entry.id)

    def _check_limits(self, account: Account, asked: Wanted, phone: Phone) -> None:
        limits = account.limits
        whatsapp_account = account.channel == "whatsapp"
        media = asked.type not in ("text", "template")
        rate = limits.media_per_second if media else limits.per_second
        if not self.world.within(rate, "rate", account.id, "media" if media else "text"):
            raise GraphError(account.channel, 130429 if whatsapp_account else 613)
        if asked.media_id is not None and asked.media_id not in self.world.media:
            raise GraphError(account.channel, 131009, "The media does not exist.")
        if whatsapp_account and not self.world.within_pair(account, phone):
            raise GraphError("whatsapp", 131056)
        if not whatsapp_account and not self.world.window_open(account, phone):
            raise GraphError("instagram", 10)

    def _accept(self, account: Account, asked: Wanted, phone: Phone, behaviour: Behaviour) -> Entry:
        made_id = whatsapp_id(phone.provider_id) if account.channel == "whatsapp" else instagram_id()
        entry = self._entry(made_id, account, "in", asked.type, asked.text, asked.media_id or asked.link)
        entry.opaque = asked.opaque
        failed = behaviour.receipt_code
        # WhatsApp accepts first and says later, by webhook, that the window was closed.
        if (
            failed is None
            and account.channel == "whatsapp"
            and asked.type != "template"
            and not self.world.window_open(account, phone)
        ):
            failed = 131047
        now = self.world.clock.now()
        if failed is not None:
            entry.status = "failed"
            if account.channel == "whatsapp":
                reason = GraphError("whatsapp", failed)
                story = [whatsapp.receipt(account, phone, entry, "failed", now, reason)]
                self.hooks.send(account, story, behaviour)
            return entry
        phone.messages.append(entry)
        self._receipts(account, phone, entry, behaviour)
        if phone.replies is not None and phone.reachable:
            self.write(phone, account, text=phone.replies.replace("{text}", asked.text or ""))
        return entry

    def _entry(
        self, made_id: str, account: Account, direction: Any, kind: str, text: str | None, media: str | None
    ) -> Entry:
        return Entry(
            seq=self.world.number(),
            id=made_id,
            account=account.id,
            direction=direction,
            type=kind,
            text=text,
            media_id=media,
            timestamp=int(self.world.clock.now() * 1000),
            status="sent",
        )

    def _receipts(self, account: Account, phone: Phone, entry: Entry, behaviour: Behaviour) -> None:
        now = self.world.clock.now()
        if account.channel == "instagram":
            story = [instagram.echo(account, phone, entry, now, self._url(entry.media_id))]
            if phone.reads and phone.reachable:
                entry.status = "read"
                story.append(instagram.seen(account, phone, entry, now))
        else:
            statuses = ["sent"]
            if phone.reachable:
                statuses += ["delivered", "read"] if phone.reads else ["delivered"]
            entry.status = statuses[-1]
            story = [whatsapp.receipt(account, phone, entry, status, now) for status in statuses]
        self.hooks.send(account, story, behaviour)

    def _url(self, media_id: str | None) -> str | None:
        media = self.world.media.get(media_id) if media_id else None
        return f"{self.base_url}/media/{media.id}/{media.key}" if media else media_id

    def write(
        self, phone: Phone, account: Account, *, text: str | None = None, media: Media | None = None
    ) -> Entry:
        """The person writes to the business; returns the entry whose webhook is on its way."""
        kind = "text"
        if media is not None:
            kind = media.mime_type.split("/")[0]
            fallback = "document" if account.channel == "whatsapp" else "file"
            kind = kind if kind in ("image", "audio", "video") else fallback
        made_id = whatsapp_id(phone.provider_id) if account.channel == "whatsapp" else instagram_id()
        entry = self._entry(made_id, account, "out", kind, text, media.id if media else None)
        phone.messages.append(entry)
        phone.wrote_at[account.id] = self.world.clock.now()
        if account.channel == "whatsapp":
            payload = whatsapp.inbound(account, phone, entry, media)
        else:
            payload = instagram.inbound(account, phone, entry, media, self._url(entry.media_id))
        self.hooks.send(account, [payload], self.world.behaviour(account, phone))
        self.world.touch()
        return entry

    def read(self, phone: Phone, up_to: str | None = None) -> int:
        """The person reads what came, up to a message id; returns how many receipts went out."""
        count = 0
        now = self.world.clock.now()
        for entry in phone.messages:
            account = self.world.accounts.get(entry.account)
            if entry.direction == "in" and entry.status in ("sent", "delivered") and account is not None:
                entry.status = "read"
                count += 1
                if account.channel == "whatsapp":
                    story = [whatsapp.receipt(account, phone, entry, "read", now)]
                else:
                    story = [instagram.seen(account, phone, entry, now)]
                self.hooks.send(account, story, self.world.behaviour(account, phone))
            if entry.id == up_to:
                break
        self.world.touch()
        return count

    def come_back(self, phone: Phone) -> None:
        """The phone is reachable again: what waited for it is delivered."""
        phone.reachable = True
        now = self.world.clock.now()
        for entry in phone.messages:
            account = self.world.accounts.get(entry.account)
            if entry.direction == "out" or entry.status != "sent" or account is None:
                continue
            if account.channel == "whatsapp":
                entry.status = "delivered"
                story = [whatsapp.receipt(account, phone, entry, "delivered", now)]
                self.hooks.send(account, story, self.world.behaviour(account, phone))

    def upload(self, account: Account, data: bytes, mime_type: str, filename: str | None) -> Media:
        """Keep what a business or a phone uploaded."""
        kind = mime_type or mimetypes.guess_type(filename or "")[0] or "application/octet-stream"
        return self.world.keep(account, data, kind, filename)


def address_channel(address: str) -> Channel:
    """`+…` is a telephone number, `@…` an Instagram name."""
    return "instagram" if address.startswith("@") else "whatsapp"
