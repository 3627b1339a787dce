-- Tenants, what they own, what it measures, and what became of every message.
-- Everything lives in schema caudal; public holds only the views that people query.

do $$
begin
  -- Roles belong to the cluster, not to the database: another database may have made them already.
  if not exists (select from pg_roles where rolname = 'caudal_app') then create role caudal_app nologin; end if;
  if not exists (select from pg_roles where rolname = 'caudal_ingest') then create role caudal_ingest nologin; end if;
  if not exists (select from pg_roles where rolname = 'caudal_reader') then create role caudal_reader nologin; end if;
exception when duplicate_object or unique_violation then null; -- two databases migrated at once
end $$;

grant usage on schema caudal to caudal_app, caudal_ingest;
grant usage on schema public to caudal_reader, caudal_app;

create table caudal.tenant (
  id int generated always as identity primary key,
  name text not null unique check (name <> ''),
  display_name text,
  time_zone text not null default 'UTC',
  -- What happens to a device nobody registered: register it, hold its messages, or refuse them.
  unknown_devices text not null default 'register' check (unknown_devices in ('register', 'hold', 'refuse')),
  max_series int not null default 100000,
  retention_days int,
  status text not null default 'active' check (status in ('active', 'suspended')),
  created_at timestamptz not null default now()
);

-- The tenant a transaction works for: set_config('app.tenant_id', name, true).
create function caudal.current_tenant() returns int
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$ select id from caudal.tenant where name = current_setting('app.tenant_id', true) $$;

-- Whether the views show every tenant: to the database's own administrator, who named none.
-- Not to a process that runs as one of our roles, whoever it signed in as.
create function caudal.sees_all() returns boolean
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$ select coalesce(current_setting('app.tenant_id', true), '') = '' and current_setting('role') = 'none'
        and pg_has_role(session_user, current_user, 'member') $$;

create table caudal.site (
  id int generated always as identity primary key,
  tenant_id int not null references caudal.tenant,
  name text not null,
  display_name text,
  time_zone text,
  latitude numeric(9,6),
  longitude numeric(9,6),
  created_at timestamptz not null default now(),
  unique (tenant_id, name)
);

create table caudal.gateway (
  id bigint generated always as identity primary key,
  tenant_id int not null references caudal.tenant,
  site_id int references caudal.site,
  code text not null check (code = upper(code) and length(code) between 1 and 30),
  mac text not null unique check (mac ~ '^([0-9a-f]{2}:){5}[0-9a-f]{2}$'),
  name text not null default '',
  description text not null default '',
  latitude numeric(9,6),
  longitude numeric(9,6),
  capacity smallint not null default 8 check (capacity between 1 and 32),
  firmware text, hardware text, serial text, model text,
  -- A meter nobody registered, behind a registered gateway: as the tenant's policy says.
  is_online boolean not null default false,
  last_heard timestamptz,
  created_at timestamptz not null default now(),
  unique (tenant_id, code)
);

create table caudal.device (
  id bigint generated always as identity primary key,
  tenant_id int not null references caudal.tenant,
  site_id int references caudal.site,
  gateway_id bigint references caudal.gateway,
  -- The name on the topic; a meter behind a gateway is mac/code.
  name text not null,
  display_name text,
  code text,
  kind text not null default 'sensor' check (kind in ('meter', 'sensor', 'actuator')),
  modbus_register int check (modbus_register between 1 and 65535),
  modbus_slave smallint check (modbus_slave between 1 and 247),
  mode text not null default 'auto' check (mode in ('auto', 'manual')),
  status text not null default 'active' check (status in ('active', 'inactive', 'maintenance', 'quarantined')),
  alarm_day numeric(15,4),
  alarm_month numeric(15,4),
  -- Bound to a format, it is read as that format alone.
  format text,
  metadata jsonb not null default '{}',
  is_online boolean not null default false,
  last_heard timestamptz,
  created_at timestamptz not null default now(),
  -- The name first: people ask for a device by it, and an administrator without naming the tenant.
  unique (name, tenant_id)
);
create index device_tenant on caudal.device (tenant_id, id);
create index device_gateway on caudal.device (gateway_id) where gateway_id is not null;
create index device_site on caudal.device (site_id);

create table caudal.series (
  id int generated always as identity primary key,
  tenant_id int not null references caudal.tenant,
  device_id bigint not null references caudal.device,
  name text not null,
  kind text not null default 'gauge' check (kind in ('gauge', 'counter', 'delta', 'state')),
  display_name text,
  unit text,
  created_at timestamptz not null default now(),
  unique (device_id, name)
);
create index series_tenant on caudal.series (tenant_id);

-- Units are few and shared; a sample carries the number of its own.
create table caudal.unit (
  id smallint generated always as identity primary key,
  name text not null unique
);

-- Narrow: 64 bytes a row and its index entry. No row security here (COPY refuses it, and so does TimescaleDB's
-- compression): nobody but the owner and ingest may touch it; everybody else goes through barrier views.
--
-- Where TimescaleDB is loaded it is a hypertable whose old chunks upkeep compresses; elsewhere it is partitioned
-- by us (0002). Nothing but this file, 0002 and retention knows which.
create function caudal.has_timescale() returns boolean language plpgsql stable as $$
begin
  return exists (select from pg_available_extensions where name = 'timescaledb')
     and coalesce(current_setting('shared_preload_libraries', true), '') like '%timescaledb%';
exception when insufficient_privilege then
  -- Not for every owner to see: then whether the administrator has made the extension here.
  return exists (select from pg_extension where extname = 'timescaledb');
end $$;

do $$
declare
  columns constant text := '(series int not null, qual smallint not null default 0, unit smallint,
    ts timestamptz not null, received timestamptz not null, v_num float8, v_bool boolean, v_text text, meta jsonb,
    primary key (series, ts))';
begin
  if caudal.has_timescale() then
    create extension if not exists timescaledb;
    execute 'create table caudal.sample ' || columns;
    -- Weeks: every chunk is in every plan, and a fleet that replays ten years would make thousands of days.
    -- Its default index on the time alone serves nothing that finding the chunk does not.
    perform create_hypertable('caudal.sample', 'ts', chunk_time_interval => interval '7 days',
                              create_default_indexes => false);
    alter table caudal.sample set (timescaledb.compress, timescaledb.compress_segmentby = 'series',
                                   timescaledb.compress_orderby = 'ts');
  else
    execute 'create table caudal.sample ' || columns || ' partition by range (ts)';
    -- Clocks that are years off. Everything else gets a partition of its own, made ahead or on demand.
    create table caudal.sample_default partition of caudal.sample default;
  end if;
end $$;

create table caudal.dead_letter (
  id bigint generated always as identity primary key,
  tenant_id int references caudal.tenant,
  -- As on the topic, also when there is no such tenant.
  tenant_name text,
  device_name text,
  topic text not null,
  payload bytea not null,
  reason text not null,
  sentence text not null,
  pointer text not null default '',
  format text,
  received timestamptz not null,
  -- Of topic and payload: a redelivered message finds its own earlier dead letter.
  digest bytea not null,
  -- How many of the message's parts it stands for in the ledger.
  items int not null default 1,
  -- When it was stored; its day is the day of the ledger that counted it.
  stored timestamptz not null default now(),
  status text not null default 'open' check (status in ('open', 'replayed', 'discarded')),
  settled_at timestamptz,
  settled_by text,
  -- What a person corrected; the original stays as it came.
  fixed_topic text,
  fixed_payload bytea,
  -- What the replay came to: parts by fate, and the dead letters it left.
  outcome jsonb,
  -- Alike but for names, numbers and places in lists: these are listed, replayed and discarded together.
  cause text generated always as (left(md5(
    reason || chr(1) || coalesce(format, '') || chr(1) || regexp_replace(pointer, '\d+', '#', 'g') || chr(1)
    || regexp_replace(left(sentence, 500), '''[^'']*''|"[^"]*"|-?\d+(\.\d+)?(e[-+]?\d+)?', '#', 'g')), 12)) stored
);
create index dead_letter_cause on caudal.dead_letter (cause, id) where status = 'open';
create index dead_letter_tenant on caudal.dead_letter (tenant_id, id desc);
create index dead_letter_digest on caudal.dead_letter (digest);
create index dead_letter_received on caudal.dead_letter (received);

-- What a quarantined device sent, waiting for its claim.
create table caudal.held_message (
  id bigint generated always as identity primary key,
  tenant_id int not null references caudal.tenant,
  device_name text not null,
  topic text not null,
  payload bytea not null,
  received timestamptz not null,
  digest bytea not null,
  -- For how much of the ledger's `held` it stands, and on which day.
  items int not null default 1,
  stored timestamptz not null default now()
);
create index held_message_device on caudal.held_message (tenant_id, device_name, id);
create index held_message_digest on caudal.held_message (digest);

create table caudal.ack (
  tenant_id int not null references caudal.tenant,
  device_id bigint not null references caudal.device,
  cmd_id text not null,
  ok boolean not null,
  ts_exec timestamptz,
  payload jsonb not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (device_id, cmd_id)
);
create index ack_tenant on caudal.ack (tenant_id, created_at desc);

create table caudal.event (
  id bigint generated always as identity primary key,
  tenant_id int not null references caudal.tenant,
  device_id bigint not null references caudal.device,
  event_id text not null,
  event_type text not null,
  ts timestamptz not null,
  received timestamptz not null,
  data jsonb,
  unique (device_id, event_id)
);
create index event_tenant on caudal.event (tenant_id, ts desc);

-- received = stored + duplicates + dead + held + empty, per day, tenant (0: none) and writer.
-- Counted in the transaction that stores, so that it can never disagree with what was stored.
create table caudal.ledger (
  day date not null,
  tenant_id int not null,
  writer text not null,
  messages bigint not null default 0,
  received bigint not null default 0,
  stored bigint not null default 0,
  duplicates bigint not null default 0,
  dead bigint not null default 0,
  held bigint not null default 0,
  empty bigint not null default 0,
  first_received timestamptz not null,
  last_received timestamptz not null,
  last_committed timestamptz not null default now(),
  -- The writer's last transaction, by a number of its own: a transaction id may be given twice if the server
  -- crashes, and cannot tell whoever lost the connection over a commit whether it was theirs.
  batch bigint not null default 0,
  primary key (day, tenant_id, writer)
) with (fillfactor = 50);

-- Row security: whoever is neither owner nor ingest sees the rows of the transaction's tenant.
do $$
declare name text;
begin
  foreach name in array array['site', 'gateway', 'device', 'series', 'dead_letter', 'held_message', 'ack', 'event', 'ledger'] loop
    execute format('alter table caudal.%I enable row level security', name);
    execute format('create policy tenant on caudal.%I using (tenant_id = (select caudal.current_tenant()))', name);
    execute format('create policy ingest on caudal.%I to caudal_ingest using (true) with check (true)', name);
  end loop;
end $$;
alter table caudal.tenant enable row level security;
create policy tenant on caudal.tenant using (id = (select caudal.current_tenant()));
create policy ingest on caudal.tenant to caudal_ingest using (true) with check (true);

grant select on caudal.tenant, caudal.ledger, caudal.unit to caudal_app;
grant select, insert, update, delete on caudal.site, caudal.gateway, caudal.device, caudal.series to caudal_app;
grant select, update on caudal.dead_letter, caudal.held_message to caudal_app;
grant select on caudal.ack, caudal.event to caudal_app;
grant select, insert, update, delete on all tables in schema caudal to caudal_ingest;
grant usage on all sequences in schema caudal to caudal_ingest, caudal_app;

-- A change of the registry reaches every process that caches it, as table:tenant:name. New rows need no word:
-- what was not found is not remembered for more than a few seconds.
create function caudal.registry_changed() returns trigger language plpgsql as $$
declare changed text;
begin
  if tg_table_name = 'tenant' then changed := old.id || ':';
  elsif tg_table_name = 'device' then changed := old.tenant_id || ':' || left(old.name, 4000);
  else changed := old.tenant_id || ':';
  end if;
  perform pg_notify('caudal_registry', tg_table_name || ':' || changed);
  return null;
end $$;
create trigger changed after update or delete on caudal.tenant for each row
  execute function caudal.registry_changed();
create trigger changed after update or delete on caudal.site for each row
  execute function caudal.registry_changed();
create trigger gone after delete on caudal.gateway for each row
  execute function caudal.registry_changed();
create trigger changed after update on caudal.gateway for each row
  when ((old.mac, old.site_id, old.tenant_id) is distinct from (new.mac, new.site_id, new.tenant_id))
  execute function caudal.registry_changed();
create trigger gone after delete on caudal.device for each row
  execute function caudal.registry_changed();
create trigger changed after update on caudal.device for each row
  when ((old.name, old.status, old.format, old.site_id, old.gateway_id)
        is distinct from (new.name, new.status, new.format, new.site_id, new.gateway_id))
  execute function caudal.registry_changed();
