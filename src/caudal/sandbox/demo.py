"""Accounts and phones that a demonstration starts with. Their secrets open nothing else."""

from __future__ import annotations

from caudal.sandbox.model import Account, Channel, Limits, World

WHATSAPP_ID = "106540352242922"
INSTAGRAM_ID = "17841400000000001"
WHATSAPP_PHONES = (("+5511999998888", "Ana"), ("+5511999997777", "Bruno"))
INSTAGRAM_PHONES = (("@someone", "Someone"),)


def _account(channel: Channel, account_id: str, address: str, webhook_url: str | None) -> Account:
    return Account(
        channel=channel,
        id=account_id,
        address=address,
        token=f"sandbox-{channel}-token",
        app_secret=f"sandbox-{channel}-secret",
        verify_token=f"sandbox-{channel}-verify",
        webhook_url=webhook_url,
    )


def whatsapp_account(webhook_url: str | None = None) -> Account:
    """A number that may write to anybody: a demonstration has no time to be written to first."""
    made = _account("whatsapp", WHATSAPP_ID, "+15550783881", webhook_url)
    made.templates = ["hello_world", "notice"]
    made.limits = Limits(strangers="open")
    return made


def instagram_account(webhook_url: str | None = None) -> Account:
    """An Instagram account with Instagram's rates, that may write to anybody."""
    made = _account("instagram", INSTAGRAM_ID, "@caudal_demo", webhook_url)
    made.limits = Limits(per_second=300, media_per_second=10, strangers="open")
    return made


def populate(
    world: World, *, whatsapp_webhook: str | None = None, instagram_webhook: str | None = None
) -> None:
    """Put the demonstration's accounts and phones into `world`."""
    for account in (whatsapp_account(whatsapp_webhook), instagram_account(instagram_webhook)):
        world.accounts[account.id] = account
    for address, name in WHATSAPP_PHONES:
        world.phone("whatsapp", address, name)
    for address, name in INSTAGRAM_PHONES:
        world.phone("instagram", address, name)
