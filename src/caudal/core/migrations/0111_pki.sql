-- The certificate authority: its key (encrypted), who asked for a certificate, who holds one, who lost it.

create table caudal.authority (
  id int generated always as identity primary key,
  certificate_pem text not null,
  -- PKCS 8, sealed with the installation's secret: the database alone signs nothing.
  key_sealed bytea not null,
  created_at timestamptz not null default now()
);

-- Shared by a batch of new gateways; opens the door to registration and no other. Bound to a tenant, its gateways
-- await that tenant's people; unbound, an operator of the platform.
create table caudal.bootstrap_certificate (
  id int generated always as identity primary key,
  tenant_id int references caudal.tenant,
  label text not null,
  fingerprint text not null unique check (fingerprint ~ '^[0-9a-f]{64}$'),
  serial text not null unique,
  not_after timestamptz not null,
  created_at timestamptz not null default now(),
  created_by text not null default '',
  revoked_at timestamptz,
  reason text
);
create index bootstrap_tenant on caudal.bootstrap_certificate (tenant_id, id);

create table caudal.certificate (
  id bigint generated always as identity primary key,
  tenant_id int not null references caudal.tenant,
  gateway_id bigint not null references caudal.gateway,
  mac text not null,
  serial text not null unique,
  fingerprint text not null unique check (fingerprint ~ '^[0-9a-f]{64}$'),
  pem text not null,
  -- Of the request's public key and MAC: the same renewal asked for again gets the same answer.
  csr_digest bytea,
  not_before timestamptz not null,
  not_after timestamptz not null,
  kind text not null check (kind in ('registered', 'generated', 'renewed')),
  created_at timestamptz not null default now(),
  created_by text not null default '',
  revoked_at timestamptz,
  reason text
);
create unique index certificate_mac on caudal.certificate (mac) where revoked_at is null;
create index certificate_tenant on caudal.certificate (tenant_id, id);
create index certificate_gateway on caudal.certificate (gateway_id);
create index certificate_expiry on caudal.certificate (not_after) where revoked_at is null;

create table caudal.registration (
  id bigint generated always as identity primary key,
  tenant_id int references caudal.tenant,
  bootstrap_id int not null references caudal.bootstrap_certificate,
  mac text not null check (mac ~ '^([0-9a-f]{2}:){5}[0-9a-f]{2}$'),
  serial text not null,
  model text not null,
  firmware text not null,
  csr_pem text not null,
  address text not null,
  -- closed: its certificate was revoked, and the gateway may ask again.
  status text not null default 'pending' check (status in ('pending', 'approved', 'rejected', 'closed')),
  reason text,
  certificate_id bigint references caudal.certificate,
  decided_by text,
  decided_at timestamptz,
  created_at timestamptz not null default now()
);
create unique index registration_mac on caudal.registration (mac) where status <> 'closed';
create index registration_tenant on caudal.registration (tenant_id, id);

create table caudal.revocation_list (
  number bigint primary key,
  der bytea not null,
  this_update timestamptz not null,
  next_update timestamptz not null
);

create table caudal.provision_attempt (
  address text not null,
  at timestamptz not null default now()
);
create index provision_attempt_address on caudal.provision_attempt (address, at);
create index provision_attempt_at on caudal.provision_attempt (at);

-- The people of a tenant see its own rows; those without a tenant are the platform's operator's, through the
-- command line, which signs in as the owner.
do $$
declare name text;
begin
  foreach name in array array['bootstrap_certificate', 'certificate', 'registration'] loop
    execute format('alter table caudal.%I enable row level security', name);
    execute format('create policy tenant on caudal.%I using (tenant_id = (select caudal.current_tenant()))', name);
    execute format('create policy ingest on caudal.%I to caudal_ingest using (true) with check (true)', name);
    execute format('grant select, insert, update on caudal.%I to caudal_app, caudal_ingest', name);
  end loop;
end $$;
grant delete on caudal.registration to caudal_app;
grant select on caudal.authority to caudal_app, caudal_ingest;
grant select, insert on caudal.revocation_list to caudal_app, caudal_ingest;
grant delete on caudal.revocation_list to caudal_app, caudal_ingest;
grant usage on all sequences in schema caudal to caudal_ingest, caudal_app;

create function caudal.certificate_changed() returns trigger language plpgsql as $$
begin
  perform pg_notify('caudal_access', 'gateway:' || new.gateway_id);
  return null;
end $$;
create trigger access after insert or update on caudal.certificate for each row
  execute function caudal.certificate_changed();
create function caudal.revocation_list_written() returns trigger language plpgsql as $$
begin
  perform pg_notify('caudal_pki', new.number::text);
  return null;
end $$;
create trigger written after insert on caudal.revocation_list for each row
  execute function caudal.revocation_list_written();

-- What a request without a tenant may do, and nothing else: the functions below run with the owner's rights.

-- True when the address may still try; the attempt is then counted. `most` in the last hour, for all processes.
create function caudal.provision_admit(wanted text, most int) returns boolean
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare tries int;
begin
  perform pg_advisory_xact_lock(hashtext('caudal.provision'), hashtext(wanted));
  delete from caudal.provision_attempt where at < now() - interval '1 hour';
  select count(*) into tries from caudal.provision_attempt where address = wanted;
  if tries >= most then return false; end if;
  insert into caudal.provision_attempt(address) values (wanted);
  return true;
end $$;

create function caudal.provision_register(
  wanted text, serial text, model text, firmware text, print text, csr text, address text,
  out code text, out id bigint
) language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare boot caudal.bootstrap_certificate;
begin
  select * into boot from caudal.bootstrap_certificate b
    where b.fingerprint = print and b.revoked_at is null and b.not_after > now();
  if not found then code := 'unknown_bootstrap'; return; end if;
  insert into caudal.registration(tenant_id, bootstrap_id, mac, serial, model, firmware, csr_pem, address)
    values (boot.tenant_id, boot.id, wanted, serial, model, firmware, csr, address)
    on conflict (mac) where status <> 'closed' do nothing returning registration.id into id;
  if id is not null then code := 'registered'; return; end if;
  code := 'already_registered';
  select r.id into id from caudal.registration r where r.mac = wanted and r.status <> 'closed';
end $$;

-- The state of a gateway's request: to whoever holds a valid bootstrap certificate's fingerprint.
create function caudal.provision_state(wanted text, print text)
  returns table (status text, reason text, pem text) language sql stable security definer
  set search_path = pg_catalog, pg_temp as $$
  select r.status, r.reason, c.pem from caudal.registration r
  left join caudal.certificate c on c.mac = r.mac and c.revoked_at is null and r.status = 'approved'
  where r.mac = wanted and r.status <> 'closed'
    and exists (select from caudal.bootstrap_certificate b
                where b.fingerprint = print and b.revoked_at is null and b.not_after > now())
$$;

-- Tenant, certificate in force and number renewed today, for a renewal that a gateway signs with its key.
create function caudal.provision_holder(wanted text)
  returns table (tenant text, id bigint, gateway_id bigint, pem text, not_after timestamptz, revoked_at timestamptz,
                 reason text, kind text, csr_digest bytea)
  language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select t.name, c.id, c.gateway_id, c.pem, c.not_after, c.revoked_at, c.reason, c.kind, c.csr_digest
  from caudal.certificate c join caudal.tenant t on t.id = c.tenant_id
  where c.mac = wanted order by c.id desc limit 2
$$;
-- Renewals of the last 24 hours over all tenants; the lock keeps two requests from both taking the last place.
create function caudal.renewals_today() returns bigint
  language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform pg_advisory_xact_lock(hashtext('caudal.renewals'));
  return (select count(*) from caudal.certificate c where c.kind = 'renewed'
          and c.created_at >= date_trunc('day', now(), 'UTC'));
end $$;

-- Whom a verified client certificate stands for; with a MAC alone, whether one in force exists (the broker has
-- verified it and looked at the revocation list).
create function caudal.access_certificate(print text, wanted_mac text)
  returns table (mac text, tenant text, tenant_id int, gateway_id bigint, site text, expires_at timestamptz)
  language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select c.mac, t.name, t.id, g.id, s.name, c.not_after from caudal.certificate c
  join caudal.gateway g on g.id = c.gateway_id and g.mac = c.mac
  join caudal.tenant t on t.id = g.tenant_id left join caudal.site s on s.id = g.site_id
  where (c.fingerprint = print or (print is null and c.mac = wanted_mac))
    and c.revoked_at is null and c.not_after > now() and t.status = 'active'
$$;

-- Serial, time and reason of everything revoked and not yet expired: what the list publishes anyway.
create function caudal.revoked() returns table (serial text, revoked_at timestamptz, reason text)
  language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select c.serial, c.revoked_at, c.reason from caudal.certificate c
    where c.revoked_at is not null and c.not_after > now()
  union all
  select b.serial, b.revoked_at, b.reason from caudal.bootstrap_certificate b
    where b.revoked_at is not null and b.not_after > now()
$$;

do $$
declare name text;
begin
  foreach name in array array[
    'provision_admit(text, int)', 'provision_register(text, text, text, text, text, text, text)',
    'provision_state(text, text)', 'provision_holder(text)', 'renewals_today()', 'revoked()',
    'access_certificate(text, text)'] loop
    execute 'revoke execute on function caudal.' || name || ' from public';
    execute 'grant execute on function caudal.' || name || ' to caudal_app, caudal_ingest';
  end loop;
end $$;
