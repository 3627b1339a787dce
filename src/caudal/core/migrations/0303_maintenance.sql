-- What `caudal upkeep` does in the background: rollups, partitions ahead of time, retention. A role of its own, which
-- may call these functions and nothing else: it reads no table and belongs to no tenant.

do $$
begin
  if not exists (select from pg_roles where rolname = 'caudal_upkeep') then create role caudal_upkeep nologin; end if;
exception when duplicate_object or unique_violation then null; -- two databases migrated at once
end $$;
grant usage on schema caudal to caudal_upkeep;

create function caudal.ensure_partitions(p_ahead int) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  for day in -1..p_ahead loop perform caudal.ensure_partition(now() + day * interval '1 day'); end loop;
end $$;

-- Drops what is wholly older than p_days; their rollups stay. Not while hours before that wait to be made:
-- they would lose what is not in them yet. Returns what was dropped.
create function caudal.apply_retention(p_days int) returns setof text
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  bound timestamptz := date_trunc('day', now() - make_interval(days => p_days), 'UTC');
  strays text := to_regclass('caudal.sample_default')::text;
begin
  -- Neither may a refresher read a mark now and find the samples gone, nor a partition's readers hold us up.
  perform pg_advisory_xact_lock(hashtext('caudal.rollup refresher'));
  perform set_config('lock_timeout', '2s', true);
  if exists (select from caudal.rollup_log) or exists (select from caudal.rollup_stale where hour < bound) then return; end if;
  update caudal.rollup_state set raw_from = bound where raw_from < bound;
  return query select caudal.drop_partitions(make_interval(days => p_days));
  -- The table of its own that strays have; on TimescaleDB, whose weeks went whole, they are those before 1980.
  execute format('with gone as (delete from %s where ts < $1 returning series)
                  insert into caudal.expired as e (tenant_id, kind, parts)
                  select coalesce(r.tenant_id, 0), ''sample'', count(*) from gone g
                  left join caudal.series r on r.id = g.series group by 1
                  on conflict (tenant_id, kind) do update
                  set parts = e.parts + excluded.parts, last_expired = now()', coalesce(strays, 'caudal.sample'))
    using case when strays is null then least(bound, '1980-01-01Z') else bound end;
  delete from caudal.rollup_minute where bucket < bound;
end $$;

-- The same for the tenants that keep samples for a shorter time than everybody, one series at a time, at most
-- p_limit of them after p_after. Returns the last one looked at, null at the end.
create function caudal.apply_tenant_retention(p_after int, p_limit int) returns int
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  one record; last int; gone bigint;
begin
  perform pg_advisory_xact_lock(hashtext('caudal.rollup refresher'));
  for one in
    select r.id, r.tenant_id, caudal.series_raw_from(r.id) as bound from caudal.series r join caudal.tenant t on t.id = r.tenant_id
    where t.retention_days is not null and r.id > p_after order by r.id limit p_limit
  loop
    last := one.id;
    continue when exists (select from caudal.rollup_stale s where s.series = one.id and s.hour < one.bound);
    delete from caudal.sample where series = one.id and ts < one.bound;
    get diagnostics gone = row_count;
    insert into caudal.expired as e (tenant_id, kind, parts) values (one.tenant_id, 'sample', gone)
      on conflict (tenant_id, kind) do update set parts = e.parts + excluded.parts, last_expired = now();
    delete from caudal.rollup_minute where series = one.id and bucket < one.bound;
  end loop;
  return last;
end $$;

-- Settled or not, they are kept p_days; at most p_limit at a time. Returns how many went.
create function caudal.prune_dead_letters(p_days int, p_limit int) returns int
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare count int;
begin
  with gone as (
    delete from caudal.dead_letter where id in (
      select id from caudal.dead_letter where received < now() - make_interval(days => p_days)
      order by received limit p_limit)
    returning tenant_id, status, format, items
  ), noted as (
    -- Records of the message log are in no ledger, and a replayed letter counts where it went.
    insert into caudal.expired as e (tenant_id, kind, parts)
    select coalesce(g.tenant_id, 0), 'dead_letter', sum(g.items) from gone g
    where g.status <> 'replayed' and g.format is distinct from 'log' group by 1
    on conflict (tenant_id, kind) do update set parts = e.parts + excluded.parts, last_expired = now()
  )
  select count(*) from gone into count;
  return count;
end $$;

create function caudal.rollup_threshold_now() returns timestamptz
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$ select threshold from caudal.rollup_state $$;

revoke execute on function caudal.ensure_partitions(int), caudal.apply_retention(int),
  caudal.apply_tenant_retention(int, int), caudal.prune_dead_letters(int, int), caudal.rollup_threshold_now() from public;
grant execute on function caudal.ensure_partitions(int), caudal.apply_retention(int),
  caudal.apply_tenant_retention(int, int), caudal.prune_dead_letters(int, int), caudal.rollup_threshold_now(),
  caudal.compressible_chunks(int), caudal.compress_chunk(text),
  caudal.rollup_step(int, int, int, int), caudal.rollup_turn(), caudal.rollup_advance(timestamptz, interval),
  caudal.measure_usage(boolean) to caudal_upkeep;
