-- Partitions of caudal.sample: daily from the month before the present one on, monthly before that.
-- A fleet that replays ten years of history then costs 120 partitions, not 3,650.

create function caudal.ensure_partition(at timestamptz) returns text
  language plpgsql security definer set search_path = caudal, pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
  month timestamptz := date_trunc('month', at);
  first timestamptz;
  past timestamptz;
  label text;
  strays boolean;
begin
  if to_regclass('caudal.sample_default') is null then return 'hypertable'; end if; -- makes its chunks itself
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
    for part in execute format('select show_chunks(''caudal.sample'', older_than => interval %L) as chunk', keep) loop
      execute format('insert into caudal.expired as e (tenant_id, kind, parts)
                      select coalesce(r.tenant_id, 0), ''sample'', count(*) from %s s
                      left join caudal.series r on r.id = s.series group by 1
                      on conflict (tenant_id, kind) do update
                      set parts = e.parts + excluded.parts, last_expired = now()', part.chunk);
      return next part.chunk::text;
    end loop;
    execute format('select drop_chunks(''caudal.sample'', older_than => interval %L)', keep);
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

revoke execute on function caudal.ensure_partition(timestamptz), caudal.drop_partitions(interval) from public;
grant execute on function caudal.ensure_partition(timestamptz) to caudal_ingest;

do $$
begin
  for day in -1..7 loop perform caudal.ensure_partition(now() + day * interval '1 day'); end loop;
end $$;
