-- What each tenant keeps, measured by upkeep every minute or so, and whether that is more than its quota allows.
-- Samples are counted by the ledger's sums less what has been dropped since, so that measuring reads no sample; each
-- counts as what a row and its place in the index take.
create table caudal.usage (
  tenant_id int primary key references caudal.tenant,
  points bigint not null,
  dead_letter_bytes bigint not null,
  held_bytes bigint not null,
  file_bytes bigint not null,
  storage_bytes bigint not null,
  over boolean not null default false,
  measured_at timestamptz not null default now()
);
alter table caudal.usage enable row level security;
create policy tenant on caudal.usage using (tenant_id = (select caudal.current_tenant()));
create policy ingest on caudal.usage to caudal_ingest using (true);
grant select on caudal.usage to caudal_app, caudal_ingest;

-- With `limited` only tenants that have a quota of storage: those are asked for often, the others for the page.
create function caudal.measure_usage(limited boolean) returns int
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  sample_bytes constant int := 100;
  letter_bytes constant int := 300;
  flipped record;
  number int := 0;
begin
  for flipped in
    with chosen as (
      select t.id, q.storage_bytes as quota, u.over from caudal.tenant t
      left join caudal.quota q on q.tenant_id = t.id left join caudal.usage u on u.tenant_id = t.id
      where not limited or q.storage_bytes is not null or u.over
    ), stored as (
      select tenant_id as id, sum(stored) as n from caudal.ledger where tenant_id in (select id from chosen) group by 1
    ), dead as (
      select tenant_id as id, sum(octet_length(payload) + letter_bytes) as n from caudal.dead_letter
      where tenant_id in (select id from chosen) group by 1
    ), held as (
      select tenant_id as id, sum(octet_length(payload) + letter_bytes) as n from caudal.held_message
      where tenant_id in (select id from chosen) group by 1
    ), files as (
      select tenant_id as id, sum(size_bytes) as n from caudal.file
      where tenant_id in (select id from chosen) group by 1
    ), counted as (
      select c.id, c.quota, coalesce(c.over, false) as was,
        greatest(0, coalesce(s.n, 0) - coalesce(e.parts, 0))::bigint as points, coalesce(d.n, 0)::bigint as dead,
        coalesce(h.n, 0)::bigint as held, coalesce(f.n, 0)::bigint as files
      from chosen c left join stored s using (id) left join dead d using (id) left join held h using (id)
      left join files f using (id) left join caudal.expired e on e.tenant_id = c.id and e.kind = 'sample'
    ), summed as (
      select *, points * sample_bytes + dead + held + files as total from counted
    ), noted as (
      insert into caudal.usage(tenant_id, points, dead_letter_bytes, held_bytes, file_bytes, storage_bytes, over)
      select id, points, dead, held, files, total, coalesce(total >= quota, false) from summed order by id
      on conflict (tenant_id) do update set
        points = excluded.points, dead_letter_bytes = excluded.dead_letter_bytes, held_bytes = excluded.held_bytes,
        file_bytes = excluded.file_bytes, storage_bytes = excluded.storage_bytes, over = excluded.over,
        measured_at = now()
      returning tenant_id, over
    )
    select n.tenant_id as id from noted n join summed s on s.id = n.tenant_id where n.over <> s.was
  loop
    number := number + 1;
    perform pg_notify('caudal_registry', 'quota:' || flipped.id || ':');
  end loop;
  return number;
end $$;
revoke execute on function caudal.measure_usage(boolean) from public;

-- Nothing is uploaded where there is no room. What providers bring is kept all the same: who wrote it cannot know.
create function caudal.room_for_files() returns trigger language plpgsql as $$
begin
  -- Of its own: others may not look at the table that the second question asks.
  if current_user <> 'caudal_app' or new.since = '-infinity' then return new; end if;
  if exists (select from caudal.usage u where u.tenant_id = new.tenant_id and u.over) then
    raise exception 'The tenant has used the storage of its quota.'
      using errcode = 'check_violation', constraint = 'storage_quota';
  end if;
  return new;
end $$;
