-- The refresher: takes up what writers left, and makes hours, minutes and days anew, a bounded piece at a time.
-- How rollups are read, and what `materialised` means: 0300_rollups.sql.

-- Ends an epoch in which something was marked; returns whether it did. A writer that finds its mark of the present
-- epoch need not leave it again: nobody takes it up before the epoch ends, and the epoch ends only between writers.
create function caudal.rollup_turn() returns boolean
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  if not exists (select from caudal.rollup_log l join caudal.rollup_state s on l.epoch = s.epoch)
     or not pg_try_advisory_xact_lock(hashtext('caudal.rollup refresher')) then return false; end if;
  -- Writers queue up behind us while we wait: better to come again.
  perform set_config('lock_timeout', '300ms', true);
  perform pg_advisory_xact_lock(hashtext('caudal.rollup writers'));
  update caudal.rollup_state set epoch = epoch + 1;
  return true;
end $$;

-- One bounded piece of work: takes up the writers' marks, makes at most p_budget hours anew with their minutes
-- and days. It goes round by series, from p_after on, so that one who marks without end does not keep the others
-- waiting. Who finds p_busy marks or more meets a replay, and makes p_few hours at most: the machine is its, and
-- what is folded now is stale again in a moment. Returns the hours made, whether more wait, where to go on, and how
-- many marks were taken up; null when another refresher is at work.
create function caudal.rollup_step(p_budget int, p_after int, p_busy int default 2147483647, p_few int default 50,
                                   out made int, out more boolean, out next int, out taken int)
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
  ids int[]; hrs timestamptz[]; all_ids int[]; all_hrs timestamptz[];
begin
  if not pg_try_advisory_xact_lock(hashtext('caudal.rollup refresher')) then return; end if;
  with old as (
    select id, cardinality(series) as pairs from caudal.rollup_log
    where epoch < (select epoch from caudal.rollup_state) order by id limit 1000
  ), head as (
    select id from (select id, sum(pairs) over (order by id) - pairs as before from old) sized where before < 200000
  ), gone as (
    delete from caudal.rollup_log where id in (select id from head) returning series, hours
  ), put as (
    insert into caudal.rollup_stale(series, hour)
      select distinct u.s, to_timestamp(u.h * 3600.0) from gone g, unnest(g.series, g.hours) u(s, h)
      where to_timestamp(u.h * 3600.0) < (select threshold from caudal.rollup_state)
      on conflict do nothing
  )
  select coalesce(sum(cardinality(series)), 0) from gone into taken;
  if taken >= p_busy then p_budget := least(p_budget, p_few); end if;
  with gone as (
    delete from caudal.rollup_stale s
    using (select series, hour from caudal.rollup_stale where series > p_after order by series, hour limit p_budget) p
    where s.series = p.series and s.hour = p.hour returning s.series, s.hour
  )
  select array_agg(series), array_agg(hour) into all_ids, all_hrs from gone;
  made := coalesce(cardinality(all_ids), 0);
  -- The last one may not be done yet; at the end it begins anew.
  next := case when made = p_budget then (select max(i) - 1 from unnest(all_ids) i) else 0 end;
  -- An hour whose samples retention has dropped stays as it was; its day may still be cut anew from it.
  select array_agg(p.series), array_agg(p.hour) into ids, hrs from unnest(all_ids, all_hrs) p(series, hour)
  where caudal.may_be_made(p.series, p.hour);
  if made > 0 then
    -- Read after the marks are gone, so that whatever commits from here on leaves a new one.
    delete from caudal.rollup_hour r using unnest(ids, hrs) p(series, hour) where r.series = p.series and r.bucket = p.hour;
    insert into caudal.rollup_hour
      select f.* from (select * from caudal.runs(ids, hrs) order by series, lo) i
      cross join lateral caudal.fold_samples(array[i.series], i.lo, i.hi, interval '1 hour') f;
    delete from caudal.rollup_minute r using unnest(ids, hrs) p(series, hour)
      where r.series = p.series and r.bucket >= p.hour and r.bucket < p.hour + interval '1 hour';
    insert into caudal.rollup_minute
      select f.* from unnest(ids, hrs) p(series, hour)
        join caudal.rollup_hour h on h.series = p.series and h.bucket = p.hour and h.n >= 240
        cross join lateral caudal.fold_samples(array[p.series], p.hour, p.hour + interval '1 hour', interval '1 minute') f;
    perform caudal.rollup_days(all_ids, all_hrs);
  end if;
  more := exists (select from caudal.rollup_stale) or exists (select from caudal.rollup_log);
end $$;

-- The finished local days that these hours belong to, made anew.
create function caudal.rollup_days(p_ids int[], p_hours timestamptz[]) returns void language plpgsql volatile as $$
declare
  edge timestamptz := (select threshold from caudal.rollup_state);
  span record;
begin
  for span in
    with touched as (
      select distinct p.series, t.time_zone as zone, d.day
      from unnest(p_ids, p_hours) p(series, hour)
      join caudal.series r on r.id = p.series join caudal.tenant t on t.id = r.tenant_id
      cross join lateral (values ((p.hour at time zone t.time_zone)::date),
                                 (((p.hour + interval '59 minutes') at time zone t.time_zone)::date)) d(day)
    ), zones as (
      select zone, array_agg(series) as ids, array_agg(day) as days
      from touched where day < (edge at time zone zone)::date group by zone
    )
    select z.zone, r.* from zones z cross join lateral caudal.day_runs(z.ids, z.days) r
  loop
    delete from caudal.rollup_day where series = any(span.ids) and bucket between span.lo and span.hi;
    insert into caudal.rollup_day select * from caudal.merge_days(span.ids, span.zone, span.lo, span.hi);
  end loop;
end $$;

-- Moves the threshold on by one hour once p_now is p_grace past its end. Every series is marked first, so the
-- hour is read from the samples until the refresher has made it; writers are held up for the last two
-- statements alone. Returns whether it moved.
create function caudal.rollup_advance(p_now timestamptz, p_grace interval) returns boolean
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  edge timestamptz;
begin
  if not pg_try_advisory_xact_lock(hashtext('caudal.rollup refresher')) then return false; end if;
  select threshold into edge from caudal.rollup_state;
  if edge + interval '1 hour' + p_grace > p_now then return false; end if;
  insert into caudal.rollup_stale select id, edge from caudal.series on conflict do nothing;
  -- A writer that hangs in its transaction must not hang the others behind us: we give up and come again.
  perform set_config('lock_timeout', '2s', true);
  perform pg_advisory_xact_lock(hashtext('caudal.rollup writers'));
  insert into caudal.rollup_stale
    select r.id, edge from caudal.series r
    where not exists (select from caudal.rollup_stale s where s.series = r.id and s.hour = edge)
    on conflict do nothing;
  update caudal.rollup_state set threshold = edge + interval '1 hour';
  return true;
end $$;

-- Days are cut in the account's zone: when that changes they are cut anew, from the hours.
create function caudal.recut_days() returns trigger language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
begin
  insert into caudal.rollup_stale
    select h.series, h.bucket from caudal.rollup_hour h join caudal.series r on r.id = h.series
    where r.tenant_id = new.id on conflict do nothing;
  delete from caudal.rollup_day d using caudal.series r where r.id = d.series and r.tenant_id = new.id;
  return null;
end $$;
create trigger recut_days after update of time_zone on caudal.tenant for each row
  when (old.time_zone is distinct from new.time_zone) execute function caudal.recut_days();

revoke execute on function caudal.rollup_edge(), caudal.invalidate(int[], int[]), caudal.rollup_step(int, int, int, int),
  caudal.rollup_advance(timestamptz, interval), caudal.rollup_days(int[], timestamptz[]), caudal.recut_days(),
  caudal.fold_samples(int[], timestamptz, timestamptz, interval), caudal.stale_hours(int[], timestamptz, timestamptz),
  caudal.hours_of(int[], timestamptz, timestamptz), caudal.minutes_of(int[], timestamptz, timestamptz),
  caudal.merge_days(int[], text, date, date), caudal.days_of(int[], text, date, date),
  caudal.last_before(int[], timestamptz), caudal.rollup_turn(), caudal.replacement_changed(),
  caudal.day_start(date, text) from public;
grant execute on function caudal.rollup_edge(), caudal.invalidate(int[], int[]), caudal.rollup_step(int, int, int, int),
  caudal.rollup_turn(), caudal.rollup_advance(timestamptz, interval) to caudal_ingest;
grant execute on function caudal.day_start(date, text) to caudal_app, caudal_reader;
