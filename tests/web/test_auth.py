"""Registering and signing in as the contract says, tokens, sessions, lock-out."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import jwt
import pytest

from caudal.core.errors import Unauthenticated
from caudal.registry.accounts import Accounts, Locked
from caudal.registry.passwords import Passwords
from caudal.registry.permissions import Role

PERSON = {"username": "ana_1", "password": "secret", "email": "ana@example.com"}


async def test_register_and_token_answer_as_the_contract_says(running_api: Any) -> None:
    made = await running_api.client.post("/auth/register", json=PERSON)
    assert made.status_code == 201
    body = made.json()
    assert UUID(body["user_id"])
    assert set(body) == {"user_id", "username", "email", "created_at"}
    answer = await running_api.client.post("/auth/token", json={"username": "ana_1", "password": "secret"})
    assert answer.status_code == 200
    token = answer.json()
    assert token["user_id"] == body["user_id"]
    assert token["expires_in"] == 3600
    me = await running_api.client.get(
        "/api/me", headers={"Authorization": f"{token['token_type']} {token['access_token']}"}
    )
    assert me.json()["role"] == "member"
    assert me.json()["tenant"] == "default"


@pytest.mark.parametrize(
    ("change", "status"),
    [({"username": "ANA_1", "email": "b@example.com"}, 409),
     ({"username": "bea", "email": "ANA@example.com"}, 409),
     ({"username": "ab"}, 400), ({"username": "a" * 51}, 400), ({"username": "ana 1"}, 400),
     ({"username": "ana_1\n"}, 400), ({"password": "short"}, 400), ({"email": "no"}, 400),
     ({"email": "a\x00@b.c"}, 400), ({"username": None}, 400)],
)  # fmt: skip
async def test_register_refuses(running_api: Any, change: dict[str, Any], status: int) -> None:
    assert (await running_api.client.post("/auth/register", json=PERSON)).status_code == 201
    answer = await running_api.client.post("/auth/register", json={**PERSON, **change})
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]


async def test_a_wrong_name_and_a_wrong_password_look_alike(running_api: Any) -> None:
    await running_api.client.post("/auth/register", json=PERSON)
    answers = [
        await running_api.client.post("/auth/token", json={"username": name, "password": "wrong"})
        for name in ("ana_1", "nobody")
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert answers[0].json()["error"] == answers[1].json()["error"]


@pytest.mark.parametrize("login", ["ana_1", "nobody"])
async def test_five_failures_lock_for_five_minutes(running_api: Any, login: str) -> None:
    await running_api.client.post("/auth/register", json=PERSON)

    async def attempt(password: str) -> str:
        answer = await running_api.client.post("/auth/token", json={"username": login, "password": password})
        return "ok" if answer.status_code == 200 else answer.json()["code"]

    # At once: guesses cannot overtake the count.
    outcomes = await asyncio.gather(*(attempt("wrong") for _ in range(12)))
    assert sorted(outcomes) == ["locked"] * 8 + ["unauthenticated"] * 4
    assert await attempt("secret") == "locked"
    await running_api.admin.execute("update caudal.sign_in_failure set locked_until = now() - interval '1 s'")
    if login == "ana_1":
        assert await attempt("secret") == "ok"
        assert await running_api.admin.fetchval("select count(*) from caudal.sign_in_failure") == 0
    else:
        assert await attempt("wrong") == "unauthenticated"


async def test_guesses_through_many_processes_are_counted_together(unstarted_api: Any) -> None:
    """Each process has its own turns; the count is the database's."""
    made = unstarted_api
    await made.person("acme", Role.VIEWER, username="ana")
    looked_at = 0

    class Counted(Passwords):
        async def verify(self, hashed: str | None, password: str) -> bool:
            nonlocal looked_at
            looked_at += 1
            return await super().verify(hashed, password)

    passwords = Counted(threads=2)
    processes = [Accounts(made.parts.pool, passwords, made.parts.keys, made.parts.people) for _ in range(8)]
    try:
        came = await asyncio.gather(
            *(process.sign_in("ana", f"guess {turn}") for turn in range(5) for process in processes),
            return_exceptions=True,
        )
    finally:
        passwords.close()
    assert {type(one) for one in came} <= {Locked, Unauthenticated}
    assert looked_at == 5
    with pytest.raises(Locked):
        await processes[0].sign_in("ANA", "secret")


async def test_a_person_of_two_tenants_chooses(running_api: Any) -> None:
    user, _ = await running_api.person("a", Role.ADMIN, username="ana", email="ana@example.com")
    b = await running_api.tenant("b")
    await running_api.admin.execute("insert into caudal.membership values ($1, $2, 'viewer')", b, user)

    async def sign_in(**fields: str) -> Any:
        body = {"email": "Ana@example.com", "password": "secret", **fields}
        return await running_api.client.post("/auth/token", json=body)

    assert (await sign_in()).json()["tenant"] == "a"
    assert (await sign_in(tenant="b")).json()["tenant"] == "b"
    assert (await sign_in(tenant="default")).status_code == 403
    header = {"Authorization": f"Bearer {(await sign_in()).json()['access_token']}"}
    other = await running_api.client.post("/api/me/token", json={"tenant": "b"}, headers=header)
    header = {"Authorization": f"Bearer {other.json()['access_token']}"}
    me = (await running_api.client.get("/api/me", headers=header)).json()
    assert (me["tenant"], me["role"]) == ("b", "viewer")
    assert [place["tenant"] for place in me["tenants"]] == ["a", "b"]


async def test_tokens_verify_with_the_published_keys_and_rotate(running_api: Any) -> None:
    header = await running_api.headers("a")
    token = header["Authorization"].removeprefix("Bearer ")
    published = (await running_api.client.get("/.well-known/jwks.json")).json()
    keys = {key["kid"]: jwt.PyJWK(key) for key in published["keys"]}
    claims = jwt.decode(token, keys[jwt.get_unverified_header(token)["kid"]], algorithms=["ES256"])
    assert claims["tenant"] == "a"
    assert "sealed" not in str(published)
    # Age the key: the next refresh signs with a new one, and the old one still verifies.
    await running_api.admin.execute("update caudal.signing_key set created_at = now() - interval '30 days'")
    await running_api.parts.keys.refresh()
    newer = (await running_api.headers("a"))["Authorization"].removeprefix("Bearer ")
    assert jwt.get_unverified_header(newer)["kid"] not in keys
    running_api.parts.authenticator._claims.clear()
    assert (await running_api.client.get("/api/me", headers=header)).status_code == 200


@pytest.mark.parametrize("how", ["none", "hmac", "stranger", "tenant", "expired"])
async def test_forged_tokens_are_refused(running_api: Any, how: str) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    header = await running_api.headers("a")
    token = header["Authorization"].removeprefix("Bearer ")
    claims = jwt.decode(token, options={"verify_signature": False})
    kid = {"kid": jwt.get_unverified_header(token)["kid"]}
    if how == "none":
        forged = jwt.encode(claims, None, algorithm="none", headers=kid)
    elif how == "hmac":
        forged = jwt.encode(claims, "x" * 40, algorithm="HS256", headers=kid)
    elif how == "stranger":
        forged = jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), algorithm="ES256", headers=kid)
    elif how == "expired":
        past = {**claims, "iat": claims["iat"] - 9000, "exp": claims["exp"] - 9000}
        forged = jwt.encode(past, running_api.parts.keys._private, algorithm="ES256", headers=kid)
    else:
        other = {**claims, "tenant": "default"}
        forged = jwt.encode(other, running_api.parts.keys._private, algorithm="ES256", headers=kid)
    answer = await running_api.client.get("/api/me", headers={"Authorization": f"Bearer {forged}"})
    assert answer.status_code == 401


async def test_a_changed_role_and_a_left_tenant_are_in_force(running_api: Any) -> None:
    user, header = await running_api.person("a", Role.ADMIN)
    await running_api.person("a", Role.OWNER)
    await running_api.admin.execute("update caudal.membership set role = 'member' where person_id = $1", user)
    assert (await running_api.client.get("/api/me", headers=header)).json()["role"] == "member"
    await running_api.admin.execute("delete from caudal.membership where person_id = $1", user)
    assert (await running_api.client.get("/api/me", headers=header)).status_code == 401


async def test_a_browser_session_needs_its_csrf_token_to_write(running_api: Any) -> None:
    await running_api.person("a", Role.ADMIN, username="ana")
    body = {"username": "ana", "password": "secret"}
    foreign = await running_api.client.post(
        "/auth/session", json=body, headers={"Sec-Fetch-Site": "cross-site"}
    )
    assert foreign.status_code == 403
    opened = await running_api.client.post("/auth/session", json=body)
    cookie = opened.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert (await running_api.client.get("/api/me")).json()["csrf"] == opened.json()["csrf"]
    for header in ({}, {"X-CSRF-Token": "0" * 64}, {"X-CSRF-Token": "é".encode()}):
        assert (await running_api.client.delete("/auth/session", headers=header)).status_code == 403
    secret = running_api.client.cookies["caudal_session"]
    csrf = {"X-CSRF-Token": opened.json()["csrf"]}
    assert (await running_api.client.delete("/auth/session", headers=csrf)).status_code == 204
    old = {"Cookie": f"caudal_session={secret}"}
    assert (await running_api.client.get("/api/me", headers=old)).status_code == 401
