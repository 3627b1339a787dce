"""The SQL of a batch's transaction."""

LEDGER = """
insert into caudal.ledger as l (day, tenant_id, writer, messages, received, stored, duplicates, dead, held,
                                empty, first_received, last_received, batch)
select (now() at time zone 'UTC')::date, t, $1, m, r, s, u, d, h, e, $2, $3, $12
from unnest($4::int[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[],
            $11::bigint[]) as w(t, m, r, s, u, d, h, e)
on conflict (day, tenant_id, writer) do update set
  messages = l.messages + excluded.messages, received = l.received + excluded.received,
  stored = l.stored + excluded.stored, duplicates = l.duplicates + excluded.duplicates,
  dead = l.dead + excluded.dead, held = l.held + excluded.held, empty = l.empty + excluded.empty,
  last_received = greatest(l.last_received, excluded.last_received), last_committed = now(),
  batch = excluded.batch
returning pg_current_xact_id()::text as number, (select caudal.rollup_edge()) as edge
"""

# All of a transaction in one message; only numbers, instants and a quoted name of ours are put into it.
COUNT_AND_COPY = """
call caudal.count_batch('{writer}', '{tenants}', '{messages}', '{parts}', '{first}', '{last}', {batch},
                        {oldest});
copy caudal.sample ({columns}) from stdin (format binary)
"""

# Asked first: a backend that is gone has either committed or never will.
ALIVE = "select exists (select from pg_stat_activity where pid = $1 and backend_start = $2)"

COUNTED = """
select exists (select from caudal.ledger
               where writer = $1 and batch = $2 and day >= (now() at time zone 'UTC')::date - 2)
"""

INCOMING = """
create temporary table if not exists incoming (
  ord int generated always as identity, series int, qual smallint, unit smallint, ts timestamptz,
  received timestamptz, v_num float8, v_bool boolean, v_text text, meta jsonb
) on commit delete rows
"""

FRESH = """
create temporary table if not exists fresh (series int, ts timestamptz) on commit delete rows
"""

# Taken in one order by everybody, so that two writers with the same rows wait for each other in turn.
INSERT_NEW = """
with stored as (
  insert into caudal.sample (series, qual, unit, ts, received, v_num, v_bool, v_text, meta)
  select series, qual, unit, ts, received, v_num, v_bool, v_text, meta from incoming order by series, ts, ord
  on conflict do nothing returning series, ts
)
insert into fresh select series, ts from stored
"""

# Of several alike in one batch the first was stored.
NOT_STORED = """
select i.ord, r.name as point, i.ts,
       (s.v_num, s.v_bool, s.v_text, s.unit) is not distinct from
       (i.v_num, i.v_bool, i.v_text, i.unit) as same,
       coalesce(s.v_num::text, s.v_bool::text, s.v_text) as kept,
       coalesce(i.v_num::text, i.v_bool::text, i.v_text) as refused
from (select *, row_number() over (partition by series, ts order by ord) as nth from incoming) i
join caudal.sample s on s.series = i.series and s.ts = i.ts
join caudal.series r on r.id = i.series
left join fresh f on f.series = i.series and f.ts = i.ts
where f.series is null or i.nth > 1
order by i.ord
"""

DEAD = """
insert into caudal.dead_letter
  (tenant_id, tenant_name, device_name, topic, payload, reason, sentence, pointer, format, received, digest,
   items)
select nullif(t, 0), n, d, o, p, r, s, j, f, c, h, i
from unnest($1::int[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::text[], $7::text[], $8::text[],
            $9::text[], $10::timestamptz[], $11::bytea[], $12::int[]) as w(t, n, d, o, p, r, s, j, f, c, h, i)
"""

# Null while the transaction may still be at work; an id that the server has not given (after a crash) is not.
COMMITTED = """
select case when $1::text::xid8 >= pg_snapshot_xmax(pg_current_snapshot()) then false
            else pg_xact_status($1::text::xid8) = 'in progress' end as busy,
       exists (select from caudal.ledger
               where writer = $2 and batch = $3 and day >= (now() at time zone 'UTC')::date - 2) as committed
"""

OUR_BACKEND = "select pid, backend_start from pg_stat_activity where pid = pg_backend_pid()"

# Process ids are used again; with its start it is the one we mean.
END_BACKEND = """
select pg_terminate_backend(pid, 5000) from pg_stat_activity
where pid = $1 and backend_start = $2 and pid <> pg_backend_pid()
"""

# A message sent again may overtake its first copy, which another writer, of another process even, is storing:
# it waits for whoever may have it. Copies share; 64 locks do, and never fill the server's table of them.
COPIES = """
select case when again then pg_advisory_xact_lock(1667331425, k)
            else pg_advisory_xact_lock_shared(1667331425, k) end
from unnest($1::int[], $2::boolean[]) as w(k, again) order by k
"""

HELD = """
insert into caudal.held_message (tenant_id, device_name, topic, payload, received, digest, items)
select * from unnest($1::int[], $2::text[], $3::text[], $4::bytea[], $5::timestamptz[], $6::bytea[],
                     $7::int[])
"""

ACK = """
insert into caudal.ack as a (tenant_id, device_id, cmd_id, ok, ts_exec, payload)
values ($1, $2, $3, $4, $5, $6::text::jsonb)
on conflict (device_id, cmd_id) do update set updated_at = now()
returning xmax = 0
"""

EVENT = """
insert into caudal.event (tenant_id, device_id, event_id, event_type, ts, received, data)
values ($1, $2, $3, $4, $5, $6, $7::text::jsonb)
on conflict (device_id, event_id) do nothing returning id
"""

METADATA = """
update caudal.device set metadata = metadata || $2::text::jsonb
where id = $1 and not metadata @> $2::text::jsonb
"""
