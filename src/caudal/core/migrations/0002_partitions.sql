-- Partitions of caudal.sample: daily from the month before the present one on, monthly before that.
-- A fleet that replays ten years of history then costs 120 partitions, not 3,650.

-- On TimescaleDB (ADR 0064, 0085): chunks are weeks, which it makes itself, but for two wide ones: before 1980, and after
-- what is to come soon. A clock that is centuries off has no chunk of its own there, as it has no partition here.
create function caudal.wide_chunk(first timestamptz, past timestamptz) returns void language plpgsql as $$
begin
  perform _timescaledb_functions.create_chunk('caudal.sample', jsonb_build_object('ts', jsonb_build_array(
    (extract(epoch from first) * 1000000)::bigint, (extract(epoch from past) * 1000000)::bigint)));
end $$;

-- The wide chunk of the future: from the first whole week that is 60 days off.
create function caudal.far_chunk() returns void language sql as $$
  select caudal.wide_chunk(date_bin('7 days', now() + interval '67 days', '1970-01-01Z'), '10001-01-01Z')
$$;

-- Every chunk there is, by its bounds; `wide` are the two above.
create function caudal.chunks() returns table(name regclass, first timestamptz, past timestamptz, wide boolean)
  language plpgsql stable as $$
begin
  return query select format('%I.%I', c.chunk_schema, c.chunk_name)::regclass, c.range_start, c.range_end,
                      c.range_start < '1980-01-01Z' or c.range_end > '10000-01-01Z'
    from timescaledb_information.chunks c
    where c.hypertable_schema = 'caudal' and c.hypertable_name = 'sample' order by c.range_start;
end $$;

-- Time reaches what fast clocks sent ahead: the wide chunk of the future is made anew, further off, and what it held
-- goes to the weeks it belongs to. About once a month. Returns what kind of chunk has a sample of that time.
create function caudal.ensure_chunk(at timestamptz) returns text
  language plpgsql set search_path = caudal, pg_catalog, pg_temp set timezone = 'UTC' as $$
declare far record;
begin
  if at < '1980-01-01' then return 'past'; end if;
  if at >= date_trunc('day', now()) + interval '32 days' then return 'ahead'; end if;
  if at < now() - interval '1 month' then return 'week'; end if; -- and a replay of years asks no more than this
  if at < (select c.first from caudal.chunks() c where c.wide and c.past > now()) then return 'week'; end if;
  perform pg_advisory_xact_lock(hashtext('caudal.sample partitions'));
  select c.name, c.first, c.past into far from caudal.chunks() c where c.wide and c.past > now();
  if at < far.first then return 'week'; end if; -- somebody else was first
  execute format('lock table %s in access exclusive mode', far.name);
  execute format('create temporary table strays on commit drop as select * from %s', far.name);
  execute format('drop table %s', far.name);
  perform caudal.far_chunk();
  insert into caudal.sample select * from pg_temp.strays;
  drop table pg_temp.strays;
  return 'week';
end $$;

create function caudal.ensure_partition(at timestamptz) returns text
  language plpgsql security definer set search_path = caudal, pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
  month timestamptz := date_trunc('month', at);
  first timestamptz;
  past timestamptz;
  label text;
  strays boolean;
begin
  if to_regclass('caudal.sample_default') is null then return caudal.ensure_chunk(at); end if;
  -- Clocks that are decades off stay in the default partition: their number has no bound.
  if at < '1980-01-01' or at >= date_trunc('day', now()) + interval '32 days' then return 'sample_default'; end if;
  perform pg_advisory_xact_lock(hashtext('caudal.sample partitions'));
  if month >= date_trunc('month', now()) - interval '1 month'
     or exists (select from pg_class where relnamespace = 'caudal'::regnamespace
                and relname ~ ('^sample_' || to_char(month, 'YYYYMM') || '\d\d$')) then
    first := date_trunc('day', at); past := first + interval '1 day'; label := 'sample_' || to_char(first, 'YYYYMMDD');
  else
    first := month; past := first + interval '1 month'; label := 'sample_' || to_char(first, 'YYYYMM');
  end if;
  if to_regclass('caudal.' || label) is not null then return label; end if;
  execute format('create table caudal.%I (like caudal.sample including defaults including constraints)', label);
  select exists (select from caudal.sample_default where ts >= first and ts < past) into strays;
  if strays then
    -- Time has reached rows that a fast clock sent ahead: they move to their day.
    execute format('with moved as (delete from caudal.sample_default where ts >= %L and ts < %L returning *)
                    insert into caudal.%I select * from moved', first, past, label);
  end if;
  execute format('alter table caudal.sample attach partition caudal.%I for values from (%L) to (%L)', label, first, past);
  return label;
end $$;

-- What was stored and has been dropped since, by tenant: the ledger counts it for ever, the tables no longer.
create table caudal.expired (
  tenant_id int not null,
  kind text not null check (kind in ('sample', 'dead_letter')),
  parts bigint not null default 0,
  last_expired timestamptz not null default now(),
  primary key (tenant_id, kind)
);
grant select on caudal.expired to caudal_ingest;

-- Drop what is wholly older than `keep`; returns the names dropped.
create function caudal.drop_partitions(keep interval) returns setof text
  language plpgsql security definer set search_path = caudal, pg_catalog, public, pg_temp set timezone = 'UTC' as $$
declare part record;
begin
  if to_regclass('caudal.sample_default') is null then
    for part in select c.name, c.first, c.past from caudal.chunks() c where not c.wide and c.past < now() - keep loop
      -- Counted under the lock, or a late row that comes between the count and the drop is in neither sum.
      execute format('lock table %s in access exclusive mode', part.name);
      execute format('insert into caudal.expired as e (tenant_id, kind, parts)
                      select coalesce(r.tenant_id, 0), ''sample'', count(*) from %s s
                      left join caudal.series r on r.id = s.series group by 1
                      on conflict (tenant_id, kind) do update
                      set parts = e.parts + excluded.parts, last_expired = now()', part.name);
      return next part.name::text;
      perform drop_chunks('caudal.sample', older_than => part.past, newer_than => part.first);
    end loop;
    return;
  end if;
  for part in
    select c.relname, substring(c.relname from '\d+$') as stamp from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'caudal.sample'::regclass and c.relname ~ '^sample_\d+$'
  loop
    if (case length(part.stamp) when 8 then to_date(part.stamp, 'YYYYMMDD') + interval '1 day'
                                else to_date(part.stamp, 'YYYYMM') + interval '1 month' end) < now() - keep then
      -- Counted under the lock, or a late row that comes between the count and the drop is in neither sum.
      execute format('lock table caudal.%I in access exclusive mode', part.relname);
      execute format('insert into caudal.expired as e (tenant_id, kind, parts)
                      select coalesce(r.tenant_id, 0), ''sample'', count(*) from caudal.%I s
                      left join caudal.series r on r.id = s.series group by 1
                      on conflict (tenant_id, kind) do update
                      set parts = e.parts + excluded.parts, last_expired = now()', part.relname);
      execute format('drop table caudal.%I', part.relname);
      return next part.relname;
    end if;
  end loop;
end $$;

-- The hypertable's chunks of whole weeks that ended `days` ago and are not compressed, or have had rows since: oldest
-- first. None where it is no hypertable.
create function caudal.compressible_chunks(days int) returns setof text
  language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
  if to_regclass('caudal.sample_default') is not null then return; end if;
  return query select c.name::text from caudal.chunks() c
    where not c.wide and c.past <= now() - make_interval(days => days)
      -- 1: compressed; 2 and 8: with rows out of order, or beside it.
      and _timescaledb_functions.chunk_status(c.name) & 11 <> 1
    order by c.first;
end $$;

-- Compresses one of them; false when another process is at it. In a transaction of its own: whoever writes to that
-- chunk, or corrects it, waits for as long.
create function caudal.compress_chunk(chunk text) returns boolean
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  place name := (select n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace
                 where e.extname = 'timescaledb');
begin
  if chunk not in (select c.name::text from caudal.chunks() c where not c.wide) then
    raise exception '% is no chunk of samples', chunk using errcode = 'invalid_parameter_value';
  end if;
  if not pg_try_advisory_xact_lock(hashtext('caudal.sample compression')) then return false; end if;
  -- Who waits for a lock here has everybody else wait behind it.
  perform set_config('lock_timeout', '2s', true);
  execute format('select %I.compress_chunk($1::regclass, if_not_compressed => true)', place) using chunk;
  return true;
end $$;

revoke execute on function caudal.wide_chunk(timestamptz, timestamptz), caudal.far_chunk(), caudal.chunks(),
  caudal.ensure_chunk(timestamptz), caudal.compressible_chunks(int), caudal.compress_chunk(text) from public;
revoke execute on function caudal.ensure_partition(timestamptz), caudal.drop_partitions(interval) from public;
grant execute on function caudal.ensure_partition(timestamptz) to caudal_ingest;

do $$
begin
  if to_regclass('caudal.sample_default') is null then
    perform caudal.wide_chunk('0001-01-01Z BC', '1980-01-01Z');
    perform caudal.far_chunk();
  end if;
  for day in -1..7 loop perform caudal.ensure_partition(now() + day * interval '1 day'); end loop;
end $$;
