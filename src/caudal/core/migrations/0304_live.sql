-- Who looks at which series now, so that ingest tells of those alone. Unlogged: after a crash nobody looks.
-- A watcher is a process; its watch ends unless it is renewed.
create unlogged table caudal.live_watch (
  watcher text primary key,
  series int[] not null,
  until timestamptz not null
);
grant select on caudal.live_watch to caudal_ingest;

create function caudal.watch_series(p_watcher text, p_series int[], p_seconds int, p_tell boolean) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  delete from caudal.live_watch where until < now() or (watcher = p_watcher and cardinality(p_series) = 0);
  if cardinality(p_series) > 0 then
    insert into caudal.live_watch values (p_watcher, p_series, now() + make_interval(secs => p_seconds))
      on conflict (watcher) do update set series = excluded.series, until = excluded.until;
  end if;
  if p_tell then perform pg_notify('caudal_watch', ''); end if;
end $$;
revoke execute on function caudal.watch_series(text, int[], int, boolean) from public;
grant execute on function caudal.watch_series(text, int[], int, boolean) to caudal_app;

-- Whose messages somebody looks at (insight/raw.py), and the newest of those as they came. Unlogged: after a crash
-- nobody looks.
create unlogged table caudal.raw_watch (
  device_id bigint primary key references caudal.device on delete cascade,
  tenant_id int not null,
  until timestamptz not null
);
create unlogged table caudal.raw_message (
  id bigint generated always as identity primary key,
  tenant_id int not null,
  device_id bigint not null references caudal.device on delete cascade,
  topic text not null,
  payload bytea not null,
  size int not null,
  received timestamptz not null
);
create index raw_message_device on caudal.raw_message (device_id, received desc);
do $$
declare name text;
begin
  foreach name in array array['raw_watch', 'raw_message'] loop
    execute format('alter table caudal.%I enable row level security', name);
    execute format('create policy tenant on caudal.%I using (tenant_id = (select caudal.current_tenant()))', name);
    execute format('create policy ingest on caudal.%I to caudal_ingest using (true) with check (true)', name);
  end loop;
end $$;
grant select on caudal.raw_watch to caudal_ingest;
grant select, insert, delete on caudal.raw_message to caudal_ingest;
grant select on caudal.raw_message to caudal_app;

create function caudal.watch_raw(wanted bigint, seconds int) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  owner int := (select d.tenant_id from caudal.device d where d.id = wanted and d.tenant_id = caudal.current_tenant());
begin
  if owner is null then return; end if;
  delete from caudal.raw_watch where until < now();
  delete from caudal.raw_message where received < now() - interval '1 day';
  insert into caudal.raw_watch as w values (wanted, owner, now() + make_interval(secs => seconds))
    on conflict (device_id) do update set until = excluded.until where w.until < excluded.until - interval '1 minute';
  if found then perform pg_notify('caudal_watch', ''); end if;
end $$;
revoke execute on function caudal.watch_raw(bigint, int) from public;
grant execute on function caudal.watch_raw(bigint, int) to caudal_app;
