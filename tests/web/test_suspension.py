"""A tenant is suspended and resumed, over the API and in the console: by whom, and noted where."""

from __future__ import annotations

from typing import Any

import pytest

from caudal.registry.permissions import Role

TENANTS = "/api/installation/tenants"


async def test_who_may_and_who_may_not(running_api: Any) -> None:
    number = await running_api.tenant("acme")
    theirs = await running_api.headers("acme")
    # For who does not run the installation none of it is there.
    for method, path in (("GET", ""), ("GET", f"/{number}"), ("POST", f"/{number}/suspend")):
        answer = await running_api.client.request(method, TENANTS + path, headers=theirs, json={})
        assert answer.status_code == 404, (method, path, answer.text)
    for role, may in {**dict.fromkeys(Role, 403), Role.OWNER: 200, Role.ADMIN: 200}.items():
        headers = await running_api.headers("default", role)
        for deed in ("suspend", "resume"):
            answer = await running_api.client.post(f"{TENANTS}/{number}/{deed}", headers=headers, json={})
            assert answer.status_code == may, (role, answer.text)
    key = await running_api.client.post(
        "/api/keys",
        headers=await running_api.headers("default"),
        json={"name": "portal", "scopes": ["tenants:suspend"]},
    )
    by_key = {"X-API-Key": key.json()["key"]}
    assert (await running_api.client.post(f"{TENANTS}/{number}/suspend", headers=by_key, json={})).json()[
        "status"
    ] == "suspended"
    assert (await running_api.client.get(TENANTS, headers=by_key)).status_code == 403


async def test_it_is_noted_on_both_sides_and_once(running_api: Any) -> None:
    number = await running_api.tenant("acme")
    theirs = await running_api.headers("acme")
    ours = await running_api.headers("default")
    own = await running_api.tenant("default")
    for _ in range(2):
        answer = await running_api.client.post(
            f"{TENANTS}/{number}/suspend", headers=ours, json={"reason": "Unpaid since May"}
        )
        assert (answer.status_code, answer.json()["status"]) == (200, "suspended")
    assert (await running_api.client.get("/api/me", headers=theirs)).status_code == 401
    listed = (await running_api.client.get(TENANTS, headers=ours, params={"limit": 1})).json()
    rest = (
        await running_api.client.get(TENANTS, headers=ours, params={"cursor": listed["next_cursor"]})
    ).json()
    assert {t["name"]: t["status"] for t in listed["items"] + rest["items"]} == {
        "acme": "suspended", "default": "active",
    }  # fmt: skip
    assert rest["next_cursor"] is None
    for _ in range(2):
        answer = await running_api.client.post(f"{TENANTS}/{number}/resume", headers=ours)
        assert (answer.status_code, answer.json()["status"]) == (200, "active")
    for headers, actor in ((theirs, "operator"), (ours, "user:")):
        entries = (await running_api.client.get("/api/audit", headers=headers)).json()["items"]
        deeds = [entry for entry in entries if entry["action"].startswith("tenant.")]
        assert [deed["action"] for deed in deeds] == ["tenant.active", "tenant.suspended"]
        assert deeds[1]["detail"]["reason"] == "Unpaid since May"
        assert all(deed["actor"].startswith(actor) for deed in deeds)
    # One's own, one that is not there, and nonsense.
    for path, body, status in (
        (f"{own}/suspend", {}, 409), ("4000000/suspend", {}, 404), ("4000000/resume", {}, 404),
        (f"{number}/suspend", {"reason": "x" * 501}, 400), (f"{number}/suspend", {"reason": "a\nb"}, 400),
        (f"{number}/suspend", {"reason": 1}, 400), (f"{2**31}/suspend", {}, 400),
    ):  # fmt: skip
        answer = await running_api.client.post(f"{TENANTS}/{path}", headers=ours, json=body)
        assert answer.status_code == status, (path, answer.text)
    assert (await running_api.client.get("/api/me", headers=theirs)).status_code == 200


@pytest.mark.parametrize(("language", "badge"), [("en", "suspended"), ("pt", "suspensa")])
async def test_from_the_console(running_api: Any, language: str, badge: str) -> None:
    number = await running_api.tenant("acme")
    theirs = await running_api.headers("acme")
    ours = {**await running_api.headers("default"), "Accept-Language": language, "HX-Request": "true"}
    page = f"/console/installation/tenants/{number}"
    client = running_api.client
    looking = await running_api.headers("default", Role.OPERATOR)
    assert "/suspend" not in (await client.get(page, headers=looking)).text
    refused = await client.post(f"{page}/suspend", headers=looking, data={"reason": ""})
    assert refused.status_code == 403
    own = f"/console/installation/tenants/{await running_api.tenant('default')}"
    assert "/suspend" not in (await client.get(own, headers=ours)).text
    assert (await client.post(f"{own}/suspend", headers=ours, data={})).status_code == 409
    assert (await client.post(f"{page}/suspend", headers=theirs, data={})).status_code == 404
    assert f'hx-post="{page}/suspend"' in (await client.get(page, headers=ours)).text
    gone = await client.post(f"{page}/suspend", headers=ours, data={"reason": "Não paga"})
    assert gone.headers["hx-redirect"] == f"{page}?done=suspended"
    for address in (page, "/console/installation/tenants"):
        assert badge in (await client.get(address, headers=ours)).text
    assert f'hx-post="{page}/resume"' in (await client.get(page, headers=ours)).text
    assert (await client.get("/api/me", headers=theirs)).status_code == 401
    await client.post(f"{page}/resume", headers=ours)
    assert (await client.get("/api/me", headers=theirs)).status_code == 200
    assert badge not in (await client.get("/console/installation/tenants", headers=ours)).text
