-- What the console shows beyond what the API has: for the transaction's tenant alone, as everywhere.

-- A device's newest samples by receipt, at most `most`: what it last sent, as it was understood.
create function caudal.console_last_samples(wanted_device bigint, most int)
  returns table(series int, ts timestamptz, received timestamptz, v_num float8, v_bool boolean, v_text text,
                qual smallint, meta jsonb)
  language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select r.id, s.ts, s.received, s.v_num, s.v_bool, s.v_text, s.qual, s.meta
  from caudal.series r
  cross join lateral (select * from caudal.sample x
                      where x.series = r.id and x.ts > now() - interval '31 days' and x.ts < now() + interval '1 day'
                      order by x.ts desc limit least(most, 200)) s
  where r.device_id = wanted_device and r.tenant_id = (select caudal.current_tenant())
  order by s.received desc, s.ts desc limit least(most, 200)
$$;
revoke execute on function caudal.console_last_samples(bigint, int) from public;
grant execute on function caudal.console_last_samples(bigint, int) to caudal_app;

-- How the installation stands: for the console's page of operations, and there for who may see it. Numbers alone,
-- of no tenant's contents. Sizes in bytes, times in seconds.
create function caudal.console_installation() returns jsonb
  language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select jsonb_build_object(
    'database', pg_database_size(current_database()),
    'partitions', (
      select coalesce(jsonb_agg(jsonb_build_object('name', p.name, 'rows', nullif(p.rows, -1), 'bytes', p.bytes)
                                order by p.name desc), '[]')
      from (select c.relname as name, c.reltuples::bigint as rows, pg_total_relation_size(c.oid) as bytes
            from pg_inherits i join pg_class c on c.oid = i.inhrelid
            where i.inhparent = 'caudal.sample'::regclass) p),
    'queues', (
      select coalesce(jsonb_agg(jsonb_build_object('group', q.name, 'topic', q.topic, 'lag', q.lag, 'owned', q.owned,
                                                   'partitions', q.partitions) order by q.name, q.topic), '[]')
      from (select g.name, t.name as topic, sum(p.next_offset - g.committed)::bigint as lag,
                   count(g.owner) as owned, count(*) as partitions
            from caudal.log_group g join caudal.log_topic t on t.id = g.topic_id
            join caudal.log_partition p on p.topic_id = g.topic_id and p.partition = g.partition
            group by g.name, t.name) q),
    'processes', (
      select coalesce(jsonb_agg(jsonb_build_object('name', a.name, 'connections', a.n, 'busy', a.busy,
                                                   'oldest', a.oldest) order by a.name), '[]')
      from (select application_name as name, count(*) as n, count(*) filter (where state = 'active') as busy,
                   coalesce(max(extract(epoch from now() - xact_start)) filter (where state <> 'idle'), 0)::float8 as oldest
            from pg_stat_activity where datname = current_database() and application_name like 'caudal %'
            group by 1) a),
    'rollups', (select jsonb_build_object('behind', extract(epoch from now() - s.threshold)::float8,
                                          'stale', (select count(*) from caudal.rollup_stale),
                                          'log', (select count(*) from caudal.rollup_log))
                from caudal.rollup_state s))
$$;
revoke execute on function caudal.console_installation() from public;
grant execute on function caudal.console_installation() to caudal_app;

-- What follows is for the people who run the installation, who work in its default tenant: the API asks it for them
-- alone (ADR 0080). Of other tenants it shows names, limits and counts, nothing that they stored.
create function caudal.console_tenants(wanted int default null, beyond int default null, most int default 500)
  returns table(id int, name text, display_name text, status text, time_zone text, created_at timestamptz, people bigint,
                devices bigint,
                online bigint, series bigint, dead_letters bigint, last_heard timestamptz, max_series int,
                requests_per_second int, messages_per_second int, points_per_second int,
                storage_bytes bigint, used_bytes bigint, "full" boolean)
  language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select t.id, t.name, t.display_name, t.status, t.time_zone, t.created_at,
         (select count(*) from caudal.membership m where m.tenant_id = t.id),
         d.n, d.online, (select count(*) from caudal.series s where s.tenant_id = t.id),
         (select count(*) from caudal.dead_letter l where l.tenant_id = t.id and l.status = 'open'),
         d.heard, t.max_series, q.requests_per_second, q.messages_per_second, q.points_per_second,
         q.storage_bytes, u.storage_bytes, coalesce(u.over, false)
  from caudal.tenant t
  left join caudal.quota q on q.tenant_id = t.id
  left join caudal.usage u on u.tenant_id = t.id
  cross join lateral (select count(*) as n, count(*) filter (where is_online) as online, max(last_heard) as heard
                      from caudal.device where tenant_id = t.id) d
  where (wanted is null or t.id = wanted) and (beyond is null or t.id > beyond)
  order by case when beyond is null then t.name end, t.id limit least(most, 500)
$$;

create function caudal.console_make_tenant(wanted_name text, title text) returns int
  language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  insert into caudal.tenant(name, display_name) values (wanted_name, nullif(title, '')) returning id
$$;

-- Limits of a tenant; null: the installation's own. Returns whether there is such a tenant.
create function caudal.console_limit_tenant(wanted int, series int, requests int, messages int, points int,
                                            storage bigint) returns boolean
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  update caudal.tenant set max_series = series where id = wanted;
  if not found then return false; end if;
  insert into caudal.quota as q (tenant_id, requests_per_second, messages_per_second, points_per_second, storage_bytes)
    values (wanted, requests, messages, points, storage)
  on conflict (tenant_id) do update set requests_per_second = excluded.requests_per_second,
    messages_per_second = excluded.messages_per_second, points_per_second = excluded.points_per_second,
    storage_bytes = excluded.storage_bytes;
  -- In force now, not when storage is measured next.
  perform caudal.measure_usage(true);
  return true;
end $$;

-- Shut a tenant out, or let it in again, and note it in its own log, where it is the operator's deed. Returns whether
-- that changed anything; null when there is no such tenant.
create function caudal.console_set_status(wanted int, given text, reason text) returns boolean
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare before text; label text;
begin
  select status, name into before, label from caudal.tenant where id = wanted for update;
  if before is null or before = given then return before = given and false; end if;
  update caudal.tenant set status = given where id = wanted;
  insert into caudal.audit(tenant_id, actor, actor_name, action, target, detail)
    values (wanted, 'operator', 'operator', 'tenant.' || given, label, jsonb_build_object('reason', reason));
  return true;
end $$;

do $$
declare name text;
begin
  foreach name in array array['console_tenants(int, int, int)', 'console_set_status(int, text, text)', 'console_make_tenant(text, text)',
                              'console_limit_tenant(int, int, int, int, int, bigint)'] loop
    execute format('revoke execute on function caudal.%s from public', name);
    execute format('grant execute on function caudal.%s to caudal_app', name);
  end loop;
end $$;
