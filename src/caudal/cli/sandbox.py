"""`caudal sandbox`: a stand-in for WhatsApp and Instagram."""

from __future__ import annotations

import sys

import click

from caudal.app.process import run_process


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.")
@click.option(
    "--whatsapp-webhook", metavar="URL", help="Where the demonstration's number sends its webhooks."
)
@click.option("--instagram-webhook", metavar="URL", help="Where the demonstration's account sends them.")
def command(port: int | None, whatsapp_webhook: str | None, instagram_webhook: str | None) -> None:
    """Stand in for WhatsApp's and Instagram's APIs, on one port, in memory.

    Tokens, phones and misbehaviour: see docs/sandbox.md.
    """
    from caudal.app import sandbox

    start = sandbox.starter(port=port, whatsapp_webhook=whatsapp_webhook, instagram_webhook=instagram_webhook)
    sys.exit(run_process(start))
