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
