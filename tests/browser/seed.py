"""A tenant that looks like one: two sites, meters and sensors with weeks of data, trouble of each kind."""

from __future__ import annotations

from typing import Any

from caudal.core.metrics import Metrics
from caudal.insight.rollups import Refresher

HOSTILE = '<img src=x onerror="window.hacked=1"> {{ 7*7 }} \'"</script><script>window.hacked=1</script>'

SEED = """
do $$
declare acme int; plant int; store int; gw bigint; d bigint; s int; n int;
begin
  perform caudal.ensure_partition(g) from generate_series(now() - interval '70 days', now() + interval '1 day', interval '1 day') g;
  select id into acme from caudal.tenant where name = 'acme';
  update caudal.tenant set display_name = 'Acme Energia', time_zone = 'America/Sao_Paulo' where id = acme;
  insert into caudal.site(tenant_id, name, display_name) values (acme, 'planta', 'Planta Norte') returning id into plant;
  insert into caudal.site(tenant_id, name, display_name) values (acme, 'loja', 'Loja Centro') returning id into store;
  insert into caudal.gateway(tenant_id, site_id, code, mac, name, is_online, last_heard, firmware, model)
    values (acme, plant, 'GW-01', 'aa:bb:cc:00:00:01', 'Quadro geral', true, now() - interval '20 s', '2.1.4', 'RS485-8')
    returning id into gw;
  for n in 1..6 loop
    insert into caudal.device(tenant_id, site_id, gateway_id, name, display_name, code, kind, modbus_register, modbus_slave, is_online, last_heard)
      values (acme, plant, gw, 'aa:bb:cc:00:00:01/D0' || n, 'Medidor ' || n, 'D0' || n, 'meter', 100 + n, n, n < 6, now() - n * interval '9 s')
      returning id into d;
    insert into caudal.series(tenant_id, device_id, name, kind, unit, display_name) values (acme, d, 'valor', 'counter', 'kWh', 'Energia')
      returning id into s;
    insert into caudal.sample(series, ts, received, v_num)
      select s, t, t, 1000 * n + (extract(epoch from t) - extract(epoch from now() - interval '65 days')) / 3600 * n * 1.7
             + n * 6 * sin(extract(epoch from t) / 13751)
      from generate_series(now() - interval '65 days' - n * interval '9 s', now() - n * interval '9 s', interval '1 hour') t;
  end loop;
  for n in 1..8 loop
    insert into caudal.device(tenant_id, site_id, name, display_name, is_online, last_heard)
      values (acme, store, 'sensor-' || n, case when n < 7 then 'Câmara fria ' || n end, n <> 3, case when n < 8 then now() - n * interval '31 s' end)
      returning id into d;
    if n = 8 then continue; end if;
    insert into caudal.series(tenant_id, device_id, name, kind, unit, display_name, limit_low, limit_high)
      values (acme, d, 'temperature', 'gauge', '°C', 'Temperatura', -22, -15) returning id into s;
    insert into caudal.sample(series, ts, received, v_num)
      select s, t, t, round((-18 - n * 0.3 + 2 * sin(extract(epoch from t) / 13751 + n))::numeric, 2)
      from generate_series(now() - interval '9 days' - n * interval '31 s', now() - n * interval '31 s', interval '10 minutes') t
      where not (n = 3 and t > now() - interval '6 hours');
    insert into caudal.series(tenant_id, device_id, name, kind, display_name)
      values (acme, d, 'door', 'state', 'Porta') returning id into s;
    insert into caudal.sample(series, ts, received, v_bool)
      select s, t, t, extract(hour from t)::int % 7 = 0
      from generate_series(now() - interval '3 days' - n * interval '31 s', now() - n * interval '31 s', interval '30 minutes') t;
  end loop;
  insert into caudal.presence(tenant_id, device_id, at, online)
    select acme, id, now() - interval '20 days', true from caudal.device where tenant_id = acme and last_heard is not null;
  insert into caudal.presence(tenant_id, device_id, at, online)
    select acme, id, now() - interval '6 hours', false from caudal.device where tenant_id = acme and name = 'sensor-3';
  insert into caudal.profile(tenant_id, name, points, commands) values (acme, 'chiller',
    '[{"name": "temperature", "kind": "gauge", "unit": "°C", "limit_low": -22, "limit_high": -15}, {"name": "energy", "kind": "counter", "unit": "kWh"}]',
    '[{"name": "setpoint", "params": [{"name": "celsius", "type": "number", "required": true, "minimum": -30, "maximum": -5}], "ack_seconds": 30}]');
  insert into caudal.device(tenant_id, name, status) values (acme, 'estranho-01', 'quarantined'), (acme, 'estranho-02', 'quarantined');
  insert into caudal.ledger(day, tenant_id, writer, messages, received, stored, duplicates, dead, held, first_received, last_received)
    values (current_date, acme, 'ingest-1', 5300, 5300, 5280, 12, 3, 5, now() - interval '5 hours', now() - interval '3 s'),
           (current_date - 1, acme, 'ingest-1', 24100, 24100, 24077, 20, 3, 0, now() - interval '29 hours', now() - interval '5 hours');
end $$;
"""  # noqa: E501


NO_NUMBER = 'points[0].v (of "temperature", declared num) is an object, and must be a number'


async def seed(pool: Any) -> None:
    """Fill the tenant `acme`, which is there already."""
    await pool.execute(SEED)
    # What a writer would have left for the rollups.
    await pool.execute(
        "select caudal.invalidate(array_agg(series), array_agg(hour)) from (select distinct series,"
        " floor(extract(epoch from ts) / 3600)::int as hour from caudal.sample) as touched"
    )
    await Refresher(pool, Metrics()).settle()
    tenant = await pool.fetchval("select id from caudal.tenant where name = 'acme'")
    rubbish = [
        ("json", "no JSON from byte 28 on: Expecting value", "byte 28", b'{"schema": "v1", "points": [',
         "sensor-1"),
        ("value", NO_NUMBER, "/points/0/v",
         b'{"schema":"v1","ts":"2026-11-20T08:00:00Z","points":[{"name":"temperature","v":{"x":1}}]}',
         "sensor-2"),
        ("value", NO_NUMBER, "/points/0/v",
         b'{"schema":"v1","ts":"2026-11-20T08:05:00Z","points":[{"name":"temperature","v":{}}]}', "sensor-2"),
        ("unknown_format", "text is not any format that this topic is for (senml, v1)", "",
         HOSTILE.encode(), HOSTILE[:60]),
        ("encoding", "byte 128 is no UTF-8: invalid start byte", "byte 128", bytes(range(256)), "sensor-4"),
    ]  # fmt: skip
    await pool.executemany(
        "insert into caudal.dead_letter(tenant_id, tenant_name, device_name, topic, payload, reason,"
        " sentence, pointer, received, digest)"
        " values ($1, 'acme', $6, 'traksense/acme/loja/' || $6 || '/telem', $5, $2, $3, $4,"
        " now() - random() * interval '5 hours', sha256($5))",
        [(tenant, reason, sentence, pointer, payload, device)
         for reason, sentence, pointer, payload, device in rubbish],
    )  # fmt: skip
    await pool.executemany(
        "insert into caudal.held_message(tenant_id, device_name, topic, payload, received, digest)"
        " values ($1, 'estranho-01', 'traksense/acme/loja/estranho-01/telem', $2, now() - interval '1 h',"
        " sha256($2))",
        [(tenant, b'{"schema":"v1","points":[{"p":"t","v":%d}]}' % number) for number in range(5)],
    )


async def make_hostile(pool: Any) -> None:
    """Names and values that would run as script, were they not escaped."""
    await pool.execute(
        """
        do $$
        declare acme int; site int; d bigint; s int; bad text := %s;
        begin
          select id into acme from caudal.tenant where name = 'acme';
          insert into caudal.site(tenant_id, name, display_name) values (acme, bad, bad) returning id into site;
          insert into caudal.device(tenant_id, site_id, name, display_name, is_online, last_heard)
            values (acme, site, bad, bad, true, now()) returning id into d;
          insert into caudal.series(tenant_id, device_id, name, kind, unit, display_name)
            values (acme, d, bad, 'counter', bad, bad) returning id into s;
          insert into caudal.sample(series, ts, received, v_num) values (s, now() - interval '1 h', now(), 1), (s, now(), now(), 2);
          insert into caudal.series(tenant_id, device_id, name, kind) values (acme, d, 'word', 'state') returning id into s;
          insert into caudal.sample(series, ts, received, v_text) values (s, now(), now(), bad);
        end $$
        """  # noqa: E501
        % ("'" + HOSTILE.replace("'", "''") + "'")
    )
