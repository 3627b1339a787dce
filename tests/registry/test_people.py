"""Members, invitations, resets, keys and their audit, over the API that people use."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from caudal.registry.mail import LogMailer, Mail, Post
from caudal.registry.permissions import PERMISSIONS, Action, Role
from caudal.registry.tenants import bootstrap, create_demo_people


class Mailbox:
    """A mailer that keeps what it is given, and says when there is some."""

    def __init__(self) -> None:
        self.mails: asyncio.Queue[Mail] = asyncio.Queue()

    async def send(self, mail: Mail) -> None:
        self.mails.put_nowait(mail)

    async def secret(self) -> str:
        mail = await asyncio.wait_for(self.mails.get(), 30)
        return mail.link.partition("#")[2]


@pytest.fixture
async def mailbox(unstarted_api: Any) -> Mailbox:
    box = Mailbox()
    post = Post(box)
    post.start(unstarted_api.life)
    await unstarted_api.start(post=post)
    return box


async def test_an_invitation_makes_a_person_of_the_tenant_once(unstarted_api: Any, mailbox: Mailbox) -> None:
    api = unstarted_api
    admin = await api.headers("a", Role.ADMIN)
    body = {"email": "New@example.com", "role": "technician"}
    made = await api.client.post("/api/invitations", json=body, headers=admin)
    assert made.status_code == 201
    days = datetime.fromisoformat(made.json()["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=6.99) < days <= timedelta(days=7)
    secret = await mailbox.secret()
    accept = {"secret": secret, "password": "chosen-by-me", "username": "newbie"}
    joined = await api.client.post("/auth/invitation", json=accept)
    assert joined.status_code == 200, joined.text
    me = await api.client.get("/api/me", headers={"Authorization": f"Bearer {joined.json()['access_token']}"})
    assert (me.json()["tenant"], me.json()["role"]) == ("a", "technician")
    assert (await api.client.post("/auth/invitation", json=accept)).status_code == 400
    signed_in = {"email": "new@example.com", "password": "chosen-by-me"}
    assert (await api.client.post("/auth/token", json=signed_in)).status_code == 200


async def test_who_has_a_password_joins_with_it_alone(unstarted_api: Any, mailbox: Mailbox) -> None:
    api = unstarted_api
    await api.person("b", Role.OWNER, email="ana@example.com", password="hers-only")
    admin = await api.headers("a", Role.ADMIN)
    invitation = {"email": "ana@example.com", "role": "viewer"}
    await api.client.post("/api/invitations", json=invitation, headers=admin)
    secret = await mailbox.secret()
    wrong = await api.client.post("/auth/invitation", json={"secret": secret, "password": "something"})
    assert wrong.status_code == 401
    right = await api.client.post("/auth/invitation", json={"secret": secret, "password": "hers-only"})
    assert right.json()["tenant"] == "a"


async def test_old_and_withdrawn_invitations_are_useless(unstarted_api: Any, mailbox: Mailbox) -> None:
    api = unstarted_api
    admin = await api.headers("a", Role.ADMIN)
    for how in ("old", "withdrawn", "replaced"):
        body = {"email": f"{how}@example.com", "role": "viewer"}
        made = (await api.client.post("/api/invitations", json=body, headers=admin)).json()
        secret = await mailbox.secret()
        if how == "old":
            await api.admin.execute("update caudal.invitation set expires_at = now()")
        elif how == "withdrawn":
            gone = await api.client.delete(f"/api/invitations/{made['id']}", headers=admin)
            assert gone.status_code == 204
        else:
            await api.client.post("/api/invitations", json=body, headers=admin)
        answer = await api.client.post("/auth/invitation", json={"secret": secret, "password": "whatever"})
        assert answer.status_code == 400, how


async def test_a_reset_sets_a_password_once_and_ends_sessions(unstarted_api: Any, mailbox: Mailbox) -> None:
    api = unstarted_api
    _, header = await api.person("a", Role.VIEWER, email="ana@example.com")
    for email in ("nobody@example.com", "ANA@example.com"):
        answer = await api.client.post("/auth/reset", json={"email": email})
        assert (answer.status_code, answer.content) == (202, b"null")
    secret = await mailbox.secret()
    assert mailbox.mails.empty()
    # Tokens carry whole seconds: what was issued within the second of the change would still pass.
    finish = {"secret": secret, "password": "another-one"}
    assert (await api.client.post("/auth/reset/finish", json=finish)).status_code == 204
    assert (await api.client.post("/auth/reset/finish", json=finish)).status_code == 400
    await api.admin.execute("update caudal.person set tokens_from = tokens_from + interval '1 s'")
    assert (await api.client.get("/api/me", headers=header)).status_code == 401
    login = {"email": "ana@example.com", "password": "another-one"}
    assert (await api.client.post("/auth/token", json=login)).status_code == 200


async def test_a_reset_is_too_old_after_an_hour(unstarted_api: Any, mailbox: Mailbox) -> None:
    await unstarted_api.person("a", Role.VIEWER, email="ana@example.com")
    await unstarted_api.client.post("/auth/reset", json={"email": "ana@example.com"})
    secret = await mailbox.secret()
    left = await unstarted_api.admin.fetchval("select expires_at - now() from caudal.password_reset")
    assert timedelta(minutes=59) < left <= timedelta(hours=1)
    await unstarted_api.admin.execute("update caudal.password_reset set expires_at = now()")
    finish = {"secret": secret, "password": "another-one"}
    assert (await unstarted_api.client.post("/auth/reset/finish", json=finish)).status_code == 400


async def test_the_last_owner_stays_also_when_two_leave_at_once(running_api: Any) -> None:
    one, header = await running_api.person("a", Role.OWNER)
    alone = await running_api.client.patch(f"/api/people/{one}", json={"role": "admin"}, headers=header)
    assert alone.status_code == 409
    two, other = await running_api.person("a", Role.OWNER)
    answers = await asyncio.gather(
        running_api.client.delete(f"/api/people/{one}", headers=header),
        running_api.client.delete(f"/api/people/{two}", headers=other),
    )
    assert sorted(answer.status_code for answer in answers) == [204, 409]


async def test_an_admin_makes_no_owner_and_touches_none(running_api: Any) -> None:
    admin, header = await running_api.person("a", Role.ADMIN)
    owner, _ = await running_api.person("a", Role.OWNER)
    await running_api.person("a", Role.OWNER)
    attempts = [
        running_api.client.patch(f"/api/people/{admin}", json={"role": "owner"}, headers=header),
        running_api.client.patch(f"/api/people/{owner}", json={"role": "viewer"}, headers=header),
        running_api.client.delete(f"/api/people/{owner}", headers=header),
        running_api.client.post(
            "/api/invitations", json={"email": "x@example.com", "role": "owner"}, headers=header
        ),
    ]
    assert [(await attempt).status_code for attempt in attempts] == [403] * 4


async def test_a_key_does_what_its_scopes_say_until_it_is_withdrawn(running_api: Any) -> None:
    client = running_api.client
    admin = await running_api.headers("a", Role.ADMIN)
    body = {"name": "reader", "scopes": ["tenant:read"]}
    made = (await client.post("/api/keys", json=body, headers=admin)).json()
    for header in ({"Authorization": f"Bearer {made['key']}"}, {"X-API-Key": made["key"]}):
        assert (await client.get("/api/tenant", headers=header)).status_code == 200
        assert (await client.get("/api/people", headers=header)).status_code == 403
        assert (await client.get("/api/me", headers=header)).json()["name"] == "reader"
    cut = {"X-API-Key": made["key"][:-1] + ("A" if made["key"][-1] != "A" else "B")}
    assert (await client.get("/api/tenant", headers=cut)).status_code == 401
    listed = (await client.get("/api/keys", headers=admin)).json()["items"]
    assert [(key["prefix"], "key" in key, "digest" in key) for key in listed] == [
        (made["about"]["prefix"], False, False)
    ]
    gone = await client.delete(f"/api/keys/{made['about']['id']}", headers=admin)
    assert gone.status_code == 204
    assert (await client.get("/api/tenant", headers={"X-API-Key": made["key"]})).status_code == 401
    assert (await client.delete(f"/api/keys/{made['about']['id']}", headers=admin)).status_code == 404


async def test_a_key_is_given_no_more_than_its_maker_has(running_api: Any) -> None:
    admin = await running_api.headers("a", Role.ADMIN)
    for scope in ("owners:write", "people:write", "self:write", "keys:write"):
        body = {"name": "k", "scopes": [scope]}
        assert (await running_api.client.post("/api/keys", json=body, headers=admin)).status_code == 403
    past = {"name": "k", "scopes": ["tenant:read"], "expires_at": "2020-01-01T00:00:00Z"}
    assert (await running_api.client.post("/api/keys", json=past, headers=admin)).status_code == 400


async def test_an_expired_key_is_refused(running_api: Any) -> None:
    admin = await running_api.headers("a", Role.ADMIN)
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    body = {"name": "k", "scopes": ["tenant:read"], "expires_at": soon}
    made = (await running_api.client.post("/api/keys", json=body, headers=admin)).json()
    await running_api.admin.execute("update caudal.api_key set expires_at = now()")
    answer = await running_api.client.get("/api/tenant", headers={"X-API-Key": made["key"]})
    assert answer.status_code == 401


async def test_changing_a_password_needs_the_present_one_and_counts_guesses(running_api: Any) -> None:
    _, header = await running_api.person("a", Role.VIEWER, username="ana")
    codes = []
    for _ in range(6):
        body = {"old": "wrong!", "new": "another-one"}
        answer = await running_api.client.put("/api/me/password", json=body, headers=header)
        codes.append(answer.json()["code"])
    assert codes == ["forbidden"] * 4 + ["locked"] * 2
    await running_api.admin.execute("delete from caudal.sign_in_failure")
    body = {"old": "secret", "new": "another-one"}
    done = await running_api.client.put("/api/me/password", json=body, headers=header)
    assert done.status_code == 204
    login = {"username": "ana", "password": "another-one"}
    assert (await running_api.client.post("/auth/token", json=login)).status_code == 200


async def test_the_audit_log_says_who_did_what_and_cannot_be_rewritten(running_api: Any) -> None:
    user, header = await running_api.person("a", Role.OWNER, username="ana")
    target, _ = await running_api.person("a", Role.VIEWER)
    headers = {**header, "X-Request-Id": "req-7"}
    await running_api.client.patch(f"/api/people/{target}", json={"role": "member"}, headers=headers)
    await running_api.client.patch("/api/tenant", json={"time_zone": "America/Sao_Paulo"}, headers=header)
    log = (await running_api.client.get("/api/audit", headers=header)).json()["items"]
    assert [entry["action"] for entry in log] == ["tenant.changed", "member.role_changed"]
    assert log[1]["actor"] == f"user:{user}"
    assert log[1]["actor_name"] == "ana"
    assert log[1]["target"] == f"user:{target}"
    assert log[1]["request_id"] == "req-7"
    assert log[1]["address"] == "127.0.0.1"
    assert log[1]["detail"] == {"before": "viewer", "after": "member"}
    privileges = await running_api.parts.pool.fetch(
        "select p from unnest(array['update','delete','truncate']) p "
        "where has_table_privilege('caudal_app', 'caudal.audit', p)"
    )
    assert privileges == []


async def test_pages_stay_whole_while_rows_come_and_go(running_api: Any) -> None:
    header = await running_api.headers("a", Role.OWNER)
    people = [(await running_api.person("a", Role.VIEWER))[0] for _ in range(7)]
    seen: list[str] = []
    cursor = ""
    while True:
        address = f"/api/people?limit=3{cursor}"
        page = (await running_api.client.get(address, headers=header)).json()
        seen += [member["user_id"] for member in page["items"]]
        if page["next_cursor"] is None:
            break
        # Somebody already shown leaves, somebody joins: nobody is skipped, nobody comes twice.
        await running_api.admin.execute("delete from caudal.membership where person_id = $1", seen[-2])
        cursor = f"&cursor={page['next_cursor']}"
    assert len(seen) == len(set(seen))
    assert {str(person) for person in people} <= set(seen)
    for bad in ("x", "bnVsbA", "W10", "WzEsMl0", "\x00", "é"):
        params = {"cursor": bad}
        answer = await running_api.client.get("/api/people", params=params, headers=header)
        assert answer.status_code == 400, bad


async def test_the_first_start_makes_one_owner_and_says_the_password_once(running_api: Any) -> None:
    made = await asyncio.gather(*(bootstrap(running_api.admin) for _ in range(3)))
    [secret] = [one for one in made if one is not None]
    login = {"email": secret.email, "password": secret.password}
    token = (await running_api.client.post("/auth/token", json=login)).json()
    assert token["tenant"] == "default"
    assert await bootstrap(running_api.admin) is None


async def test_demo_people_are_there_only_when_asked_for(running_api: Any) -> None:
    login = {"username": "user_a", "password": "pass_a"}
    assert (await running_api.client.post("/auth/token", json=login)).status_code == 401
    await create_demo_people(running_api.admin)
    await create_demo_people(running_api.admin)
    for letter in "abc":
        login = {"username": f"user_{letter}", "password": f"pass_{letter}"}
        assert (await running_api.client.post("/auth/token", json=login)).status_code == 200


@pytest.mark.parametrize("role", list(Role))
async def test_each_cell_of_the_permission_table(running_api: Any, role: Role) -> None:
    """Role by action, over a route that each action guards: refused with 403 or let through, nothing else."""
    from caudal.web.guards import Requirement, rule_of

    header = await running_api.headers("a", role)
    await running_api.person("a", Role.OWNER)
    tried = set()
    for route in running_api.app.routes:
        for handler in getattr(route, "route_handlers", []):
            rule = rule_of(handler)
            method = sorted(handler.http_methods)[0]
            if not isinstance(rule, Requirement) or method == "DELETE" or rule.action in tried:
                continue
            tried.add(rule.action)
            # A value of the parameter's own type: another would find no route, and ask nobody.
            values = {int: "1", UUID: str(uuid4())}
            path = "/".join(
                part if isinstance(part, str) else values.get(part.type, "nobody")
                for part in ("", *route.path_components)
            )
            answer = await running_api.client.request(method, path, headers=header)
            allowed = answer.status_code != 403
            assert allowed == (rule.action in PERMISSIONS[role]), (rule.action, answer.text)
    assert Action.PEOPLE_WRITE in tried


async def test_a_mail_in_the_log_keeps_its_secret(capsys: pytest.CaptureFixture[str]) -> None:
    await LogMailer().send(Mail("a@b.c", "Hello", "text", "http://x/#very-secret"))
    out = capsys.readouterr()
    assert "very-secret" not in out.out + out.err


async def test_a_full_mail_queue_refuses() -> None:
    from caudal.core.errors import Unavailable

    post = Post(LogMailer())
    mail = Mail("a@b.c", "s", "t", "l")
    for _ in range(1000):
        post.put(mail)
    with pytest.raises(Unavailable):
        post.put(mail)
