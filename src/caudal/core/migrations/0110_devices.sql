-- Devices in full: profiles, presence, commands, and who may come in with which password.

create table caudal.profile (
  id int generated always as identity primary key,
  tenant_id int not null references caudal.tenant,
  name text not null check (length(name) between 1 and 100),
  -- The version in force. Older ones stay in profile_version, and commands say by which they were checked.
  version int not null default 1,
  format text,
  heartbeat_seconds int not null default 300 check (heartbeat_seconds between 1 and 31536000),
  points jsonb not null default '[]',
  commands jsonb not null default '[]',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  unique (tenant_id, name)
);
create table caudal.profile_version (
  profile_id int not null references caudal.profile on delete cascade,
  tenant_id int not null references caudal.tenant,
  version int not null,
  document jsonb not null,
  created_at timestamptz not null default now(),
  created_by text not null default '',
  primary key (profile_id, version)
);

-- A rejected device stays known: what it goes on sending is dead letters, not a new stranger each time.
alter table caudal.device drop constraint device_status_check,
  add constraint device_status check (status in ('active', 'inactive', 'maintenance', 'quarantined', 'rejected'));
alter table caudal.device
  add profile_id int references caudal.profile,
  add constraint device_code check (code is null or length(code) >= 1),
  add constraint device_alarms check (alarm_day >= 0 and alarm_month >= 0);
create unique index device_code on caudal.device (gateway_id, code) where gateway_id is not null and code is not null;
create index device_profile on caudal.device (profile_id) where profile_id is not null;
-- Presence rewrites last_heard of every device that talks, every few seconds: room for it on the same page.
alter table caudal.device set (fillfactor = 70);
alter table caudal.gateway
  add heartbeat_seconds int not null default 300 check (heartbeat_seconds between 1 and 31536000);
alter table caudal.gateway set (fillfactor = 70);
alter table caudal.series add limit_low float8, add limit_high float8,
  add constraint series_limits check (limit_low <= limit_high);
create index site_page on caudal.site (tenant_id, id);
create index gateway_page on caudal.gateway (tenant_id, id);

-- Active devices never exceed the gateway's capacity. The gateway's row is the lock: whoever waited for it counts
-- afresh, because a statement inside a trigger function sees what was committed meanwhile.
create function caudal.keep_capacity() returns trigger language plpgsql as $$
declare room int; active int;
begin
  if new.gateway_id is null or new.status <> 'active' then return new; end if;
  if tg_op = 'UPDATE' and old.status = 'active' and old.gateway_id = new.gateway_id then return new; end if;
  select capacity into room from caudal.gateway where id = new.gateway_id for no key update;
  select count(*) into active from caudal.device
    where gateway_id = new.gateway_id and status = 'active' and id <> new.id;
  if active < room then return new; end if;
  -- A person is told. What ingest registers for itself waits in quarantine: one gateway that is full must not
  -- stop the batch it came in.
  if tg_op = 'INSERT' and coalesce(current_setting('app.tenant_id', true), '') = '' then
    new.status := 'quarantined';
    return new;
  end if;
  raise exception using errcode = 'check_violation', constraint = 'gateway_capacity',
    message = format('the gateway already has %s of %s active devices', active, room);
end $$;
create trigger capacity before insert or update of status, gateway_id on caudal.device for each row
  execute function caudal.keep_capacity();

create function caudal.keep_capacity_of_gateway() returns trigger language plpgsql as $$
declare active int;
begin
  select count(*) into active from caudal.device where gateway_id = new.id and status = 'active';
  if active > new.capacity then
    raise exception using errcode = 'check_violation', constraint = 'gateway_capacity',
      message = format('the gateway has %s active devices, more than %s', active, new.capacity);
  end if;
  return null;
end $$;
create trigger capacity after update of capacity on caudal.gateway for each row
  when (new.capacity < old.capacity) execute function caudal.keep_capacity_of_gateway();

-- Each change between online and offline, of a device or of a gateway. An `offline` is dated when the heartbeat
-- ran out, not when somebody noticed.
create table caudal.presence (
  id bigint generated always as identity primary key,
  tenant_id int not null references caudal.tenant,
  device_id bigint references caudal.device on delete cascade,
  gateway_id bigint references caudal.gateway on delete cascade,
  at timestamptz not null,
  online boolean not null,
  check (num_nonnulls(device_id, gateway_id) = 1)
);
create index presence_device on caudal.presence (device_id, at) where device_id is not null;
create index presence_gateway on caudal.presence (gateway_id, at) where gateway_id is not null;

create table caudal.command (
  id bigint generated always as identity primary key,
  tenant_id int not null references caudal.tenant,
  device_id bigint references caudal.device on delete cascade,
  gateway_id bigint references caudal.gateway on delete cascade,
  cmd_id text not null unique,
  idempotency_key text,
  name text not null,
  params jsonb not null default '{}',
  profile_version int,
  status text not null default 'pending'
    check (status in ('pending', 'sent', 'acknowledged', 'failed', 'timed_out', 'expired')),
  -- The device's own word, which nothing turns back.
  settled_by_device boolean not null default false,
  error text,
  attempts int not null default 0,
  max_attempts int not null default 1 check (max_attempts between 1 and 20),
  ack_seconds int not null default 30 check (ack_seconds between 1 and 86400),
  next_at timestamptz default now(),
  expires_at timestamptz not null,
  sent_at timestamptz,
  settled_at timestamptz,
  created_by text not null default '',
  created_at timestamptz not null default now(),
  check (num_nonnulls(device_id, gateway_id) = 1)
);
create unique index command_key on caudal.command (device_id, idempotency_key) where idempotency_key is not null;
create index command_device on caudal.command (device_id, id desc) where device_id is not null;
create index command_gateway on caudal.command (gateway_id, id desc) where gateway_id is not null;
create index command_tenant on caudal.command (tenant_id, id desc);
create index command_due on caudal.command (next_at) where status in ('pending', 'sent') and next_at is not null;

create table caudal.command_event (
  id bigint generated always as identity primary key,
  tenant_id int not null references caudal.tenant,
  command_id bigint not null references caudal.command on delete cascade,
  at timestamptz not null default now(),
  status text not null,
  detail text
);
create index command_event_command on caudal.command_event (command_id, id);

create function caudal.command_changed() returns trigger language plpgsql as $$
begin
  insert into caudal.command_event(tenant_id, command_id, status, detail)
    values (new.tenant_id, new.id, new.status, new.error);
  if tg_op = 'INSERT' then perform pg_notify('caudal_command', new.id::text); end if;
  return null;
end $$;
create trigger history after insert on caudal.command for each row execute function caudal.command_changed();
create trigger history_update after update of status, attempts on caudal.command for each row
  when ((old.status, old.attempts) is distinct from (new.status, new.attempts))
  execute function caudal.command_changed();

-- The outcome in the transaction that stores the ack. The device's word beats our clock (a command that timed out
-- and is then acknowledged was executed), and is never turned back. The table keeps one ack for each command; its
-- updates, should there be any, do not reach here.
create function caudal.command_acknowledged() returns trigger language plpgsql as $$
begin
  update caudal.command set status = case when new.ok then 'acknowledged' else 'failed' end,
    error = case when not new.ok then left(coalesce(new.payload->>'err', 'the device says that it failed'), 1000) end,
    settled_by_device = true, settled_at = now(), next_at = null, sent_at = coalesce(sent_at, now())
  where cmd_id = new.cmd_id and not settled_by_device
    and (device_id = new.device_id
         or gateway_id = (select d.gateway_id from caudal.device d where d.id = new.device_id));
  return null;
end $$;
create trigger command after insert on caudal.ack for each row execute function caudal.command_acknowledged();

-- Passwords of devices and gateways. They are 256 random bits made by us, so SHA-256 alone keeps them: nobody
-- can try 2^256, and a slow hash would only cost us a core when a fleet reconnects.
create table caudal.credential (
  id bigint generated always as identity primary key,
  tenant_id int not null references caudal.tenant,
  device_id bigint references caudal.device on delete cascade,
  gateway_id bigint references caudal.gateway on delete cascade,
  digest bytea not null,
  -- In Mosquitto's own form, made while the password was at hand.
  mosquitto text not null,
  created_at timestamptz not null default now(),
  created_by text not null default '',
  -- From here on it should be replaced, from there on it opens nothing.
  due_at timestamptz not null,
  expires_at timestamptz not null,
  revoked_at timestamptz,
  check (num_nonnulls(device_id, gateway_id) = 1)
);
create index credential_device on caudal.credential (device_id) where device_id is not null;
create index credential_gateway on caudal.credential (gateway_id) where gateway_id is not null;
create index credential_due on caudal.credential (due_at) where revoked_at is null;

-- Those who are no device: the backend, dashboards, administrators. Without a tenant they work for all of them.
create table caudal.mqtt_user (
  id int generated always as identity primary key,
  tenant_id int references caudal.tenant,
  name text not null unique check (name ~ '^[A-Za-z0-9_.-]{1,60}$'),
  role text not null check (role in ('backend', 'dashboard', 'administrator')),
  digest bytea not null,
  mosquitto text not null,
  created_at timestamptz not null default now(),
  check (role <> 'administrator' or tenant_id is null)
);

do $$
declare name text;
begin
  foreach name in array array['profile', 'profile_version', 'presence', 'command', 'command_event', 'credential',
                              'mqtt_user'] loop
    execute format('alter table caudal.%I enable row level security', name);
    execute format('create policy tenant on caudal.%I using (tenant_id = (select caudal.current_tenant()))', name);
    execute format('create policy ingest on caudal.%I to caudal_ingest using (true) with check (true)', name);
    execute format('grant select, insert, update, delete on caudal.%I to caudal_ingest', name);
  end loop;
end $$;
grant select, insert, update, delete on caudal.profile to caudal_app;
grant select, insert on caudal.profile_version, caudal.command_event to caudal_app;
grant select on caudal.presence, caudal.mqtt_user to caudal_app;
grant select, insert, update on caudal.command, caudal.credential to caudal_app;
grant delete on caudal.held_message to caudal_app;
grant usage on all sequences in schema caudal to caudal_ingest, caudal_app;

-- What opens or closes a door: whoever keeps connections or caches looks again, and throws out who may not stay.
create function caudal.access_changed() returns trigger language plpgsql as $$
declare found jsonb := to_jsonb(coalesce(old, new));
begin
  perform pg_notify('caudal_access', case tg_table_name
    when 'tenant' then 'all:'
    when 'mqtt_user' then 'user:' || (found->>'name')
    when 'device' then 'device:' || (found->>'id')
    when 'gateway' then 'gateway:' || (found->>'id')
    else coalesce('device:' || (found->>'device_id'), 'gateway:' || (found->>'gateway_id'))
  end);
  return null;
end $$;
create trigger access after insert or update or delete on caudal.mqtt_user for each row
  execute function caudal.access_changed();
create trigger access after insert or update or delete on caudal.credential for each row
  execute function caudal.access_changed();
create trigger access_gone after delete on caudal.device for each row execute function caudal.access_changed();
create trigger access after update on caudal.device for each row
  when ((old.name, old.status, old.tenant_id, old.gateway_id) is distinct from (new.name, new.status, new.tenant_id, new.gateway_id))
  execute function caudal.access_changed();
create trigger access_gone after delete on caudal.gateway for each row execute function caudal.access_changed();
create trigger access after update on caudal.gateway for each row
  when ((old.mac, old.tenant_id, old.site_id) is distinct from (new.mac, new.tenant_id, new.site_id))
  execute function caudal.access_changed();
create trigger access after update on caudal.tenant for each row
  when ((old.name, old.status) is distinct from (new.name, new.status)) execute function caudal.access_changed();

-- Who moves what a device has held, to rows or to dead letters, does so alone until the transaction ends: what two
-- had read would be counted by both.
create function caudal.held_turn(tenant int, device text) returns void
  language sql set search_path = pg_catalog, pg_temp
  as $$ select pg_advisory_xact_lock(hashtextextended('caudal held ' || tenant || ':' || device, 0)) $$;

-- What a rejected device had sent becomes dead letters; the ledger follows, so that its sums still agree.
create function caudal.reject_held(device bigint) returns bigint
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare wanted text; owner int := caudal.current_tenant(); moved bigint;
begin
  select d.name into wanted from caudal.device d where d.id = device and d.tenant_id = owner;
  if wanted is null then return 0; end if;
  perform caudal.held_turn(owner, wanted);
  with gone as (
    delete from caudal.held_message h where h.tenant_id = owner and h.device_name = wanted returning *
  ), kept as (
    insert into caudal.dead_letter(tenant_id, tenant_name, device_name, topic, payload, reason, sentence,
                                   received, digest, items)
    select g.tenant_id, t.name, g.device_name, g.topic, g.payload, 'unknown_device',
      'The device was in quarantine and has been rejected.', g.received, g.digest, g.items
    from gone g join caudal.tenant t on t.id = g.tenant_id order by g.id returning items
  ), per_day as (
    -- Each correction on the day that counted the message as held; as a dead letter it counts today.
    select (stored at time zone 'UTC')::date as day, -sum(items) as held, 0 as dead, count(*) as n from gone group by 1
    union all
    select (now() at time zone 'UTC')::date, 0, (select coalesce(sum(items), 0) from kept), 0
  ), noted as (
    insert into caudal.ledger as l (day, tenant_id, writer, received, dead, held, first_received, last_received)
    select day, owner, 'registry', sum(held + dead), sum(dead), sum(held), now(), now() from per_day
    group by day having sum(held) <> 0 or sum(dead) <> 0
    on conflict (day, tenant_id, writer) do update
      set received = l.received + excluded.received, dead = l.dead + excluded.dead, held = l.held + excluded.held,
          last_committed = now()
    returning 1
  )
  select coalesce(sum(n), 0) into moved from per_day;
  return moved;
end $$;
revoke execute on function caudal.reject_held(bigint) from public;
grant execute on function caudal.reject_held(bigint) to caudal_app;

-- Who a door lets in. Each door (endpoint, EMQX, HTTP) asks these, with the digest of what it was shown; none
-- can read what is kept of a password. Without a digest: whether anything at all would still be let in.
create function caudal.access_device(tenant_name text, device_name text, wanted bytea)
  returns table (tenant_id int, device_id bigint, expires_at timestamptz)
  language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select t.id, d.id, max(c.expires_at) from caudal.tenant t
  join caudal.device d on d.tenant_id = t.id and d.name = device_name
  join caudal.credential c on c.device_id = d.id
  where t.name = tenant_name and t.status = 'active' and d.status <> 'rejected'
    and (wanted is null or c.digest = wanted) and c.revoked_at is null and c.expires_at > now()
  group by t.id, d.id
$$;
create function caudal.access_gateway(wanted_mac text, wanted bytea)
  returns table (tenant text, tenant_id int, gateway_id bigint, site text, expires_at timestamptz)
  language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select t.name, t.id, g.id, s.name, max(c.expires_at) from caudal.gateway g
  join caudal.tenant t on t.id = g.tenant_id left join caudal.site s on s.id = g.site_id
  join caudal.credential c on c.gateway_id = g.id
  where g.mac = wanted_mac and t.status = 'active'
    and (wanted is null or c.digest = wanted) and c.revoked_at is null and c.expires_at > now()
  group by t.name, t.id, g.id, s.name
$$;
create function caudal.access_user(wanted_name text, wanted bytea)
  returns table (role text, tenant text, tenant_id int)
  language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select u.role, t.name, u.tenant_id from caudal.mqtt_user u left join caudal.tenant t on t.id = u.tenant_id
  where u.name = wanted_name and (wanted is null or u.digest = wanted) and (t.id is null or t.status = 'active')
$$;
do $$
declare name text;
begin
  foreach name in array array['access_device(text, text, bytea)', 'access_gateway(text, bytea)',
                              'access_user(text, bytea)'] loop
    execute 'revoke execute on function caudal.' || name || ' from public';
    execute 'grant execute on function caudal.' || name || ' to caudal_app, caudal_ingest';
  end loop;
end $$;

-- A point that was declared and never measured may go again; the API cannot look at samples itself. With a device
-- alone: all its points, or none of them. False when one has samples, which stay.
create function caudal.forget_points(device_ bigint, point_ int) returns boolean
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare owner int := caudal.current_tenant(); chosen int[]; label text;
begin
  select array_agg(r.id) into chosen from (
    select id from caudal.series where tenant_id = owner and device_id = device_ and (point_ is null or id = point_)
    order by id for update) r;
  if chosen is null then return true; end if;
  if exists (select from caudal.sample s where s.series = any(chosen)) then return false; end if;
  delete from caudal.series where id = any(chosen);
  -- Ingest keeps the numbers of series under their device's name.
  select name into label from caudal.device where id = device_ and tenant_id = owner;
  perform pg_notify('caudal_registry', 'device:' || owner || ':' || left(label, 4000));
  return true;
end $$;
revoke execute on function caudal.forget_points(bigint, int) from public;
grant execute on function caudal.forget_points(bigint, int) to caudal_app;
revoke delete on caudal.series from caudal_app;
