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
