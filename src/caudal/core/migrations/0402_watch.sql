-- What operators are alerted about and no single process knows: asked for by upkeep every half minute. Numbers of
-- the whole installation, no tenant's contents.
create function caudal.watch(out ledger_difference bigint, out devices_online bigint, out devices_silent bigint,
                             out dead_letters_open bigint, out held_messages bigint,
                             out certificate_seconds float8,
                             out credentials_due bigint, out credentials_expired bigint,
                             out tenants_over_storage bigint)
  language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select
    (select coalesce(sum(abs(received - stored - duplicates - dead - held - empty)), 0)::bigint from caudal.ledger),
    (select count(*) from caudal.device where is_online),
    -- Heard once, and active: one that was never connected is not silent.
    (select count(*) from caudal.device where not is_online and last_heard is not null and status = 'active'),
    (select count(*) from caudal.dead_letter where status = 'open'),
    (select count(*) from caudal.held_message),
    (select extract(epoch from min(not_after) - now())::float8 from caudal.certificate where revoked_at is null),
    due.soon, due.gone,
    (select count(*) from caudal.usage where over)
  -- By the newest password of each: one that was replaced is due no more, nor is one that opens nothing any longer.
  from (select count(*) filter (where due_at <= now() and expires_at > now()) as soon,
               count(*) filter (where expires_at <= now()) as gone
        from (select distinct on (device_id, gateway_id) due_at, expires_at from caudal.credential
              where revoked_at is null order by device_id, gateway_id, id desc) newest) due
$$;
revoke execute on function caudal.watch() from public;
grant execute on function caudal.watch() to caudal_upkeep;
