"""The sandbox answers, limits, signs and misbehaves as the providers' documents say, and on request."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx
import pytest

from caudal.sandbox.limits import Clock
from caudal.sandbox.model import Behaviour, Limits
from caudal.sandbox.server import Sandbox
from tests.sandbox.conftest import Listener, instagram_account, whatsapp_account

WHATSAPP = "/v23.0/106540352242922/messages"
INSTAGRAM = "/v23.0/17841400000000001/messages"
BEARER = {"authorization": "Bearer wa-token"}
IG_BEARER = {"authorization": "Bearer ig-token"}
PHONE = "+5511999998888"


def text(body: str = "hello", to: str = "5511999998888", **more: Any) -> dict[str, Any]:
    return {"messaging_product": "whatsapp", "to": to, "type": "text", "text": {"body": body}, **more}


async def test_a_text_is_accepted_shown_and_reported(client: httpx.AsyncClient, listener: Listener) -> None:
    answer = await client.post(WHATSAPP, json=text(biz_opaque_callback_data="mine"), headers=BEARER)
    assert answer.status_code == 200
    sent = answer.json()
    message_id = sent["messages"][0]["id"]
    assert message_id.startswith("wamid.")
    assert b"5511999998888" in base64.b64decode(message_id.removeprefix("wamid."))
    assert sent["contacts"] == [{"input": PHONE, "wa_id": "5511999998888"}]
    shown = (await client.get(f"/control/phones/{PHONE}/messages")).json()
    assert [(m["text"], m["direction"], m["status"]) for m in shown] == [("hello", "in", "delivered")]
    await listener.wait(2)
    assert listener.statuses() == [(message_id, "sent"), (message_id, "delivered")]
    value = listener.taken[0]["entry"][0]["changes"][0]["value"]
    assert value["metadata"]["phone_number_id"] == "106540352242922"
    assert value["statuses"][0]["recipient_id"] == "5511999998888"
    assert value["statuses"][0]["biz_opaque_callback_data"] == "mine"
    assert listener.bad_signatures == 0


async def test_the_person_reads_and_writes_back(client: httpx.AsyncClient, listener: Listener) -> None:
    await client.post(WHATSAPP, json=text(), headers=BEARER)
    await listener.wait(2)
    assert (await client.post(f"/control/phones/{PHONE}/read", json={})).json() == {"receipts": 1}
    written = {"account": "106540352242922", "text": "oi"}
    assert (await client.post(f"/control/phones/{PHONE}/messages", json=written)).status_code == 201
    hooks = await listener.wait(4)
    assert "read" in [status for _, status in listener.statuses()]
    inbound = [
        message for hook in hooks for message in hook["entry"][0]["changes"][0]["value"].get("messages", [])
    ]
    assert [(m["from"], m["type"], m["text"]) for m in inbound] == [("5511999998888", "text", {"body": "oi"})]


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (text(), {}, 401, 190),
        (text(), {"authorization": "Bearer other"}, 401, 190),
        ({"to": "551199"}, BEARER, 400, 100),
        (text(to="someone"), BEARER, 400, 100),
        (text(type="poll"), BEARER, 400, 131051),
        (text(body=""), BEARER, 400, 131009),
        (text(body="x" * 4097), BEARER, 400, 131009),
        (text(type="template", template={"name": "unknown"}), BEARER, 404, 132001),
        (text(type="image", image={"id": "1"}), BEARER, 400, 131009),
    ],
)
async def test_what_is_wrong_is_refused_as_graph_does(
    client: httpx.AsyncClient, body: dict[str, Any], headers: dict[str, str], status: int, code: int
) -> None:
    answer = await client.post(WHATSAPP, json=body, headers=headers)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["message"].startswith(f"(#{code}) ")
    assert {"type", "fbtrace_id", "error_data"} <= error.keys()


async def test_media_goes_up_to_the_phone_and_down(client: httpx.AsyncClient, listener: Listener) -> None:
    form = {"file": ("cat.jpg", b"\xff\xd8cat", "image/jpeg")}
    fields = {"messaging_product": "whatsapp"}
    up = await client.post("/v23.0/106540352242922/media", files=form, data=fields, headers=BEARER)
    assert up.status_code == 200, up.text
    media_id = up.json()["id"]
    body = text(type="image", image={"id": media_id, "caption": "my cat"})
    assert (await client.post(WHATSAPP, json=body, headers=BEARER)).status_code == 200
    shown = (await client.get(f"/control/phones/{PHONE}/messages")).json()
    assert (shown[0]["type"], shown[0]["media_id"], shown[0]["text"]) == ("image", media_id, "my cat")
    about = (await client.get(f"/v23.0/{media_id}", headers=BEARER)).json()
    assert (about["mime_type"], about["file_size"]) == ("image/jpeg", 5)
    assert (await client.get(about["url"])).status_code == 401
    assert (await client.get(about["url"], headers=BEARER)).content == b"\xff\xd8cat"


async def test_a_phone_sends_a_picture(client: httpx.AsyncClient, listener: Listener) -> None:
    written = {
        "account": "106540352242922",
        "media_base64": base64.b64encode(b"png").decode(),
        "mime_type": "image/png",
    }
    assert (await client.post(f"/control/phones/{PHONE}/messages", json=written)).status_code == 201
    hook = (await listener.wait(1))[0]
    message = hook["entry"][0]["changes"][0]["value"]["messages"][0]
    about = (await client.get(f"/v23.0/{message['image']['id']}", headers=BEARER)).json()
    assert (await client.get(about["url"], headers=BEARER)).content == b"png"


async def test_eighty_a_second_and_no_more(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
    sandbox.world.clock = Clock(lambda: 1_800_000_000.0)
    codes = []
    for number in range(90):
        answer = await client.post(WHATSAPP, json=text(to=f"55119{number:08}"), headers=BEARER)
        codes.append(answer.json().get("error", {}).get("code", 0))
    assert codes[:80] == [0] * 80
    assert codes[80:] == [130429] * 10
    sandbox.world.clock.advance(1)
    assert (await client.post(WHATSAPP, json=text(), headers=BEARER)).status_code == 200


async def test_a_burst_to_one_person_is_repaid(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
    codes = []
    for _ in range(46):
        answer = await client.post(WHATSAPP, json=text(), headers=BEARER)
        codes.append(answer.json().get("error", {}).get("code", 0))
    assert codes == [0] * 45 + [131056]
    sandbox.world.clock.advance(6)
    assert (await client.post(WHATSAPP, json=text(), headers=BEARER)).status_code == 200
    assert (await client.post(WHATSAPP, json=text(), headers=BEARER)).json()["error"]["code"] == 131056
    sandbox.world.clock.advance(46 * 6)
    for _ in range(45):
        assert (await client.post(WHATSAPP, json=text(), headers=BEARER)).status_code == 200


async def test_the_window_closes_after_a_day(
    sandbox: Sandbox, client: httpx.AsyncClient, listener: Listener
) -> None:
    sandbox.world.accounts["106540352242922"].limits = Limits()
    answer = await client.post(WHATSAPP, json=text(), headers=BEARER)
    assert answer.status_code == 200
    hook = (await listener.wait(1))[0]
    status = hook["entry"][0]["changes"][0]["value"]["statuses"][0]
    assert (status["status"], status["errors"][0]["code"]) == ("failed", 131047)
    template = text(type="template", template={"name": "hello", "language": {"code": "pt_BR"}})
    await client.post(WHATSAPP, json=template, headers=BEARER)
    await client.post(f"/control/phones/{PHONE}/messages", json={"account": "106540352242922", "text": "oi"})
    await client.post(WHATSAPP, json=text("in time"), headers=BEARER)
    await client.post("/control/clock", json={"seconds": 86_401})
    await client.post(WHATSAPP, json=text("too late"), headers=BEARER)
    shown = (await client.get(f"/control/phones/{PHONE}/messages")).json()
    assert [m["text"] for m in shown] == ["hello", "oi", "in time"]


async def test_a_phone_that_is_off_gets_it_later(client: httpx.AsyncClient, listener: Listener) -> None:
    await client.put(f"/control/phones/{PHONE}", json={"reachable": False})
    await client.post(WHATSAPP, json=text(), headers=BEARER)
    await listener.wait(1)
    await client.put(f"/control/phones/{PHONE}", json={"reachable": True})
    await listener.wait(2)
    assert [status for _, status in listener.statuses()] == ["sent", "delivered"]


async def test_a_phone_that_reads_and_replies(client: httpx.AsyncClient, listener: Listener) -> None:
    await client.put(f"/control/phones/{PHONE}", json={"reads": True, "replies": "got {text}"})
    await client.post(WHATSAPP, json=text("it"), headers=BEARER)
    await listener.wait(4)
    assert [status for _, status in listener.statuses()] == ["sent", "delivered", "read"]
    shown = (await client.get(f"/control/phones/{PHONE}/messages?count=2&wait=5")).json()
    assert [m["text"] for m in shown] == ["it", "got it"]


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        (Behaviour(fault="error", code=130429, times=1), 429, 130429),
        (Behaviour(fault="error", code=131000, times=1), 500, 131000),
        (Behaviour(fault="error", code=190, times=1), 401, 190),
        (Behaviour(fault="status", status=502, times=1), 502, None),
    ],
)
async def test_faults_that_answer(
    sandbox: Sandbox, client: httpx.AsyncClient, behaviour: Behaviour, status: int, code: int | None
) -> None:
    sandbox.world.accounts["106540352242922"].behaviour = behaviour
    answer = await client.post(WHATSAPP, json=text(), headers=BEARER)
    assert answer.status_code == status
    if code is None:
        assert "error" not in answer.text
    else:
        assert answer.json()["error"]["code"] == code
    assert (await client.get(f"/control/phones/{PHONE}/messages")).json() == []
    assert (await client.post(WHATSAPP, json=text(), headers=BEARER)).status_code == 200


@pytest.mark.parametrize(
    ("fault", "error", "arrives"),
    [
        ("silence", httpx.ReadTimeout, True),
        ("deaf", httpx.ReadTimeout, False),
        ("hangup", httpx.RemoteProtocolError, True),
    ],
)
async def test_faults_that_do_not(
    sandbox: Sandbox, client: httpx.AsyncClient, fault: Any, error: type[Exception], arrives: bool
) -> None:
    sandbox.world.accounts["106540352242922"].behaviour = Behaviour(fault=fault, times=1)
    with pytest.raises(error):
        await client.post(WHATSAPP, json=text(), headers=BEARER, timeout=0.3)
    shown = (await client.get(f"/control/phones/{PHONE}/messages")).json()
    assert len(shown) == int(arrives)


async def test_webhooks_double_and_shuffle_on_request(
    sandbox: Sandbox, client: httpx.AsyncClient, listener: Listener
) -> None:
    sandbox.world.accounts["106540352242922"].behaviour = Behaviour(duplicates=1, shuffle=True)
    await client.put(f"/control/phones/{PHONE}", json={"reads": True})
    await client.post(WHATSAPP, json=text(), headers=BEARER)
    await listener.wait(6)
    statuses = [status for _, status in listener.statuses()]
    assert sorted(statuses) == sorted(["sent", "delivered", "read"] * 2)


async def test_lost_and_refused_webhooks_come_again(
    sandbox: Sandbox, client: httpx.AsyncClient, listener: Listener
) -> None:
    sandbox.world.accounts["106540352242922"].behaviour = Behaviour(lose=1)
    listener.status = 500
    await client.post(WHATSAPP, json=text(), headers=BEARER)
    await listener.wait_refused(2)
    listener.status = 200
    await listener.wait(2)
    assert sorted(status for _, status in listener.statuses()) == ["delivered", "sent"]
    assert (await client.get("/control/state")).json()["webhooks"]["lost"] == 2


async def test_a_slow_provider_takes_its_time(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
    sandbox.world.accounts["106540352242922"].behaviour = Behaviour(latency_ms=500)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(
        *(client.post(WHATSAPP, json=text(to=f"55119{n:08}"), headers=BEARER) for n in range(20))
    )
    # Each waits, and none for another: ten seconds one after the other.
    assert 0.5 <= loop.time() - began < 8


async def test_the_handshake(sandbox: Sandbox, client: httpx.AsyncClient, listener: Listener) -> None:
    answer = await client.post("/control/accounts/106540352242922/verify")
    assert answer.json() == {"verified": True}
    other = whatsapp_account(listener.url, id="2", verify_token="wrong")
    sandbox.world.accounts["2"] = other
    assert (await client.post("/control/accounts/2/verify")).json() == {"verified": False}


async def test_instagram_waits_for_the_person(client: httpx.AsyncClient, listener: Listener) -> None:
    phone = (await client.put("/control/phones/@someone", json={})).json()
    igsid = phone["provider_id"]
    body = {"recipient": {"id": igsid}, "message": {"text": "hi"}}
    early = await client.post(INSTAGRAM, json=body, headers=IG_BEARER)
    error = early.json()["error"]
    assert (early.status_code, error["code"], error["error_subcode"]) == (400, 10, 2534022)
    assert error["is_transient"] is False
    written = {"account": "17841400000000001", "text": "hello shop"}
    await client.post("/control/phones/@someone/messages", json=written)
    hook = (await listener.wait(1))[0]
    assert hook["object"] == "instagram"
    event = hook["entry"][0]["messaging"][0]
    assert (event["sender"]["id"], event["message"]["text"]) == (igsid, "hello shop")
    who = (await client.get(f"/v23.0/{igsid}?fields=username", headers=IG_BEARER)).json()
    assert who["username"] == "someone"
    sent = (await client.post("/v23.0/me/messages", json=body, headers=IG_BEARER)).json()
    assert sent["recipient_id"] == igsid
    echo = (await listener.wait(2))[1]["entry"][0]["messaging"][0]["message"]
    assert echo["is_echo"] is True
    assert echo["mid"] == sent["message_id"]
    await client.post("/control/phones/@someone/read", json={})
    seen = (await listener.wait(3))[2]["entry"][0]["messaging"][0]
    assert seen["read"] == {"mid": sent["message_id"]}


async def test_instagram_media_is_a_link(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
    account = instagram_account(None, id="9", token="nine", limits=Limits(strangers="open"))
    sandbox.world.accounts["9"] = account
    igsid = (await client.put("/control/phones/@someone", json={})).json()["provider_id"]
    attachment = {"type": "image", "payload": {"url": "http://127.0.0.1:1/cat.jpg"}}
    body = {"recipient": {"id": igsid}, "message": {"attachment": attachment}}
    answer = await client.post("/v23.0/9/messages", json=body, headers={"authorization": "Bearer nine"})
    assert answer.status_code == 200
    shown = (await client.get("/control/phones/@someone/messages")).json()
    assert (shown[0]["type"], shown[0]["media_id"]) == ("image", "http://127.0.0.1:1/cat.jpg")


async def test_calls_are_counted_by_outcome(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
    await client.post(WHATSAPP, json=text(), headers=BEARER)
    sandbox.world.accounts["106540352242922"].behaviour = Behaviour(fault="error", code=131000, times=1)
    await client.post(WHATSAPP, json=text(), headers=BEARER)
    calls = (await client.get("/control/calls?count=2&wait=5")).json()
    assert [call["outcome"] for call in calls] == ["accepted", "error 131000"]
    assert (await client.get("/control/state")).json()["calls"] == {"accepted": 1, "error 131000": 1}
    await client.delete("/control/")
    assert (await client.get("/control/calls")).json() == []
