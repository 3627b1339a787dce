"""What providers' errors ask of us, code by code, over HTTP from the sandbox."""

from __future__ import annotations

from typing import Any

import pytest

from caudal.core.lifecycle import Lifecycle
from caudal.messaging import connectors
from caudal.messaging.provider import Message, ProviderError, Secrets, Verdict
from caudal.sandbox import demo
from caudal.sandbox.model import Behaviour
from caudal.sandbox.server import Sandbox
from tests.messaging.connectors.test_behaviour import account, settings

WHATSAPP = [
    (4, Verdict.SLOW_DOWN),
    (100, Verdict.REFUSED),
    (131000, Verdict.RETRY),
    (131016, Verdict.RETRY),
    (131026, Verdict.REFUSED),
    (131047, Verdict.WRITE_FIRST),
    (131051, Verdict.REFUSED),
    (130429, Verdict.SLOW_DOWN),
    (131056, Verdict.PAIR),
    (132001, Verdict.REFUSED),
    (190, Verdict.OPERATOR),
    (368, Verdict.OPERATOR),
    (299, Verdict.OPERATOR),
    (999999, Verdict.REFUSED),
]
INSTAGRAM = [
    (2, Verdict.RETRY),
    (4, Verdict.SLOW_DOWN),
    (10, Verdict.WRITE_FIRST),
    (100, Verdict.REFUSED),
    (190, Verdict.OPERATOR),
    (551, Verdict.REFUSED),
    (613, Verdict.SLOW_DOWN),
]
BARE = [
    (Behaviour(fault="status", status=429), Verdict.RETRY),
    (Behaviour(fault="status", status=503), Verdict.RETRY),
    (Behaviour(fault="status", status=500), Verdict.UNKNOWN),
    (Behaviour(fault="status", status=502), Verdict.UNKNOWN),
    (Behaviour(fault="status", status=504), Verdict.UNKNOWN),
    (Behaviour(fault="hangup"), Verdict.UNKNOWN),
    (Behaviour(fault="deaf"), Verdict.UNKNOWN),
]


async def refused(channel: str, behaviour: Behaviour, text: str = "hello") -> ProviderError:
    life = Lifecycle()
    sandbox = Sandbox()
    await sandbox.start(life)
    demo.populate(sandbox.world)
    provided = next(a for a in sandbox.world.accounts.values() if a.channel == channel)
    provided.behaviour = behaviour
    made = connectors.make(channel, settings(sandbox.url))
    life.on_stop("connector", made.close)
    address = "+5511999998888" if channel == "whatsapp" else "@someone"
    contact = sandbox.world.phone(provided.channel, address).provider_id
    message = Message(reference="1.1", address=address, contact=contact, text=text)
    try:
        with pytest.raises(ProviderError) as caught:
            await made.send(account(channel, Secrets(token=provided.token), provided.id), message)
    finally:
        await life.stop()
    return caught.value


@pytest.mark.parametrize(("code", "verdict"), WHATSAPP)
async def test_whatsapp_codes(code: int, verdict: Verdict) -> None:
    error = await refused("whatsapp", Behaviour(fault="error", code=code))
    assert error.verdict is verdict
    assert error.provider_code == str(code)


@pytest.mark.parametrize(("code", "verdict"), INSTAGRAM)
async def test_instagram_codes(code: int, verdict: Verdict) -> None:
    error = await refused("instagram", Behaviour(fault="error", code=code))
    assert error.verdict is verdict
    assert error.provider_code.split("/")[0] == str(code)


@pytest.mark.parametrize(("behaviour", "verdict"), BARE)
async def test_what_is_no_answer_of_the_api(behaviour: Behaviour, verdict: Verdict) -> None:
    assert (await refused("whatsapp", behaviour)).verdict is verdict


@pytest.mark.parametrize(("channel", "longest"), [("whatsapp", 4096), ("instagram", 1000)])
async def test_too_long_is_said_before_anybody_is_asked(channel: str, longest: int) -> None:
    error: Any = await refused(channel, Behaviour(), "x" * (longest + 1))
    assert (error.verdict, error.provider_code) == (Verdict.REFUSED, "length")
