"""Groups and identities, as the contract says."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from caudal.registry.permissions import Role


async def test_a_groups_life(platform: Any) -> None:
    a, ha = await platform.api.person("default", Role.MEMBER)
    b, hb = await platform.api.person("default", Role.MEMBER)
    c, hc = await platform.api.person("default", Role.MEMBER)
    client = platform.client
    made = await client.post(
        "/v1/groups",
        json={"name": "team", "description": "d", "initial_members": [str(b), str(a)]},
        headers=ha,
    )
    assert made.status_code == 201, made.text
    group = made.json()
    assert set(group) == {"group_id", "name", "description", "members", "created_at"}
    assert group["members"] == 2
    path = f"/v1/groups/{group['group_id']}"
    shown = (await client.get(path, headers=hb)).json()
    assert set(shown["members"]) == {str(a), str(b)}
    assert (shown["admins"], shown["created_by"], shown["max_members"]) == ([str(a)], str(a), 256)
    assert (await client.get(path, headers=hc)).status_code == 403
    assert (await client.get(f"/v1/groups/group_{uuid4()}", headers=ha)).status_code == 404
    add = {"user_id": str(c)}
    assert (await client.post(f"{path}/members", json=add, headers=hb)).status_code == 403
    assert (await client.post(f"{path}/members", json=add, headers=ha)).status_code == 200
    assert (await client.post(f"{path}/members", json=add, headers=ha)).status_code == 409
    nobody = {"user_id": str(uuid4())}
    assert (await client.post(f"{path}/members", json=nobody, headers=ha)).status_code == 404
    assert (await client.put(f"{path}/admins/{b}", headers=hc)).status_code == 403
    assert (await client.put(f"{path}/admins/{b}", headers=ha)).status_code == 200
    assert (await client.put(f"{path}/admins/{b}", headers=ha)).status_code == 409
    assert (await client.put(f"{path}/admins/{uuid4()}", headers=ha)).status_code == 404
    # An admin by appointment may remove, but not the creator.
    assert (await client.delete(f"{path}/members/{a}", headers=hb)).status_code == 403
    assert (await client.delete(f"{path}/members/{c}", headers=hb)).status_code == 200
    assert (await client.delete(f"{path}/members/{c}", headers=hb)).status_code == 404


IMPOSSIBLE: list[dict[str, Any]] = [
    {"name": ""}, {"name": " "}, {"name": "x" * 101}, {"name": "a\0"}, {},
    {"name": "x", "initial_members": ["y"]}, {"name": "x", "initial_members": [str(uuid4())]},
    {"name": "x", "initial_members": [str(uuid4()) for _ in range(256)]},
]  # fmt: skip


async def test_groups_that_cannot_be(platform: Any) -> None:
    headers = await platform.api.headers("default", Role.MEMBER)
    for body in IMPOSSIBLE:
        answer = await platform.client.post("/v1/groups", json=body, headers=headers)
        assert answer.status_code == 400, body


async def test_what_waited_in_a_group_reaches_its_first_member(platform: Any) -> None:
    await platform.route()
    _, ha = await platform.api.person("default", Role.MEMBER)
    b, _ = await platform.api.person("default", Role.MEMBER)
    made = await platform.client.post("/v1/groups", json={"name": "team"}, headers=ha)
    group = made.json()["group_id"]
    sent = await platform.send(ha, "c", recipient_id=group)
    await platform.until(lambda: platform.admin.fetchval("select waiting from caudal.message"))
    added = await platform.client.post(f"/v1/groups/{group}/members", json={"user_id": str(b)}, headers=ha)
    assert added.status_code == 200
    await platform.routed(sent)
    assert await platform.deliveries(sent) == {("app", str(b)): "sent"}


async def test_identities(platform: Any) -> None:
    a, ha = await platform.api.person("default", Role.MEMBER)
    _, hb = await platform.api.person("default", Role.MEMBER)
    client = platform.client
    phone = {"platform": "whatsapp", "value": "+5511999998888"}
    made = await client.post("/v1/users/identities", json=phone, headers=ha)
    assert made.status_code == 201
    assert set(made.json()) == {"user_id", "platform", "value", "verified", "linked_at"}
    assert (await client.post("/v1/users/identities", json=phone, headers=hb)).status_code == 409
    for platform_name, value in (
        ("whatsapp", "5511999998888"), ("instagram", "bea"), ("instagram", "@" + "x" * 31),
        ("fax", "+5511999998888"), ("whatsapp", "+5511999998888\n"),
    ):  # fmt: skip
        answer = await client.post(
            "/v1/users/identities", json={"platform": platform_name, "value": value}, headers=ha
        )
        assert answer.status_code == 400, value
    assert (await client.get("/v1/users/identities", headers=hb)).json() == {"identities": []}
    mine = (await client.get("/v1/users/identities", headers=ha)).json()["identities"]
    assert [i["user_id"] for i in mine] == [str(a)]
    path = "/v1/users/identities/whatsapp/+5511999998888"
    assert (await client.delete(path, headers=hb)).status_code == 404
    assert (await client.delete(path.replace("+", "%2B"), headers=ha)).status_code == 200
    assert (await client.delete(path, headers=ha)).status_code == 404


async def test_instagrams_names_are_the_same_in_any_case(platform: Any) -> None:
    await platform.route()
    _, ha = await platform.api.person("default", Role.MEMBER)
    _, hb = await platform.api.person("default", Role.MEMBER)
    made = await platform.client.post(
        "/v1/users/identities", json={"platform": "instagram", "value": "@Some.One"}, headers=ha
    )
    assert (made.status_code, made.json()["value"]) == (201, "@some.one")
    again = await platform.client.post(
        "/v1/users/identities", json={"platform": "instagram", "value": "@SOME.one"}, headers=hb
    )
    assert again.status_code == 409
    sent = await platform.send(hb, "c", recipient_id="instagram:@SOME.ONE")
    await platform.routed(sent)
    assert await platform.deliveries(sent) == {("instagram", "@some.one"): "pending"}
    gone = await platform.client.delete("/v1/users/identities/instagram/@SOME.ONE", headers=ha)
    assert gone.status_code == 200
