-- What the API and the reports may ask of the rollups. These functions run with their owner's rights and answer
-- for the series of the transaction's tenant alone; no other role can touch a rollup table.

create function caudal.own_series(p_ids int[]) returns int[]
  language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select coalesce(array_agg(id order by id), '{}') from caudal.series
  where id = any(p_ids) and (tenant_id = (select caudal.current_tenant()) or (select caudal.sees_all()))
$$;

-- Exact pieces of the level 'minute' or 'hour' in [p_lo, p_hi).
create function caudal.series_pieces(p_ids int[], p_level text, p_lo timestamptz, p_hi timestamptz)
  returns setof caudal.rollup_hour
  language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare own int[] := caudal.own_series(p_ids);
begin
  if p_level = 'minute' then return query select * from caudal.minutes_of(own, p_lo, p_hi);
  else return query select * from caudal.hours_of(own, p_lo, p_hi);
  end if;
end $$;

-- Days are cut in the account's zone; asked in another they would be wrong without a sign of it.
create function caudal.check_zone(p_ids int[], p_zone text) returns void language plpgsql stable as $$
begin
  if exists (select from caudal.series r join caudal.tenant t on t.id = r.tenant_id
             where r.id = any(p_ids) and t.time_zone <> p_zone) then
    raise exception 'days are kept in the account''s own time zone, not in %', p_zone using errcode = '22023';
  end if;
end $$;

-- Numbers by slot. Slots are [p_edges[i], p_edges[i+1]), or where p_edges is null of p_step from p_lo on; `at` is
-- their start. p_level is the coarsest level whose buckets no edge splits: 'sample', 'minute', 'hour', or 'day'
-- for days of p_zone, the account's own. first_v and last_v are null unless p_ends.
create function caudal.series_slots(p_ids int[], p_level text, p_zone text, p_lo timestamptz, p_hi timestamptz,
                                    p_step interval, p_edges timestamptz[], p_ends boolean)
  returns table(series int, at timestamptz, n bigint, num bigint, vmin float8, vmax float8, vsum float8,
                first_v float8, last_v float8)
  language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
  own int[] := caudal.own_series(p_ids);
  alone boolean := p_edges is null and p_step = case p_level when 'hour' then interval '1 hour'
                                                             when 'minute' then interval '1 minute' end;
begin
  if p_level = 'day' then perform caudal.check_zone(own, p_zone); end if;
  if alone and p_level = 'hour' then
    return query select p.series, p.bucket, p.n::bigint, p.num::bigint, p.vmin, p.vmax, p.vsum, p.first_v, p.last_v
      from caudal.hours_of(own, p_lo, p_hi) p;
  elsif alone then
    return query select p.series, p.bucket, p.n::bigint, p.num::bigint, p.vmin, p.vmax, p.vsum, p.first_v, p.last_v
      from caudal.minutes_of(own, p_lo, p_hi) p;
  elsif p_ends then
    return query
      select q.series, case when p_edges is null then date_bin(p_step, q.b, p_lo) else p_edges[width_bucket(q.b, p_edges)] end as at,
             sum(q.n)::bigint, sum(q.num)::bigint, min(q.vmin), max(q.vmax), sum(q.vsum),
             (array_agg(q.first_v order by q.b) filter (where q.num > 0))[1],
             (array_agg(q.last_v order by q.b desc) filter (where q.num > 0))[1]
      from caudal.numbers_of(own, p_level, p_zone, p_lo, p_hi) q group by 1, 2;
  else
    return query
      select q.series, case when p_edges is null then date_bin(p_step, q.b, p_lo) else p_edges[width_bucket(q.b, p_edges)] end as at,
             sum(q.n)::bigint, sum(q.num)::bigint, min(q.vmin), max(q.vmax), sum(q.vsum), null::float8, null::float8
      from caudal.numbers_of(own, p_level, p_zone, p_lo, p_hi) q group by 1, 2;
  end if;
end $$;

create function caudal.numbers_of(p_ids int[], p_level text, p_zone text, p_lo timestamptz, p_hi timestamptz)
  returns table(series int, b timestamptz, n int, num int, vmin float8, vmax float8, vsum float8,
                first_v float8, last_v float8)
  language plpgsql stable as $$
begin
  case p_level
    when 'sample' then
      return query select s.id, s.ts, 1, (s.x is not null)::int, s.x, s.x, s.x, s.x, s.x
        from (select i.id, y.ts, case when y.qual < 2 and y.v_num > -1e290 and y.v_num < 1e290 then y.v_num end as x
              from unnest(p_ids) i(id) join caudal.sample y on y.series = i.id
              where y.ts >= p_lo and y.ts < p_hi) s;
    when 'minute' then
      return query select p.series, p.bucket, p.n, p.num, p.vmin, p.vmax, p.vsum, p.first_v, p.last_v
        from caudal.minutes_of(p_ids, p_lo, p_hi) p;
    when 'hour' then
      return query select p.series, p.bucket, p.n, p.num, p.vmin, p.vmax, p.vsum, p.first_v, p.last_v
        from caudal.hours_of(p_ids, p_lo, p_hi) p;
    when 'day' then
      return query select p.series, p.bucket::timestamp at time zone p_zone, p.n, p.num, p.vmin, p.vmax, p.vsum,
                          p.first_v, p.last_v
        from caudal.days_of(p_ids, p_zone, (p_lo at time zone p_zone)::date,
                            ((p_hi - interval '1 us') at time zone p_zone)::date) p;
  end case;
end $$;

-- Samples as they came, oldest first, at most p_limit of each series from p_lo on.
create function caudal.series_samples(p_ids int[], p_lo timestamptz, p_hi timestamptz, p_limit int)
  returns table(series int, ts timestamptz, v_num float8, v_bool boolean, v_text text, qual smallint)
  language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
  return query
    select i.id, s.ts, s.v_num, s.v_bool, s.v_text, s.qual from unnest(caudal.own_series(p_ids)) i(id)
    cross join lateral (select * from caudal.sample x where x.series = i.id and x.ts >= p_lo and x.ts < p_hi
                        order by x.ts limit p_limit) s;
end $$;

-- Consumption by bucket ('hour', 'day', 'month') of the zone, in [p_lo, p_hi), both at edges of such buckets.
-- What a dial grew between two readings belongs to the bucket of the later one; so every sum of buckets is the
-- consumption of their span. total is null for what is neither counter nor delta.
-- `day` is the first local date of the bucket, `hour` its instant where the bucket is an hour.
create function caudal.consumption_of(p_ids int[], p_zone text, p_unit text, p_lo timestamptz, p_hi timestamptz)
  returns table(series int, day date, hour timestamptz, total float8, n bigint, resets bigint,
                first_day date, last_day date)
  language plpgsql stable as $$
declare
  lo_day date := (p_lo at time zone p_zone)::date;
  hi_day date := ((p_hi - interval '1 us') at time zone p_zone)::date;
  edge date := ((select threshold from caudal.rollup_state) at time zone p_zone)::date;
  open_day date := greatest(lo_day, edge);
  whole boolean := caudal.whole_hours(p_zone, p_lo, p_hi);
  direct boolean;
begin
  if p_unit in ('day', 'month') then
    -- Where nothing is marked, the finished days are read where they are kept, and of the unfinished one its hours:
    -- merging those into a day first costs a thousand meters more than all the rest.
    direct := whole and not exists (
      select from caudal.stale_hours(p_ids, p_lo - interval '2 hours', p_hi + interval '2 hours'));
    return query
      with piece as (
        select k.series, k.bucket as local, k.num, k.n, k.vsum, k.first_ts, k.first_v, k.last_v, k.up, k.resets,
               date_trunc(p_unit, k.bucket::timestamp)::date as label
        from caudal.rollup_day k
        where direct and k.series = any(p_ids) and k.bucket >= lo_day and k.bucket <= hi_day and k.bucket < edge
          and k.first_ts is not null
        union all
        select h.series, (h.bucket at time zone p_zone)::date, h.num, h.n, h.vsum, h.first_ts, h.first_v, h.last_v,
               h.up, h.resets, date_trunc(p_unit, h.bucket at time zone p_zone)::date
        from caudal.hours_of(p_ids, greatest(p_lo, (open_day::timestamp at time zone p_zone) - interval '2 hours'), p_hi) h
        where direct and open_day <= hi_day and h.first_ts is not null and (h.bucket at time zone p_zone)::date >= open_day
        union all
        select d.series, d.bucket as local, d.num, d.n, d.vsum, d.first_ts, d.first_v, d.last_v, d.up, d.resets,
               date_trunc(p_unit, d.bucket::timestamp)::date as label
        from caudal.days_of(p_ids, p_zone, lo_day, hi_day) d where not direct and d.first_ts is not null
        union all
        select b.series, null, 0, 0, 0, b.ts, b.v, b.v, 0, 0, null from caudal.last_before(p_ids, p_lo) b
      ), step as (
        select p.*, lag(p.last_v) over (partition by p.series order by p.first_ts) as prev from piece p
      )
      select s.series, s.label, null::timestamptz,
             case r.kind when 'counter' then sum(s.up + coalesce(caudal.dial_step(s.prev, s.first_v), 0))
                         when 'delta' then sum(s.vsum) end,
             sum(s.num), sum(s.resets + case when caudal.is_reset(s.prev, s.first_v) then 1 else 0 end),
             min(s.local), max(s.local)
      from step s join caudal.series r on r.id = s.series
      where s.label is not null group by s.series, s.label, r.kind;
  else
    return query
      with piece as (
        select h.series, h.bucket as label, h.num, h.vsum, h.first_ts, h.first_v, h.last_v, h.up, h.resets
        from caudal.hours_of(p_ids, p_lo, p_hi) h where h.first_ts is not null and whole
        union all
        -- Zones off by half an hour: their hours are cut from the samples.
        select f.series, p_lo + floor(extract(epoch from f.bucket - p_lo) / 3600) * interval '1 hour',
               f.num, f.vsum, f.first_ts, f.first_v, f.last_v, f.up, f.resets
        from caudal.fold_samples(p_ids, p_lo, p_hi, interval '15 minutes') f where f.first_ts is not null and not whole
        union all
        select b.series, null, 0, 0, b.ts, b.v, b.v, 0, 0 from caudal.last_before(p_ids, p_lo) b
      ), step as (
        select p.*, lag(p.last_v) over (partition by p.series order by p.first_ts) as prev from piece p
      )
      select s.series, (s.label at time zone p_zone)::date, s.label,
             case r.kind when 'counter' then sum(s.up + coalesce(caudal.dial_step(s.prev, s.first_v), 0))
                         when 'delta' then sum(s.vsum) end,
             sum(s.num), sum(s.resets + case when caudal.is_reset(s.prev, s.first_v) then 1 else 0 end),
             null::date, null::date
      from step s join caudal.series r on r.id = s.series
      where s.label is not null group by s.series, s.label, r.kind;
  end if;
end $$;

-- The same for whoever may not see everything: the tenant's own series.
create function caudal.series_consumption(p_ids int[], p_zone text, p_unit text, p_lo timestamptz, p_hi timestamptz)
  returns table(series int, day date, hour timestamptz, total float8, n bigint, resets bigint,
                first_day date, last_day date)
  language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare own int[] := caudal.own_series(p_ids);
begin
  perform caudal.check_zone(own, p_zone);
  return query select * from caudal.consumption_of(own, p_zone, p_unit, p_lo, p_hi);
end $$;

-- The newest sample of each series, whatever its quality. Below the threshold the rollups say in which hour it is.
create function caudal.series_latest(p_ids int[])
  returns table(series int, ts timestamptz, v_num float8, v_bool boolean, v_text text, qual smallint)
  language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
  own int[] := caudal.own_series(p_ids);
  edge timestamptz := (select threshold from caudal.rollup_state);
begin
  return query
    with tail as materialized (
      select i.id, s.* from unnest(own) i(id)
      cross join lateral (select x.ts, x.v_num, x.v_bool, x.v_text, x.qual from caudal.sample x
                          where x.series = i.id and x.ts >= edge order by x.ts desc limit 1) s
    ), older as materialized (
      select i.id from unnest(own) i(id) where not exists (select from tail t where t.id = i.id)
    ), marked as (
      select m.series, max(m.hour) as hour from caudal.stale_hours((select array_agg(o.id) from older o), '-infinity', edge) m
      group by m.series
    ), kept as (
      select distinct on (c.id) c.id, c.bucket, c.last_ts, c.last_v, c.state_last_ts, c.state_last from (
        select o.id, r.* from older o cross join lateral (
          select h.* from caudal.rollup_hour h where h.series = o.id and h.n > 0 order by h.bucket desc limit 1) r
        union all
        select m.series, f.* from marked m
          cross join lateral caudal.fold_samples(array[m.series], m.hour, m.hour + interval '1 hour', interval '1 hour') f
          -- (an hour in which nothing but a dial was replaced has none)
          where f.n > 0
      ) c
      order by c.id, c.bucket desc, greatest(c.last_ts, c.state_last_ts) desc nulls last
    )
    select t.* from tail t
    union all
    -- The rollups say in which hour; the sample itself says the rest: of one of bad quality they know that it was, a
    -- truth they hold as a word, and a replaced dial as a reading. Where retention has taken the samples, theirs has
    -- to do.
    select k.id, coalesce(s.ts, greatest(k.last_ts, k.state_last_ts)),
           case when s.ts is not null then s.v_num
                when k.state_last_ts is null or k.last_ts > k.state_last_ts then k.last_v end,
           s.v_bool,
           case when s.ts is not null then s.v_text
                when k.last_ts is null or k.state_last_ts > k.last_ts then k.state_last end,
           s.qual
    from kept k
    left join lateral (select x.ts, x.v_num, x.v_bool, x.v_text, x.qual from caudal.sample x
                       where x.series = k.id and x.ts >= k.bucket and x.ts < k.bucket + interval '1 hour'
                       order by x.ts desc limit 1) s on true
    where coalesce(s.ts, k.last_ts, k.state_last_ts) is not null;
end $$;

-- The usable numbers next to an instant: the last one before it and the first one from it on.
create function caudal.readings_around(p_series int, p_at timestamptz, out before float8, out after float8)
  language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select (select s.v_num from caudal.sample s where s.series = o.id and s.ts < p_at and s.qual < 2 and s.v_num > -1e290
            and s.v_num < 1e290 order by s.ts desc limit 1),
         (select s.v_num from caudal.sample s where s.series = o.id and s.ts >= p_at and s.qual < 2 and s.v_num > -1e290
            and s.v_num < 1e290 order by s.ts limit 1)
  from (select (caudal.own_series(array[p_series]))[1] as id) o
$$;

-- Months in which a tenant's meters may have readings.
create function caudal.tenant_months(p_tenant int) returns table(month date, start timestamptz)
  language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare zone text; first timestamptz;
begin
  if p_tenant is distinct from caudal.current_tenant() and not caudal.sees_all() then return; end if;
  select time_zone into zone from caudal.tenant where id = p_tenant;
  select least(
    (select min(b.bucket) from caudal.series r cross join lateral (
       select h.bucket from caudal.rollup_hour h where h.series = r.id order by h.bucket limit 1) b
     where r.tenant_id = p_tenant),
    (select min(m.hour) from caudal.stale_hours(
       (select array_agg(r.id) from caudal.series r where r.tenant_id = p_tenant), '-infinity', 'infinity') m),
    (select threshold from caudal.rollup_state), now()) into first;
  return query
    select g::date, caudal.day_start(g::date, zone)
    from generate_series(date_trunc('month', first at time zone zone), date_trunc('month', now() at time zone zone),
                         interval '1 month') g;
end $$;

-- One month of a tenant's meters. A meter is a device with a point `valor`, or else a counter or a delta:
-- the first of them. What is declared neither has readings and no total.
create function caudal.tenant_month(p_tenant int, p_month date)
  returns table(device_id bigint, total float8, days int, readings bigint)
  language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare zone text; ids int[];
begin
  if p_tenant is distinct from caudal.current_tenant() and not caudal.sees_all() then return; end if;
  select time_zone into zone from caudal.tenant where id = p_tenant;
  select array_agg(m.id) into ids from (
    select distinct on (r.device_id) r.id from caudal.series r
    where r.tenant_id = p_tenant and (r.name = 'valor' or r.kind in ('counter', 'delta'))
    order by r.device_id, r.name <> 'valor', r.id) m;
  return query
    select r.device_id, c.total, c.last_day - c.first_day + 1, c.n
    from caudal.consumption_of(ids, zone, 'month', caudal.day_start(p_month, zone),
                               caudal.day_start((p_month + interval '1 month')::date, zone)) c
    join caudal.series r on r.id = c.series;
end $$;

-- The mean of a day is over the days from the month's first reading to its last.
create view public.tds_new_consumo_mensal with (security_barrier) as
  select m.start as mes_referencia, t.id::bigint as conta_id, c.device_id as dispositivo_id,
         round(c.total::numeric, 4) as total_consumo, round(c.total::numeric / c.days, 4) as media_diaria,
         c.readings as leituras_count
  from caudal.tenant t
  cross join lateral caudal.tenant_months(t.id) m
  cross join lateral caudal.tenant_month(t.id, m.month) c
  where (t.id = (select caudal.current_tenant()) or (select caudal.sees_all()));
grant select on public.tds_new_consumo_mensal to caudal_reader, caudal_app;

revoke execute on function caudal.own_series(int[]), caudal.readings_around(int, timestamptz), caudal.series_pieces(int[], text, timestamptz, timestamptz),
  caudal.series_slots(int[], text, text, timestamptz, timestamptz, interval, timestamptz[], boolean),
  caudal.series_samples(int[], timestamptz, timestamptz, int), caudal.series_latest(int[]),
  caudal.consumption_of(int[], text, text, timestamptz, timestamptz), caudal.check_zone(int[], text),
  caudal.numbers_of(int[], text, text, timestamptz, timestamptz),
  caudal.series_consumption(int[], text, text, timestamptz, timestamptz),
  caudal.tenant_months(int), caudal.tenant_month(int, date) from public;
grant execute on function caudal.own_series(int[]), caudal.readings_around(int, timestamptz), caudal.series_pieces(int[], text, timestamptz, timestamptz),
  caudal.series_slots(int[], text, text, timestamptz, timestamptz, interval, timestamptz[], boolean),
  caudal.series_samples(int[], timestamptz, timestamptz, int), caudal.series_latest(int[]),
  caudal.series_consumption(int[], text, text, timestamptz, timestamptz) to caudal_app;
grant execute on function caudal.tenant_months(int), caudal.tenant_month(int, date) to caudal_app, caudal_reader;
