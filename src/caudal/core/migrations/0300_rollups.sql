-- Rollups: what caudal.sample says by the minute, the hour and the day, and how it is kept true.
--
-- An hour is *materialised* when it lies below the threshold and has no mark in rollup_stale or rollup_log.
-- Everything else is read from the samples, so an answer is right at every moment; the refresher only makes
-- it fast. Writers that store below the threshold leave a mark in the same transaction.
-- Nothing here knows how caudal.sample is stored: partitions and hypertables are read alike.

create table caudal.rollup_state (
  one boolean primary key default true check (one),
  -- Start of the first hour that is always read from the samples.
  threshold timestamptz not null,
  -- Samples before it were dropped by retention: their hours are kept as they are and never made anew.
  raw_from timestamptz not null default '-infinity',
  -- Counts the refresher's turns: what was marked in an earlier one may be taken up, what is marked in this one
  -- need not be marked again.
  epoch bigint not null default 0
);
insert into caudal.rollup_state(threshold) values (date_trunc('hour', now()));

-- What writers leave: one row a transaction, two arrays of equal length, hours since 1970. Not compressed:
-- it lives for a second.
create table caudal.rollup_log (
  id bigint generated always as identity primary key,
  epoch bigint not null,
  series int[] not null,
  hours int[] not null
);
alter table caudal.rollup_log alter series set storage external, alter hours set storage external;

-- The same without repetitions, waiting for the refresher.
create table caudal.rollup_stale (
  series int not null,
  hour timestamptz not null,
  primary key (series, hour)
);

create table caudal.rollup_hour (
  series int not null,
  bucket timestamptz not null,
  n int not null,             -- samples
  bad int not null,           -- of them: bad quality, or numbers beyond 1e290
  num int not null,           -- of them: usable numbers; the next nine speak of these alone
  vmin float8, vmax float8, vsum float8,
  first_ts timestamptz, first_v float8,
  last_ts timestamptz, last_v float8,
  up float8 not null,         -- growth of the dial between the first and the last, restarts included
  resets int not null,
  states jsonb,               -- seconds in each state between the first and the last state of the bucket
  state_first_ts timestamptz, state_first text,
  state_last_ts timestamptz, state_last text,
  primary key (series, bucket)
);
create table caudal.rollup_minute (like caudal.rollup_hour including all);
-- Days are those of the account's own time zone.
create table caudal.rollup_day (like caudal.rollup_hour including all);
alter table caudal.rollup_day alter bucket type date;

-- ---------------------------------------------------------------- what a writer calls

-- The threshold (microseconds since 1970) and the epoch, held still until this transaction ends. A writer asks once.
create function caudal.rollup_edge() returns bigint[]
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform pg_advisory_xact_lock_shared(hashtext('caudal.rollup writers'));
  -- A new statement: a snapshot after the lock.
  return (select array[(extract(epoch from threshold) * 1000000)::bigint, epoch] from caudal.rollup_state);
end $$;

-- Marks (series, hour since 1970) pairs: only those below the threshold are needed, more do no harm.
create function caudal.invalidate(p_series int[], p_hours int[]) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform pg_advisory_xact_lock_shared(hashtext('caudal.rollup writers'));
  insert into caudal.rollup_log(epoch, series, hours) select epoch, p_series, p_hours from caudal.rollup_state;
end $$;

-- ---------------------------------------------------------------- dials that were replaced

-- A counter's dial was taken out and another put in: what the old one showed at the end, and the new one at the
-- beginning. To the rollups it is a reading with two faces, `final` to what came before and `start` to what follows.
create table caudal.replacement (
  id int generated always as identity primary key,
  tenant_id int not null references caudal.tenant,
  series_id int not null references caudal.series on delete cascade,
  at timestamptz not null,
  -- Null where nobody read it: then the last reading before is taken.
  final_reading float8 check (abs(final_reading) < 1e290),
  start_reading float8 not null default 0 check (abs(start_reading) < 1e290),
  note text not null default '',
  created_by text not null default '',
  created_at timestamptz not null default now(),
  unique (series_id, at)
);
alter table caudal.replacement enable row level security;
create policy tenant on caudal.replacement using (tenant_id = (select caudal.current_tenant()));
grant select, insert, delete on caudal.replacement to caudal_app;
grant usage on all sequences in schema caudal to caudal_app;

create function caudal.replacement_changed() returns trigger language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
declare one caudal.replacement := coalesce(new, old);
begin
  if tg_op = 'INSERT' and not caudal.may_be_made(one.series_id, date_trunc('hour', one.at, 'UTC')) then
    raise exception 'the samples of that hour are gone, and what was made of them stays' using errcode = '22023';
  end if;
  perform caudal.invalidate(array[one.series_id], array[floor(extract(epoch from one.at) / 3600)::int]);
  return null;
end $$;
create trigger replacement after insert or delete on caudal.replacement for each row
  execute function caudal.replacement_changed();

-- ---------------------------------------------------------------- folding samples

-- What one reading of a dial adds to the one before. A drop is a restart from zero, and the dial's new value
-- is what it counted since; unless it is within 0.1%, which is jitter and cancels out with what follows.
create function caudal.is_reset(prev float8, cur float8) returns boolean language sql immutable parallel safe
  as $$ select prev - cur > 0.001 * abs(prev) $$;
create function caudal.dial_step(prev float8, cur float8) returns float8 language sql immutable parallel safe
  as $$ select case when prev - cur > 0.001 * abs(prev) then greatest(cur, 0) else cur - prev end $$;

-- How long a state is believed after the sample that told it; then it is unknown.
create function caudal.state_hold() returns interval language sql immutable parallel safe
  as $$ select interval '1 hour' $$;

-- Samples of these series in [p_lo, p_hi) by buckets of p_step (a divisor of the hour, or the hour).
create function caudal.fold_samples(p_ids int[], p_lo timestamptz, p_hi timestamptz, p_step interval)
  returns setof caudal.rollup_hour language sql stable parallel safe as $$
  select b.series, b.bucket, b.n, b.bad, b.num, b.vmin, b.vmax, b.vsum, b.first_ts, b.first_v, b.last_ts, b.last_v,
         b.up, b.resets, s.states, b.state_first_ts, b.state_first, b.state_last_ts, b.state_last
  from (
    select series, bucket, (count(*) filter (where not swap))::int as n,
           (count(*) filter (where class = 'b'))::int as bad,
           count(x)::int as num,
           min(x) as vmin, max(x) as vmax, sum(x) as vsum,
           min(ts) filter (where class = 'n') as first_ts,
           min(x_in) filter (where class = 'n' and prev_bucket is distinct from bucket) as first_v,
           max(ts) filter (where class = 'n') as last_ts,
           min(x_out) filter (where class = 'n' and next_bucket is distinct from bucket) as last_v,
           coalesce(sum(caudal.dial_step(prev_x, x_in)) filter (where class = 'n' and prev_bucket = bucket), 0) as up,
           (count(*) filter (where class = 'n' and prev_bucket = bucket and caudal.is_reset(prev_x, x_in)))::int as resets,
           min(ts) filter (where class = 's') as state_first_ts,
           min(state) filter (where class = 's' and prev_bucket is distinct from bucket) as state_first,
           max(ts) filter (where class = 's') as state_last_ts,
           min(state) filter (where class = 's' and next_bucket is distinct from bucket) as state_last
    from (
      select series, ts, bucket, class, x, state, swap, x_in, x_out, lag(x_out) over w as prev_x,
             lag(bucket) over w as prev_bucket, lead(bucket) over w as next_bucket
      from (
        select series, ts, bucket, class, x, state, false as swap, x as x_in, x as x_out from (select series, ts, date_bin(p_step, ts, '2000-01-01 00:00:00Z') as bucket,
               case when qual < 2 and v_num > -1e290 and v_num < 1e290 then v_num end as x,
               case when qual < 2 then coalesce(v_bool::text, left(v_text, 64)) end as state,
               case when qual < 2 and v_num > -1e290 and v_num < 1e290 then 'n'
                    when qual < 2 and coalesce(v_bool::text, v_text) is not null then 's' else 'b' end as class
        from caudal.sample where series = any(p_ids) and ts >= p_lo and ts < p_hi) typed
        union all
        select series_id, at, date_bin(p_step, at, '2000-01-01 00:00:00Z'), 'n', null, null, true, final_reading, start_reading
        from caudal.replacement where series_id = any(p_ids) and at >= p_lo and at < p_hi
      ) all_of_it
      -- A dial that was replaced at the instant of a sample was replaced before it.
      window w as (partition by series, class order by ts, x nulls first)
    ) told
    group by series, bucket
  ) b
  left join lateral (
    -- A text that never repeats is no state: thirty-two are kept by name, the rest together.
    select jsonb_object_agg(name, seconds) as states
    from (
      select case when place <= 32 then state else '*' end as name, sum(seconds) as seconds
      from (
        select state, sum(seconds) as seconds, row_number() over (order by sum(seconds) desc, state) as place
        from (select state, extract(epoch from least(until - ts, caudal.state_hold()))::float8 as seconds from (
          select coalesce(v_bool::text, left(v_text, 64)) as state, lead(ts) over (order by ts) as until, ts
          from caudal.sample
          where series = b.series and ts >= greatest(b.bucket, p_lo) and ts < least(b.bucket + p_step, p_hi)
            and qual < 2 and coalesce(v_bool::text, v_text) is not null
        ) spans
        where until is not null) timed
        group by state
      ) ranked
      group by 1
    ) named
    where b.state_last_ts > b.state_first_ts
  ) s on true
$$;

-- The marks that touch these series in [p_lo, p_hi): hours below the threshold that are not materialised.
create function caudal.stale_hours(p_ids int[], p_lo timestamptz, p_hi timestamptz)
  returns table(series int, hour timestamptz) language sql stable as $$
  select m.series, m.hour from caudal.rollup_stale m
  where m.series = any(p_ids) and m.hour >= p_lo and m.hour < p_hi
  union
  select u.s, to_timestamp(u.h * 3600.0) from caudal.rollup_log l, unnest(l.series, l.hours) u(s, h)
  where u.s = any(p_ids) and to_timestamp(u.h * 3600.0) >= p_lo and to_timestamp(u.h * 3600.0) < p_hi
    and to_timestamp(u.h * 3600.0) < (select threshold from caudal.rollup_state)
$$;

-- Before this the samples of a series are gone, by everybody's retention or its tenant's own.
create function caudal.series_raw_from(p_series int) returns timestamptz language sql stable as $$
  select greatest((select raw_from from caudal.rollup_state),
                  date_trunc('day', now() - make_interval(days => t.retention_days), 'UTC'))
  from caudal.series r join caudal.tenant t on t.id = r.tenant_id where r.id = p_series
$$;

-- Whether an hour may be made from the samples. One that was made before its samples went is kept: what comes
-- for it now is less than what it knows.
create function caudal.may_be_made(p_series int, p_hour timestamptz) returns boolean language sql stable as $$
  select p_hour >= caudal.series_raw_from(p_series)
         or not exists (select from caudal.rollup_hour where series = p_series and bucket = p_hour)
$$;

-- Runs of consecutive hours: what is read in one go costs a fraction of the same hour by hour.
create function caudal.runs(p_ids int[], p_hours timestamptz[])
  returns table(series int, lo timestamptz, hi timestamptz) language sql immutable as $$
  select series, min(hour), max(hour) + interval '1 hour'
  from (select u.series, u.hour,
               u.hour - row_number() over (partition by u.series order by u.hour) * interval '1 hour' as island
        from unnest(p_ids, p_hours) u(series, hour)) islands
  group by series, island
$$;

-- Exact hours of these series in [p_lo, p_hi), both at full hours.
create function caudal.hours_of(p_ids int[], p_lo timestamptz, p_hi timestamptz)
  returns setof caudal.rollup_hour language plpgsql stable as $$
declare
  edge timestamptz := (select threshold from caudal.rollup_state);
  marked int[]; marks timestamptz[];
begin
  select array_agg(m.series), array_agg(m.hour) into marked, marks from caudal.stale_hours(p_ids, p_lo, p_hi) m
  where caudal.may_be_made(m.series, m.hour);
  if marked is null then
    return query select r.* from caudal.rollup_hour r
      where r.series = any(p_ids) and r.bucket >= p_lo and r.bucket < least(p_hi, edge);
  else
    return query select r.* from caudal.rollup_hour r
      left join unnest(marked, marks) m(series, hour) on m.series = r.series and m.hour = r.bucket
      where r.series = any(p_ids) and r.bucket >= p_lo and r.bucket < least(p_hi, edge) and m.series is null;
    return query select f.* from caudal.runs(marked, marks) m
      cross join lateral caudal.fold_samples(array[m.series], m.lo, m.hi, interval '1 hour') f;
  end if;
  if p_hi > edge then
    return query select f.* from caudal.fold_samples(p_ids, greatest(p_lo, edge), p_hi, interval '1 hour') f;
  end if;
end $$;

-- Exact minutes. They are kept only for hours with at least 240 samples: below that the samples themselves
-- are as quick to read (ADR 0041).
create function caudal.minutes_of(p_ids int[], p_lo timestamptz, p_hi timestamptz)
  returns setof caudal.rollup_hour language plpgsql stable as $$
declare
  edge timestamptz := (select threshold from caudal.rollup_state);
begin
  return query
    with wanted as materialized (
      select i.id, h.hour from unnest(p_ids) i(id),
        generate_series(date_trunc('hour', p_lo), least(p_hi, edge) - interval '1 us', interval '1 hour') h(hour)
    ), kept as materialized (
      select w.id, w.hour from wanted w join caudal.rollup_hour r on r.series = w.id and r.bucket = w.hour
      where r.n >= 240 and (w.id, w.hour) not in (
        select m.series, m.hour from caudal.stale_hours(p_ids, date_trunc('hour', p_lo), p_hi) m)
    ), unkept as materialized (
      -- Neighbouring hours are read in one go.
      select id, min(hour) as lo, max(hour) + interval '1 hour' as hi
      from (select w.*, w.hour - row_number() over (partition by w.id order by w.hour) * interval '1 hour' as island
            from (select * from wanted except select * from kept) w) islands
      group by id, island
    )
    select r.* from kept k join caudal.rollup_minute r
      on r.series = k.id and r.bucket >= k.hour and r.bucket < k.hour + interval '1 hour'
      where r.bucket >= p_lo and r.bucket < p_hi
    union all
    select f.* from unkept u
      cross join lateral caudal.fold_samples(array[u.id], greatest(u.lo, p_lo), least(u.hi, p_hi), interval '1 minute') f;
  if p_hi > edge then
    return query select f.* from caudal.fold_samples(p_ids, greatest(p_lo, edge), p_hi, interval '1 minute') f;
  end if;
end $$;

-- The first instant of a local date. Where clocks go back from 01:00 to 00:00 (the Azores, Havana) midnight comes twice,
-- and `at time zone` gives the second; where they skip midnight it is when they do.
create function caudal.day_start(p_day date, p_zone text) returns timestamptz language sql stable as $$
  select min(i) from (select (p_day::timestamp at time zone p_zone) - k * interval '30 minutes' as i
                      from generate_series(0, 4) k) c
  where (i at time zone p_zone)::date = p_day or i = p_day::timestamp at time zone p_zone
$$;

-- Whether local days of this zone, in this span, begin at full UTC hours.
create function caudal.whole_hours(p_zone text, p_lo timestamptz, p_hi timestamptz) returns boolean
  language sql stable as $$
  select not exists (select from generate_series(p_lo, p_hi + interval '7 days', interval '7 days') g
                     where extract(minute from g at time zone p_zone) <> extract(minute from g at time zone 'UTC'))
$$;

-- Local days [p_lo, p_hi] (inclusive) of these series, merged from their hours. An hour belongs to the local date
-- of its instant, so that no clock change can split or double one.
create function caudal.merge_days(p_ids int[], p_zone text, p_lo date, p_hi date)
  returns setof caudal.rollup_day language plpgsql stable as $$
declare
  lo timestamptz := date_trunc('hour', (p_lo::timestamp at time zone p_zone) - interval '2 hours');
  hi timestamptz := date_trunc('hour', ((p_hi + 1)::timestamp at time zone p_zone) + interval '2 hours');
  whole boolean := caudal.whole_hours(p_zone, lo, hi);
begin
  return query
    with piece as materialized (
      select h.*, (h.bucket at time zone p_zone)::date as day from caudal.hours_of(p_ids, lo, hi) h where whole
      union all
      select f.*, (f.bucket at time zone p_zone)::date
      from caudal.fold_samples(p_ids, lo, hi, interval '15 minutes') f where not whole
    ), number as (
      select q.series, q.day, sum(q.num)::int as num, min(q.vmin) as vmin, max(q.vmax) as vmax, sum(q.vsum) as vsum,
             min(q.first_ts) as first_ts, min(q.first_v) filter (where q.prev_day is distinct from q.day) as first_v,
             max(q.last_ts) as last_ts, min(q.last_v) filter (where q.next_day is distinct from q.day) as last_v,
             sum(q.up + case when q.prev_day = q.day then coalesce(caudal.dial_step(q.prev_v, q.first_v), 0)
                        else 0 end) as up,
             sum(q.resets + case when q.prev_day = q.day and caudal.is_reset(q.prev_v, q.first_v)
                            then 1 else 0 end)::int as resets
      from (select p.*, lag(p.day) over w as prev_day, lead(p.day) over w as next_day, lag(p.last_v) over w as prev_v
            from piece p where p.first_ts is not null window w as (partition by p.series order by p.bucket)) q
      group by q.series, q.day
    ), told as (
      select q.*, case when q.next_day = q.day then
               extract(epoch from least(q.next_ts - q.state_last_ts, caudal.state_hold()))::float8 end as tail
      from (select p.*, lag(p.day) over w as prev_day, lead(p.day) over w as next_day,
                   lead(p.state_first_ts) over w as next_ts
            from piece p where p.state_last_ts is not null window w as (partition by p.series order by p.bucket)) q
    ), state as (
      select q.series, q.day, min(q.state_first_ts) as first_ts, max(q.state_last_ts) as last_ts,
             min(q.state_first) filter (where q.prev_day is distinct from q.day) as first,
             min(q.state_last) filter (where q.next_day is distinct from q.day) as last
      from told q group by q.series, q.day
    ), spent as (
      select x.series, x.day, jsonb_object_agg(x.name, x.seconds) as states
      from (select y.series, y.day, y.name, sum(y.seconds) as seconds
            from (select q.series, q.day, e.key as name, e.value::float8 as seconds
                  from told q cross join lateral jsonb_each_text(q.states) e
                  union all
                  select q.series, q.day, q.state_last, q.tail from told q where q.tail is not null) y
            group by y.series, y.day, y.name) x
      group by x.series, x.day
    )
    select a.series, a.day, a.n, a.bad, coalesce(n.num, 0), n.vmin, n.vmax, n.vsum, n.first_ts, n.first_v,
           n.last_ts, n.last_v, coalesce(n.up, 0), coalesce(n.resets, 0), e.states,
           s.first_ts, s.first, s.last_ts, s.last
    from (select p.series, p.day, sum(p.n)::int as n, sum(p.bad)::int as bad from piece p group by p.series, p.day) a
    left join number n on n.series = a.series and n.day = a.day
    left join state s on s.series = a.series and s.day = a.day
    left join spent e on e.series = a.series and e.day = a.day
    where a.day between p_lo and p_hi;
end $$;

-- Runs of consecutive days; series with the same run go together.
create function caudal.day_runs(p_ids int[], p_days date[]) returns table(ids int[], lo date, hi date)
  language sql immutable as $$
  select array_agg(series), lo, hi from (
    select series, min(day) as lo, max(day) as hi
    from (select u.series, u.day, u.day - (row_number() over (partition by u.series order by u.day))::int as island
          from unnest(p_ids, p_days) u(series, day)) islands
    group by series, island) runs
  group by lo, hi
$$;

-- Exact local days [p_lo, p_hi] of these series, all of one zone.
create function caudal.days_of(p_ids int[], p_zone text, p_lo date, p_hi date)
  returns setof caudal.rollup_day language plpgsql stable as $$
declare
  edge date := ((select threshold from caudal.rollup_state) at time zone p_zone)::date;
  lo timestamptz := (p_lo::timestamp at time zone p_zone) - interval '2 hours';
  hi timestamptz := ((p_hi + 1)::timestamp at time zone p_zone) + interval '2 hours';
  marked int[]; marks date[];
begin
  select array_agg(m.series), array_agg(m.day) into marked, marks
  from (select s.series, (s.hour at time zone p_zone)::date as day from caudal.stale_hours(p_ids, lo, hi) s
        union -- an hour that two local days share makes both stale
        select s.series, ((s.hour + interval '59 minutes') at time zone p_zone)::date
        from caudal.stale_hours(p_ids, lo, hi) s) m
  where m.day between p_lo and p_hi and m.day < edge;
  if marked is null then
    return query select r.* from caudal.rollup_day r
      where r.series = any(p_ids) and r.bucket >= p_lo and r.bucket <= p_hi and r.bucket < edge;
  else
    return query select r.* from caudal.rollup_day r
      left join unnest(marked, marks) m(series, day) on m.series = r.series and m.day = r.bucket
      where r.series = any(p_ids) and r.bucket >= p_lo and r.bucket <= p_hi and r.bucket < edge and m.series is null;
    return query select f.* from caudal.day_runs(marked, marks) g
      cross join lateral caudal.merge_days(g.ids, p_zone, g.lo, g.hi) f;
  end if;
  if p_hi >= edge then
    return query select f.* from caudal.merge_days(p_ids, p_zone, greatest(p_lo, edge), p_hi) f;
  end if;
end $$;

-- The last usable number of each series before an instant, however long ago. What is materialised is never
-- wrong here, only incomplete: the newest of the candidates is the answer.
create function caudal.last_before(p_ids int[], p_at timestamptz)
  returns table(series int, ts timestamptz, v float8) language plpgsql stable as $$
declare
  edge timestamptz := (select threshold from caudal.rollup_state);
begin
  return query
    select distinct on (c.id) c.id, c.last_ts, c.last_v from (
      select i.id, r.last_ts, r.last_v from unnest(p_ids) i(id)
        cross join lateral (select h.last_ts, h.last_v from caudal.rollup_hour h
                            where h.series = i.id and h.bucket <= p_at - interval '1 hour' and h.last_ts is not null
                            order by h.bucket desc limit 1) r
      union all
      select m.series, f.last_ts, f.last_v from caudal.stale_hours(p_ids, '-infinity', p_at) m
        cross join lateral caudal.fold_samples(array[m.series], m.hour, least(m.hour + interval '1 hour', p_at), interval '1 hour') f
      union all
      select f.series, f.last_ts, f.last_v
        from caudal.fold_samples(p_ids, least(edge, date_trunc('hour', p_at)), p_at, interval '1 hour') f
        where p_at > least(edge, date_trunc('hour', p_at))
    ) c
    where c.last_ts is not null order by c.id, c.last_ts desc;
end $$;
