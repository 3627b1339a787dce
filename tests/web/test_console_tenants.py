"""The page of all tenants: a quota of storage, set, shown, and in force."""

from __future__ import annotations

from typing import Any

import pytest

from caudal.registry.permissions import Role
from caudal.web.console.tenants import gigabytes_text

FORM = {"max_series": "50", "requests_per_second": "", "messages_per_second": "", "points_per_second": ""}


async def test_storage_is_limited_and_its_use_shown(running_api: Any) -> None:
    number = await running_api.tenant("acme")
    await running_api.admin.execute(
        "insert into caudal.dead_letter"
        " (tenant_id, tenant_name, topic, payload, reason, sentence, received, digest)"
        " values ($1, 'acme', 't', repeat('x', 1700)::bytea, 'json', 'no JSON', now(), '')",
        number,
    )
    headers = {**await running_api.headers("default"), "HX-Request": "true"}
    page = f"/console/installation/tenants/{number}"

    async def save(text: str, status: int = 200) -> Any:
        form = {**FORM, "storage_gigabytes": text}
        answer = await running_api.client.post(page, headers=headers, data=form)
        assert answer.status_code == status, (text, answer.text)
        return answer

    async def quota() -> tuple[Any, Any]:
        row = await running_api.admin.fetchrow(
            "select storage_bytes, (select over from caudal.usage u where u.tenant_id = q.tenant_id) as over"
            " from caudal.quota q where tenant_id = $1",
            number,
        )
        return row["storage_bytes"], row["over"]

    await save("21.474836480")
    assert await quota() == (20 * 2**30, False)
    assert 'value="21.47483648"' in (await running_api.client.get(page, headers=headers)).text
    # Below what it keeps: in force at once, and both pages say so.
    await save("0,000001")
    assert await quota() == (1000, True)
    for address in (page, "/console/installation/tenants"):
        text = (await running_api.client.get(address, headers=headers)).text
        assert "2.0 kB" in text
        assert "full" in text
    for wrong in ("0", "-1", "0.0000000001", "much", "1e300", "9000001", "nan", "inf"):
        answer = await save(wrong, 400)
        assert "storage" in answer.text.lower(), wrong
    said = await running_api.client.post(
        page, headers={**headers, "Accept-Language": "pt"}, data={**FORM, "storage_gigabytes": "0"}
    )
    assert "Armazenamento máximo" in said.text
    assert await quota() == (1000, True)
    # Empty takes the limit away, and what it was shut out of is open again.
    await save("")
    assert await quota() == (None, False)
    changed = await running_api.admin.fetchval(
        "select detail->>'storage_bytes' from caudal.audit where action = 'tenant.limited'"
        " order by id limit 1"
    )
    assert changed == str(20 * 2**30)


async def test_who_only_looks_sees_the_limit(running_api: Any) -> None:
    number = await running_api.tenant("acme")
    await running_api.admin.execute(
        "insert into caudal.quota(tenant_id, storage_bytes) values ($1, 1500000000)", number
    )
    page = f"/console/installation/tenants/{number}"
    headers = await running_api.headers("default", Role.OPERATOR)
    text = (await running_api.client.get(page, headers={**headers, "Accept-Language": "pt"})).text
    assert "Armazenamento máximo, GB</dt><dd>1,5</dd>" in text
    assert "storage_gigabytes" not in text


@pytest.mark.parametrize(
    ("count", "text"), [(None, ""), (1, "0.000000001"), (10**9, "1"), (9 * 10**15, "9000000"), (10**10, "10")]
)
def test_gigabytes_are_exact(count: int | None, text: str) -> None:
    assert gigabytes_text(count) == text
