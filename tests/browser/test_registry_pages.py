"""Sites, profiles, certificates, tenants: made, changed, refused, by people in the console."""

from __future__ import annotations

from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from caudal.mqtt.ports import Principal
from caudal.registry.pki import authority, registrations, revocation
from caudal.registry.pki.registrations import RegistrationIn
from caudal.telemetry.submit import submit

from .axe import findings
from .conftest import Site, Window


def test_a_site_is_made_moved_and_deleted(window: Callable[..., Window], site: Site) -> None:
    page = window("tito", locale="pt-BR").go("/console/sites")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_text("Novo local").click()
    page.fill("[name=name]", "oficina")
    page.fill("[name=time_zone]", "America/Nowhere")
    page.get_by_role("button", name="Cadastrar").click()
    page.wait_for_selector("#notice .bad")
    page.fill("[name=time_zone]", "America/Manaus")
    page.fill("[name=latitude]", "-3,1190")
    page.fill("[name=longitude]", "-60.0217")
    page.get_by_role("button", name="Cadastrar").click()
    page.wait_for_url("**/console/sites/*")
    assert page.locator("h1").inner_text() == "oficina"
    row = site.run(site.admin.fetchrow("select * from caudal.site where name = 'oficina'"))
    assert (row["time_zone"], float(row["latitude"])) == ("America/Manaus", -3.119)
    page.fill("[name=display_name]", "Oficina Manaus")
    page.get_by_role("button", name="Salvar").click()
    page.wait_for_selector("#notice .good")
    page.get_by_role("button", name="Excluir").click()
    page.wait_for_url("**/console/sites")
    assert not site.run(site.admin.fetchval("select exists (select from caudal.site where name = 'oficina')"))
    # Where something stands, nothing is deleted: the page says why, and the button is not there.
    page.get_by_role("link", name="Planta Norte").click()
    page.wait_for_url("**/console/sites/*")
    assert page.get_by_role("button", name="Excluir").count() == 0
    assert "não pode ser excluído" in page.locator("main").inner_text()


def test_a_profile_gets_points_and_commands_by_its_form(window: Callable[..., Window], site: Site) -> None:
    page = window("ana").go("/console/profiles")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_text("New profile").click()
    page.fill("[name=name]", "pump")
    page.get_by_role("button", name="Make it").click()
    page.wait_for_url("**/console/profiles/*")
    page.fill("[name='p1.name']", "flow")
    page.fill("[name='p1.unit']", "m³/h")
    page.fill("[name='p1.high']", "12,5")
    page.fill("[name='p3.name']", "total")
    page.select_option("[name='p3.kind']", "counter")
    page.fill("[name='c1.name']", "speed")
    page.fill("[name='c1.p1.name']", "level")
    page.select_option("[name='c1.p1.type']", "text")
    page.check("[name='c1.p1.required']")
    page.fill("[name='c1.p1.choices']", "low; high")
    page.get_by_role("button", name="Save as the next version").click()
    page.get_by_text("Version 2", exact=True).wait_for()
    row = site.run(site.admin.fetchrow("select * from caudal.profile where name = 'pump'"))
    assert row["version"] == 2
    assert [(one["name"], one["kind"], one["limit_high"]) for one in row["points"]] == [
        ("flow", "gauge", 12.5),
        ("total", "counter", None),
    ]
    assert row["commands"][0]["params"][0] == {
        "name": "level", "type": "text", "required": True, "minimum": None, "maximum": None,
        "choices": ["low", "high"],
    }  # fmt: skip
    assert page.locator("[name='p3.name']").input_value() == ""
    # Somebody else saved meanwhile: nothing is overwritten.
    site.run(site.admin.execute("update caudal.profile set version = 3 where name = 'pump'"))
    page.fill("[name='p1.high']", "99")
    page.get_by_role("button", name="Save as the next version").click()
    page.wait_for_selector("#notice .bad")
    assert "version 3" in page.locator("#notice").inner_text()
    page.reload()
    page.fill("[name='p1.high']", "much")
    page.get_by_role("button", name="Save as the next version").click()
    page.wait_for_selector("#notice .bad")
    page.get_by_role("button", name="Delete").click()
    page.wait_for_url("**/console/profiles")


async def _authority(site: Site) -> None:
    sealer = site.made.services["sealer"]
    async with site.admin.acquire() as connection, connection.transaction():
        if not await connection.fetchval("select exists (select from caudal.authority)"):
            await revocation.write(connection, await authority.create(connection, sealer, days=10), 24)


async def _ask(site: Site, mac: str) -> None:
    print_ = await site.admin.fetchval(
        "select fingerprint from caudal.bootstrap_certificate order by id desc limit 1"
    )
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, mac)]))
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    pem = request.public_bytes(serialization.Encoding.PEM).decode()
    await registrations.register(
        site.made.pool, RegistrationIn(mac, f"S-{mac[-2:]}", "RS485-8", "2.0", print_, pem), "192.0.2.7"
    )


def test_gateways_are_admitted_and_certificates_revoked(window: Callable[..., Window], site: Site) -> None:
    site.run(_authority(site))
    page = window("ana").go("/console/certificates")
    page.on("dialog", lambda dialog: dialog.accept())
    page.fill("[name=label]", "batch 7")
    page.get_by_role("button", name="Make one").click()
    page.wait_for_selector("#key")
    assert findings(page) == []
    key = page.locator("#key").inner_text()
    assert key.startswith("-----BEGIN")
    page.get_by_role("link", name="Done").click()
    page.wait_for_selector("text=batch 7")
    assert key.splitlines()[1] not in page.content()
    for mac in ("02:00:00:00:00:01", "02:00:00:00:00:02"):
        site.run(_ask(site, mac))
    page.reload()
    assert findings(page) == []
    row = page.locator("li.tall", has_text="02:00:00:00:00:01")
    row.locator("[name=code]").fill("gw-01")
    row.get_by_role("button", name="Approve").click()
    page.wait_for_selector("#notice .bad")
    row.locator("[name=code]").fill("GW-77")
    row.get_by_role("button", name="Approve").click()
    page.wait_for_url("**/console/gateways/*")
    assert "GW-77" in page.locator("h1").inner_text()
    page.locator("#certificates [name=reason]").select_option("key_compromise")
    page.locator("#certificates").get_by_role("button", name="Revoke").click()
    page.locator("#certificates").get_by_text("key compromised").wait_for()
    assert "good" in page.locator("#notice p").get_attribute("class")
    page.goto("/console/certificates")
    page.locator("li.tall", has_text="02:00:00:00:00:02").get_by_role("button", name="Refuse").click()
    page.wait_for_selector("#notice .good")
    assert page.locator("li.tall").count() == 0
    page.select_option("[name=state]", "valid")
    page.wait_for_url("**state=valid**")
    page.wait_for_selector("#list .empty")
    # A technician sees them and decides nothing.
    page = window("tito").go("/console/certificates")
    assert page.get_by_role("button", name="Make one").count() == 0


def test_who_runs_the_installation_makes_and_limits_tenants(
    window: Callable[..., Window], site: Site
) -> None:
    assert (
        window("ana").go("/console/installation/tenants").locator("h1").inner_text()
        == "There is nothing here"
    )
    page = window("root_1").go("/console/installation/tenants")
    assert "Acme Energia" in page.locator("table").inner_text()
    assert findings(page) == []
    page.fill("[name=name]", "acme")
    page.fill("[name=email]", "dona@nova.example")
    page.get_by_role("button", name="Make it").click()
    page.wait_for_selector("#notice .bad")
    page.fill("[name=name]", "nova-fabrica")
    page.get_by_role("button", name="Make it").click()
    link = page.locator("#secret").inner_text()
    assert "/invitation#" in link
    page.get_by_role("link", name="Done").click()
    page.wait_for_url("**/installation/tenants/*")
    assert findings(page) == []
    page.fill("[name=max_series]", "0")
    page.get_by_role("button", name="Save").click()
    page.wait_for_selector("#notice .bad")
    page.fill("[name=max_series]", "50")
    page.fill("[name=points_per_second]", "20")
    page.fill("[name=storage_gigabytes]", "2.5")
    page.get_by_role("button", name="Save").click()
    page.wait_for_selector("#notice .good")
    row = site.run(site.admin.fetchrow(
        "select t.max_series, q.points_per_second, q.messages_per_second, q.storage_bytes"
        " from caudal.tenant t join caudal.quota q on q.tenant_id = t.id where t.name = 'nova-fabrica'"
    ))  # fmt: skip
    assert tuple(row) == (50, 20, None, 2_500_000_000)
    # The invited owner comes in by the link, and finds an empty account.
    stranger = window().go("/invitation#" + link.split("#")[1])
    stranger.fill("[name=username]", "dona")
    stranger.fill("[name=password]", "secret1")
    stranger.get_by_role("button", name="Join").click()
    stranger.wait_for_url("**/console/")
    assert stranger.locator(".empty").count() == 1
    # Suspended, they are asked to sign in and cannot; then it works again.
    page.on("dialog", lambda dialog: dialog.accept())
    page.fill("[name=reason]", "Unpaid")
    page.get_by_role("button", name="Suspend").click()
    page.wait_for_selector("h1 .badge.bad")
    assert findings(page) == []
    stranger.reload()
    stranger.wait_for_url("**/console/sign-in**")
    page.get_by_role("button", name="Let it work again").click()
    page.wait_for_selector("h1:not(:has(.badge))")
    stranger.goto(stranger.url.partition("/console")[0] + "/console/")
    assert stranger.url.endswith("/console/")


def test_breakers_are_shown_where_operators_look(window: Callable[..., Window], site: Site) -> None:
    async def plant() -> None:
        account = await site.admin.fetchval(
            "insert into caudal.channel_account(tenant_id, channel, connector, provider_account, secrets)"
            " select id, 'whatsapp', 'whatsapp', '10', '' from caudal.tenant where name = 'acme' returning id"
        )
        await site.admin.execute(
            "insert into caudal.breaker(worker, account_id, tenant_id, state, at)"
            " select w.name, $1, id, w.state, w.at from caudal.tenant, (values ('w 1', 'open', now()),"
            " ('w 2', 'closed', now()), ('killed', 'open', now() - interval '5 minutes'))"
            " as w(name, state, at)"
            " where tenant.name = 'acme'",
            account,
        )

    site.run(plant())
    try:
        text = window("ana").go("/console/operations").locator("#board").inner_text()
        assert "open: not sending 1 of 2 workers" in text
    finally:
        site.run(site.admin.execute("delete from caudal.channel_account where provider_account = '10'"))


def test_raw_messages_appear_as_they_come(window: Callable[..., Window], site: Site) -> None:
    number = site.run(site.admin.fetchval("select id from caudal.device where name = 'sensor-4'"))
    page = window("ana").go(f"/console/devices/{number}")
    page.wait_for_selector("#raw .empty")
    topic = "traksense/acme/loja/sensor-4/telem"

    payload = '{"schema":"v1","points":[{"name":"temperature","v":-19.5,"t":"float"}],"x":"<b>é</b>"}'
    # Ingest has to hear that somebody looks; a device sends again and again.
    for _ in range(50):
        site.run(submit(site.ingest.pipeline, [(topic, payload.encode(), Principal("test"))]))
        page.wait_for_timeout(200)
        if page.locator("#raw pre").count():
            break
    assert page.locator("#raw pre").first.inner_text() == payload
    assert findings(page) == []
    # The next tenant asks in vain.
    assert (
        window("nova").go(f"/console/devices/{number}/raw").locator("h1").inner_text()
        == "There is nothing here"
    )
