-- Who looks at which series now, so that ingest tells of those alone. Unlogged: after a crash nobody looks.
-- A watcher is a process; its watch ends unless it is renewed.
create unlogged table caudal.live_watch (
  watcher text primary key,
  series int[] not null,
  until timestamptz not null
);
grant select on caudal.live_watch to caudal_ingest;

create function caudal.watch_series(p_watcher text, p_series int[], p_seconds int, p_tell boolean) returns void
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  delete from caudal.live_watch where until < now() or (watcher = p_watcher and cardinality(p_series) = 0);
  if cardinality(p_series) > 0 then
    insert into caudal.live_watch values (p_watcher, p_series, now() + make_interval(secs => p_seconds))
      on conflict (watcher) do update set series = excluded.series, until = excluded.until;
  end if;
  if p_tell then perform pg_notify('caudal_watch', ''); end if;
end $$;
revoke execute on function caudal.watch_series(text, int[], int, boolean) from public;
grant execute on function caudal.watch_series(text, int[], int, boolean) to caudal_app;
