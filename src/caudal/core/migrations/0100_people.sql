-- People, what they are in which tenant, and how they and their programs prove who they are.
-- Before the tenant of a request is known, caudal_app asks the security definer functions below and nothing
-- else: each answers one question. Everything after that goes through row security.

create table caudal.person (
  id uuid primary key default gen_random_uuid(),
  username text check (username ~ '^[A-Za-z0-9_]{3,50}$'),
  email text check (length(email) between 3 and 254),
  display_name text not null default '' check (length(display_name) <= 200),
  password_hash text,
  status text not null default 'active' check (status in ('active', 'disabled')),
  -- Tokens and sessions that began earlier are refused: moved when the password changes.
  tokens_from timestamptz not null default 'epoch',
  created_at timestamptz not null default now(),
  check (username is not null or email is not null)
);
-- Nobody may pass for somebody else by a capital letter.
create unique index person_username on caudal.person (lower(username));
create unique index person_email on caudal.person (lower(email));

create table caudal.membership (
  tenant_id int not null references caudal.tenant,
  person_id uuid not null references caudal.person on delete cascade,
  role text not null check (role in ('owner', 'admin', 'operator', 'technician', 'viewer', 'member')),
  created_at timestamptz not null default now(),
  primary key (tenant_id, person_id)
);
create index membership_person on caudal.membership (person_id);

create table caudal.invitation (
  id uuid primary key default gen_random_uuid(),
  tenant_id int not null references caudal.tenant,
  email text not null check (length(email) between 3 and 254),
  role text not null check (role in ('owner', 'admin', 'operator', 'technician', 'viewer', 'member')),
  digest bytea not null unique,
  invited_by uuid references caudal.person on delete set null,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  accepted_at timestamptz
);
create index invitation_tenant on caudal.invitation (tenant_id, created_at desc, id);

create table caudal.api_key (
  id uuid primary key default gen_random_uuid(),
  tenant_id int not null references caudal.tenant,
  name text not null check (length(name) between 1 and 100),
  -- Shown, so that people can tell keys apart; the rest is known to its holder alone.
  prefix text not null unique,
  -- SHA-256: the secret is 256 random bits, a slow hash would protect nothing more.
  digest bytea not null,
  scopes text[] not null,
  created_by uuid references caudal.person on delete set null,
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  revoked_at timestamptz
);
create index api_key_tenant on caudal.api_key (tenant_id, created_at desc, id);

create table caudal.browser_session (
  digest bytea primary key,
  tenant_id int not null references caudal.tenant,
  person_id uuid not null references caudal.person on delete cascade,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null
);
create index browser_session_person on caudal.browser_session (person_id);
create index browser_session_expiry on caudal.browser_session (expires_at);

create table caudal.password_reset (
  digest bytea primary key,
  person_id uuid not null references caudal.person on delete cascade,
  expires_at timestamptz not null
);
create index password_reset_person on caudal.password_reset (person_id);

-- By what was typed, not by person: a login that does not exist locks like one that does.
create table caudal.sign_in_failure (
  login text primary key,
  failures int not null,
  last_at timestamptz not null,
  locked_until timestamptz
);
create index sign_in_failure_age on caudal.sign_in_failure (last_at);

-- Private keys are sealed (AES-256-GCM) by a secret that the database does not know.
create table caudal.signing_key (
  kid text primary key,
  sealed bytea not null,
  public_pem text not null,
  created_at timestamptz not null default now()
);

create table caudal.audit (
  id bigint generated always as identity primary key,
  tenant_id int not null references caudal.tenant,
  at timestamptz not null default now(),
  actor text not null,
  actor_name text not null default '',
  action text not null,
  target text not null default '',
  detail jsonb not null default '{}',
  request_id text not null default '',
  address text not null default ''
);
create index audit_tenant on caudal.audit (tenant_id, id desc);

-- Null: the installation's default.
create table caudal.quota (
  tenant_id int primary key references caudal.tenant,
  requests_per_second int check (requests_per_second > 0),
  messages_per_second int check (messages_per_second > 0),
  points_per_second int check (points_per_second > 0),
  storage_bytes bigint check (storage_bytes > 0)
);

-- People who may sign in to the database itself, each bound to one tenant whatever they set.
create table caudal.sql_reader (
  role_name text primary key,
  tenant_id int not null references caudal.tenant,
  created_at timestamptz not null default now()
);
create index sql_reader_tenant on caudal.sql_reader (tenant_id);

do $$
declare name text;
begin
  foreach name in array array['membership', 'invitation', 'api_key', 'browser_session', 'audit', 'quota', 'sql_reader'] loop
    execute format('alter table caudal.%I enable row level security', name);
    execute format('create policy tenant on caudal.%I using (tenant_id = (select caudal.current_tenant()))', name);
  end loop;
end $$;
create policy ingest on caudal.quota to caudal_ingest using (true);
-- A person is seen by the tenants that they are in.
alter table caudal.person enable row level security;
create policy tenant on caudal.person using (exists (
  select from caudal.membership m where m.person_id = person.id and m.tenant_id = (select caudal.current_tenant())));

grant select (id, username, email, display_name, status, created_at) on caudal.person to caudal_app;
grant select, insert, update, delete on caudal.membership to caudal_app;
grant select (id, tenant_id, email, role, invited_by, created_at, expires_at, accepted_at),
  insert, delete on caudal.invitation to caudal_app;
grant select (id, tenant_id, name, prefix, scopes, created_by, created_at, expires_at, revoked_at), insert,
  update (revoked_at) on caudal.api_key to caudal_app;
grant select, insert on caudal.audit to caudal_app;
grant select on caudal.quota to caudal_app, caudal_ingest;
grant select, insert on caudal.signing_key to caudal_app;
grant delete on caudal.signing_key to caudal_app;
grant update (display_name, time_zone, unknown_devices, retention_days) on caudal.tenant to caudal_app;

-- The tenant a transaction works for. Who signed in to the database as a tenant's reader stays there.
create or replace function caudal.current_tenant() returns int
  language sql stable security definer set search_path = pg_catalog, pg_temp
  -- A reader of a tenant that is suspended is in none; never in the one that it sets.
  as $$ select coalesce((select case t.status when 'active' then t.id else 0 end from caudal.sql_reader r
                         join caudal.tenant t on t.id = r.tenant_id where r.role_name = session_user),
                        (select id from caudal.tenant where name = current_setting('app.tenant_id', true))) $$;

create function caudal.quota_changed() returns trigger language plpgsql as $$
begin
  perform pg_notify('caudal_registry', 'quota:' || coalesce(new.tenant_id, old.tenant_id) || ':');
  return null;
end $$;
create trigger changed after insert or update or delete on caudal.quota for each row
  execute function caudal.quota_changed();

-- A tenant keeps an owner, whoever removes whom at the same time.
create function caudal.keeps_owner() returns trigger language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
begin
  if old.role = 'owner' and (tg_op = 'DELETE' or new.role <> 'owner') then
    perform 1 from caudal.tenant where id = old.tenant_id for update;
    if not exists (select from caudal.membership where tenant_id = old.tenant_id and role = 'owner') then
      raise exception 'A tenant keeps at least one owner.' using errcode = 'check_violation', constraint = 'keeps_owner';
    end if;
  end if;
  return null;
end $$;
create trigger keeps_owner after update or delete on caudal.membership for each row
  execute function caudal.keeps_owner();

-- What follows is all that caudal_app can learn or do across tenants.

-- Five failures, none more than 15 minutes after the one before, lock for five minutes. An attempt is counted before
-- its password is looked at and forgotten when it was right: guesses made at once, through however many processes,
-- are five all the same.
create function caudal.sign_in_begin(login_ text)
  returns table (person_id uuid, password_hash text, locked_until timestamptz)
  language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  delete from caudal.sign_in_failure where ctid in (
    select ctid from caudal.sign_in_failure where last_at < now() - interval '1 day' order by last_at limit 10
    for update skip locked);
  with counted as (
    insert into caudal.sign_in_failure as f (login, failures, last_at) values (lower(login_), 1, now())
    on conflict (login) do update set
      failures = case when f.last_at < now() - interval '15 minutes' or f.locked_until <= now() then 1
                      else f.failures + 1 end,
      locked_until = case when f.locked_until > now() then f.locked_until
                          when f.locked_until is null and f.last_at >= now() - interval '15 minutes' and f.failures >= 5
                          then now() + interval '5 minutes' end,
      last_at = now()
    returning f.locked_until)
  select p.id, p.password_hash, counted.locked_until from counted
  left join caudal.person p on (lower(p.username) = lower(login_) or lower(p.email) = lower(login_))
    and p.status = 'active' $$;

create function caudal.sign_in_failed(login_ text) returns timestamptz
  language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  update caudal.sign_in_failure f set locked_until = now() + interval '5 minutes'
  where f.login = lower(login_) and f.failures >= 5 and f.locked_until is null;
  select f.locked_until from caudal.sign_in_failure f where f.login = lower(login_) and f.locked_until > now() $$;

create function caudal.sign_in_succeeded(login_ text) returns void
  language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  delete from caudal.sign_in_failure where login = lower(login_) $$;

create function caudal.rehash(who_ uuid, before text, after text) returns void
  language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  update caudal.person set password_hash = after where id = who_ and password_hash = before $$;

create function caudal.memberships_of(who_ uuid)
  returns table (tenant_id int, tenant text, display_name text, role text)
  language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select t.id, t.name, t.display_name, m.role from caudal.membership m join caudal.tenant t on t.id = m.tenant_id
  where m.person_id = who_ and t.status = 'active' order by m.created_at, t.id $$;

create function caudal.principal_of(who_ uuid, tenant_ text)
  returns table (tenant_id int, username text, email text, role text, tokens_from timestamptz, requests_per_second int)
  language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select t.id, p.username, p.email, m.role, p.tokens_from, q.requests_per_second
  from caudal.tenant t
  join caudal.membership m on m.tenant_id = t.id and m.person_id = who_
  join caudal.person p on p.id = who_ and p.status = 'active'
  left join caudal.quota q on q.tenant_id = t.id
  where t.name = tenant_ and t.status = 'active' $$;

create function caudal.api_key_find(prefix_ text)
  returns table (id uuid, tenant_id int, tenant text, name text, digest bytea, scopes text[], expires_at timestamptz,
                 requests_per_second int)
  language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select k.id, t.id, t.name, k.name, k.digest, k.scopes, k.expires_at, q.requests_per_second
  from caudal.api_key k join caudal.tenant t on t.id = k.tenant_id
  left join caudal.quota q on q.tenant_id = t.id
  where k.prefix = prefix_ and k.revoked_at is null and t.status = 'active'
    and (k.expires_at is null or k.expires_at > now()) $$;

create function caudal.session_open(digest_ bytea, who_ uuid, tenant_ text, expires timestamptz) returns void
  language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  delete from caudal.browser_session where digest in (
    select digest from caudal.browser_session where expires_at < now() order by expires_at limit 10);
  insert into caudal.browser_session(digest, tenant_id, person_id, expires_at)
  select digest_, m.tenant_id, who_, expires from caudal.memberships_of(who_) m where m.tenant = tenant_ $$;

create function caudal.session_find(digest_ bytea)
  returns table (person_id uuid, tenant text, created_at timestamptz, expires_at timestamptz)
  language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select s.person_id, t.name, s.created_at, s.expires_at
  from caudal.browser_session s join caudal.tenant t on t.id = s.tenant_id
  where s.digest = digest_ and s.expires_at > now() $$;

create function caudal.session_extend(digest_ bytea, expires timestamptz) returns void
  language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  update caudal.browser_session set expires_at = expires where digest = digest_ and expires_at > now() $$;

create function caudal.session_close(digest_ bytea) returns void
  language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  delete from caudal.browser_session where digest = digest_ $$;

-- Null when there is no such tenant; unique_violation names the index when username or e-mail is taken.
create function caudal.register_person(username_ text, email_ text, hash text, tenant_ text)
  returns table (id uuid, created_at timestamptz)
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare home int;
begin
  select t.id into home from caudal.tenant t where t.name = tenant_ and t.status = 'active';
  if home is null then return; end if;
  return query
    with made as (
      insert into caudal.person(username, email, password_hash) values (username_, email_, hash)
      returning person.id, person.created_at),
    joined as (
      insert into caudal.membership(tenant_id, person_id, role) select home, made.id, 'member' from made)
    select made.id, made.created_at from made;
end $$;

-- A new reset takes the place of earlier ones. Null when nobody has that address.
create function caudal.reset_begin(email_ text, digest_ bytea, expires timestamptz) returns text
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare found_id uuid; address text;
begin
  select id, email into found_id, address from caudal.person where lower(email) = lower(email_) and status = 'active';
  if found_id is null then return null; end if;
  delete from caudal.password_reset where person_id = found_id or expires_at < now();
  insert into caudal.password_reset values (digest_, found_id, expires);
  return address;
end $$;

create function caudal.set_password(who_ uuid, hash text) returns void
  language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  update caudal.person set password_hash = hash, tokens_from = now() where id = who_;
  delete from caudal.browser_session where person_id = who_;
  delete from caudal.password_reset where person_id = who_;
  delete from caudal.sign_in_failure f using caudal.person p
  where p.id = who_ and f.login in (lower(p.username), lower(p.email)) $$;

create function caudal.reset_finish(digest_ bytea, hash text) returns uuid
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare found_id uuid;
begin
  delete from caudal.password_reset where digest = digest_ and expires_at > now() returning person_id into found_id;
  if found_id is not null then perform caudal.set_password(found_id, hash); end if;
  return found_id;
end $$;

create function caudal.password_of(who_ uuid) returns text
  language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select password_hash from caudal.person where id = who_ and status = 'active' $$;

create function caudal.invitation_find(digest_ bytea)
  returns table (id uuid, tenant text, email text, role text, person_id uuid)
  language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select i.id, t.name, i.email, i.role, p.id from caudal.invitation i
  join caudal.tenant t on t.id = i.tenant_id and t.status = 'active'
  left join caudal.person p on lower(p.email) = lower(i.email)
  where i.digest = digest_ and i.accepted_at is null and i.expires_at > now() $$;

-- Who follows the link of an invitation has shown that the address is theirs. With `hash` a person is made.
create function caudal.invitation_accept(digest_ bytea, username_ text, hash text)
  returns table (person_id uuid, tenant text)
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare given caudal.invitation; who uuid;
begin
  update caudal.invitation set accepted_at = now()
  where digest = digest_ and accepted_at is null and expires_at > now() returning * into given;
  if given.id is null then return; end if;
  select id into who from caudal.person where lower(email) = lower(given.email);
  if who is null then
    insert into caudal.person(username, email, password_hash) values (username_, given.email, hash) returning id into who;
  end if;
  insert into caudal.membership(tenant_id, person_id, role) values (given.tenant_id, who, given.role)
  on conflict on constraint membership_pkey do update set role = excluded.role
    -- An old invitation never takes rights away.
    where array_position(array['owner','admin','operator','technician','viewer','member'], excluded.role)
        < array_position(array['owner','admin','operator','technician','viewer','member'], membership.role);
  return query select who, t.name from caudal.tenant t where t.id = given.tenant_id;
end $$;

do $$
declare f regprocedure;
begin
  for f in select p.oid::regprocedure from pg_proc p where p.pronamespace = 'caudal'::regnamespace and p.proname in (
    'sign_in_begin', 'sign_in_failed', 'sign_in_succeeded', 'rehash', 'memberships_of', 'principal_of', 'api_key_find',
    'session_open', 'session_find', 'session_extend', 'session_close', 'register_person', 'reset_begin', 'set_password',
    'reset_finish', 'password_of', 'invitation_find', 'invitation_accept') loop
    execute format('revoke execute on function %s from public', f);
    execute format('grant execute on function %s to caudal_app', f);
  end loop;
end $$;
