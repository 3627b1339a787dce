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

-- Drop what is wholly older than `keep`; returns the names dropped.
create function caudal.drop_partitions(keep interval) returns setof text
  language plpgsql security definer set search_path = caudal, pg_catalog, pg_temp set timezone = 'UTC' as $$
declare part record;
begin
  for part in
    select c.relname, substring(c.relname from '\d+$') as stamp from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'caudal.sample'::regclass and c.relname ~ '^sample_\d+$'
  loop
    if (case length(part.stamp) when 8 then to_date(part.stamp, 'YYYYMMDD') + interval '1 day'
                                else to_date(part.stamp, 'YYYYMM') + interval '1 month' end) < now() - keep then
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
